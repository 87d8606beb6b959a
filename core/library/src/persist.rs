//! What is remembered of shared files between two runs, and the trait behind which it is kept.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use bbh_types::{FileRecord, Priority};
use serde::{Deserialize, Serialize};

/// What tells that a file has not changed since it was hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Size in bytes.
    pub size: u64,
    /// Time of the last modification, in nanoseconds since 1970, as exactly as the file system keeps it.
    pub modified: i64,
    /// The file's number within its file system, where there is such a thing.
    pub inode: Option<u64>,
}

impl Stamp {
    /// The stamp that a file's metadata give.
    pub fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().map_or(0, |time| match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
        });
        #[cfg(unix)]
        let inode = Some(std::os::unix::fs::MetadataExt::ino(metadata));
        #[cfg(not(unix))]
        let inode = None;
        Self { size: metadata.len(), modified, inode }
    }
}

/// One shared file on this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEntry {
    /// Where it lies: absolute, with every symbolic link resolved. The key.
    #[serde(with = "path_as_bytes")]
    pub path: PathBuf,
    /// The shared file or folder that it is shared by, one of [`Shares::roots`].
    #[serde(with = "path_as_bytes")]
    pub root: PathBuf,
    /// What others get to know of it.
    pub record: FileRecord,
    /// The file's state when it was hashed.
    pub stamp: Stamp,
    /// Preference in the upload queue.
    pub priority: Priority,
    /// The file was found to differ from what was hashed: not offered until the next rescan.
    pub stale: bool,
}

/// What the user has shared.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Shares {
    /// Files and folders, resolved, as given.
    #[serde(with = "paths_as_bytes")]
    pub roots: Vec<PathBuf>,
    /// Files and folders below them that were taken out again.
    #[serde(with = "paths_as_bytes")]
    pub excluded: Vec<PathBuf>,
}

/// Why a store failed, in its own words.
pub type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// Keeps the index between runs. Each call is complete and durable when it returns, or has no effect.
///
/// All records are serde records that need no self-describing format. [`path_to_bytes`] makes keys.
pub trait IndexStore: Send + Sync {
    /// All entries, in any order.
    ///
    /// # Errors
    /// If they cannot be read.
    fn load(&self) -> Result<Vec<StoredEntry>, StoreError>;

    /// Adds entries, each in the place of the one with the same path.
    ///
    /// # Errors
    /// If they cannot be kept.
    fn put(&self, entries: &[StoredEntry]) -> Result<(), StoreError>;

    /// Forgets the entries with these paths; unknown paths are no error.
    ///
    /// # Errors
    /// If that cannot be kept.
    fn remove(&self, paths: &[PathBuf]) -> Result<(), StoreError>;

    /// What is shared; nothing in a new store.
    ///
    /// # Errors
    /// If it cannot be read.
    fn load_shares(&self) -> Result<Shares, StoreError>;

    /// Replaces what is shared.
    ///
    /// # Errors
    /// If it cannot be kept.
    fn put_shares(&self, shares: &Shares) -> Result<(), StoreError>;
}

impl<T: IndexStore + ?Sized> IndexStore for std::sync::Arc<T> {
    fn load(&self) -> Result<Vec<StoredEntry>, StoreError> {
        (**self).load()
    }

    fn put(&self, entries: &[StoredEntry]) -> Result<(), StoreError> {
        (**self).put(entries)
    }

    fn remove(&self, paths: &[PathBuf]) -> Result<(), StoreError> {
        (**self).remove(paths)
    }

    fn load_shares(&self) -> Result<Shares, StoreError> {
        (**self).load_shares()
    }

    fn put_shares(&self, shares: &Shares) -> Result<(), StoreError> {
        (**self).put_shares(shares)
    }
}

/// An [`IndexStore`] that lives as long as the process: for tests and for nodes that shall leave no trace.
#[derive(Debug, Default)]
pub struct MemoryStore {
    kept: Mutex<(BTreeMap<PathBuf, StoredEntry>, Shares)>,
}

impl IndexStore for MemoryStore {
    fn load(&self) -> Result<Vec<StoredEntry>, StoreError> {
        Ok(self.lock().0.values().cloned().collect())
    }

    fn put(&self, entries: &[StoredEntry]) -> Result<(), StoreError> {
        self.lock().0.extend(entries.iter().map(|entry| (entry.path.clone(), entry.clone())));
        Ok(())
    }

    fn remove(&self, paths: &[PathBuf]) -> Result<(), StoreError> {
        let mut kept = self.lock();
        for path in paths {
            kept.0.remove(path);
        }
        Ok(())
    }

    fn load_shares(&self) -> Result<Shares, StoreError> {
        Ok(self.lock().1.clone())
    }

    fn put_shares(&self, shares: &Shares) -> Result<(), StoreError> {
        self.lock().1 = shares.clone();
        Ok(())
    }
}

impl MemoryStore {
    fn lock(&self) -> std::sync::MutexGuard<'_, (BTreeMap<PathBuf, StoredEntry>, Shares)> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A path as bytes without loss, names that are not UTF-8 included: the bytes themselves on Unix, UTF-16
/// in little-endian order on Windows. Only the system that wrote them can read them back.
pub fn path_to_bytes(path: &Path) -> Vec<u8> {
    #[cfg(unix)]
    return std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec();
    #[cfg(windows)]
    return std::os::windows::ffi::OsStrExt::encode_wide(path.as_os_str()).flat_map(u16::to_le_bytes).collect();
    #[cfg(not(any(unix, windows)))]
    return path.to_string_lossy().into_owned().into_bytes();
}

/// The reverse of [`path_to_bytes`].
pub fn path_from_bytes(bytes: &[u8]) -> PathBuf {
    #[cfg(unix)]
    return PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes));
    #[cfg(windows)]
    {
        let wide: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        return PathBuf::from(<std::ffi::OsString as std::os::windows::ffi::OsStringExt>::from_wide(&wide));
    }
    #[cfg(not(any(unix, windows)))]
    return PathBuf::from(String::from_utf8_lossy(bytes).into_owned());
}

mod path_as_bytes {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        super::path_to_bytes(path).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Vec::<u8>::deserialize(deserializer).map(|bytes| super::path_from_bytes(&bytes))
    }
}

mod paths_as_bytes {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| super::path_to_bytes(path)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        let paths = Vec::<Vec<u8>>::deserialize(deserializer)?;
        Ok(paths.iter().map(|bytes| super::path_from_bytes(bytes)).collect())
    }
}
