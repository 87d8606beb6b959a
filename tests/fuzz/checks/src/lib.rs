//! What must hold for any bytes a stranger may send: one function per decoder, which panics if it does not.
//!
//! libFuzzer calls these functions through `tests/fuzz/fuzz_targets` (`scripts/fuzz`, nightly Rust); the ordinary
//! tests call them with everything in `tests/fuzz/corpus` (stable Rust). A new target is a function here, a line in
//! [`TARGETS`], a file in `fuzz_targets` with its `[[bin]]` in `tests/fuzz/Cargo.toml`, and a folder in `corpus`
//! with at least one file; the test `corpus` says which of these is missing.

mod slice;
mod stream;
mod wire;

pub use slice::slice;
pub use stream::{fragment, frame};
pub use wire::{beacon, body, message, packet};

/// A function that panics if a decoder does what it must not.
pub type Check = fn(&[u8]);

/// All targets: the name of the corpus and of the fuzz target, and what it calls.
pub const TARGETS: &[(&str, Check)] = &[
    ("beacon", beacon),
    ("body", body),
    ("fragment", fragment),
    ("frame", frame),
    ("message", message),
    ("packet", packet),
    ("slice", slice),
];
