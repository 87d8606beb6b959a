//! Where nodes stand at first, in metres.

use rand_chacha::ChaCha12Rng;

use crate::chance::unit;

type Spot = (f64, f64);

/// Nobody is placed farther than this from somebody else, where all are to be connected: the range of 10 m, less a
/// little.
const REACH: f64 = 9.0;

/// Anywhere in a rectangle.
pub(super) fn scattered(rng: &mut ChaCha12Rng, nodes: usize, width: f64, height: f64) -> Vec<Spot> {
    (0..nodes).map(|_| (unit(rng) * width, unit(rng) * height)).collect()
}

/// In a rectangle, everyone in reach of somebody who was there before.
pub(super) fn connected(rng: &mut ChaCha12Rng, nodes: usize, width: f64, height: f64) -> Vec<Spot> {
    let mut spots: Vec<Spot> = Vec::with_capacity(nodes);
    while spots.len() < nodes {
        let (x, y) = (unit(rng) * width, unit(rng) * height);
        let near = |&(a, b): &Spot| (x - a) * (x - a) + (y - b) * (y - b) <= REACH * REACH;
        if spots.is_empty() || spots.iter().any(near) {
            spots.push((x, y));
        }
    }
    spots
}

/// One after the other, every 8 m.
pub(super) fn row(nodes: usize) -> Vec<Spot> {
    (0..nodes).map(|n| (8.0 * n as f64, 0.0)).collect()
}

/// Rows and columns, every 7 m.
pub(super) fn grid(nodes: usize) -> Vec<Spot> {
    let columns = nodes.isqrt().max(1);
    (0..nodes).map(|n| (7.0 * (n % columns) as f64, 7.0 * (n / columns) as f64)).collect()
}

/// Seats every 4 m, each up to 1 m off its place, around a field of a quarter of the area.
pub(super) fn stadium(rng: &mut ChaCha12Rng, nodes: usize) -> Vec<Spot> {
    let mut side = (nodes * 4 / 3).isqrt().max(1);
    loop {
        let stand = |n: usize| n < side / 4 || n >= side - side / 4;
        let seats = (0..side * side).map(|n| (n % side, n / side)).filter(|&(x, y)| stand(x) || stand(y));
        let seats: Vec<(usize, usize)> = seats.collect();
        if seats.len() >= nodes {
            let mut off = |n: usize| 4.0 * n as f64 + 2.0 * unit(rng) - 1.0;
            return seats.into_iter().take(nodes).map(|(x, y)| (off(x), off(y))).collect();
        }
        side += 1;
    }
}
