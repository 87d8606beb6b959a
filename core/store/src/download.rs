//! Downloads as they are kept over restarts.

use std::path::PathBuf;

use bbh_types::{ByteRanges, ContentId};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::{Store, StoreError};

pub(crate) const DOWNLOADS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("downloads");

/// What the user wants of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoredIntent {
    /// On the list, not started.
    Queued,
    /// Get it.
    Active,
    /// Not now.
    Paused,
    /// It is here.
    Complete,
}

/// A download as it is kept. The content id is its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredDownload {
    /// Its name as told by a search, not yet made safe; empty if unknown.
    pub name: String,
    /// Its size in bytes, once proven.
    pub size: Option<u64>,
    /// Bytes whose hashes were right and that were durable before this record was.
    #[serde(with = "ranges")]
    pub verified: ByteRanges,
    /// What the user wants of it.
    pub intent: StoredIntent,
    /// Where the finished file is.
    pub path: Option<String>,
    /// The folder that the user wants it in; `None` for the one of the settings.
    #[serde(default)]
    pub to: Option<PathBuf>,
    /// Where the finished file is about to be moved: set just before, so that a crash in between is noticed.
    #[serde(default)]
    pub moving_to: Option<PathBuf>,
}

impl Store {
    /// All downloads.
    ///
    /// # Errors
    /// If the database can't be read. A record that makes no sense is left out, and told to the log.
    pub fn downloads(&self) -> Result<Vec<(ContentId, StoredDownload)>, StoreError> {
        let transaction = self.db.begin_read().map_err(StoreError::read)?;
        let table = transaction.open_table(DOWNLOADS).map_err(StoreError::read)?;
        let mut downloads = Vec::new();
        for entry in table.iter().map_err(StoreError::read)? {
            let (key, value) = entry.map_err(StoreError::read)?;
            let content = ContentId::from_bytes(*key.value());
            match serde_json::from_slice(value.value()) {
                Ok(download) => downloads.push((content, download)),
                Err(error) => tracing::error!(%content, %error, "a download's record can't be read and is left out"),
            }
        }
        Ok(downloads)
    }

    /// One download.
    ///
    /// # Errors
    /// If the database or the record can't be read.
    pub fn download(&self, content: ContentId) -> Result<Option<StoredDownload>, StoreError> {
        let transaction = self.db.begin_read().map_err(StoreError::read)?;
        let table = transaction.open_table(DOWNLOADS).map_err(StoreError::read)?;
        let value = table.get(content.as_bytes()).map_err(StoreError::read)?;
        value.map(|value| serde_json::from_slice(value.value())).transpose().map_err(value_error)
    }

    /// Changes a download's record, or makes one, and returns once that is durable.
    ///
    /// `change` gets what is stored now.
    ///
    /// # Errors
    /// If the database can't be written; then the record is as it was.
    pub fn update_download(
        &self,
        content: ContentId,
        change: impl FnOnce(Option<StoredDownload>) -> StoredDownload,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(DOWNLOADS).map_err(StoreError::write)?;
            let old = table.get(content.as_bytes()).map_err(StoreError::read)?;
            // A record that can't be read is replaced: there is nothing in it to keep.
            let old = old.and_then(|value| serde_json::from_slice(value.value()).ok());
            let new = serde_json::to_vec(&change(old)).map_err(value_error)?;
            table.insert(content.as_bytes(), new.as_slice()).map_err(StoreError::write)?;
            Ok(())
        })
    }

    /// Forgets a download, durably.
    ///
    /// # Errors
    /// If the database can't be written.
    pub fn remove_download(&self, content: ContentId) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(DOWNLOADS).map_err(StoreError::write)?;
            table.remove(content.as_bytes()).map_err(StoreError::write)?;
            Ok(())
        })
    }
}

fn value_error(source: serde_json::Error) -> StoreError {
    StoreError::Value { what: "download", source }
}

mod ranges {
    use bbh_types::ByteRanges;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(ranges: &ByteRanges, serializer: S) -> Result<S::Ok, S::Error> {
        let pairs: Vec<(u64, u64)> = ranges.iter().map(|range| (range.start, range.end)).collect();
        pairs.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteRanges, D::Error> {
        let pairs = Vec::<(u64, u64)>::deserialize(deserializer)?;
        if let Some((start, end)) = pairs.iter().find(|(start, end)| start >= end) {
            return Err(D::Error::custom(format_args!("{start} to {end} is no range of bytes")));
        }
        Ok(pairs.into_iter().map(|(start, end)| start..end).collect())
    }
}
