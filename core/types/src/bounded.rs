//! Collections whose length is bounded by their type, so that no decoder can be made to accept more.
//!
//! The bound is checked while an element is being read, before memory for it is taken: a hostile length
//! prefix costs its sender a packet and us nothing.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value that does not fit its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{length} exceeds the limit of {limit}")]
pub struct TooLong {
    /// What was offered: elements, or bytes for text.
    pub length: usize,
    /// What fits.
    pub limit: usize,
}

fn check(length: usize, limit: usize) -> Result<(), TooLong> {
    if length > limit { Err(TooLong { length, limit }) } else { Ok(()) }
}

/// A list of at most `MAX` elements.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoundedVec<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> BoundedVec<T, MAX> {
    /// Wraps `items`, or says by how much they are too many.
    pub fn new(items: Vec<T>) -> Result<Self, TooLong> {
        check(items.len(), MAX).map(|()| Self(items))
    }

    /// Keeps the first `MAX` of `items`.
    pub fn truncated(mut items: Vec<T>) -> Self {
        items.truncate(MAX);
        Self(items)
    }

    /// The list itself.
    pub fn into_inner(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Default for BoundedVec<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MAX: usize> Deref for BoundedVec<T, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: fmt::Debug, const MAX: usize> fmt::Debug for BoundedVec<T, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Serialize, const MAX: usize> Serialize for BoundedVec<T, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for item in &self.0 {
            seq.serialize_element(item)?;
        }
        seq.end()
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for BoundedVec<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
            type Value = BoundedVec<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let announced = seq.size_hint().unwrap_or(0);
                check(announced, MAX).map_err(A::Error::custom)?;
                // The announced number is not believed for memory: elements may be large.
                let mut items = Vec::with_capacity(announced.min(64));
                while let Some(item) = seq.next_element()? {
                    check(items.len() + 1, MAX).map_err(A::Error::custom)?;
                    items.push(item);
                }
                Ok(BoundedVec(items))
            }
        }

        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// At most `MAX` raw bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BoundedBytes<const MAX: usize>(Vec<u8>);

impl<const MAX: usize> BoundedBytes<MAX> {
    /// Wraps `bytes`, or says by how much they are too many.
    pub fn new(bytes: Vec<u8>) -> Result<Self, TooLong> {
        check(bytes.len(), MAX).map(|()| Self(bytes))
    }

    /// The bytes themselves.
    pub fn into_inner(self) -> Vec<u8> {
        self.0
    }
}

impl<const MAX: usize> Deref for BoundedBytes<MAX> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for BoundedBytes<MAX> {
    /// The length only: payloads have no business in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl<const MAX: usize> Serialize for BoundedBytes<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for BoundedBytes<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes<const MAX: usize>;

        impl<const MAX: usize> Visitor<'_> for Bytes<MAX> {
            type Value = BoundedBytes<MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} bytes")
            }

            // Borrowed from the packet, so the check comes before any copy.
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                check(bytes.len(), MAX).map_err(E::custom)?;
                Ok(BoundedBytes(bytes.to_vec()))
            }

            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Self::Value, E> {
                BoundedBytes::new(bytes).map_err(E::custom)
            }
        }

        deserializer.deserialize_bytes(Bytes::<MAX>)
    }
}

/// UTF-8 text of at most `MAX` bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BoundedString<const MAX: usize>(String);

impl<const MAX: usize> BoundedString<MAX> {
    /// Wraps `text`, or says by how much it is too long.
    pub fn new(text: impl Into<String>) -> Result<Self, TooLong> {
        let text = text.into();
        check(text.len(), MAX).map(|()| Self(text))
    }

    /// Cuts `text` to `MAX` bytes, at a character's boundary.
    pub fn truncated(text: &str) -> Self {
        Self(text[..text.floor_char_boundary(MAX.min(text.len()))].to_owned())
    }

    /// The text itself.
    pub fn into_inner(self) -> String {
        self.0
    }
}

impl<const MAX: usize> Deref for BoundedString<MAX> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Debug for BoundedString<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const MAX: usize> fmt::Display for BoundedString<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const MAX: usize> Serialize for BoundedString<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for BoundedString<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text<const MAX: usize>;

        impl<const MAX: usize> Visitor<'_> for Text<MAX> {
            type Value = BoundedString<MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "text of at most {MAX} bytes")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                BoundedString::new(text).map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text::<MAX>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_holds_for_exactly_its_length_and_no_more() {
        assert!(BoundedVec::<u8, 2>::new(vec![1, 2]).is_ok());
        assert_eq!(BoundedVec::<u8, 2>::new(vec![1, 2, 3]), Err(TooLong { length: 3, limit: 2 }));
        assert_eq!(BoundedVec::<u8, 2>::truncated(vec![1, 2, 3]).into_inner(), [1, 2]);
        assert!(BoundedBytes::<2>::new(vec![1, 2]).is_ok());
        assert_eq!(BoundedBytes::<2>::new(vec![1, 2, 3]), Err(TooLong { length: 3, limit: 2 }));
        assert!(BoundedString::<4>::new("äö").is_ok());
        assert_eq!(BoundedString::<4>::new("äöü"), Err(TooLong { length: 6, limit: 4 }));
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(&*BoundedString::<5>::truncated("äöü"), "äö");
        assert_eq!(&*BoundedString::<1>::truncated("ä"), "");
        assert_eq!(&*BoundedString::<6>::truncated("äöü"), "äöü");
    }
}
