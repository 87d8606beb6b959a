//! The tree of all nodes and the way through it: TSF and BTR of the report, with the fixes of design §6.
//!
//! - [`table`]: who is below this node, and over which child.
//! - [`tree`]: how a node gets into a tree, how trees merge, how they heal.
//! - [`broadcast`]: what keeps a message to all from coming twice.
//! - [`devices`]: asking the ancestors who else is there.

pub mod broadcast;
pub mod devices;
pub mod table;
pub mod tree;

pub use table::RoutingTable;
pub use tree::{TreeAction, TreeManager};
