//! Messages between nodes: the end-to-end sessions that protect them, and the managers that handle them.

pub mod manager;

pub use manager::{Context, Manager, Mesh, Outbound, Received};
