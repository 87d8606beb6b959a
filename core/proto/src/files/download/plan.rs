//! Which ranges to order next.

use std::ops::Range;

use bbh_bao::GROUP;
use bbh_types::ByteRanges;
use bbh_wire::message::MAX_RANGES;

/// File bytes in one order at most, so that what a source takes away when it leaves stays small.
pub(super) const MAX_ORDER: u64 = 64 << 20;

/// The last chunk group of a file: the one whose proof proves the size.
pub(super) fn last_group(size: u64) -> (u64, u64) {
    (size.saturating_sub(1) / GROUP * GROUP, size)
}

/// What is missing in a file of `size` bytes, in the order in which it is to be sent: first the last group if the
/// size is yet to be `prove`n, then what is in neither of the two sets, from the front.
///
/// Empty only if nothing is missing. Both sets hold whole groups.
pub(super) fn missing(size: u64, prove: bool, verified: &ByteRanges, ordered: &ByteRanges) -> Vec<(u64, u64)> {
    let last = last_group(size);
    if size == 0 {
        return if prove { vec![last] } else { Vec::new() };
    }
    let mut taken = ordered.clone();
    let mut ranges = Vec::new();
    if prove {
        ranges.push(last);
        taken.insert(last.0..last.1);
    }
    let mut left = MAX_ORDER;
    for gap in verified.gaps(&(0..size)) {
        for part in taken.gaps(&gap) {
            if left == 0 || ranges.len() >= MAX_RANGES {
                return ranges;
            }
            let Range { start, end } = part;
            let end = end.min(start.saturating_add(left));
            left -= end - start;
            ranges.push((start, end));
        }
    }
    ranges
}

/// Ranges as they come out of a store: cut to whole groups inside a file of `size` bytes.
pub(super) fn whole_groups(ranges: &ByteRanges, size: u64) -> ByteRanges {
    let mut whole = ByteRanges::new();
    for range in ranges.iter() {
        let start = range.start.div_ceil(GROUP).saturating_mul(GROUP);
        let end = if range.end >= size { size } else { range.end / GROUP * GROUP };
        if start < end {
            whole.insert(start..end);
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u64, u64)]) -> ByteRanges {
        ranges.iter().map(|&(start, end)| start * GROUP..end * GROUP).collect()
    }

    #[test]
    fn the_last_group_comes_first_until_the_size_is_proven() {
        let size = 10 * GROUP + 3;
        let none = ByteRanges::new();
        assert_eq!(missing(size, true, &none, &none), [(10 * GROUP, size), (0, 10 * GROUP)]);
        assert_eq!(missing(size, false, &none, &none), [(0, size)]);
        assert_eq!(missing(GROUP, true, &none, &none), [(0, GROUP)]);
        assert_eq!(missing(0, true, &none, &none), [(0, 0)]);
        assert_eq!(missing(0, false, &none, &none), []);
    }

    #[test]
    fn only_gaps_are_ordered_and_no_part_twice() {
        let size = 10 * GROUP;
        let verified = set(&[(1, 3), (9, 10)]);
        assert_eq!(
            missing(size, false, &verified, &set(&[(4, 5)])),
            [(0, GROUP), (3 * GROUP, 4 * GROUP), (5 * GROUP, 9 * GROUP)]
        );
        assert_eq!(missing(size, false, &set(&[(0, 10)]), &ByteRanges::new()), []);
    }

    #[test]
    fn orders_are_bounded_for_any_size_and_any_pattern_of_holes() {
        let none = ByteRanges::new();
        let huge = missing(u64::MAX, true, &none, &none);
        assert_eq!(huge[1], (0, MAX_ORDER));
        let comb: ByteRanges = (0..1000).map(|group| 2 * group * GROUP..(2 * group + 1) * GROUP).collect();
        assert_eq!(missing(2000 * GROUP, false, &comb, &none).len(), MAX_RANGES);
    }

    #[test]
    fn stored_ranges_that_are_no_whole_groups_shrink() {
        let size = 5 * GROUP + 9;
        let stored: ByteRanges = [1..3 * GROUP + 1, 4 * GROUP..size + 7].into_iter().collect();
        let whole: ByteRanges = [GROUP..3 * GROUP, 4 * GROUP..size].into_iter().collect();
        assert_eq!(whole_groups(&stored, size), whole);
        assert!(whole_groups(&stored, 0).is_empty());
        let odd: ByteRanges = std::iter::once(u64::MAX - 5..u64::MAX).collect();
        assert!(whole_groups(&odd, size).is_empty());
    }
}
