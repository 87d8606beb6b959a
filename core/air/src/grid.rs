//! Who is near: the plane cut into squares, so that a look around costs as much as there is to see.

use std::collections::BTreeMap;

use crate::air::RadioId;

/// Where a radio is and how far it reaches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spot {
    pub(crate) id: RadioId,
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) range: f64,
    /// Metres its beacons carry, if not as far as its links.
    pub(crate) voice: Option<f64>,
}

impl Spot {
    /// Whether the two hear each other.
    pub(crate) fn hears(&self, other: &Self) -> bool {
        self.is_within(other, self.range.min(other.range))
    }

    /// Whether the other's beacons reach this one.
    pub(crate) fn hears_beacons_of(&self, other: &Self) -> bool {
        match other.voice {
            Some(voice) => self.is_within(other, voice),
            None => self.hears(other),
        }
    }

    fn is_within(&self, other: &Self, range: f64) -> bool {
        let (dx, dy) = (self.x - other.x, self.y - other.y);
        dx * dx + dy * dy <= range * range
    }
}

/// All radios by square.
pub(crate) struct Grid {
    square: f64,
    squares: BTreeMap<(i64, i64), Vec<Spot>>,
    /// The farthest that anybody's beacons have ever carried beyond or short of his range; 0 if that never differed.
    loudest: f64,
}

impl Grid {
    /// An empty plane; `square` is the side of a square in metres, best the usual range.
    pub(crate) fn new(square: f64) -> Self {
        Self { square, squares: BTreeMap::new(), loudest: 0.0 }
    }

    fn index(&self, metres: f64) -> i64 {
        // Saturates, which keeps the order that the searches rely on.
        (metres / self.square).floor() as i64
    }

    pub(crate) fn insert(&mut self, spot: Spot) {
        let key = (self.index(spot.x), self.index(spot.y));
        self.squares.entry(key).or_default().push(spot);
        self.loudest = self.loudest.max(spot.voice.unwrap_or(0.0));
    }

    pub(crate) fn remove(&mut self, spot: &Spot) {
        let key = (self.index(spot.x), self.index(spot.y));
        if let Some(square) = self.squares.get_mut(&key) {
            square.retain(|s| s.id != spot.id);
            if square.is_empty() {
                self.squares.remove(&key);
            }
        }
    }

    /// Everyone with whom this radio can hold a link, itself left out, in an order that depends on nothing but the
    /// inputs.
    pub(crate) fn around(&self, spot: &Spot) -> Vec<RadioId> {
        self.near(spot, spot.range, |other| other.hears(spot))
    }

    /// Everyone who hears this radio's beacons.
    pub(crate) fn hearers(&self, spot: &Spot) -> Vec<RadioId> {
        self.near(spot, spot.voice.unwrap_or(spot.range), |other| other.hears_beacons_of(spot))
    }

    /// Everyone whose beacons this radio hears.
    pub(crate) fn heard_by(&self, spot: &Spot) -> Vec<RadioId> {
        self.near(spot, spot.range.max(self.loudest), |other| spot.hears_beacons_of(other))
    }

    /// Whether hearing beacons is mutual for all radios.
    pub(crate) fn is_mutual(&self) -> bool {
        self.loudest == 0.0
    }

    /// Everyone within `range` of the spot, itself left out, who is wanted.
    fn near(&self, spot: &Spot, range: f64, wanted: impl Fn(&Spot) -> bool) -> Vec<RadioId> {
        let (x0, x1) = (self.index(spot.x - range), self.index(spot.x + range));
        let (y0, y1) = (self.index(spot.y - range), self.index(spot.y + range));
        let mut found = Vec::new();
        let mut look = |square: &Vec<Spot>| {
            found.extend(square.iter().filter(|s| s.id != spot.id && wanted(s)).map(|s| s.id));
        };
        let columns = x1.saturating_sub(x0).unsigned_abs();
        if columns < self.squares.len() as u64 {
            for x in x0..=x1 {
                self.squares.range((x, y0)..=(x, y1)).for_each(|(_, square)| look(square));
            }
        } else {
            // A range so wide that it has more columns than there are squares with anyone in them.
            self.squares.values().for_each(look);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(id: u64, x: f64, y: f64, range: f64) -> Spot {
        Spot { id: RadioId(id), x, y, range, voice: None }
    }

    #[test]
    fn the_grid_finds_exactly_those_in_range_of_each_other() {
        let mut grid = Grid::new(10.0);
        let mut all = Vec::new();
        // A scatter with several ranges, far wider and far smaller than a square, on both sides of zero.
        for i in 0..400u64 {
            let (x, y) = ((i * 37 % 211) as f64 - 100.0, (i * 91 % 173) as f64 - 80.0);
            let range = [3.0, 10.0, 25.0, 5_000.0][(i % 4) as usize];
            all.push(spot(i, x, y, range));
            grid.insert(all[all.len() - 1]);
        }
        for a in &all {
            let mut found = grid.around(a);
            found.sort();
            let expected: Vec<_> = all.iter().filter(|b| b.id != a.id && a.hears(b)).map(|b| b.id).collect();
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_loud_radio_is_heard_by_those_it_does_not_hear() {
        let mut grid = Grid::new(10.0);
        let (loud, quiet) = (Spot { voice: Some(30.0), ..spot(1, 0.0, 0.0, 10.0) }, spot(2, 25.0, 0.0, 10.0));
        grid.insert(loud);
        grid.insert(quiet);
        assert_eq!((grid.hearers(&loud), grid.heard_by(&loud)), (vec![quiet.id], vec![]));
        assert_eq!((grid.hearers(&quiet), grid.heard_by(&quiet)), (vec![], vec![loud.id]));
        assert!(grid.around(&loud).is_empty(), "no link reaches so far");
        let whisper = Spot { voice: Some(1.0), ..spot(3, 5.0, 0.0, 10.0) };
        grid.insert(whisper);
        assert_eq!((grid.hearers(&whisper), grid.heard_by(&whisper)), (vec![], vec![loud.id]));
    }

    #[test]
    fn who_was_removed_is_not_found() {
        let mut grid = Grid::new(10.0);
        let (a, b) = (spot(1, 0.0, 0.0, 10.0), spot(2, 5.0, 5.0, 10.0));
        grid.insert(a);
        grid.insert(b);
        grid.remove(&b);
        assert!(grid.around(&a).is_empty());
    }

    #[test]
    fn the_edge_of_the_range_is_within_it() {
        assert!(spot(1, 0.0, 0.0, 10.0).hears(&spot(2, 6.0, 8.0, 10.0)));
        assert!(!spot(1, 0.0, 0.0, 10.0).hears(&spot(2, 6.0, 8.01, 10.0)));
        assert!(!spot(1, 0.0, 0.0, 10.0).hears(&spot(2, 6.0, 8.0, 9.0)));
    }
}
