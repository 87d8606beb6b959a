//! How much a source may send ahead.

use std::time::Duration;

use bbh_types::Instant;

/// Where it starts.
pub(super) const START: u64 = 512 * 1024;
/// As far as it grows.
pub(super) const MAX: u64 = 4 << 20;
/// As far as it shrinks: two pieces and their proofs.
pub(super) const MIN: u64 = 2 * 72 * 1024;
/// A window that passes faster than this is too small for the path.
const FAST: Duration = Duration::from_millis(250);

/// What a halved window regains in a round without congestion.
const RECOVERY: u64 = 64 * 1024;

/// The receiver's window: doubles when it passes fast, halves when a relay on the way is congested, and recovers
/// slowly to where it started.
#[derive(Debug)]
pub(super) struct Window {
    size: u64,
    /// When the present round began.
    since: Instant,
    /// Bytes received in it.
    passed: u64,
    /// Whether it has been halved in this round.
    halved: bool,
}

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        Self { size: START, since: now, passed: 0, halved: false }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Counts what was received.
    pub(super) fn on_data(&mut self, now: Instant, bytes: u64, congested: bool) {
        if congested && !self.halved {
            self.size = (self.size / 2).max(MIN);
            self.halved = true;
        }
        self.passed = self.passed.saturating_add(bytes);
        if self.passed >= self.size {
            if !self.halved && now.since(self.since) < FAST {
                self.size = (self.size * 2).min(MAX);
            } else if !self.halved && self.size < START {
                self.size = (self.size + RECOVERY).min(START);
            }
            (self.since, self.passed, self.halved) = (now, 0, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    #[test]
    fn a_fast_path_gets_a_large_window_and_a_slow_one_does_not() {
        let (mut fast, mut slow) = (Window::new(at(0)), Window::new(at(0)));
        for step in 0..1000 {
            fast.on_data(at(step), 65_536, false);
            slow.on_data(at(100 * step), 65_536, false);
        }
        assert_eq!(fast.size(), MAX);
        assert_eq!(slow.size(), START);
    }

    #[test]
    fn congestion_halves_once_a_round_and_never_below_two_pieces() {
        let mut window = Window::new(at(0));
        window.on_data(at(1), 65_536, true);
        window.on_data(at(2), 65_536, true);
        assert_eq!(window.size(), START / 2);
        for step in 0..100 {
            window.on_data(at(3 + step), 65_536, true);
        }
        assert_eq!(window.size(), MIN);
    }
}
