//! Arbitrary valid values of everything that goes over the wire.

use bbh_types::{
    BoundedBytes, BoundedString, BoundedVec, ContentId, FileKind, FileRecord, Md5Hash, NodeId, Query, SearchMode,
    TreeId,
};
use bbh_wire::frame::{CloseReason, Flow};
use bbh_wire::message::*;
use bbh_wire::packet::{MAX_DESTINATIONS, SIGNATURE_BLOCK};
use bbh_wire::{Beacon, Destination, Lane, Message, Packet, Protection, Role};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub fn node() -> impl Strategy<Value = NodeId> {
    any::<[u8; 16]>().prop_map(NodeId::from_bytes)
}

fn content() -> impl Strategy<Value = ContentId> {
    any::<[u8; 32]>().prop_map(ContentId::from_bytes)
}

/// Numbers of any magnitude, and those where the encoding changes its length.
fn number() -> impl Strategy<Value = u64> {
    let edges = vec![0, 250, 251, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX];
    prop_oneof![(any::<u64>(), 0..64_u32).prop_map(|(n, shift)| n >> shift), select(edges)]
}

fn small() -> impl Strategy<Value = u32> {
    number().prop_map(|n| n as u32)
}

fn place() -> impl Strategy<Value = Option<u16>> {
    option::of(number().prop_map(|n| n as u16))
}

fn text<const MAX: usize>() -> impl Strategy<Value = BoundedString<MAX>> {
    let chars = prop_oneof![8 => vec(any::<char>(), 0..20), 1 => vec(any::<char>(), MAX..MAX + 10)];
    chars.prop_map(|chars| BoundedString::truncated(&chars.into_iter().collect::<String>()))
}

fn list<T: std::fmt::Debug, const MAX: usize>(
    items: impl Strategy<Value = T>,
    usual: usize,
) -> impl Strategy<Value = BoundedVec<T, MAX>> {
    vec(items, 0..=usual.min(MAX)).prop_map(|items| BoundedVec::new(items).unwrap())
}

fn query() -> impl Strategy<Value = Query> {
    let words = vec("[a-zA-Zäß0-9]{1,140}", 1..20);
    let size = || option::of(number());
    (words, any::<bool>(), option::of(kind()), size(), size()).prop_map(|(words, any, kind, min_size, max_size)| {
        let mode = if any { SearchMode::Any } else { SearchMode::All };
        let mut query = Query::new(words.iter().map(String::as_str), mode).unwrap();
        (query.kind, query.min_size, query.max_size) = (kind, min_size, max_size);
        query
    })
}

fn kind() -> impl Strategy<Value = FileKind> {
    use FileKind::{Archive, Audio, Document, Image, Other, Video};
    select(&[Audio, Video, Image, Document, Archive, Other][..])
}

fn file() -> impl Strategy<Value = FileRecord> {
    let tags = list((text(), text()), 4);
    (content(), any::<[u8; 16]>(), text(), text(), number(), kind(), tags).prop_map(
        |(content_id, md5, name, folder, size, kind, tags)| FileRecord {
            content_id,
            md5: Md5Hash(md5),
            name,
            folder,
            size,
            kind,
            tags,
        },
    )
}

fn role() -> impl Strategy<Value = Role> {
    select(&[Role::Free, Role::Tree, Role::Coordinator, Role::Root][..])
}

