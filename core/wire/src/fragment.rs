//! Fragments: how a message larger than a packet travels.
//!
//! An opened payload starts with one byte: 0, a whole message follows (`kind u8`, body); 1, a fragment follows:
//! `message u32, index u16, count u16` big-endian, then the part. All parts of a message but the last have the same
//! length, at least [`MIN_PART`]; the last is no longer than they. Reassembly is bounded by the number of senders,
//! by the number of messages under way per sender, by bytes, and by time.

use std::collections::BTreeMap;
use std::time::Duration;

use bbh_types::{Instant, NodeId};

use crate::MAX_MESSAGE;
use crate::packet::take;

const WHOLE: u8 = 0;
const PART: u8 = 1;
/// Bytes in front of a fragment's part.
pub const FRAGMENT_HEADER: usize = 1 + 4 + 2 + 2;
/// Least bytes of a part that is not its message's last, so that what a part costs beyond its bytes stays small.
pub const MIN_PART: usize = 64;
/// Messages of one sender that may be incomplete at a time.
pub const MAX_PARTIAL_PER_SENDER: usize = 8;
/// Senders whose messages may be incomplete at a time.
pub const MAX_SENDERS: usize = 64;
/// Bytes of incomplete messages that are kept of all senders together: several downloads' worth, and little
/// enough for a phone. Beyond it the oldest message of the sender with the most bytes gives way.
pub const MAX_BUFFERED: usize = 8 << 20;
/// How long a message may stay incomplete.
pub const REASSEMBLY_TIMEOUT: Duration = Duration::from_secs(20);

/// Cuts an encoded message into payloads of at most `max_payload` bytes.
///
/// `message` distinguishes the messages of this sender that are under way at the same time. `max_payload` is at
/// least [`FRAGMENT_HEADER`] + [`MIN_PART`].
pub fn split(encoded: &[u8], max_payload: usize, message: u32) -> Vec<Vec<u8>> {
    debug_assert!(max_payload >= FRAGMENT_HEADER + MIN_PART && encoded.len() <= MAX_MESSAGE);
    if encoded.len() < max_payload {
        let mut payload = Vec::with_capacity(1 + encoded.len());
        payload.push(WHOLE);
        payload.extend_from_slice(encoded);
        return vec![payload];
    }
    let parts = encoded.chunks(max_payload - FRAGMENT_HEADER);
    let count = parts.len() as u16;
    parts
        .enumerate()
        .map(|(index, part)| {
            let mut payload = Vec::with_capacity(FRAGMENT_HEADER + part.len());
            payload.push(PART);
            payload.extend_from_slice(&message.to_be_bytes());
            payload.extend_from_slice(&(index as u16).to_be_bytes());
            payload.extend_from_slice(&count.to_be_bytes());
            payload.extend_from_slice(part);
            payload
        })
        .collect()
}

/// A payload that is neither a message nor a fragment, or exceeds what one sender may have under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// The header is cut off or contradicts what came before.
    #[error("malformed fragment")]
    Malformed,
    /// The message would exceed [`MAX_MESSAGE`].
    #[error("fragmented message too large")]
    TooLarge,
}

#[derive(Debug)]
struct Partial {
    parts: BTreeMap<u16, Vec<u8>>,
    count: u16,
    /// Length of every part but the last, once one of them is here.
    part_len: Option<usize>,
    bytes: usize,
    since: Instant,
}

impl Partial {
    fn new(count: u16, since: Instant) -> Self {
        Self { parts: BTreeMap::new(), count, part_len: None, bytes: 0, since }
    }

    fn is_last(&self, index: u16) -> bool {
        index + 1 == self.count
    }

    /// Whether a part of that length has a place at `index`, among the parts that are here.
    fn check(&self, index: u16, length: usize) -> Result<(), FragmentError> {
        let (full, last) = if self.is_last(index) {
            (self.part_len, Some(length))
        } else {
            let last = self.parts.last_key_value().filter(|&(&at, _)| self.is_last(at));
            (Some(length), last.map(|(_, part)| part.len()))
        };
        if full.is_some_and(|full| {
            full < MIN_PART
                || self.part_len.is_some_and(|others| full != others)
                || last.is_some_and(|last| last > full)
        }) {
            return Err(FragmentError::Malformed);
        }
        // One part of full length tells how long the whole message is, but for its last part.
        let whole =
            usize::from(self.count - 1).saturating_mul(full.unwrap_or(MIN_PART)).saturating_add(last.unwrap_or(1));
        if whole > MAX_MESSAGE { Err(FragmentError::TooLarge) } else { Ok(()) }
    }
}

