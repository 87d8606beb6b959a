//! Golden vectors: the bytes of every message kind and of everything around messages, pinned in
//! `tests/vectors/wire.txt`. Two versions of this program that both agree with that file understand each other.
//!
//! After a wanted change of the wire: `BBH_WRITE_VECTORS=1 cargo test -p bbh-wire --test vectors`, and say in the
//! commit why old programs may be left behind.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use bbh_types::{
    BoundedBytes, BoundedString, BoundedVec, ContentId, FileKind, FileRecord, Instant, Md5Hash, NodeId, Query,
    SearchMode, TreeId,
};
use bbh_wire::fragment::{FRAGMENT_HEADER, Reassembly, split};
use bbh_wire::frame::{Body, CloseReason, Flow, FrameDecoder};
use bbh_wire::message::*;
use bbh_wire::{Beacon, Destination, Lane, Message, Packet, Protection, Role};
use data_encoding::HEXLOWER;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/wire.txt")
}

/// The file's vectors; the file is written first if that is wanted.
fn recorded() -> &'static BTreeMap<String, Vec<u8>> {
    static RECORDED: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    RECORDED.get_or_init(|| {
        if std::env::var_os("BBH_WRITE_VECTORS").is_some_and(|value| value == "1") {
            write();
        }
        read()
    })
}

fn write() {
    let mut text = String::from(
        "# Golden vectors of protocol version 1: name, bytes. The values stand in core/wire/tests/vectors.rs, the layouts in\n\
         # docs/protocol.md. Frames hold a body in clear here, where a link has a Noise message.\n",
    );
    for (name, bytes) in built() {
        text += &format!("{name} {}\n", HEXLOWER.encode(&bytes));
    }
    std::fs::write(path(), text).expect("the folder of the vectors is there");
}

fn read() -> BTreeMap<String, Vec<u8>> {
    let text = std::fs::read_to_string(path()).expect("the vectors are part of the repository");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, hex) = line.split_once(' ').expect("a name, a space, bytes");
            (name.to_owned(), HEXLOWER.decode(hex.as_bytes()).expect("lower-case hexadecimal digits"))
        })
        .collect()
}

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 16])
}

fn content() -> ContentId {
    ContentId::from_bytes(std::array::from_fn(|n| n as u8))
}

fn signature() -> Signature {
    Signature::from_bytes(&std::array::from_fn(|n| 0xc0 ^ n as u8))
}

fn attachment() -> Attachment {
    Attachment {
        key: [0xab; 32],
        parent: node(2),
        counter: (3 << 32) + 7,
        name: BoundedString::new("Ann's Phone ✆").unwrap(),
        signature: signature(),
    }
}

fn info() -> TreeInfo {
    TreeInfo { tree: TreeId(0x0123_4567_89ab_cdef), epoch: 300, size: 70_000, role: Role::Root, free_slots: 3 }
}

fn handshake(receiver: u32, length: usize) -> SessionHandshake {
    SessionHandshake { receiver, sender: 0x0102_0304, noise: BoundedBytes::new(vec![0x5a; length]).unwrap() }
}

