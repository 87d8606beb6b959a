//! Making and checking slices.

use std::ops::Range;

use bbh_types::ContentId;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::tree::{Node, OutboardRead, PAIR_LEN, check_range, slice_len};

/// Why a slice is refused, or cannot exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SliceError {
    /// The bytes do not hash to what they should: they, or the claimed size, are not of this content.
    #[error("bytes {start} to {end} do not match their hash: take them from another source")]
    WrongHash {
        /// First byte below the node that does not match.
        start: u64,
        /// End of it, exclusive.
        end: u64,
    },
    /// The slice ends early.
    #[error("the slice has {got} bytes where {expected} are needed: ask for it again")]
    TooShort {
        /// Bytes a slice of this range has.
        expected: u64,
        /// Bytes given.
        got: u64,
    },
    /// The slice goes on after its end.
    #[error("the slice has {got} bytes where {expected} are needed: the surplus belongs to nothing")]
    TrailingBytes {
        /// Bytes a slice of this range has.
        expected: u64,
        /// Bytes given.
        got: u64,
    },
    /// The range reaches outside the file, or ends before it starts.
    #[error("bytes {start} to {end} are no range of a file of {size} bytes")]
    RangeOutsideFile {
        /// First byte asked for.
        start: u64,
        /// End, exclusive.
        end: u64,
        /// The file's size.
        size: u64,
    },
    /// The range does not start at a group, or ends neither at one nor at the end of the file.
    #[error("bytes {start} to {end} of {size} are not whole groups of 16384 bytes")]
    Misaligned {
        /// First byte asked for.
        start: u64,
        /// End, exclusive.
        end: u64,
        /// The file's size.
        size: u64,
    },
    /// Nothing is asked for, though the file is not empty.
    #[error("the range at byte {start} is empty: ask for at least one byte")]
    EmptyRange {
        /// Where.
        start: u64,
    },
}

/// Why no slice could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError<E> {
    /// No slice of such a range exists.
    #[error(transparent)]
    Range(SliceError),
    /// The bytes given are not those of the range.
    #[error("{got} bytes were given for a range of {expected}")]
    DataLength {
        /// Bytes of the range.
        expected: u64,
        /// Bytes given.
        got: u64,
    },
    /// The outboard could not be read.
    #[error("the hash tree could not be read: {0}")]
    Outboard(E),
}

/// Makes the slice for `range` of a file of `size` bytes out of the file's `outboard` and `data`, the bytes
/// of that range. `range` starts at a multiple of [`GROUP`](crate::GROUP) and ends at one or at the end of the file.
///
/// Nothing is hashed here: what is made from a file that has changed is refused by the reader. A sender
/// that wants to know first runs the result through [`verify_slice_borrowed`].
///
/// # Errors
/// [`EncodeError`].
pub fn encode_slice<O: OutboardRead>(
    size: u64,
    range: Range<u64>,
    outboard: O,
    data: &[u8],
) -> Result<Vec<u8>, EncodeError<O::Error>> {
    fn write<O: OutboardRead>(
        node: Node,
        size: u64,
        range: &Range<u64>,
        outboard: &O,
        data: &mut &[u8],
        slice: &mut Vec<u8>,
    ) -> Result<(), O::Error> {
        if !node.meets(size, range) {
            return Ok(());
        }
        if let Some((left, right)) = node.children() {
            slice.extend_from_slice(&outboard.pair(node.index())?);
            write(left, size, range, outboard, data, slice)?;
            return write(right, size, range, outboard, data, slice);
        }
        let (group, rest) = data.split_at(group_len(node, size));
        slice.extend_from_slice(group);
        *data = rest;
        Ok(())
    }

    let expected = range.end.saturating_sub(range.start);
    let length = slice_len(size, &range).map_err(EncodeError::Range)?;
    let got = data.len() as u64;
    if got != expected {
        return Err(EncodeError::DataLength { expected, got });
    }
    // The bytes are in memory already, and the parents add a 250th to them.
    let mut slice = Vec::with_capacity(usize::try_from(length).unwrap_or(data.len()));
    let mut rest = data;
    write(Node::root(size), size, &range, &outboard, &mut rest, &mut slice).map_err(EncodeError::Outboard)?;
    Ok(slice)
}

