//! Persistence: who this node is, its settings, the index of shared files and the state of downloads.
//!
//! A data folder holds
//! - `identity.key`: the 32 bytes from which all of the node's keys follow, in a file of its own, so that no
//!   damage to the database can cost the identity;
//! - `store.redb`: everything else, with a copy of the identity.
//!
//! Both are readable by their owner only. Every write is a durable transaction: when a call returns, its change
//! survives a power cut, and before it returns a crash leaves the old state.

mod download;
mod error;
mod files;
mod index;

use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

pub use download::{StoredDownload, StoredIntent};
pub use error::{Notice, StoreError};

/// The layout of the tables that this program writes.
const SCHEMA: u32 = 1;
/// Phones have little memory, and what is hot is held by the node itself.
const CACHE_BYTES: usize = 2 * 1024 * 1024;
const DATABASE_FILE: &str = "store.redb";
const IDENTITY_FILE: &str = "identity.key";
/// 2026-01-01T00:00:00Z, the origin of the boot counter's floor.
const EPOCH_2026: u64 = 1_767_225_600;

const META: TableDefinition<'_, &str, u32> = TableDefinition::new("meta");
const IDENTITY: TableDefinition<'_, (), &[u8; 32]> = TableDefinition::new("identity");
const SETTINGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("settings");

/// An open data folder. One process has it open at a time; within the process it may be shared by threads.
#[derive(Debug)]
pub struct Store {
    db: Database,
    seed: Zeroizing<[u8; 32]>,
}

/// A data folder just opened.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// What was put right on the way.
    pub notices: Vec<Notice>,
}

impl Store {
    /// Opens a data folder, and makes it if need be, with a new identity.
    ///
    /// # Errors
    /// See [`StoreError`]. A damaged database is none of them: it is kept aside and told by a [`Notice`].
    pub fn open(folder: &Path) -> Result<Opened, StoreError> {
        let identity = folder.join(IDENTITY_FILE);
        files::private_folder(folder, identity.exists())?;
        let path = folder.join(DATABASE_FILE);
        let mut notices = Vec::new();
        let db = match open_database(&path) {
            Ok(db) => db,
            Err(OpenFailure::Refused(error)) => return Err(error),
            Err(OpenFailure::Damaged(reason)) => {
                let kept_as = keep_aside(&path)?;
                tracing::error!(kept_as = %kept_as.display(), reason, "the store was damaged; a new one is begun");
                notices.push(Notice::DatabaseDamaged { kept_as, reason });
                open_database(&path).map_err(|failure| match failure {
                    OpenFailure::Refused(error) => error,
                    OpenFailure::Damaged(reason) => {
                        StoreError::io("create", &path)(std::io::Error::new(std::io::ErrorKind::InvalidData, reason))
                    }
                })?
            }
        };
        let seed = settle_identity(&db, &identity, &mut notices)?;
        Ok(Opened { store: Self { db, seed }, notices })
    }

    /// A store in memory with a random identity, for tests: it is gone when dropped.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn in_memory() -> Result<Self, StoreError> {
        let db = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(InMemoryBackend::new())
            .map_err(StoreError::write)?;
        prepare(&db, Path::new("(memory)"))?;
        Ok(Self { db, seed: new_seed()? })
    }

    /// The seed of the node's identity.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// Counts a start of the node and returns its number, greater than all before.
    ///
    /// The clock gives a floor (seconds since 2026), so that the number grows even after the database was lost;
    /// the stored number makes it grow when the clock was set back.
    ///
    /// # Errors
    /// If the database can't be written.
    pub fn next_boot(&self) -> Result<u32, StoreError> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // A clock that is off by decades must not use up the numbers.
        let floor = u32::try_from(seconds.saturating_sub(EPOCH_2026)).unwrap_or(u32::MAX).min(u32::MAX / 2);
        self.write(|transaction| {
            let mut table = transaction.open_table(META).map_err(StoreError::write)?;
            let last = table.get("boot").map_err(StoreError::read)?.map_or(0, |boot| boot.value());
            let boot = last.saturating_add(1).max(floor);
            table.insert("boot", boot).map_err(StoreError::write)?;
            Ok(boot)
        })
    }

    /// A setting, if it was ever set.
    ///
    /// # Errors
    /// If the database or the value can't be read.
    pub fn setting<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoreError> {
        let transaction = self.db.begin_read().map_err(StoreError::read)?;
        let table = transaction.open_table(SETTINGS).map_err(StoreError::read)?;
        let value = table.get(key).map_err(StoreError::read)?;
        value
            .map(|value| serde_json::from_slice(value.value()))
            .transpose()
            .map_err(|source| StoreError::Value { what: "setting", source })
    }

    /// Sets a setting, durably.
    ///
    /// # Errors
    /// If the database can't be written; then the old value stands.
    pub fn set_setting<T: Serialize>(&self, key: &str, value: &T) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec(value).map_err(|source| StoreError::Value { what: "setting", source })?;
        self.write(|transaction| {
            let mut table = transaction.open_table(SETTINGS).map_err(StoreError::write)?;
            table.insert(key, bytes.as_slice()).map_err(StoreError::write)?;
            Ok(())
        })
    }

    /// Runs `change` in a transaction and makes it durable, all of it or nothing.
    fn write<T>(&self, change: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let transaction = self.db.begin_write().map_err(StoreError::write)?;
        let result = change(&transaction)?;
        transaction.commit().map_err(StoreError::write)?;
        Ok(result)
    }
}

