//! Random draws that are the same on every platform: integers only.

use std::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

/// Attempts at one transmission after which it passes whatever was drawn, so that airtime stays bounded.
const MAX_ATTEMPTS: u64 = 500;

/// The model's source of randomness.
pub(crate) struct Chance {
    rng: ChaCha12Rng,
    loss: u64,
}

impl Chance {
    /// Draws from `seed`, with the probability of loss set.
    pub(crate) fn new(seed: u64, loss: f64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        // Exact: the product is below 2^64 for loss < 1, and a multiplication by a power of two does not round.
        let loss = (loss * 2f64.powi(64)) as u64;
        Self { rng: ChaCha12Rng::from_seed(bytes), loss }
    }

    /// Any number.
    pub(crate) fn token(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Whether a beacon or an attempt at a transmission is lost.
    pub(crate) fn lost(&mut self) -> bool {
        self.loss > 0 && self.rng.next_u64() < self.loss
    }

    /// How often a transmission must be sent until it arrives.
    pub(crate) fn attempts(&mut self) -> u64 {
        let mut attempts = 1;
        while attempts < MAX_ATTEMPTS && self.lost() {
            attempts += 1;
        }
        attempts
    }

    /// Nanoseconds drawn evenly from `from` (excluded) to `to` (included); `to` if there is nothing between.
    pub(crate) fn between(&mut self, from: Duration, to: Duration) -> u64 {
        let (from, to) = (nanos(from), nanos(to));
        let span = to.saturating_sub(from);
        if span == 0 {
            return to;
        }
        let drawn = (u128::from(self.rng.next_u64()) * u128::from(span)) >> 64;
        from + 1 + u64::try_from(drawn).unwrap_or(0)
    }
}

/// A duration as the model's clock counts it.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