fn messages() -> Vec<(&'static str, Message)> {
    let mut query = Query::new(["blue", "Brüder"], SearchMode::Any).unwrap();
    query.kind = Some(FileKind::Audio);
    query.min_size = Some(250);
    query.max_size = Some(u64::MAX);
    let file = FileRecord {
        content_id: content(),
        md5: Md5Hash([0x11; 16]),
        name: BoundedString::new("song.mp3").unwrap(),
        folder: BoundedString::new("Music/2005").unwrap(),
        size: 5_000_000_000,
        kind: FileKind::Audio,
        tags: BoundedVec::new(vec![
            (BoundedString::new("artist").unwrap(), BoundedString::new("The Horses").unwrap()),
            (BoundedString::new("title").unwrap(), BoundedString::new("Blue").unwrap()),
        ])
        .unwrap(),
    };
    let plain = FileRecord {
        name: BoundedString::new("a").unwrap(),
        folder: BoundedString::default(),
        size: 0,
        kind: FileKind::Other,
        tags: BoundedVec::default(),
        ..file.clone()
    };
    let reply = |offer| DownloadReply { inquiry: 251, content: content(), offer };
    let attach_reply = |verdict| AttachReply { verdict, info: info() };
    let cancel = |reason| DownloadCancel { transfer: 65_536, by_downloader: false, reason };
    vec![
        ("SearchRequest", SearchRequest { search: 1, query }.into()),
        (
            "SearchRequest-plain",
            SearchRequest { search: 250, query: Query::new(["x"], SearchMode::All).unwrap() }.into(),
        ),
        (
            "SearchReply",
            SearchReply {
                search: u32::MAX,
                page: 256,
                last: true,
                queue_position: Some(2),
                files: BoundedVec::new(vec![file, plain]).unwrap(),
            }
            .into(),
        ),
        ("DownloadInquiry", DownloadInquiry { inquiry: 252, content: content() }.into()),
        ("DownloadReply", reply(Offer::Available { size: 1 << 40, queue_position: None }).into()),
        ("DownloadReply-queued", reply(Offer::Available { size: 1, queue_position: Some(300) }).into()),
        ("DownloadReply-full", reply(Offer::Full).into()),
        ("DownloadReply-absent", reply(Offer::Absent).into()),
        (
            "DownloadOrder",
            DownloadOrder {
                transfer: 9,
                content: content(),
                ranges: BoundedVec::new(vec![(98_304, 100_000), (0, 16_384)]).unwrap(),
                granted: 65_535,
            }
            .into(),
        ),
        ("DownloadCancel", DownloadCancel { by_downloader: true, ..cancel(CancelReason::Stopped) }.into()),
        ("DownloadCancel-absent", cancel(CancelReason::Absent).into()),
        ("DownloadCancel-bad-order", cancel(CancelReason::BadOrder).into()),
        ("DownloadCancel-full", cancel(CancelReason::Full).into()),
        ("DownloadCancel-failed", cancel(CancelReason::Failed).into()),
        ("UploadStart", UploadStart { transfer: 9, size: 100_000, queue_position: None }.into()),
        (
            "UploadData",
            UploadData {
                transfer: 9,
                start: 98_304,
                end: 100_000,
                slice: BoundedBytes::new((0..=255).collect()).unwrap(),
            }
            .into(),
        ),
        ("UploadAck", UploadAck { transfer: 9, received: 1696, granted: 1 << 32 }.into()),
        ("TreeInfo", info().into()),
        ("AttachRequest", AttachRequest { attachment: attachment(), size: 1 }.into()),
        ("AttachReply", attach_reply(AttachVerdict::Accepted).into()),
        ("AttachReply-full", attach_reply(AttachVerdict::Full).into()),
        ("AttachReply-busy", attach_reply(AttachVerdict::Busy).into()),
        ("AttachReply-same-tree", attach_reply(AttachVerdict::SameTree).into()),
        ("AttachReply-invalid", attach_reply(AttachVerdict::Invalid).into()),
        (
            "RoutingConnect",
            RoutingConnect { sequence: 0, attachments: BoundedVec::new(vec![attachment(); 2]).unwrap() }.into(),
        ),
        (
            "RoutingDisconnect",
            RoutingDisconnect { sequence: 1, nodes: BoundedVec::new(vec![node(3), node(4)]).unwrap() }.into(),
        ),
        ("RoutingResync", RoutingResync {}.into()),
        ("RootQuery", RootQuery { query: 5, origin: node(1), hops: 2 }.into()),
        (
            "RootReply",
            RootReply {
                query: 5,
                hops: 255,
                root: true,
                last: false,
                devices: BoundedVec::new(vec![Device {
                    node: node(6),
                    name: BoundedString::new("Bob").unwrap(),
                    hops: 251,
                }])
                .unwrap(),
            }
            .into(),
        ),
        ("TreeFound", TreeFound { contact: node(7), other: TreeId(u64::MAX) }.into()),
        ("TreeMerge", TreeMerge { contact: node(7), attacher: node(8), request: 1000 }.into()),
        ("TreeMergeReply", TreeMergeReply { contact: node(7), request: 1000, verdict: AttachVerdict::Busy }.into()),
        (
            "RootTransfer",
            RootTransfer { contact: node(7), other: TreeId(1), attachment: attachment(), lock_ms: 6000 }.into(),
        ),
        ("RootTransferReply", RootTransferReply {}.into()),
        ("SessionInit", SessionInit(handshake(0, 34)).into()),
        ("SessionReply", SessionReply(handshake(77, 197)).into()),
        ("SessionFinish", SessionFinish(handshake(78, 164)).into()),
        ("SessionUnknown", SessionUnknown { session: 77 }.into()),
        ("Unreachable", Unreachable { destination: node(9) }.into()),
        ("Ping", Ping { token: 0x0123_4567 }.into()),
        ("Pong", Pong { token: 0xfedc_ba98_7654_3210 }.into()),
    ]
}

