//! Identifiers and records that every part of Blue Brewery Horse shares.
//!
//! Nothing here does IO, reads a clock or draws a random number; the records are plain data.

mod bounded;
mod file;
mod ids;
mod query;
pub mod radio;
mod time;

pub use bounded::{BoundedBytes, BoundedString, BoundedVec, TooLong};
pub use file::{FileKind, FileRecord, MAX_NAME_BYTES, MAX_TAGS, Priority, Tags};
pub use ids::{ContentId, Md5Hash, NodeId, ParseIdError, TreeId};
pub use query::{EmptyQuery, MAX_QUERY_WORDS, MAX_WORD_BYTES, Query, SearchMode};
pub use time::Instant;

/// A set of byte ranges of one file, half open, coalesced and in order.
pub type ByteRanges = rangemap::RangeSet<u64>;
