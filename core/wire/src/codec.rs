//! The one place where records become bytes and bytes records: bincode 1.3.3 with fixed options (ADR 0003).
//!
//! Integers are variable-length little-endian, bytes after the record's end are an error, and nothing is read
//! beyond the slice that was given, so that a length prefix can never ask for more memory than arrived.

use bincode::Options;
use serde::{Deserialize, Serialize};

/// Bytes that are no valid record, or a record too large to send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes do not decode as what they claim to be.
    #[error("malformed record: {0}")]
    Malformed(String),
    /// More bytes than this record may have.
    #[error("record of {length} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// What was offered.
        length: usize,
        /// What is allowed.
        limit: usize,
    },
}

fn options() -> impl Options {
    bincode::DefaultOptions::new().with_varint_encoding().with_little_endian().reject_trailing_bytes()
}

/// Encodes a record.
pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    options().serialize(record).expect("records have known lengths and no I/O is involved")
}

/// Decodes a record from exactly these bytes.
///
/// # Errors
/// [`CodecError::TooLarge`] beyond `limit` bytes, [`CodecError::Malformed`] for anything that is not one
/// whole record.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8], limit: usize) -> Result<T, CodecError> {
    if bytes.len() > limit {
        return Err(CodecError::TooLarge { length: bytes.len(), limit });
    }
    options()
        .with_limit(bytes.len() as u64)
        .deserialize(bytes)
        .map_err(|error| CodecError::Malformed(error.to_string()))
}
