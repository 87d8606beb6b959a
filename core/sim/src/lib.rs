//! A deterministic world that runs the real protocol in virtual time.
//!
//! [`World`] puts nodes ([`bbh_proto::Node`], the same that phones run) into an [`bbh_air::Air`], hands events to and
//! fro in the order of their moments, and gives each node a library and a disk in memory. The same seed and the same
//! calls give the same run, to the byte. [`invariants`] says what must hold of every tree.
//!
//! [`run()`] takes a [`Scenario`] through a whole life: forming, rest or events, quiet; it measures, and fails where an
//! invariant does. [`report_rules`] forms trees by older rules, to compare with.

mod chance;
pub mod invariants;
mod memory;
mod metrics;
mod picture;
pub mod report_rules;
mod run;
mod scenario;
mod shape;
mod watch;
mod world;

pub use memory::{Disk, SharedContent};
pub use metrics::{Metric, Samples, Summary};
pub use picture::{Frame, svg};
pub use run::{Note, Options, Outcome, run};
pub use scenario::{Act, Plan, Scenario};
pub use shape::Shape;
pub use watch::Watch;
pub use world::{Cost, NodeIndex, Setup, World};
