//! What keeps a message to all from coming twice, and from coming too often (design §6, fix 11).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bbh_types::{Instant, NodeId};

/// Signed packets remembered.
pub const REMEMBERED: usize = 4096;
/// Origins whose rate is watched at a time.
const MAX_ORIGINS: usize = 1024;
/// Signed packets a second that one origin may send, after a burst.
const ORIGIN_RATE: f64 = 20.0;
const ORIGIN_BURST: f64 = 60.0;
/// Signed packets a second taken from one neighbour, after a burst: each costs a signature check.
const NEIGHBOUR_RATE: f64 = 200.0;
const NEIGHBOUR_BURST: f64 = 600.0;

/// A bucket of permissions that fills with time.
#[derive(Debug, Clone, Copy)]
pub struct TokenBucket {
    tokens: f64,
    rate: f64,
    burst: f64,
    filled: Instant,
}

impl TokenBucket {
    /// A full bucket that gains `rate` a second up to `burst`.
    pub fn new(rate: f64, burst: f64, now: Instant) -> Self {
        Self { tokens: burst, rate, burst, filled: now }
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        self.tokens = (self.tokens + now.since(self.filled).as_secs_f64() * self.rate).min(self.burst);
        self.filled = now;
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }

    fn idle_for(&self, now: Instant) -> Duration {
        now.since(self.filled)
    }
}

/// Remembers which signed packets have passed and how fast they come.
#[derive(Debug, Default)]
pub struct BroadcastFilter {
    seen: BTreeSet<(NodeId, u64)>,
    order: VecDeque<(NodeId, u64)>,
    origins: BTreeMap<NodeId, TokenBucket>,
    neighbours: BTreeMap<NodeId, TokenBucket>,
}

impl BroadcastFilter {
    /// Whether a packet may be looked at: it is new, and neither its neighbour nor its origin sends too many.
    pub fn admits(&mut self, now: Instant, neighbour: NodeId, origin: NodeId, sequence: u64) -> bool {
        if self.seen.contains(&(origin, sequence)) {
            return false;
        }
        let bucket =
            self.neighbours.entry(neighbour).or_insert_with(|| TokenBucket::new(NEIGHBOUR_RATE, NEIGHBOUR_BURST, now));
        if !bucket.take(now) {
            return false;
        }
        if self.neighbours.len() > 64 {
            self.neighbours.retain(|_, bucket| bucket.idle_for(now) < Duration::from_secs(60));
        }
        true
    }

    /// A packet's signature was right: it has passed. Returns whether its origin keeps to its rate.
    pub fn passed(&mut self, now: Instant, origin: NodeId, sequence: u64) -> bool {
        if self.seen.insert((origin, sequence)) {
            self.order.push_back((origin, sequence));
            if self.order.len() > REMEMBERED {
                self.order.pop_front().map(|oldest| self.seen.remove(&oldest));
            }
        }
        if self.origins.len() >= MAX_ORIGINS && !self.origins.contains_key(&origin) {
            let idlest = self.origins.iter().max_by_key(|(_, bucket)| bucket.idle_for(now)).map(|(&node, _)| node);
            idlest.and_then(|node| self.origins.remove(&node));
        }
        self.origins.entry(origin).or_insert_with(|| TokenBucket::new(ORIGIN_RATE, ORIGIN_BURST, now)).take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId::from_bytes([1; 16]);
    const B: NodeId = NodeId::from_bytes([2; 16]);

    #[test]
    fn a_packet_passes_once_and_a_forged_copy_before_it_does_not_block_it() {
        let mut filter = BroadcastFilter::default();
        assert!(filter.admits(Instant::ZERO, B, A, 1), "a forgery looks new, too");
        assert!(filter.admits(Instant::ZERO, B, A, 1), "but did not pass");
        assert!(filter.passed(Instant::ZERO, A, 1));
        assert!(!filter.admits(Instant::ZERO, B, A, 1));
    }

    #[test]
    fn a_flood_is_cut_to_the_rate_and_memory_stays_bounded() {
        let mut filter = BroadcastFilter::default();
        let admitted = (0..10_000).filter(|&n| filter.admits(Instant::ZERO, B, A, n)).count();
        assert_eq!(admitted as f64, NEIGHBOUR_BURST);
        let kept = (0..10_000).filter(|&n| filter.passed(Instant::ZERO, A, n)).count();
        assert_eq!(kept as f64, ORIGIN_BURST);
        for n in 0..10_000_u32 {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            filter.passed(Instant::ZERO, NodeId::from_bytes(id), 1);
        }
        assert!(filter.seen.len() <= REMEMBERED && filter.origins.len() <= MAX_ORIGINS);
        assert!(filter.admits(Instant::ZERO + Duration::from_secs(1), B, A, 20_000), "later there is room again");
    }
}