enum OpenFailure {
    /// The user has to do something.
    Refused(StoreError),
    /// The file makes no sense.
    Damaged(String),
}

fn open_database(path: &Path) -> Result<Database, OpenFailure> {
    let refused = |doing| {
        let path = path.to_owned();
        move |source| OpenFailure::Refused(StoreError::Io { doing, path, source })
    };
    let file = files::private_options().open(path).map_err(refused("open"))?;
    files::make_private(&file).map_err(refused("make private"))?;
    // The check reads the whole file, a few dozen megabytes at most; without it damage shows as a panic much later.
    // Whether even so a damaged file can make the database panic is not left to chance.
    let opened = catch_unwind(AssertUnwindSafe(|| create_database(file))).unwrap_or_else(|_| {
        Err(DatabaseError::Storage(StorageError::Corrupted("the database gave up on it".to_owned())))
    });
    let db = opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => {
            OpenFailure::Refused(StoreError::InUse(path.parent().unwrap_or(path).to_owned()))
        }
        DatabaseError::Storage(StorageError::Io(source)) if !is_damage(&source) => refused("open")(source),
        DatabaseError::Storage(error @ (StorageError::Corrupted(_) | StorageError::Io(_))) => {
            OpenFailure::Damaged(error.to_string())
        }
        DatabaseError::RepairAborted => OpenFailure::Damaged("it can't be repaired".to_owned()),
        other => OpenFailure::Refused(StoreError::read(other)),
    })?;
    match catch_unwind(AssertUnwindSafe(|| prepare(&db, path))) {
        Ok(Ok(())) => Ok(db),
        Ok(Err(StoreError::Database { source: redb::Error::Corrupted(reason), .. })) => {
            Err(OpenFailure::Damaged(reason))
        }
        Ok(Err(StoreError::Database {
            source: source @ (redb::Error::TableTypeMismatch { .. } | redb::Error::TableIsMultimap(_)),
            ..
        })) => Err(OpenFailure::Damaged(source.to_string())),
        Ok(Err(error)) => Err(OpenFailure::Refused(error)),
        Err(_) => Err(OpenFailure::Damaged("its tables can't be opened".to_owned())),
    }
}

fn create_database(file: File) -> Result<Database, DatabaseError> {
    Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .create_with_backend(FileBackend::new(file)?)
}

/// Whether a read failed because of what stands in the file, not because of the disk.
fn is_damage(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof)
}

/// Checks the layout and makes what tables are missing.
fn prepare(db: &Database, path: &Path) -> Result<(), StoreError> {
    let transaction = db.begin_write().map_err(StoreError::write)?;
    {
        let mut meta = transaction.open_table(META).map_err(StoreError::write)?;
        let found = meta.get("schema").map_err(StoreError::read)?.map(|schema| schema.value());
        match found {
            Some(found) if found > SCHEMA => {
                return Err(StoreError::TooNew { path: path.to_owned(), found, known: SCHEMA });
            }
            Some(_) => {}
            None => {
                meta.insert("schema", SCHEMA).map_err(StoreError::write)?;
            }
        }
    }
    transaction.open_table(IDENTITY).map_err(StoreError::write)?;
    transaction.open_table(SETTINGS).map_err(StoreError::write)?;
    transaction.open_table(download::DOWNLOADS).map_err(StoreError::write)?;
    index::create_tables(&transaction)?;
    transaction.commit().map_err(StoreError::write)
}

/// Moves a damaged database to the first free name.
fn keep_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let aside = (1..=u32::MAX)
        .map(|number| files::with_suffix(path, &format!(".damaged-{number}")))
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| files::with_suffix(path, ".damaged"));
    fs::rename(path, &aside).map_err(StoreError::io("move aside", path))?;
    Ok(aside)
}

fn new_seed() -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(StoreError::NoRandomness)?;
    Ok(seed)
}

/// Brings the identity's file and its copy in the database together. The file wins: it is what a user backs up
/// and puts back.
fn settle_identity(db: &Database, path: &Path, notices: &mut Vec<Notice>) -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let copy = {
        let transaction = db.begin_read().map_err(StoreError::read)?;
        let table = transaction.open_table(IDENTITY).map_err(StoreError::read)?;
        table.get(()).map_err(StoreError::read)?.map(|seed| Zeroizing::new(*seed.value()))
    };
    let seed = match (files::read_seed(path)?, &copy) {
        (files::SeedFile::Whole(seed), _) => Zeroizing::new(seed),
        (files::SeedFile::Damaged { length }, None) => {
            return Err(StoreError::IdentityDamaged { path: path.to_owned(), length });
        }
        (files::SeedFile::Absent | files::SeedFile::Damaged { .. }, Some(copy)) => {
            files::replace(path, copy.as_ref())?;
            notices.push(Notice::IdentityRestored);
            copy.clone()
        }
        (files::SeedFile::Absent, None) => {
            let seed = new_seed()?;
            files::replace(path, seed.as_ref())?;
            seed
        }
    };
    if copy.as_deref() != Some(&*seed) {
        let transaction = db.begin_write().map_err(StoreError::write)?;
        {
            let mut table = transaction.open_table(IDENTITY).map_err(StoreError::write)?;
            table.insert((), &*seed).map_err(StoreError::write)?;
        }
        transaction.commit().map_err(StoreError::write)?;
    }
    Ok(seed)
}