fn packets() -> Vec<(&'static str, Packet)> {
    let base = Packet {
        lane: Lane::Control,
        protection: Protection::Link,
        congested: false,
        hop_limit: 64,
        source: node(1),
        destination: Destination::One(node(2)),
        sequence: 0,
        payload: [&[0], &*Message::from(Ping { token: 1 }).encode()].concat(),
    };
    let signed = Packet {
        protection: Protection::Signed,
        lane: Lane::Search,
        sequence: (3 << 32) + 1,
        payload: [&[0xab; 32][..], &signature().to_bytes(), &base.payload].concat(),
        ..base.clone()
    };
    vec![
        ("one-link", base.clone()),
        (
            "one-session",
            Packet {
                protection: Protection::Session,
                lane: Lane::Bulk,
                sequence: 0x0102_0304_0506_0708,
                payload: (0..40).collect(),
                ..base.clone()
            },
        ),
        (
            "one-session-congested",
            Packet {
                protection: Protection::Session,
                lane: Lane::Bulk,
                congested: true,
                hop_limit: 61,
                payload: (0..40).collect(),
                ..base.clone()
            },
        ),
        ("one-clear", Packet { protection: Protection::Clear, lane: Lane::Chat, ..base }),
        ("list-signed", Packet { destination: Destination::List(vec![node(2), node(3)]), ..signed.clone() }),
        ("broadcast-signed", Packet { destination: Destination::Broadcast, hop_limit: 1, ..signed }),
    ]
}

fn bodies() -> Vec<(&'static str, Body<'static>)> {
    let flow = Flow { source: node(1), destination: node(2), lane: Lane::Bulk };
    vec![
        ("packet", Body::Packet(&[1, 2, 3])),
        ("beat", Body::Beat { answer: false }),
        ("beat-answer", Body::Beat { answer: true }),
        ("credit", Body::Credit { flow, bytes: 16_384 }),
        ("close-stopping", Body::Close(CloseReason::Stopping)),
        ("close-redundant", Body::Close(CloseReason::Redundant)),
        ("close-refused", Body::Close(CloseReason::Refused)),
        ("close-protocol-error", Body::Close(CloseReason::ProtocolError)),
    ]
}

fn beacons() -> Vec<(&'static str, Beacon)> {
    let beacon = |role| Beacon {
        tree: TreeId(0x0123_4567_89ab_cdef),
        epoch: 0x0a0b_0c0d,
        role,
        free_slots: 4,
        size_class: 13,
        psm: 0x0081,
    };
    vec![
        ("free", Beacon { size_class: 0, psm: 0, ..beacon(Role::Free) }),
        ("tree", beacon(Role::Tree)),
        ("coordinator", beacon(Role::Coordinator)),
        ("root", beacon(Role::Root)),
    ]
}

/// A message of 200 bytes.
fn cut_message() -> Vec<u8> {
    (0..200).collect()
}

fn fragments() -> Vec<(String, Vec<u8>)> {
    let mut all = vec![("whole".to_owned(), split(&cut_message(), 201, 5).remove(0))];
    let parts = split(&cut_message(), FRAGMENT_HEADER + 96, 0x0102_0304);
    all.extend(parts.into_iter().enumerate().map(|(index, part)| (format!("part-{index}"), part)));
    all
}

fn frame(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32).to_be_bytes(), content].concat()
}

