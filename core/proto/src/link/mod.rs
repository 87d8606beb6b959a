//! One neighbour: the Noise channel to it, its frames, its queues and its heartbeat.
//!
//! [`Link`] is the whole; the rest are its parts: the [`handshake`] that proves who is there, the [`cipher`], the
//! [`outbox`] that decides what goes next, and the [`credit`] given to the neighbour.

pub mod cipher;
pub mod credit;
pub mod handshake;
#[allow(clippy::module_inception)]
mod link;
pub mod outbox;

pub use bbh_wire::frame::{CloseReason, Flow};
pub use handshake::HandshakeError;
pub use link::{
    CLOSE_TIMEOUT, HANDSHAKE_TIMEOUT, HEARTBEAT_PERIOD, LINK_TIMEOUT, Link, LinkCounters, LinkError, LinkInput,
};
pub use outbox::EnqueueError;
