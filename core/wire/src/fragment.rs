//! Fragments: how a message larger than a packet travels.
//!
//! An opened payload starts with one byte: 0, a whole message follows (`kind u8`, body); 1, a fragment follows:
//! `message u32, index u16, count u16` big-endian, then the part. Reassembly is bounded per sender: by the number
//! of messages under way, by their bytes and by time.

use std::collections::BTreeMap;
use std::time::Duration;

use bbh_types::{Instant, NodeId};

use crate::MAX_MESSAGE;
use crate::packet::take;

const WHOLE: u8 = 0;
const PART: u8 = 1;
/// Bytes in front of a fragment's part.
pub const FRAGMENT_HEADER: usize = 1 + 4 + 2 + 2;
/// Messages of one sender that may be incomplete at a time.
pub const MAX_PARTIAL_PER_SENDER: usize = 8;
/// Senders whose messages may be incomplete at a time.
pub const MAX_SENDERS: usize = 64;
/// How long a message may stay incomplete.
pub const REASSEMBLY_TIMEOUT: Duration = Duration::from_secs(20);

/// Cuts an encoded message into payloads of at most `max_payload` bytes.
///
/// `message` distinguishes the messages of this sender that are under way at the same time.
pub fn split(encoded: &[u8], max_payload: usize, message: u32) -> Vec<Vec<u8>> {
    debug_assert!(max_payload > FRAGMENT_HEADER && encoded.len() <= MAX_MESSAGE);
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
    parts: Vec<Option<Vec<u8>>>,
    missing: usize,
    bytes: usize,
    since: Instant,
}

/// Puts fragments together again.
#[derive(Debug, Default)]
pub struct Reassembly {
    senders: BTreeMap<NodeId, BTreeMap<u32, Partial>>,
}

impl Reassembly {
    /// Takes an opened payload of `sender`; returns the encoded message once it is whole.
    ///
    /// The oldest incomplete message gives way when a sender has too many, and the sender heard of least recently
    /// when there are too many senders.
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
        let index = usize::from(u16::from_be_bytes(take(&mut rest).ok_or(FragmentError::Malformed)?));
        let count = usize::from(u16::from_be_bytes(take(&mut rest).ok_or(FragmentError::Malformed)?));
        // Every part but the last is as long as the first, so a count beyond the limit shows at once.
        if index >= count || rest.is_empty() || count > MAX_MESSAGE / 64 {
            return Err(FragmentError::Malformed);
        }
        self.make_room(sender);
        let partials = self.senders.entry(sender).or_default();
        if !partials.contains_key(&message) && partials.len() >= MAX_PARTIAL_PER_SENDER {
            let oldest = partials.iter().min_by_key(|(_, partial)| partial.since).map(|(&id, _)| id);
            oldest.and_then(|id| partials.remove(&id));
        }
        let partial = partials.entry(message).or_insert_with(|| Partial {
            parts: vec![None; count],
            missing: count,
            bytes: 0,
            since: now,
        });
        if partial.parts.len() != count {
            partials.remove(&message);
            return Err(FragmentError::Malformed);
        }
        if partial.parts[index].is_none() {
            partial.bytes += rest.len();
            partial.missing -= 1;
            partial.parts[index] = Some(rest.to_vec());
        }
        if partial.bytes > MAX_MESSAGE {
            partials.remove(&message);
            return Err(FragmentError::TooLarge);
        }
        if partial.missing > 0 {
            return Ok(None);
        }
        let whole = partials.remove(&message).expect("it was just completed").parts.into_iter().flatten().flatten();
        let whole = whole.collect();
        if partials.is_empty() {
            self.senders.remove(&sender);
        }
        Ok(Some(whole))
    }

    fn make_room(&mut self, sender: NodeId) {
        if self.senders.len() >= MAX_SENDERS && !self.senders.contains_key(&sender) {
            let stalest = self
                .senders
                .iter()
                .min_by_key(|(_, partials)| partials.values().map(|partial| partial.since).max())
                .map(|(&id, _)| id);
            stalest.and_then(|id| self.senders.remove(&id));
        }
    }

    /// Forgets what has been incomplete for too long.
    pub fn expire(&mut self, now: Instant) {
        self.senders.retain(|_, partials| {
            partials.retain(|_, partial| now.since(partial.since) < REASSEMBLY_TIMEOUT);
            !partials.is_empty()
        });
    }

    /// When [`Reassembly::expire`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let oldest = self.senders.values().flat_map(BTreeMap::values).map(|partial| partial.since).min()?;
        Some(oldest + REASSEMBLY_TIMEOUT)
    }

    /// Bytes held for incomplete messages.
    pub fn buffered(&self) -> usize {
        self.senders.values().flat_map(BTreeMap::values).map(|partial| partial.bytes).sum()
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
    }
}