/// Puts fragments together again.
#[derive(Debug, Default)]
pub struct Reassembly {
    senders: BTreeMap<NodeId, BTreeMap<u32, Partial>>,
    buffered: usize,
}

impl Reassembly {
    /// Takes an opened payload of `sender`; returns the encoded message once it is whole.
    ///
    /// The oldest incomplete message gives way when a sender has too many, the sender whose newest incomplete message
    /// is the oldest when there are too many senders, and what [`MAX_BUFFERED`] says when there are too many bytes.
    ///
    /// # Errors
    /// [`FragmentError`]; what was collected of other messages stays.
    pub fn push(&mut self, now: Instant, sender: NodeId, payload: &[u8]) -> Result<Option<Vec<u8>>, FragmentError> {
        let mut rest = payload;
        let [form] = take(&mut rest).ok_or(FragmentError::Malformed)?;
        match form {
            WHOLE if rest.len() <= MAX_MESSAGE => return Ok(Some(rest.to_vec())),
            WHOLE => return Err(FragmentError::TooLarge),
            PART => {}
            _ => return Err(FragmentError::Malformed),
        }
        let message = u32::from_be_bytes(take(&mut rest).ok_or(FragmentError::Malformed)?);
        let index = u16::from_be_bytes(take(&mut rest).ok_or(FragmentError::Malformed)?);
        let count = u16::from_be_bytes(take(&mut rest).ok_or(FragmentError::Malformed)?);
        if index >= count || rest.is_empty() {
            return Err(FragmentError::Malformed);
        }
        // A part may come twice. One that differs belongs to a later message, whose sender has begun to count anew.
        let known = self.senders.get(&sender).and_then(|partials| partials.get(&message));
        if let Some(part) = known.and_then(|partial| partial.parts.get(&index)) {
            if part == rest {
                return Ok(None);
            }
            self.forget(sender, message);
        }
        let known = self.senders.get(&sender).and_then(|partials| partials.get(&message));
        let checked = match known {
            Some(partial) if partial.count != count => Err(FragmentError::Malformed),
            Some(partial) => partial.check(index, rest.len()),
            None => Partial::new(count, now).check(index, rest.len()),
        };
        if let Err(error) = checked {
            self.forget(sender, message);
            return Err(error);
        }
        self.make_room(sender, message);
        let partials = self.senders.entry(sender).or_default();
        let partial = partials.entry(message).or_insert_with(|| Partial::new(count, now));
        if !partial.is_last(index) {
            partial.part_len = Some(rest.len());
        }
        partial.bytes += rest.len();
        self.buffered += rest.len();
        partial.parts.insert(index, rest.to_vec());
        if partial.parts.len() == usize::from(count) {
            // Joined part by part: byte by byte it took a quarter of a receiver's time.
            let parts = self.forget(sender, message).map(|partial| partial.parts.into_values().collect::<Vec<_>>());
            return Ok(parts.map(|parts| parts.concat()));
        }
        while self.buffered > MAX_BUFFERED {
            self.drop_of_the_largest();
        }
        Ok(None)
    }

    fn forget(&mut self, sender: NodeId, message: u32) -> Option<Partial> {
        let partials = self.senders.get_mut(&sender)?;
        let partial = partials.remove(&message)?;
        self.buffered -= partial.bytes;
        if partials.is_empty() {
            self.senders.remove(&sender);
        }
        Some(partial)
    }

