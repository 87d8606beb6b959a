//! Random draws that are the same on every platform.

use rand_chacha::ChaCha12Rng;
use rand_core::Rng;

/// A number from 0 to `n` - 1, evenly; 0 if `n` is 0.
pub(crate) fn below(rng: &mut ChaCha12Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// A number from 0 (included) to 1 (excluded), evenly.
pub(crate) fn unit(rng: &mut ChaCha12Rng) -> f64 {
    // 53 bits, so that the division is exact.
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Whether something of this probability happens.
pub(crate) fn happens(rng: &mut ChaCha12Rng, probability: f64) -> bool {
    unit(rng) < probability
}
