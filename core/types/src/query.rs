//! What a search asks for.

use serde::{Deserialize, Serialize};

use crate::{BoundedString, BoundedVec, FileKind};

/// Most words in one query.
pub const MAX_QUERY_WORDS: usize = 16;
/// Longest word of a query, in bytes of UTF-8.
pub const MAX_WORD_BYTES: usize = 128;

/// Whether every word has to match or one is enough (report 7.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SearchMode {
    /// All words must be found: AND.
    #[default]
    All,
    /// One word is enough: OR.
    Any,
}

/// A query without a word to look for (report, test 11.1.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the search is empty: give at least one word to look for")]
pub struct EmptyQuery;

/// A search by words in names, folders and tags, with filters. Words are substrings, in any case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    words: BoundedVec<BoundedString<MAX_WORD_BYTES>, MAX_QUERY_WORDS>,
    /// AND or OR.
    pub mode: SearchMode,
    /// Only files of this kind.
    pub kind: Option<FileKind>,
    /// Only files of at least that many bytes.
    pub min_size: Option<u64>,
    /// Only files of at most that many bytes.
    pub max_size: Option<u64>,
}

impl Query {
    /// A query for `words`, split at white space, cut to the limits, without filters.
    ///
    /// # Errors
    /// [`EmptyQuery`] if nothing is left.
    pub fn new<'a>(words: impl IntoIterator<Item = &'a str>, mode: SearchMode) -> Result<Self, EmptyQuery> {
        let words: Vec<_> = words
            .into_iter()
            .flat_map(str::split_whitespace)
            .map(BoundedString::truncated)
            .take(MAX_QUERY_WORDS)
            .collect();
        if words.is_empty() {
            return Err(EmptyQuery);
        }
        Ok(Self { words: BoundedVec::truncated(words), mode, kind: None, min_size: None, max_size: None })
    }

    /// The words, as given. A query from the wire may have none: such a one matches nothing.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().map(|word| &**word)
    }

    /// Whether a file of that kind and size passes the filters; words are the library's business.
    pub fn admits(&self, kind: FileKind, size: u64) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
            && self.min_size.is_none_or(|min| size >= min)
            && self.max_size.is_none_or(|max| size <= max)
    }
}
