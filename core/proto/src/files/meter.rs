//! Bytes per second over the last seconds.

use std::time::Duration;

use bbh_types::Instant;

const SLOTS: u64 = 6;
const SLOT: Duration = Duration::from_millis(500);

/// Counts bytes in half seconds and remembers the last three seconds.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter {
    bytes: [u64; SLOTS as usize],
    /// Number of the half second that is being counted.
    slot: u64,
    /// The half second of the first byte after a rest.
    first: u64,
}

impl Meter {
    fn slot_at(now: Instant) -> u64 {
        now.as_micros() / SLOT.as_micros() as u64
    }

    fn place(slot: u64) -> usize {
        (slot % SLOTS) as usize
    }

    /// Counts `bytes` that came or went at `now`.
    pub(super) fn add(&mut self, now: Instant, bytes: u64) {
        let slot = Self::slot_at(now).max(self.slot);
        if slot - self.slot >= SLOTS {
            *self = Self { bytes: [0; SLOTS as usize], slot, first: slot };
        }
        while self.slot < slot {
            self.slot += 1;
            self.bytes[Self::place(self.slot)] = 0;
        }
        let counted = &mut self.bytes[Self::place(slot)];
        *counted = counted.saturating_add(bytes);
    }

    /// Bytes per second at `now`.
    pub(super) fn rate(&self, now: Instant) -> u64 {
        let slot = Self::slot_at(now).max(self.slot);
        let oldest = slot.saturating_sub(SLOTS - 1);
        let sum: u64 =
            (oldest..=self.slot.min(slot)).map(|slot| self.bytes[Self::place(slot)]).fold(0, u64::saturating_add);
        let slots = slot - oldest.max(self.first.min(slot)) + 1;
        sum.saturating_mul(2) / slots.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_follows_the_last_three_seconds() {
        let mut meter = Meter::default();
        let at = |ms: u64| Instant::from_micros(10_000_000 + ms * 1000);
        for ms in (0..3000).step_by(100) {
            meter.add(at(ms), 1000);
        }
        assert_eq!(meter.rate(at(2999)), 10_000);
        assert!(meter.rate(at(4500)) < 6_000);
        assert_eq!(meter.rate(at(7000)), 0);
        meter.add(at(60_000), 500);
        assert_eq!(meter.rate(at(60_100)), 1000, "a rest before does not count");
    }
}
