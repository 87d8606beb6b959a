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

/// Decodes a record from exactly these bytes. Only what [`encode`] makes of the record is taken for it, so that
/// a record has one encoding.
///
/// # Errors
/// [`CodecError::TooLarge`] beyond `limit` bytes, [`CodecError::Malformed`] for anything that is not one
/// whole record in that encoding.
pub fn decode<'a, T: Deserialize<'a> + Serialize>(bytes: &'a [u8], limit: usize) -> Result<T, CodecError> {
    if bytes.len() > limit {
        return Err(CodecError::TooLarge { length: bytes.len(), limit });
    }
    let malformed = |error: bincode::Error| CodecError::Malformed(error.to_string());
    let record: T = options().with_limit(bytes.len() as u64).deserialize(bytes).map_err(malformed)?;
    // Integers are all that can be written in more than one way, and only the shortest one is right: if the
    // length is right, all of them are.
    let shortest = options().serialized_size(&record).map_err(malformed)?;
    if shortest != bytes.len() as u64 {
        return Err(CodecError::Malformed("an integer is not in its shortest form".into()));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_that_is_written_longer_than_needed_is_refused() {
        assert_eq!(decode::<u32>(&[250], 10), Ok(250));
        assert_eq!(decode::<u32>(&[251, 251, 0], 10), Ok(251));
        for longer in [&[251, 250, 0][..], &[252, 251, 0, 0, 0]] {
            assert!(matches!(decode::<u32>(longer, 10), Err(CodecError::Malformed(_))), "{longer:?}");
        }
    }

    #[test]
    fn what_is_too_long_or_goes_on_is_refused() {
        assert_eq!(decode::<u64>(&[0; 11], 10), Err(CodecError::TooLarge { length: 11, limit: 10 }));
        assert!(matches!(decode::<u8>(&[1, 2], 10), Err(CodecError::Malformed(_))));
        assert!(matches!(decode::<u64>(&[253, 1, 2], 10), Err(CodecError::Malformed(_))));
    }
}
