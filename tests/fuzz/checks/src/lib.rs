//! What must hold for any bytes a stranger may send: one function per decoder, which panics if it does not.
//!
//! libFuzzer calls these functions through `tests/fuzz/fuzz_targets` (`scripts/fuzz`, nightly Rust); the ordinary
//! tests call them with everything in `tests/fuzz/corpus` (stable Rust). A new target is a function here, a line in
//! [`TARGETS`], a file in `fuzz_targets` with its `[[bin]]` in `tests/fuzz/Cargo.toml`, and a folder in `corpus`
//! with at least one file; the test `corpus` says which of these is missing.
//!
//! There is none for the control channel, whose parser is inside the program `bbh`: only who can read the user's
//! files gets past its first line.

mod air;
mod input;
mod link;
mod node;
mod scene;
mod session;
mod slice;
mod stream;
mod tags;
mod wire;

pub use air::air;
pub use link::link;
pub use node::node;
pub use session::session;
pub use slice::slice;
pub use stream::{fragment, frame};
pub use tags::tags;
pub use wire::{beacon, body, message, packet};

/// A function that panics if a decoder does what it must not.
pub type Check = fn(&[u8]);

/// All targets: the name of the corpus and of the fuzz target, and what it calls.
pub const TARGETS: &[(&str, Check)] = &[
    ("air", air),
    ("beacon", beacon),
    ("body", body),
    ("fragment", fragment),
    ("frame", frame),
    ("link", link),
    ("message", message),
    ("node", node),
    ("packet", packet),
    ("session", session),
    ("slice", slice),
    ("tags", tags),
];