    /// Makes room for a part of that message, if it is the first of its message or its sender.
    fn make_room(&mut self, sender: NodeId, message: u32) {
        if let Some(partials) = self.senders.get(&sender) {
            if partials.len() >= MAX_PARTIAL_PER_SENDER && !partials.contains_key(&message) {
                let oldest = partials.iter().min_by_key(|(_, partial)| partial.since).map(|(&id, _)| id);
                oldest.and_then(|id| self.forget(sender, id));
            }
        } else if self.senders.len() >= MAX_SENDERS {
            let newest = |partials: &BTreeMap<u32, Partial>| partials.values().map(|partial| partial.since).max();
            let stalest = self.senders.iter().min_by_key(|(_, partials)| newest(partials)).map(|(&id, _)| id);
            let gone = stalest.and_then(|id| self.senders.remove(&id)).unwrap_or_default();
            self.buffered -= gone.values().map(|partial| partial.bytes).sum::<usize>();
        }
    }

    fn drop_of_the_largest(&mut self) {
        let bytes = |partials: &BTreeMap<u32, Partial>| partials.values().map(|partial| partial.bytes).sum::<usize>();
        let largest = self.senders.iter().max_by_key(|(_, partials)| bytes(partials));
        let (&sender, partials) = largest.expect("bytes are kept, so somebody has sent them");
        let oldest = partials.iter().min_by_key(|(_, partial)| partial.since).map(|(&id, _)| id);
        self.forget(sender, oldest.expect("a sender without incomplete messages is not kept"));
    }

    /// Forgets what has been incomplete for too long.
    pub fn expire(&mut self, now: Instant) {
        self.senders.retain(|_, partials| {
            partials.retain(|_, partial| now.since(partial.since) < REASSEMBLY_TIMEOUT);
            !partials.is_empty()
        });
        self.buffered = self.senders.values().flat_map(BTreeMap::values).map(|partial| partial.bytes).sum();
    }

