//! The node: puts links, routing, sessions and managers together.

/// The node.
pub struct Node;
/// What a node starts with.
pub struct NodeConfig;
