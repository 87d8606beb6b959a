//! Whatever is sent arrives as it was; whatever a stranger sends does no harm.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use bbh_types::{ContentId, Instant, NodeId, TreeId};
use bbh_wire::fragment::{
    FRAGMENT_HEADER, MAX_BUFFERED, MAX_PARTIAL_PER_SENDER, MIN_PART, REASSEMBLY_TIMEOUT, Reassembly, split,
};
use bbh_wire::frame::{Body, FrameDecoder, FrameError, PREFIX};
use bbh_wire::message::{MAX_DEVICE_NAME, MAX_SLICE, Signature};
use bbh_wire::{Beacon, CodecError, MAX_MESSAGE, Message, Packet, codec};
use common::OwnBody;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

fn config(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(0xb1e5), failure_persistence: None, ..Config::default() }
}

fn encoded(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(&mut bytes);
    bytes
}

/// What a decoder makes of bytes is encoded as these bytes again, so that nothing has two encodings.
fn assert_harmless(bytes: &[u8]) {
    if let Ok(Some(message)) = Message::decode(bytes) {
        assert_eq!(message.encode(), bytes);
    }
    if let Ok(packet) = Packet::decode(bytes) {
        assert_eq!(packet.encoded_len(), bytes.len());
        assert_eq!(encoded(&packet), bytes);
    }
    if let Ok(beacon) = Beacon::decode(bytes) {
        assert_eq!(beacon.encode(), bytes[..Beacon::LEN]);
    }
    if let Ok(body) = Body::decode(bytes) {
        let mut again = Vec::new();
        body.encode(&mut again);
        assert_eq!(Body::decode(&again), Ok(body));
    }
    let mut reassembly = Reassembly::default();
    if let Ok(None) = reassembly.push(Instant::ZERO, NodeId::from_bytes([1; 16]), bytes) {
        assert!(reassembly.buffered() < bytes.len());
    }
}

