//! Identifiers of nodes, contents and trees.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};

/// What `FromStr` says about a text that is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a {what}: {expected} are expected")]
pub struct ParseIdError {
    text: String,
    what: &'static str,
    expected: &'static str,
}

/// A node's identity: the first 16 bytes of a BLAKE3 hash of its long-term Ed25519 key (design §4).
///
/// Nobody can claim another's id, because every use is proven with that key. Written as 26 lower-case
/// base32 characters (RFC 4648 alphabet, no padding).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId([u8; 16]);

impl NodeId {
    /// Length in bytes.
    pub const LEN: usize = 16;
    const CONTEXT: &str = "Blue Brewery Horse 2026 node id of an Ed25519 public key";

    /// The id that belongs to an Ed25519 public key.
    pub fn of_key(public_key: &[u8; 32]) -> Self {
        let hash = blake3::derive_key(Self::CONTEXT, public_key);
        let mut id = [0; Self::LEN];
        id.copy_from_slice(&hash[..Self::LEN]);
        Self(id)
    }

    /// An id from its raw bytes, as read from the wire or a store.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

impl FromStr for NodeId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        BASE32_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 16]>::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| ParseIdError {
                text: text.chars().take(80).collect(),
                what: "node id",
                expected: "26 base32 characters",
            })
    }
}

/// A file's identity: the BLAKE3 hash of its bytes, as `b3sum` prints it (64 hexadecimal characters).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentId([u8; 32]);

impl ContentId {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// An id from the raw hash.
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The raw hash.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}

impl FromStr for ContentId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        HEXLOWER
            .decode(text.to_ascii_lowercase().as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .map(Self)
            .ok_or_else(|| ParseIdError {
                text: text.chars().take(80).collect(),
                what: "content id",
                expected: "64 hexadecimal characters",
            })
    }
}

/// A file's MD5 (RFC 1321), the 2005 program's file id. For looking up only: never trusted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Md5Hash(pub [u8; 16]);

impl fmt::Display for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Md5Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Md5Hash({self})")
    }
}

/// A tree's identity: random, drawn anew whenever a node becomes the root of a tree that did not exist
/// before, so that it says nothing about any node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TreeId(pub u64);

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TreeId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_being_written_and_read_in_either_case() {
        let node = NodeId::of_key(&[7; 32]);
        assert_eq!(node.to_string().len(), 26);
        assert_eq!(node.to_string().parse(), Ok(node));
        assert_eq!(node.to_string().to_uppercase().parse(), Ok(node));
        let content = ContentId::from_bytes(*blake3::hash(b"beer").as_bytes());
        assert_eq!(content.to_string().parse(), Ok(content));
    }

    #[test]
    fn what_is_no_id_is_refused_with_the_expected_form() {
        let error = "xyz".parse::<NodeId>().unwrap_err().to_string();
        assert!(error.contains("26 base32 characters"), "{error}");
        assert!("00".repeat(33).parse::<ContentId>().is_err());
    }
}