fn attachment() -> impl Strategy<Value = Attachment> {
    (any::<[u8; 32]>(), node(), number(), text(), any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(
        |(key, parent, counter, name, r, s)| {
            let mut bytes = [0; 64];
            bytes[..32].copy_from_slice(&r);
            bytes[32..].copy_from_slice(&s);
            Attachment { key, parent, counter, name, signature: Signature::from_bytes(&bytes) }
        },
    )
}

fn info() -> impl Strategy<Value = TreeInfo> {
    (number(), small(), small(), role(), any::<u8>()).prop_map(|(tree, epoch, size, role, free_slots)| TreeInfo {
        tree: TreeId(tree),
        epoch,
        size,
        role,
        free_slots,
    })
}

fn verdict() -> impl Strategy<Value = AttachVerdict> {
    use AttachVerdict::{Accepted, Busy, Full, Invalid, SameTree};
    select(&[Accepted, Full, Busy, SameTree, Invalid][..])
}

fn offer() -> impl Strategy<Value = Offer> {
    prop_oneof![
        (number(), place()).prop_map(|(size, queue_position)| Offer::Available { size, queue_position }),
        Just(Offer::Full),
        Just(Offer::Absent)
    ]
}

fn reason() -> impl Strategy<Value = CancelReason> {
    use CancelReason::{Absent, BadOrder, Failed, Full, Stopped};
    select(&[Stopped, Absent, BadOrder, Full, Failed][..])
}

fn bytes<const MAX: usize>() -> impl Strategy<Value = BoundedBytes<MAX>> {
    let length = prop_oneof![8 => 0..300_usize.min(MAX), 1 => Just(MAX)];
    (length, any::<u8>()).prop_map(|(length, fill)| BoundedBytes::new(vec![fill; length]).unwrap())
}

fn handshake() -> impl Strategy<Value = SessionHandshake> {
    (small(), small(), bytes()).prop_map(|(receiver, sender, noise)| SessionHandshake { receiver, sender, noise })
}

/// Messages of the kind with that number.
pub fn message_of(kind: u8) -> BoxedStrategy<Message> {
    fn made<S: Strategy + 'static, R: Into<Message> + 'static>(
        parts: S,
        make: fn(S::Value) -> R,
    ) -> BoxedStrategy<Message> {
        parts.prop_map(move |parts| make(parts).into()).boxed()
    }
    match kind {
        1 => made((small(), query()), |(search, query)| SearchRequest { search, query }),
        2 => made(
            (small(), any::<u16>(), any::<bool>(), place(), list(file(), 5)),
            |(search, page, last, place, files)| SearchReply { search, page, last, queue_position: place, files },
        ),
        3 => made((small(), content()), |(inquiry, content)| DownloadInquiry { inquiry, content }),
        4 => made((small(), content(), offer()), |(inquiry, content, offer)| DownloadReply { inquiry, content, offer }),
        5 => made(
            (small(), content(), list((number(), number()), MAX_RANGES), number()),
            |(transfer, content, ranges, granted)| DownloadOrder { transfer, content, ranges, granted },
        ),
        6 => made((small(), any::<bool>(), reason()), |(transfer, by_downloader, reason)| DownloadCancel {
            transfer,
            by_downloader,
            reason,
        }),
        7 => made((small(), number(), place()), |(transfer, size, queue_position)| UploadStart {
            transfer,
            size,
            queue_position,
        }),
        8 => made((small(), number(), number(), bytes()), |(transfer, start, end, slice)| UploadData {
            transfer,
            start,
            end,
            slice,
        }),
        9 => made((small(), number(), number()), |(transfer, received, granted)| UploadAck {
            transfer,
            received,
            granted,
        }),
        16 => made(info(), |info| info),
        17 => made((attachment(), small()), |(attachment, size)| AttachRequest { attachment, size }),
        18 => made((verdict(), info()), |(verdict, info)| AttachReply { verdict, info }),
        19 => {
            made((small(), list(attachment(), 10)), |(sequence, attachments)| RoutingConnect { sequence, attachments })
        }
        20 => made((small(), list(node(), MAX_ATTACHMENTS)), |(sequence, nodes)| RoutingDisconnect { sequence, nodes }),
        21 => made(Just(()), |()| RoutingResync {}),
        22 => made((small(), node(), any::<u8>()), |(query, origin, hops)| RootQuery { query, origin, hops }),
        23 => {
            let device = (node(), text(), any::<u8>()).prop_map(|(node, name, hops)| Device { node, name, hops });
            made(
                (small(), any::<u8>(), any::<bool>(), any::<bool>(), list(device, 20)),
                |(query, hops, root, last, devices)| RootReply { query, hops, root, last, devices },
            )
        }
        24 => made((node(), number()), |(contact, other)| TreeFound { contact, other: TreeId(other) }),
        25 => made((node(), node(), small()), |(contact, attacher, request)| TreeMerge { contact, attacher, request }),
        26 => made((node(), small(), verdict()), |(contact, request, verdict)| TreeMergeReply {
            contact,
            request,
            verdict,
        }),
        27 => made((node(), number(), attachment(), small()), |(contact, other, attachment, lock_ms)| RootTransfer {
            contact,
            other: TreeId(other),
            attachment,
            lock_ms,
        }),
        28 => made(Just(()), |()| RootTransferReply {}),
        48 => made(handshake(), SessionInit),
        49 => made(handshake(), SessionReply),
        50 => made(handshake(), SessionFinish),
        51 => made(small(), |session| SessionUnknown { session }),
        52 => made(node(), |destination| Unreachable { destination }),
        53 => made(number(), |token| Ping { token }),
        54 => made(number(), |token| Pong { token }),
        other => panic!("message kind {other} has no strategy: add one"),
    }
}

/// Messages of all kinds.
pub fn message() -> impl Strategy<Value = Message> {
    let kinds: Vec<u8> = Message::KINDS.iter().map(|&(number, _)| number).collect();
    select(kinds).prop_flat_map(message_of)
}

pub fn lane() -> impl Strategy<Value = Lane> {
    select(&Lane::ALL[..])
}

pub fn packet() -> impl Strategy<Value = Packet> {
    let to_one = (node(), select(&[Protection::Link, Protection::Session, Protection::Clear][..]))
        .prop_map(|(node, protection)| (Destination::One(node), protection));
    let to_some = vec(node(), 1..=MAX_DESTINATIONS).prop_map(|nodes| (Destination::List(nodes), Protection::Signed));
    let to_all = Just((Destination::Broadcast, Protection::Signed));
    let payload = vec(any::<u8>(), 0..300);
    (prop_oneof![to_one, to_some, to_all], lane(), any::<bool>(), any::<u8>(), node(), any::<u64>(), payload).prop_map(
        |((destination, protection), lane, congested, hop_limit, source, sequence, mut payload)| {
            if protection == Protection::Signed {
                payload.resize(payload.len() + SIGNATURE_BLOCK, 7);
            }
            Packet { lane, protection, congested, hop_limit, source, destination, sequence, payload }
        },
    )
}

pub fn beacon() -> impl Strategy<Value = Beacon> {
    (any::<u64>(), any::<u32>(), role(), any::<u8>(), any::<u8>(), any::<u16>()).prop_map(
        |(tree, epoch, role, free_slots, size_class, psm)| Beacon {
            tree: TreeId(tree),
            epoch,
            role,
            free_slots,
            size_class,
            psm,
        },
    )
}

/// A body without borrowed bytes: heartbeat, credit, close.
#[derive(Debug, Clone)]
pub enum OwnBody {
    Packet(Vec<u8>),
    Beat(bool),
    Credit(Flow, u32),
    Close(u8),
}

pub fn body() -> impl Strategy<Value = OwnBody> {
    let flow = (node(), node(), lane()).prop_map(|(source, destination, lane)| Flow { source, destination, lane });
    prop_oneof![
        vec(any::<u8>(), 0..100).prop_map(OwnBody::Packet),
        any::<bool>().prop_map(OwnBody::Beat),
        (flow, any::<u32>()).prop_map(|(flow, bytes)| OwnBody::Credit(flow, bytes)),
        any::<u8>().prop_map(OwnBody::Close),
    ]
}

/// The reason with that number.
pub fn close_reason(code: u8) -> CloseReason {
    match code {
        0 => CloseReason::Stopping,
        1 => CloseReason::Redundant,
        2 => CloseReason::Refused,
        3 => CloseReason::ProtocolError,
        other => CloseReason::Other(other),
    }
}
