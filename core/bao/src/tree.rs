//! The shape of a tree: which nodes there are for a size, where they stand in an outboard, which of them a
//! range needs. No hashing here.

use std::ops::Range;

use crate::slice::SliceError;

/// Bytes of a chunk group, the unit of verification: 16 chunks of BLAKE3.
pub const GROUP: u64 = 16_384;

/// Bytes of one inner node: the hashes of its left and its right child.
pub const PAIR_LEN: u64 = 64;

/// An inner node: the chaining value of its left child, then that of its right child.
pub type Pair = [u8; PAIR_LEN as usize];

/// Where inner nodes come from: an [`Outboard`](crate::Outboard) in memory, or one kept elsewhere of which
/// only single nodes are fetched.
///
/// # Layout of an outboard
/// Inner nodes of [`PAIR_LEN`] bytes each in post-order (left subtree, right subtree, node), nothing else.
/// Node number `index` stands at byte `index * PAIR_LEN`; a file of `n` groups has `n - 1` nodes, the last
/// one being the root. A file that grows only appends to it and changes nodes at its end.
pub trait OutboardRead {
    /// Why a node could not be had.
    type Error;

    /// Node number `index`, counted from 0 in post-order.
    ///
    /// # Errors
    /// Whatever the source says; [`encode_slice`](crate::encode_slice) hands it on.
    fn pair(&self, index: u64) -> Result<Pair, Self::Error>;
}

impl<T: OutboardRead + ?Sized> OutboardRead for &T {
    type Error = T::Error;

    fn pair(&self, index: u64) -> Result<Pair, Self::Error> {
        (**self).pair(index)
    }
}

/// Bytes of the outboard of a file of `size` bytes: 0 for at most one group.
pub const fn outboard_len(size: u64) -> u64 {
    // At most 2^50 groups, so nothing here overflows.
    (group_count(size) - 1) * PAIR_LEN
}

/// Bytes of the slice of a file of `size` bytes for `range`.
///
/// # Errors
/// As [`verify_slice`](crate::verify_slice) for a range that cannot be: outside the file, empty, not
/// aligned to groups.
pub fn slice_len(size: u64, range: &Range<u64>) -> Result<u64, SliceError> {
    check_range(size, range)?;
    let parents = count_pairs(Node::root(size), size, range);
    // Only a size near 2^64, which no file has, could overflow.
    Ok((range.end - range.start).saturating_add(parents.saturating_mul(PAIR_LEN)))
}

/// The numbers of all nodes that the slice for `range` holds, in the slice's order: what has to be read
/// from an outboard that is not in memory, each at byte `number * PAIR_LEN`.
///
/// # Errors
/// As [`slice_len`].
pub fn needed_pairs(size: u64, range: &Range<u64>) -> Result<Vec<u64>, SliceError> {
    fn walk(node: Node, size: u64, range: &Range<u64>, numbers: &mut Vec<u64>) {
        if node.meets(size, range)
            && let Some((left, right)) = node.children()
        {
            numbers.push(node.index());
            walk(left, size, range, numbers);
            walk(right, size, range, numbers);
        }
    }
    check_range(size, range)?;
    let mut numbers = Vec::new();
    walk(Node::root(size), size, range, &mut numbers);
    Ok(numbers)
}

/// Groups of a file; the empty file has one, which is empty.
pub(crate) const fn group_count(size: u64) -> u64 {
    if size == 0 { 1 } else { size.div_ceil(GROUP) }
}

/// Says whether a slice of `range` can exist. An empty range is one only of the empty file.
pub(crate) fn check_range(size: u64, range: &Range<u64>) -> Result<(), SliceError> {
    let (start, end) = (range.start, range.end);
    if end > size || start > end {
        return Err(SliceError::RangeOutsideFile { start, end, size });
    }
    if !start.is_multiple_of(GROUP) || (!end.is_multiple_of(GROUP) && end != size) {
        return Err(SliceError::Misaligned { start, end, size });
    }
    if start == end && size != 0 {
        return Err(SliceError::EmptyRange { start });
    }
    Ok(())
}

/// A subtree: a run of groups, and where its inner nodes begin in the outboard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node {
    first_group: u64,
    groups: u64,
    first_index: u64,
}

impl Node {
    pub(crate) fn root(size: u64) -> Self {
        Self { first_group: 0, groups: group_count(size), first_index: 0 }
    }

