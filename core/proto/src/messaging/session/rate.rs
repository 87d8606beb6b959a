//! How often strangers may make this node work.

use std::collections::BTreeMap;
use std::time::Duration;

use bbh_types::{Instant, NodeId};

/// Sources remembered at a time.
const MAX_SOURCES: usize = 1024;

/// Admits a few requests of each source, and a few more of all together. A source is what a packet says, so that the
/// total is what protects this node, and the limit of each source only who is named in forged packets.
#[derive(Debug)]
pub(super) struct RateLimiter {
    interval: Duration,
    burst: u32,
    total_interval: Duration,
    total_burst: u32,
    total: Instant,
    sources: BTreeMap<NodeId, Instant>,
}

impl RateLimiter {
    /// One request each `interval` of each source and each `total_interval` of all; that many at once after a pause.
    pub(super) const fn new(interval: Duration, burst: u32, total_interval: Duration, total_burst: u32) -> Self {
        Self { interval, burst, total_interval, total_burst, total: Instant::ZERO, sources: BTreeMap::new() }
    }

    /// Whether a request may be served now; if so, it is counted.
    pub(super) fn admit(&mut self, now: Instant, source: NodeId) -> bool {
        let mut total = self.total;
        if !take(&mut total, now, self.total_interval, self.total_burst) {
            return false;
        }
        if !self.sources.contains_key(&source) && self.sources.len() >= MAX_SOURCES {
            self.sources.retain(|_, paid_until| *paid_until > now);
            if self.sources.len() >= MAX_SOURCES {
                self.sources.pop_first();
            }
        }
        let admitted = take(self.sources.entry(source).or_insert(now), now, self.interval, self.burst);
        if admitted {
            self.total = total;
        }
        admitted
    }
}

/// The generic cell rate algorithm: each request pays for one interval, at most `burst` of them ahead.
fn take(paid_until: &mut Instant, now: Instant, interval: Duration, burst: u32) -> bool {
    let next = (*paid_until).max(now) + interval;
    let admitted = next.since(now) <= interval * burst;
    if admitted {
        *paid_until = next;
    }
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn node(number: u16) -> NodeId {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        NodeId::from_bytes(id)
    }

    #[test]
    fn a_source_gets_its_burst_and_then_its_rate() {
        let mut limiter = RateLimiter::new(SECOND, 3, SECOND / 100, 100);
        let start = Instant::from_micros(7);
        assert_eq!((0..10).filter(|_| limiter.admit(start, node(1))).count(), 3);
        assert!(limiter.admit(start, node(2)));
        assert_eq!((0..10).filter(|_| limiter.admit(start + SECOND * 2, node(1))).count(), 2);
    }

    #[test]
    fn all_sources_together_are_limited_and_few_are_remembered() {
        let mut limiter = RateLimiter::new(SECOND * 1000, 1, SECOND / 100, 50);
        let admitted: usize = (0..20_u64)
            .map(|second| {
                let now = Instant::from_micros(second * 1_000_000);
                (0..3000).filter(|&number| limiter.admit(now, node(number + 3000 * second as u16))).count()
            })
            .sum();
        assert_eq!(admitted, 20 * 50);
        assert!(limiter.sources.len() <= MAX_SOURCES);
    }
}
