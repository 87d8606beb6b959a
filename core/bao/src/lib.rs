//! Verified streaming: BLAKE3 hash trees with 16 KiB chunk groups, sans-IO.
//!
//! A file is cut into groups of [`GROUP`] bytes. The hash of each group and of each pair of subtrees above
//! are nodes of the very tree that BLAKE3 itself builds, so its root is the plain BLAKE3 hash of the file:
//! the [`ContentId`](bbh_types::ContentId), as `b3sum` prints it.
//!
//! - The owner of a file runs it through [`Hasher`] once and keeps the [`Outboard`]: all inner nodes.
//! - From those and the bytes of a range [`encode_slice`] makes a slice: what a reader needs in order to
//!   check that range alone.
//! - The reader, who knows only the content id and the size that somebody claimed, calls [`verify_slice`]:
//!   it hands out the bytes, all of them proven, or nothing.
//!
//! A slice holds the parents (two hashes of 32 bytes each) above the range and the groups of the range in
//! pre-order, without a length in front. These are the bytes of the `bao-tree` crate's response for the same
//! range and a block size of 16 chunks.
//!
//! # What a slice proves about the size
//! The shape of the tree follows from the size, and the length of the last group does too. A verified slice
//! that contains the last group therefore proves the claimed size. Other slices do not: a wrong size may
//! leave their part of the tree as it is. Whoever is about to reserve space asks for the last group first.

mod hasher;
mod slice;
mod tree;

pub use hasher::{Hasher, Outboard, OutboardLengthError};
pub use slice::{EncodeError, SliceError, encode_slice, verify_slice, verify_slice_borrowed};
pub use tree::{GROUP, OutboardRead, PAIR_LEN, Pair, needed_pairs, outboard_len, slice_len};