    /// The two subtrees, or nothing for a single group. As in BLAKE3 the left one is the largest full
    /// tree that leaves at least something to the right.
    pub(crate) fn children(self) -> Option<(Self, Self)> {
        if self.groups < 2 {
            return None;
        }
        let left = 1 << (self.groups - 1).ilog2();
        Some((
            Self { groups: left, ..self },
            Self {
                first_group: self.first_group + left,
                groups: self.groups - left,
                first_index: self.first_index + left - 1,
            },
        ))
    }

    /// Number of this inner node in the outboard. Only for nodes with children.
    pub(crate) fn index(self) -> u64 {
        self.first_index + self.groups - 2
    }

    /// The bytes below this node.
    pub(crate) fn bytes(self, size: u64) -> Range<u64> {
        let end = (self.first_group + self.groups).saturating_mul(GROUP).min(size);
        self.first_group * GROUP..end
    }

    /// Whether `range`, which [`check_range`] has passed, needs anything of this subtree.
    pub(crate) fn meets(self, size: u64, range: &Range<u64>) -> bool {
        let bytes = self.bytes(size);
        size == 0 || (bytes.start < range.end && range.start < bytes.end)
    }
}

/// Inner nodes at and below `node` that a slice of `range` holds; logarithmic, so that a claimed size of
/// any magnitude costs nothing.
fn count_pairs(node: Node, size: u64, range: &Range<u64>) -> u64 {
    if !node.meets(size, range) {
        return 0;
    }
    let bytes = node.bytes(size);
    if range.start <= bytes.start && bytes.end <= range.end {
        return node.groups - 1;
    }
    match node.children() {
        Some((left, right)) => 1 + count_pairs(left, size, range) + count_pairs(right, size, range),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_inner_node_has_its_own_place_in_the_outboard() {
        for groups in 1..=70 {
            for size in [groups * GROUP, groups * GROUP - 1] {
                let mut numbers = needed_pairs(size, &(0..size)).unwrap();
                assert_eq!(numbers.len() as u64 * PAIR_LEN, outboard_len(size));
                numbers.sort_unstable();
                assert!(numbers.iter().copied().eq(0..groups - 1), "{size}: {numbers:?}");
            }
        }
    }

    #[test]
    fn slice_length_agrees_with_the_nodes_that_are_needed() {
        let size = 37 * GROUP + 5;
        for start in 0..38 {
            for end in start + 1..=38 {
                let range = start * GROUP..(end * GROUP).min(size);
                let nodes = needed_pairs(size, &range).unwrap().len() as u64;
                assert_eq!(slice_len(size, &range).unwrap(), range.end - range.start + nodes * PAIR_LEN);
            }
        }
    }

    #[test]
    fn huge_files_need_few_nodes_and_nothing_overflows() {
        let size = 100_000_000_000;
        let start = 3_000_000 * GROUP;
        let numbers = needed_pairs(size, &(start..start + 4 * GROUP)).unwrap();
        assert!(numbers.len() < 30, "{}", numbers.len());
        assert!(numbers.iter().all(|number| number * PAIR_LEN < outboard_len(size)));
        for size in [u64::MAX, u64::MAX - 1, 1 << 63, (1 << 63) + 1] {
            let last = (size - 1) / GROUP * GROUP;
            assert!(slice_len(size, &(last..size)).unwrap() <= GROUP + 50 * PAIR_LEN);
            assert!(slice_len(size, &(0..GROUP)).unwrap() <= GROUP + 50 * PAIR_LEN);
            assert!(slice_len(size, &(0..size)).is_ok());
        }
    }

    #[test]
    fn impossible_ranges_are_named() {
        let size = 3 * GROUP + 1;
        let too_far = 0..size + 1;
        assert!(matches!(slice_len(size, &too_far), Err(SliceError::RangeOutsideFile { .. })));
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = GROUP..0;
        assert!(matches!(slice_len(size, &reversed), Err(SliceError::RangeOutsideFile { .. })));
        assert!(matches!(slice_len(size, &(1..GROUP)), Err(SliceError::Misaligned { .. })));
        assert!(matches!(slice_len(size, &(0..GROUP + 1)), Err(SliceError::Misaligned { .. })));
        assert!(matches!(slice_len(size, &(GROUP..GROUP)), Err(SliceError::EmptyRange { .. })));
        assert_eq!(slice_len(size, &(3 * GROUP..size)), Ok(1 + 2 * PAIR_LEN));
        assert_eq!(slice_len(0, &(0..0)), Ok(0));
    }
}
