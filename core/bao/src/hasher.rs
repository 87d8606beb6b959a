//! Building a tree out of a stream of bytes.

use std::convert::Infallible;

use bbh_types::ContentId;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::tree::{GROUP, OutboardRead, PAIR_LEN, Pair, outboard_len};

/// All inner nodes of a file's tree, in the layout that [`OutboardRead`] describes.
#[derive(Clone, PartialEq, Eq)]
pub struct Outboard {
    size: u64,
    pairs: Vec<u8>,
}

/// Stored nodes whose number does not belong to the file's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an outboard for {size} bytes has {expected} bytes, not {got}: hash the file again")]
pub struct OutboardLengthError {
    /// The file's size in bytes.
    pub size: u64,
    /// Bytes its outboard has.
    pub expected: u64,
    /// Bytes given.
    pub got: u64,
}

impl Outboard {
    /// Reads an outboard of a file of `size` bytes back. The hashes are not checked: slices made from
    /// wrong ones are refused by their readers.
    ///
    /// # Errors
    /// [`OutboardLengthError`] if `bytes` has another length than such an outboard.
    pub fn from_bytes(size: u64, bytes: &[u8]) -> Result<Self, OutboardLengthError> {
        let (expected, got) = (outboard_len(size), bytes.len() as u64);
        if got != expected {
            return Err(OutboardLengthError { size, expected, got });
        }
        Ok(Self { size, pairs: bytes.to_vec() })
    }

    /// The nodes in post-order, [`PAIR_LEN`] bytes each.
    pub fn to_bytes(&self) -> &[u8] {
        &self.pairs
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl std::fmt::Debug for Outboard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outboard({} bytes, {} nodes)", self.size, self.pairs.len() as u64 / PAIR_LEN)
    }
}

impl OutboardRead for Outboard {
    type Error = Infallible;

    /// # Panics
    /// If `index` is not below the number of nodes; [`encode_slice`](crate::encode_slice) for the
    /// outboard's own [`size`](Outboard::size) never asks for such a one.
    fn pair(&self, index: u64) -> Result<Pair, Infallible> {
        let start = usize::try_from(index * PAIR_LEN).expect("nodes in memory are numbered within usize");
        let mut pair = [0; PAIR_LEN as usize];
        pair.copy_from_slice(&self.pairs[start..start + PAIR_LEN as usize]);
        Ok(pair)
    }
}

/// Hashes a stream of bytes of unknown length into a content id and its outboard.
///
/// Memory: the outboard so far (64 bytes for each 16 KiB of input), unless [`Hasher::take_pairs`] moves it
/// elsewhere on the way; and about 4 KiB.
#[derive(Clone)]
pub struct Hasher {
    /// The group that is being filled. A full one waits here until another byte shows that it is not the
    /// last, because a file of one group has no tree.
    group: blake3::Hasher,
    /// Groups finished before `group`.
    finished: u64,
    /// Roots of the full subtrees to the left, largest first: one for each bit set in `finished`, once the
    /// merges that a new group triggers are done.
    stack: Vec<ChainingValue>,
    pairs: Vec<u8>,
    /// Bytes of nodes that have left by `take_pairs`.
    taken: u64,
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl Hasher {
    /// A hasher that has seen nothing.
    pub fn new() -> Self {
        Self { group: blake3::Hasher::new(), finished: 0, stack: Vec::new(), pairs: Vec::new(), taken: 0 }
    }

    /// Bytes seen so far.
    pub fn size(&self) -> u64 {
        self.finished * GROUP + self.group.count()
    }

    /// Takes in more of the file, in pieces of any length; multiples of [`GROUP`] are fastest.
    pub fn update(&mut self, mut input: &[u8]) {
        while !input.is_empty() {
            if self.group.count() == GROUP {
                self.finish_group();
            }
            let room = GROUP - self.group.count();
            let length = usize::try_from(room).expect("a group fits in memory").min(input.len());
            let (head, rest) = input.split_at(length);
            self.group.update(head);
            input = rest;
        }
    }

    /// The nodes that have become final since the last call, in the outboard's order: to be appended to
    /// what the earlier calls gave. For files whose outboard should not be held in memory.
    pub fn take_pairs(&mut self) -> Vec<u8> {
        self.taken += self.pairs.len() as u64;
        std::mem::take(&mut self.pairs)
    }

    /// The content id and the nodes that [`Hasher::take_pairs`] has not taken yet.
    pub fn finish(mut self) -> (ContentId, Vec<u8>) {
        if self.finished == 0 {
            return (content_id(self.group.finalize()), self.pairs);
        }
        self.merge_full_subtrees();
        let mut right = self.group.finalize_non_root();
        while self.stack.len() > 1 {
            let left = self.stack.pop().expect("it has two");
            right = self.merge(left, right);
        }
        let left = self.stack.pop().expect("a finished group stands on the stack until the root takes it");
        self.push_pair(&left, &right);
        (content_id(merge_subtrees_root(&left, &right, Mode::Hash)), self.pairs)
    }

    /// The content id, equal to `blake3::hash` of all input, and the outboard.
    ///
    /// # Panics
    /// If [`Hasher::take_pairs`] was used: the outboard would lack what was taken. Use [`Hasher::finish`].
    pub fn finalize(self) -> (ContentId, Outboard) {
        assert_eq!(self.taken, 0, "nodes were taken: finish() gives the rest");
        let size = self.size();
        let (id, pairs) = self.finish();
        (id, Outboard { size, pairs })
    }

    fn finish_group(&mut self) {
        self.merge_full_subtrees();
        self.stack.push(self.group.finalize_non_root());
        self.finished += 1;
        // `reset` would keep the old offset.
        self.group = blake3::Hasher::new();
        self.group.set_input_offset(self.finished * GROUP);
    }

    /// Joins equal subtrees on the stack. Put off until more input is certain: what looks like a full
    /// subtree may be the whole file, whose root is hashed differently.
    fn merge_full_subtrees(&mut self) {
        while self.stack.len() > self.finished.count_ones() as usize {
            let right = self.stack.pop().expect("longer than a count");
            let left = self.stack.pop().expect("a surplus subtree has a left neighbour of its size");
            let parent = self.merge(left, right);
            self.stack.push(parent);
        }
    }

    fn merge(&mut self, left: ChainingValue, right: ChainingValue) -> ChainingValue {
        self.push_pair(&left, &right);
        merge_subtrees_non_root(&left, &right, Mode::Hash)
    }

    fn push_pair(&mut self, left: &ChainingValue, right: &ChainingValue) {
        self.pairs.extend_from_slice(left);
        self.pairs.extend_from_slice(right);
    }
}

fn content_id(hash: blake3::Hash) -> ContentId {
    ContentId::from_bytes(*hash.as_bytes())
}
