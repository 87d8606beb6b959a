//! How much one node may ask of this one, so that a flood from it leaves the others served.

use std::collections::BTreeMap;
use std::time::Duration;

use bbh_types::{Instant, NodeId};

/// Most nodes whose use is remembered.
const MAX_SOURCES: usize = 1024;

/// A token bucket per node.
#[derive(Debug)]
pub(super) struct Throttle {
    /// Time in which one use grows back.
    per_use: Duration,
    burst: u32,
    /// When the bucket of a node that used it lately will be full again.
    full_at: BTreeMap<NodeId, Instant>,
}

impl Throttle {
    /// `burst` uses at once, and `per_second` in the long run (at least 1).
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        Self { per_use: Duration::from_secs(1) / per_second.max(1), burst, full_at: BTreeMap::new() }
    }

    /// Whether `source` may go on; if so, that counts as one use.
    pub(super) fn admit(&mut self, now: Instant, source: NodeId) -> bool {
        if self.full_at.len() >= MAX_SOURCES && !self.full_at.contains_key(&source) {
            self.full_at.retain(|_, full_at| *full_at > now);
            // With that many nodes busy at once, the one that is nearest to a full bucket loses least.
            if self.full_at.len() >= MAX_SOURCES
                && let Some(node) = self.full_at.iter().min_by_key(|(_, full_at)| **full_at).map(|(node, _)| *node)
            {
                self.full_at.remove(&node);
            }
        }
        let full_at = self.full_at.entry(source).or_insert(now);
        let after = (*full_at).max(now) + self.per_use;
        if after.since(now) > self.per_use * self.burst {
            return false;
        }
        *full_at = after;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32) -> NodeId {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        NodeId::of_key(&key)
    }

    #[test]
    fn a_burst_passes_then_the_long_run_rate() {
        let mut throttle = Throttle::new(5, 20);
        let now = Instant::from_micros(7);
        assert_eq!((0..100).filter(|_| throttle.admit(now, node(1))).count(), 20);
        assert!(throttle.admit(now, node(2)), "another node is not held back");
        let later = now + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| throttle.admit(later, node(1))).count(), 5);
    }

    #[test]
    fn many_sources_take_bounded_memory() {
        let mut throttle = Throttle::new(5, 20);
        for number in 0..5_000 {
            assert!(throttle.admit(Instant::ZERO, node(number)));
        }
        assert!(throttle.full_at.len() <= MAX_SOURCES);
    }
}
