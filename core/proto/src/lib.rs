//! The protocol of Blue Brewery Horse as one sans-IO state machine.
//!
//! # The contract
//!
//! [`Node`] never reads a clock, a file, a socket or a random source of its own. Whoever drives it (the tokio
//! shell, the simulator, a test) does this, over and over:
//!
//! 1. **One mutation**: exactly one `handle_*(now, …)` with what has happened. `now` never goes back.
//! 2. **Drain**: call [`Node::poll_transmit`], [`Node::poll_effect`] and [`Node::poll_event`] until each returns
//!    `None`, and carry out what they say.
//! 3. **Wait** for the next thing to happen, at most until [`Node::poll_timeout`], then call
//!    [`Node::handle_timeout`].
//!
//! Effects are answered: every library and storage request by exactly one answer, in any order.
//!
//! # The rooms
//!
//! - [`link`]: one neighbour: Noise XX, frames, lanes, credit, heartbeat.
//! - [`routing`]: the tree of all nodes and the way through it.
//! - [`messaging`]: end-to-end sessions, and the dispatcher that hands messages to managers.
//! - [`files`]: searching, downloading, uploading.
//! - [`node`]: puts them together.

pub mod api;
pub mod files;
pub mod identity;
pub mod link;
pub mod messaging;
pub mod node;
pub mod routing;

pub use api::{Command, Effect, Event, LibraryAnswer, LibraryRequest, StorageAnswer, StorageRequest, Transmit};
pub use identity::Identity;
pub use node::{Node, NodeConfig};
