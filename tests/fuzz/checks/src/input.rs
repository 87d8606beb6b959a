//! How the targets that take a sequence of steps read it.

use std::sync::OnceLock;

use bbh_proto::Identity;

/// What is left of an input. Where it ends, zeros follow.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let bytes = self.bytes(N);
        let mut array = [0; N];
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    pub fn u8(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// So many bytes, or what is left.
    pub fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// `length u16`, bytes.
    pub fn string(&mut self) -> &'a [u8] {
        let length = self.u16();
        self.bytes(length.into())
    }
}

/// Some nodes, always the same.
pub fn identity(number: u8) -> &'static Identity {
    static ALL: OnceLock<Vec<Identity>> = OnceLock::new();
    &ALL.get_or_init(|| (0..8).map(|number| Identity::from_seed([number; 32])).collect())[usize::from(number)]
}