/// Everything in the file, in its order.
fn built() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    all.extend(messages().iter().map(|(name, message)| (format!("message/{name}"), message.encode())));
    for (name, packet) in packets() {
        let mut bytes = Vec::new();
        packet.encode(&mut bytes);
        all.push((format!("packet/{name}"), bytes));
        match packet.protection {
            Protection::Session => all.push((format!("associated-data/{name}"), packet.associated_data())),
            Protection::Signed => {
                all.push((format!("signed-bytes/{name}"), packet.signed_bytes(&packet.payload[96..])))
            }
            Protection::Link | Protection::Clear => {}
        }
    }
    let attachment = attachment();
    let signed = Attachment::signed_bytes(attachment.parent, attachment.counter, &attachment.name);
    all.push(("signed-bytes/attachment".into(), signed));
    all.extend(fragments().into_iter().map(|(name, payload)| (format!("fragment/{name}"), payload)));
    all.extend(beacons().iter().map(|(name, beacon)| (format!("beacon/{name}"), beacon.encode())));
    for (name, body) in bodies() {
        let mut bytes = Vec::new();
        body.encode(&mut bytes);
        all.push((format!("frame/{name}"), frame(&bytes)));
        all.push((format!("body/{name}"), bytes));
    }
    all
}

#[test]
fn every_encoding_is_the_recorded_one() {
    let built = built();
    let recorded = recorded();
    for (name, bytes) in &built {
        let expected = recorded.get(name).unwrap_or_else(|| panic!("{name} is not in tests/vectors/wire.txt"));
        assert_eq!(HEXLOWER.encode(bytes), HEXLOWER.encode(expected), "{name} is encoded differently from before");
    }
    let names: Vec<_> = built.iter().map(|(name, _)| name).collect();
    for name in recorded.keys() {
        assert!(names.contains(&name), "{name} is in the file, but nothing is compared with it");
    }
    assert_eq!(built.len(), recorded.len(), "a name is used twice");
}

#[test]
fn every_message_kind_has_a_vector() {
    let recorded = recorded();
    for (number, name) in Message::KINDS {
        let bytes = recorded.get(&format!("message/{name}")).unwrap_or_else(|| panic!("no vector of {name}"));
        assert_eq!(bytes[0], *number, "{name}");
        let message = Message::decode(bytes).unwrap().unwrap();
        assert_eq!(message.kind(), *number, "{name}");
    }
}

#[test]
fn recorded_bytes_decode_to_the_values() {
    let recorded = recorded();
    for (name, message) in messages() {
        assert_eq!(Message::decode(&recorded[&format!("message/{name}")]), Ok(Some(message)), "{name}");
    }
    for (name, packet) in packets() {
        assert_eq!(Packet::decode(&recorded[&format!("packet/{name}")]), Ok(packet), "{name}");
    }
    for (name, beacon) in beacons() {
        assert_eq!(Beacon::decode(&recorded[&format!("beacon/{name}")]), Ok(beacon), "{name}");
    }
    for (name, body) in bodies() {
        assert_eq!(Body::decode(&recorded[&format!("body/{name}")]), Ok(body), "{name}");
        let mut decoder = FrameDecoder::new(64);
        decoder.push(&recorded[&format!("frame/{name}")]);
        assert_eq!(decoder.next_frame().unwrap().as_deref(), Some(&*recorded[&format!("body/{name}")]), "{name}");
        assert_eq!(decoder.buffered(), 0);
    }
    let mut reassembly = Reassembly::default();
    let mut push = |name: &str| reassembly.push(Instant::ZERO, node(1), &recorded[&format!("fragment/{name}")]);
    assert_eq!(push("whole"), Ok(Some(cut_message())));
    assert_eq!(push("part-0"), Ok(None));
    assert_eq!(push("part-2"), Ok(None));
    assert_eq!(push("part-1"), Ok(Some(cut_message())));
}

#[test]
fn relays_may_change_the_hop_limit_and_the_mark_of_a_session_packet_and_nothing_else() {
    let (_, packet) = packets().remove(1);
    let authentic = packet.associated_data();
    assert_eq!(Packet { hop_limit: 3, congested: true, ..packet.clone() }.associated_data(), authentic);
    for changed in [
        Packet { lane: Lane::Search, ..packet.clone() },
        Packet { protection: Protection::Clear, ..packet.clone() },
        Packet { source: node(9), ..packet.clone() },
        Packet { destination: Destination::One(node(9)), ..packet.clone() },
        Packet { sequence: 1, ..packet.clone() },
    ] {
        assert_ne!(changed.associated_data(), authentic);
    }
}
