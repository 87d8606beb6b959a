//! Decoders that take a sequence of things and remember.

use std::time::Duration;

use bbh_types::{Instant, NodeId};
use bbh_wire::MAX_MESSAGE;
use bbh_wire::fragment::{
    FRAGMENT_HEADER, MAX_BUFFERED, MAX_PARTIAL_PER_SENDER, MIN_PART, REASSEMBLY_TIMEOUT, Reassembly, split,
};
use bbh_wire::frame::{FrameDecoder, PREFIX};

/// Payloads, each as `sender u8, step u8, length u16 big-endian, payload`, which comes `step` tenths of a second
/// after the one before: nothing kept exceeds the limits or outlives its time. The whole input, taken for a message,
/// also survives being cut.
pub fn fragment(data: &[u8]) {
    let mut reassembly = Reassembly::default();
    let mut now = Instant::ZERO;
    let mut rest = data;
    while let Some((&[sender, step, high, low], after)) = rest.split_first_chunk() {
        let (payload, after) = after.split_at(after.len().min(usize::from(u16::from_be_bytes([high, low]))));
        rest = after;
        now += Duration::from_millis(100) * u32::from(step);
        reassembly.expire(now);
        if let Ok(Some(whole)) = reassembly.push(now, NodeId::from_bytes([sender; 16]), payload) {
            assert!(whole.len() <= MAX_MESSAGE);
        }
        assert!(reassembly.buffered() <= MAX_BUFFERED.min(256 * MAX_PARTIAL_PER_SENDER * MAX_MESSAGE));
        assert!(reassembly.buffered() <= data.len());
        assert!(reassembly.poll_timeout().is_none_or(|at| at > now && at <= now + REASSEMBLY_TIMEOUT));
    }
    reassembly.expire(now + REASSEMBLY_TIMEOUT);
    assert_eq!((reassembly.buffered(), reassembly.poll_timeout()), (0, None));

    let Some((&[first, second], message)) = data.split_first_chunk() else { return };
    let message = &message[..message.len().min(MAX_MESSAGE)];
    let room = FRAGMENT_HEADER + MIN_PART + usize::from(u16::from_be_bytes([first, second]));
    let parts = split(message, room, u32::from(first));
    let mut reassembly = Reassembly::default();
    let sender = NodeId::from_bytes([second; 16]);
    for (n, part) in parts.iter().rev().enumerate() {
        assert!(part.len() <= room);
        let whole = reassembly.push(now, sender, part).expect("what split makes is accepted");
        assert_eq!(whole.as_deref(), (n + 1 == parts.len()).then_some(message));
    }
}

/// `limit u8, step u8`, then a stream, which arrives in pieces of `step` + 1 bytes at a link that takes frames of up to
/// 4 + 16 · `limit` bytes: cut as the layout says, and never more is kept than one frame.
pub fn frame(data: &[u8]) {
    let Some((&[limit, step], stream)) = data.split_first_chunk() else { return };
    let max_frame = PREFIX + 16 * usize::from(limit);
    let mut decoder = FrameDecoder::new(max_frame);
    let mut at = 0;
    for piece in stream.chunks(usize::from(step) + 1) {
        decoder.push(piece);
        loop {
            let announced = stream
                .get(at..at + PREFIX)
                .map(|prefix| prefix.iter().fold(0_u64, |sum, &byte| sum * 256 + u64::from(byte)));
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    assert_eq!(announced, Some(frame.len() as u64));
                    assert_eq!(frame, &stream[at + PREFIX..at + PREFIX + frame.len()]);
                    at += PREFIX + frame.len();
                }
                Ok(None) => break,
                Err(_) => {
                    assert!(announced.is_some_and(|length| length + PREFIX as u64 > max_frame as u64));
                    assert!(decoder.next_frame().is_err(), "a stream that can't be cut stays so");
                    return;
                }
            }
        }
        assert!(decoder.buffered() < max_frame.max(PREFIX));
    }
    assert_eq!(at + decoder.buffered(), stream.len());
}
