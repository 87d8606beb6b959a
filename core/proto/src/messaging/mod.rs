//! Messages between nodes: the end-to-end sessions that protect them, and the managers that handle them.

pub mod dispatcher;
pub mod manager;
pub mod ping;
pub mod session;

pub use dispatcher::Dispatcher;
pub use manager::{Context, Manager, Mesh, Outbound, Received};