/// One change that damage or an attacker may make.
#[derive(Debug, Clone)]
enum Change {
    Set(usize, u8),
    Cut(usize),
    Append(Vec<u8>),
    Insert(usize, Vec<u8>),
    Remove(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let piece = || {
        let announced = |marker: u8, bytes: &'static [u8]| Just([&[marker], bytes].concat());
        prop_oneof![
            vec(any::<u8>(), 1..20),
            announced(251, &[255; 2]),
            announced(252, &[255; 4]),
            announced(253, &[255; 8]),
            announced(253, &[0, 0, 0, 0, 255, 0, 0, 0]),
        ]
    };
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        any::<usize>().prop_map(Change::Cut),
        piece().prop_map(Change::Append),
        (any::<usize>(), piece()).prop_map(|(at, piece)| Change::Insert(at, piece)),
        any::<usize>().prop_map(Change::Remove),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: Change) {
    let place = |at: usize, bytes: &[u8]| at % bytes.len().max(1);
    match change {
        Change::Append(piece) => bytes.extend(piece),
        _ if bytes.is_empty() => {}
        Change::Set(at, byte) => {
            let at = place(at, bytes);
            bytes[at] = byte;
        }
        Change::Cut(at) => bytes.truncate(place(at, bytes)),
        Change::Insert(at, piece) => {
            let at = place(at, bytes);
            bytes.splice(at..at, piece);
        }
        Change::Remove(at) => {
            bytes.remove(place(at, bytes));
        }
    }
}

#[test]
fn messages_of_every_kind_arrive_as_they_were_sent() {
    for &(kind, name) in Message::KINDS {
        let mut runner = TestRunner::new(config(64));
        let outcome = runner.run(&common::message_of(kind), |message| {
            prop_assert_eq!(message.kind(), kind);
            let bytes = message.encode();
            prop_assert!(bytes.len() <= MAX_MESSAGE);
            prop_assert_eq!(Message::decode(&bytes), Ok(Some(message)));
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn packets_arrive_as_they_were_sent(packet in common::packet()) {
        let bytes = encoded(&packet);
        prop_assert_eq!(bytes.len(), packet.encoded_len());
        prop_assert_eq!(Packet::decode(&bytes), Ok(packet));
    }

    #[test]
    fn beacons_and_bodies_arrive_as_they_were_sent(beacon in common::beacon(), own in common::body()) {
        prop_assert_eq!(Beacon::decode(&beacon.encode()), Ok(beacon));
        let body = match &own {
            OwnBody::Packet(bytes) => Body::Packet(bytes),
            OwnBody::Beat(answer) => Body::Beat { answer: *answer },
            OwnBody::Credit(flow, bytes) => Body::Credit { flow: *flow, bytes: *bytes },
            OwnBody::Close(code) => Body::Close(common::close_reason(*code)),
        };
        let mut bytes = Vec::new();
        body.encode(&mut bytes);
        prop_assert_eq!(Body::decode(&bytes), Ok(body));
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(kind in any::<u8>(), mut bytes in vec(any::<u8>(), 0..400)) {
        assert_harmless(&bytes);
        bytes.insert(0, kind % 64);
        assert_harmless(&bytes);
    }

    #[test]
    fn damaged_messages_do_no_harm(message in common::message(), changes in vec(change(), 1..4)) {
        let mut bytes = message.encode();
        changes.into_iter().for_each(|change| apply(&mut bytes, change));
        assert_harmless(&bytes);
    }

    #[test]
    fn damaged_packets_do_no_harm(packet in common::packet(), changes in vec(change(), 1..4)) {
        let mut bytes = encoded(&packet);
        changes.into_iter().for_each(|change| apply(&mut bytes, change));
        assert_harmless(&bytes);
    }

    #[test]
    fn a_message_survives_being_cut_and_shuffled(
        length in prop_oneof![0..2000_usize, Just(MAX_MESSAGE), 0..=MAX_MESSAGE],
        room in prop_oneof![FRAGMENT_HEADER + MIN_PART..500, Just(4032), Just(65_000)],
        order in any::<u64>(),
    ) {
        let message: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        let mut parts = split(&message, room, 3);
        prop_assert!(parts.iter().all(|part| part.len() <= room));
        for n in (1..parts.len()).rev() {
            parts.swap(n, (order.wrapping_mul(n as u64 * 2 + 1) >> 7) as usize % (n + 1));
        }
        let mut reassembly = Reassembly::default();
        let sender = NodeId::from_bytes([1; 16]);
        let (last, before) = parts.split_last().unwrap();
        for part in before {
            prop_assert_eq!(reassembly.push(Instant::ZERO, sender, part), Ok(None));
        }
        prop_assert_eq!(reassembly.push(Instant::ZERO, sender, last), Ok(Some(message)));
        prop_assert_eq!(reassembly.buffered(), 0);
        prop_assert_eq!(reassembly.poll_timeout(), None);
    }

    #[test]
    fn any_fragments_stay_within_the_limits(
        pushes in vec((0..3_u8, 0..12_u32, 0..6_u16, 0..6_u16, select_length()), 1..120),
    ) {
        let mut reassembly = Reassembly::default();
        for (now, (sender, message, index, count, length)) in pushes.into_iter().enumerate() {
            let mut payload = vec![1];
            payload.extend_from_slice(&message.to_be_bytes());
            payload.extend_from_slice(&index.to_be_bytes());
            payload.extend_from_slice(&count.to_be_bytes());
            payload.resize(FRAGMENT_HEADER + length, message as u8);
            let now = Instant::from_micros(now as u64);
            if let Ok(Some(whole)) = reassembly.push(now, NodeId::from_bytes([sender; 16]), &payload) {
                prop_assert!(whole.len() <= MAX_MESSAGE);
                prop_assert!(whole.iter().all(|&byte| byte == message as u8), "parts of different messages are mixed");
            }
            prop_assert!(reassembly.buffered() <= (3 * MAX_PARTIAL_PER_SENDER * MAX_MESSAGE).min(MAX_BUFFERED));
        }
        reassembly.expire(Instant::from_micros(1000) + REASSEMBLY_TIMEOUT);
        prop_assert_eq!((reassembly.buffered(), reassembly.poll_timeout()), (0, None));
    }

    #[test]
    fn frames_are_cut_as_the_plain_reading_of_the_layout_says(
        frames in vec((0..300_u32, any::<u8>(), 0..20_u8), 0..12),
        chunks in vec(1..200_usize, 1..50),
    ) {
        let mut stream = Vec::new();
        for (length, fill, damage) in frames {
            let announced = if damage == 0 { u32::from(fill) << 24 } else { length };
            stream.extend_from_slice(&announced.to_be_bytes());
            stream.extend(vec![fill; length as usize]);
        }
        let max_frame = 290;
        let (expected, refused) = reference_frames(&stream, max_frame);

        let mut decoder = FrameDecoder::new(max_frame);
        let (mut seen, mut error) = (Vec::new(), None);
        let mut rest = &*stream;
        let mut sizes = chunks.iter().cycle();
        while error.is_none() && !rest.is_empty() {
            let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            rest = after;
            decoder.push(piece);
            while error.is_none() {
                match decoder.next_frame() {
                    Ok(Some(frame)) => seen.push(frame.to_vec()),
                    Ok(None) => break,
                    Err(FrameError::TooLarge { length, .. }) => error = Some(length),
                }
            }
            prop_assert!(error.is_some() || decoder.buffered() < max_frame);
        }
        prop_assert_eq!(seen, expected);
        prop_assert_eq!(error, refused);
    }
}

fn select_length() -> impl Strategy<Value = usize> {
    prop::sample::select(&[0, 1, 63, 64, 65, 4000, 20_000, 65_000, MAX_MESSAGE][..])
}

/// The frames of a stream, and the length that is refused, read off in one go.
fn reference_frames(stream: &[u8], max_frame: usize) -> (Vec<Vec<u8>>, Option<u64>) {
    let (mut frames, mut at) = (Vec::new(), 0);
    while let Some(prefix) = stream.get(at..at + PREFIX) {
        let length = prefix.iter().fold(0, |sum: usize, &byte| sum * 256 + usize::from(byte));
        if length + PREFIX > max_frame {
            return (frames, Some(length as u64));
        }
        let Some(frame) = stream.get(at + PREFIX..at + PREFIX + length) else { break };
        frames.push(frame.to_vec());
        at += PREFIX + length;
    }
    (frames, None)
}

/// Encodings that look like a message of that kind but have one element or byte more than allowed.
fn overfull() -> Vec<(u8, &'static str, Vec<u8>)> {
    let id = ContentId::from_bytes([1; 32]);
    let node = NodeId::from_bytes([2; 16]);
    let text = |length: usize| "n".repeat(length);
    let query = |words: Vec<String>| codec::encode(&(1_u32, (words, 0_u8, None::<u64>, None::<u64>, None::<u64>)));
    let files = |count: usize, name: usize, folder: usize, tags: Vec<(String, String)>| {
        let file = (id, [3_u8; 16], text(name), text(folder), 5_u64, 0_u8, tags);
        codec::encode(&(1_u32, 0_u16, true, None::<u16>, vec![file; count]))
    };
    let signature = Signature::from_bytes(&[4; 64]);
    let attachment = |name: usize| ([5_u8; 32], node, 1_u64, text(name), signature);
    let attachments = |count| codec::encode(&(1_u32, vec![attachment(1); count]));
    let devices = |count| codec::encode(&(1_u32, 1_u8, true, true, vec![(node, text(1), 1_u8); count]));
    // serde encodes byte strings and lists of bytes alike.
    let noise = |length: usize| codec::encode(&(1_u32, 2_u32, vec![0_u8; length]));
    let tag = |key: usize, value: usize| (text(key), text(value));
    vec![
        (1, "words", query(vec![text(1); 17])),
        (1, "word", query(vec![text(129)])),
        (2, "files", files(65, 1, 0, vec![])),
        (2, "name", files(1, 1025, 0, vec![])),
        (2, "folder", files(1, 1, 1025, vec![])),
        (2, "tags", files(1, 1, 0, vec![tag(1, 1); 17])),
        (2, "tag key", files(1, 1, 0, vec![tag(33, 1)])),
        (2, "tag value", files(1, 1, 0, vec![tag(1, 257)])),
        (5, "ranges", codec::encode(&(1_u32, id, vec![(0_u64, 1_u64); 65], 1_u64))),
        (8, "slice", codec::encode(&(1_u32, 0_u64, 1_u64, vec![0_u8; MAX_SLICE + 1]))),
        (17, "device name", codec::encode(&(attachment(MAX_DEVICE_NAME + 1), 1_u32))),
        (19, "attachments", attachments(257)),
        (20, "nodes", codec::encode(&(1_u32, vec![node; 257]))),
        (23, "devices", devices(257)),
        (27, "device name", codec::encode(&(node, TreeId(1), attachment(MAX_DEVICE_NAME + 1), 1_u32))),
        (48, "noise", noise(513)),
        (49, "noise", noise(513)),
        (50, "noise", noise(513)),
    ]
}

#[test]
fn one_element_more_than_a_bound_allows_is_refused_for_that_reason() {
    for (kind, what, record) in overfull() {
        let message = [&[kind], &*record].concat();
        let Err(CodecError::Malformed(reason)) = Message::decode(&message) else {
            panic!("kind {kind} was accepted with too many {what}");
        };
        assert!(reason.contains("exceeds the limit"), "kind {kind}, {what}: {reason}");
    }
}

#[test]
fn a_length_prefix_beyond_the_bytes_that_arrived_costs_nothing() {
    // Wherever in any message a length stands: a hostile one in its place, with next to nothing behind it.
    let lengths: [&[u8]; 5] = [
        &[253, 255, 255, 255, 255, 255, 255, 255, 255],
        &[253, 255, 255, 255, 255, 255, 255, 255, 127],
        &[253, 0, 0, 0, 0, 1, 0, 0, 0],
        &[252, 255, 255, 255, 255],
        &[251, 255, 255],
    ];
    let mut runner = TestRunner::new(config(200));
    let outcome = runner.run(&common::message(), |message| {
        let bytes = message.encode();
        for at in 1..bytes.len().min(300) {
            for length in lengths {
                assert_harmless(&[&bytes[..at], length, b"x"].concat());
            }
        }
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn a_message_of_an_unknown_kind_is_skipped_and_one_beyond_the_limit_refused() {
    assert_eq!(Message::decode(&[200, 1, 2]), Ok(None));
    assert!(matches!(Message::decode(&[]), Err(CodecError::Malformed(_))));
    for kind in [1, 200] {
        let bytes = vec![kind; MAX_MESSAGE + 1];
        assert!(matches!(Message::decode(&bytes), Err(CodecError::TooLarge { .. })));
    }
}