/// Checks a slice against a content id from the root down and gives the bytes of `range`.
///
/// `size` is a claim of whoever sent it: a wrong one is noticed at the latest by a slice with the last
/// group in it (see the [crate documentation](crate#what-a-slice-proves-about-the-size)).
///
/// # Errors
/// [`SliceError`]; not a byte is handed out then. Never panics, and allocates nothing before the length of
/// `slice` was found right.
pub fn verify_slice(content_id: &ContentId, size: u64, range: Range<u64>, slice: &[u8]) -> Result<Vec<u8>, SliceError> {
    verify_slice_borrowed(content_id, size, range, slice).map(|groups| groups.concat())
}

/// As [`verify_slice`], but gives the range as the groups within `slice`, in order, without copying them.
///
/// # Errors
/// As [`verify_slice`].
pub fn verify_slice_borrowed<'a>(
    content_id: &ContentId,
    size: u64,
    range: Range<u64>,
    slice: &'a [u8],
) -> Result<Vec<&'a [u8]>, SliceError> {
    check_range(size, &range)?;
    let (expected, got) = (slice_len(size, &range)?, slice.len() as u64);
    if got < expected {
        return Err(SliceError::TooShort { expected, got });
    }
    if got > expected {
        return Err(SliceError::TrailingBytes { expected, got });
    }
    let mut reader = Reader { size, range, rest: slice, groups: Vec::new() };
    reader.check(Node::root(size), Expected::Root(content_id))?;
    Ok(reader.groups)
}

/// What a node has to hash to.
enum Expected<'a> {
    Root(&'a ContentId),
    Inner(ChainingValue),
}

struct Reader<'a> {
    size: u64,
    range: Range<u64>,
    rest: &'a [u8],
    groups: Vec<&'a [u8]>,
}

impl<'a> Reader<'a> {
    fn check(&mut self, node: Node, expected: Expected<'_>) -> Result<(), SliceError> {
        if !node.meets(self.size, &self.range) {
            return Ok(());
        }
        let bytes = node.bytes(self.size);
        let Some((left_node, right_node)) = node.children() else {
            let group = self.take(group_len(node, self.size))?;
            let right = match expected {
                Expected::Root(id) => blake3::hash(group).as_bytes() == id.as_bytes(),
                Expected::Inner(value) => {
                    let mut hasher = blake3::Hasher::new();
                    hasher.set_input_offset(bytes.start);
                    hasher.update(group).finalize_non_root() == value
                }
            };
            if !right {
                return Err(SliceError::WrongHash { start: bytes.start, end: bytes.end });
            }
            self.groups.push(group);
            return Ok(());
        };
        let pair = self.take(PAIR_LEN as usize)?;
        let (mut left, mut right) = ([0; 32], [0; 32]);
        left.copy_from_slice(&pair[..32]);
        right.copy_from_slice(&pair[32..]);
        let matches = match expected {
            Expected::Root(id) => merge_subtrees_root(&left, &right, Mode::Hash).as_bytes() == id.as_bytes(),
            Expected::Inner(value) => merge_subtrees_non_root(&left, &right, Mode::Hash) == value,
        };
        if !matches {
            return Err(SliceError::WrongHash { start: bytes.start, end: bytes.end });
        }
        self.check(left_node, Expected::Inner(left))?;
        self.check(right_node, Expected::Inner(right))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], SliceError> {
        let Some((head, rest)) = self.rest.split_at_checked(length) else {
            return Err(SliceError::TooShort { expected: length as u64, got: self.rest.len() as u64 });
        };
        self.rest = rest;
        Ok(head)
    }
}

/// Bytes of a leaf.
fn group_len(node: Node, size: u64) -> usize {
    let bytes = node.bytes(size);
    usize::try_from(bytes.end - bytes.start).expect("at most a group")
}