    /// When [`Reassembly::expire`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let oldest = self.senders.values().flat_map(BTreeMap::values).map(|partial| partial.since).min()?;
        Some(oldest + REASSEMBLY_TIMEOUT)
    }

    /// Bytes held for incomplete messages, at most [`MAX_BUFFERED`].
    pub fn buffered(&self) -> usize {
        self.buffered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENDER: NodeId = NodeId::from_bytes([1; 16]);

    #[test]
    fn a_message_comes_back_whole_in_any_order_of_its_fragments() {
        let message: Vec<u8> = (0..50_000_u32).map(|n| n as u8).collect();
        let mut parts = split(&message, 4000, 9);
        assert!(parts.iter().all(|part| part.len() <= 4000));
        parts.reverse();
        parts.insert(3, parts[2].clone());
        let mut reassembly = Reassembly::default();
        let mut whole = None;
        for part in &parts {
            whole = whole.or(reassembly.push(Instant::ZERO, SENDER, part).unwrap());
        }
        assert_eq!(whole, Some(message));
        assert_eq!(reassembly.buffered(), 0);
    }

    #[test]
    fn a_flood_of_incomplete_messages_is_bounded_and_expires() {
        let mut reassembly = Reassembly::default();
        let message = vec![0; 20_000];
        for sender in 0..1000_u16 {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&sender.to_be_bytes());
            for number in 0..100 {
                let now = Instant::from_micros(u64::from(sender) * 100 + u64::from(number));
                let part = &split(&message, 4000, number)[0];
                assert_eq!(reassembly.push(now, NodeId::from_bytes(id), part), Ok(None));
            }
        }
        assert!(reassembly.buffered() <= MAX_SENDERS * MAX_PARTIAL_PER_SENDER * 4000);
        reassembly.expire(Instant::from_micros(200_000) + REASSEMBLY_TIMEOUT);
        assert_eq!(reassembly.buffered(), 0);
    }

    #[test]
    fn contradicting_fragments_are_refused() {
        let mut reassembly = Reassembly::default();
        let parts = split(&[0; 9000], 4000, 1);
        let other = split(&[0; 20_000], 4000, 1);
        assert_eq!(reassembly.push(Instant::ZERO, SENDER, &parts[0]), Ok(None));
        assert_eq!(reassembly.push(Instant::ZERO, SENDER, &other[1]), Err(FragmentError::Malformed));
        assert_eq!(reassembly.push(Instant::ZERO, SENDER, &[]), Err(FragmentError::Malformed));
        assert_eq!(
            reassembly.push(Instant::ZERO, SENDER, &[1, 0, 0, 0, 1, 0, 5, 0, 5, 1]),
            Err(FragmentError::Malformed)
        );
        assert_eq!(reassembly.poll_timeout(), None, "nothing is kept of what contradicts itself");
    }

    fn part(message: u32, index: u16, count: u16, length: usize) -> Vec<u8> {
        let mut payload = vec![PART];
        payload.extend_from_slice(&message.to_be_bytes());
        payload.extend_from_slice(&index.to_be_bytes());
        payload.extend_from_slice(&count.to_be_bytes());
        payload.resize(FRAGMENT_HEADER + length, index as u8);
        payload
    }

    #[test]
    fn the_first_part_tells_whether_a_message_would_be_too_large() {
        let push = |payload: Vec<u8>| Reassembly::default().push(Instant::ZERO, SENDER, &payload);
        assert_eq!(push(part(1, 0, u16::MAX, 64)), Err(FragmentError::TooLarge));
        assert_eq!(push(part(1, 0, 2, MAX_MESSAGE)), Err(FragmentError::TooLarge));
        assert_eq!(push(part(1, 0, 1537, 64)), Err(FragmentError::TooLarge), "one byte more than a message has");
        assert_eq!(push(part(1, 1536, 1537, 1)), Err(FragmentError::TooLarge), "even of the shortest parts");
        assert_eq!(push(part(1, 0, 1536, 64)), Ok(None));
        let mut reassembly = Reassembly::default();
        let half = MAX_MESSAGE / 2 + 1;
        assert_eq!(reassembly.push(Instant::ZERO, SENDER, &part(1, 1, 2, half)), Ok(None));
        assert_eq!(reassembly.push(Instant::ZERO, SENDER, &part(1, 0, 2, half)), Err(FragmentError::TooLarge));
    }

    #[test]
    fn parts_that_no_sender_makes_are_refused() {
        let refused = |parts: &[Vec<u8>]| {
            let mut reassembly = Reassembly::default();
            let (last, before) = parts.split_last().unwrap();
            before.iter().for_each(|part| assert_eq!(reassembly.push(Instant::ZERO, SENDER, part), Ok(None)));
            assert_eq!(reassembly.push(Instant::ZERO, SENDER, last), Err(FragmentError::Malformed));
            assert_eq!(reassembly.buffered(), 0);
        };
        refused(&[part(1, 0, 2, MIN_PART - 1)]);
        refused(&[part(1, 0, 3, 100), part(1, 1, 3, 101)]);
        refused(&[part(1, 0, 2, 100), part(1, 1, 2, 101)]);
        refused(&[part(1, 1, 2, 101), part(1, 0, 2, 100)]);
    }

    #[test]
    fn a_sender_that_counts_anew_does_not_get_two_messages_mixed() {
        let mut reassembly = Reassembly::default();
        let old = split(&[1; 9000], 4000, 1);
        let new = split(&[2; 9000], 4000, 1);
        assert_eq!(reassembly.push(Instant::ZERO, SENDER, &old[0]), Ok(None));
        let taken: Vec<_> =
            new.iter().filter_map(|part| reassembly.push(Instant::ZERO, SENDER, part).unwrap()).collect();
        assert_eq!(taken, [vec![2; 9000]]);
    }

    #[test]
    fn the_bytes_of_all_senders_are_bounded_and_the_greedy_give_way_first() {
        let mut reassembly = Reassembly::default();
        let modest = NodeId::from_bytes([255; 16]);
        let small = split(&[7; 5000], 4000, 1);
        assert_eq!(reassembly.push(Instant::ZERO, modest, &small[0]), Ok(None));
        let large = split(&vec![0; MAX_MESSAGE], 60_000, 0);
        for n in 0..MAX_SENDERS as u32 * 8 {
            let mut first = large[0].clone();
            first[1..5].copy_from_slice(&n.to_be_bytes());
            let greedy = NodeId::from_bytes([(n % (MAX_SENDERS as u32 - 1)) as u8; 16]);
            let now = Instant::from_micros(u64::from(n) + 1);
            assert_eq!(reassembly.push(now, greedy, &first), Ok(None));
            assert!(reassembly.buffered() <= MAX_BUFFERED);
        }
        assert_eq!(reassembly.push(Instant::from_micros(9000), modest, &small[1]), Ok(Some(vec![7; 5000])));
    }
}
