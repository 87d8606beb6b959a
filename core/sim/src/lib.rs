//! A deterministic world that runs the real protocol in virtual time.
//!
//! [`World`] puts nodes ([`bbh_proto::Node`], the same that phones run) into an [`bbh_air::Air`], hands events to and
//! fro in the order of their moments, and gives each node a library and a disk in memory. The same seed and the same
//! calls give the same run, to the byte. [`invariants`] says what must hold of every tree.

pub mod invariants;
mod memory;
mod world;

pub use memory::{Disk, SharedContent};
pub use world::{NodeIndex, Setup, World};
