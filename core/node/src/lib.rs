//! The tokio shell around the protocol: sockets, timers, disk and radios.
//!
//! [`NodeHandle::start`] starts a node on a thread of its own, from a data folder and radios; everything else is
//! asked of the handle. Inside:
//! - the *shell* owns the sans-IO [`bbh_proto::Node`] and carries out what it wants;
//! - [`radio`]s carry the links: the simulated [`air`] and TCP, several at a time;
//! - *storage* keeps downloads on disk, the *library* serves the shared files, both on threads of their own;
//! - [`view`] is what the node tells about itself, in the words of the command line's JSON.
//!
//! The data folder holds `node/` (identity and store), `partial/` (unfinished downloads), `trees/` (hash trees of shared
//! files), all three private to the user, and `downloads/` unless another folder is set.

pub mod air;
mod answer;
mod error;
mod handle;
mod held;
pub mod radio;
mod settings;
mod shares;
mod shell;
mod storage;
pub mod view;

pub use bbh_library::Progress;
pub use error::{NodeError, StartError};
pub use handle::{AirOptions, NodeHandle, NodeOptions, SharedThing};
pub use shell::SearchStream;
pub use storage::disk::{Disk, SystemDisk};
