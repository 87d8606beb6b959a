//! The wire: frames on a link, packets between nodes, messages inside packets, and the beacon.
//!
//! From the outside in (docs/protocol.md gives it byte by byte):
//! [`frame`] cuts a link's byte stream; a frame's decrypted body is a [`frame::Body`], mostly a [`Packet`];
//! a packet's opened payload is a whole message or one [`fragment`] of it; a message is a [`Message`].
//!
//! Every decoder here takes bytes of a stranger: it checks limits before it takes memory, never panics,
//! and knows what to skip.

pub mod beacon;
pub mod codec;
pub mod fragment;
pub mod frame;
pub mod message;
pub mod packet;

pub use beacon::{Beacon, Role};
pub use codec::CodecError;
pub use message::Message;
pub use packet::{Destination, Lane, Packet, PacketError, Protection};

/// The oldest protocol version this program speaks.
pub const MIN_VERSION: u8 = 1;
/// The newest protocol version this program speaks.
pub const MAX_VERSION: u8 = 1;
/// Largest message in bytes, before fragmentation.
pub const MAX_MESSAGE: usize = 96 * 1024;
