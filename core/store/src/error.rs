//! What can go wrong with a data folder.

use std::path::PathBuf;

/// Why the store can't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the data folder open.
    #[error("the data folder '{}' is in use by another bbh: stop that one first, or choose another folder", .0.display())]
    InUse(PathBuf),
    /// A file or folder can't be made, read or written.
    #[error("can't {doing} '{}': {source}", path.display())]
    Io {
        /// What was tried: "create", "read", …
        doing: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store was written by a newer program.
    #[error(
        "'{}' was written by a newer version of bbh (its layout is {found}, this program knows {known}): \
         update this program, or choose another data folder", path.display()
    )]
    TooNew {
        /// The store's file.
        path: PathBuf,
        /// The layout found.
        found: u32,
        /// The newest layout this program knows.
        known: u32,
    },
    /// The identity can't be read, and there is no copy of it.
    #[error(
        "the identity in '{}' is damaged ({length} bytes instead of 32): put a backup of it in its place, \
         or delete it to start with a new identity", path.display()
    )]
    IdentityDamaged {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers, so no identity can be made: {0}")]
    NoRandomness(getrandom::Error),
    /// The database failed while running: the disk is full or broken, mostly.
    #[error("the store can't be {doing}: {source}; check the disk's free space and health, then restart bbh")]
    Database {
        /// "read" or "written".
        doing: &'static str,
        /// What the database said.
        source: redb::Error,
    },
    /// A stored value that this program can't make sense of.
    #[error("the store holds a {what} that can't be read: {source}")]
    Value {
        /// What kind of value.
        what: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl StoreError {
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) fn read(source: impl Into<redb::Error>) -> Self {
        Self::Database { doing: "read", source: source.into() }
    }

    pub(crate) fn write(source: impl Into<redb::Error>) -> Self {
        Self::Database { doing: "written", source: source.into() }
    }
}

/// Something that was put right when the store was opened, and that the user has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The database was damaged: it was kept aside and a new one begun. Shares, settings and the list of downloads
    /// are gone; the identity is not.
    DatabaseDamaged {
        /// Where the damaged one is now.
        kept_as: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
    /// The identity file was missing or damaged and was written anew from the copy in the database.
    IdentityRestored,
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::DatabaseDamaged { kept_as, reason } => write!(
                f,
                "the store was damaged ({reason}); it is kept as '{}' and a new one was begun: this node's identity \
                 and all files are safe, but folders have to be shared again and unfinished downloads started anew",
                kept_as.display()
            ),
            Self::IdentityRestored => {
                write!(f, "the identity file was missing or damaged and was restored from the store's copy")
            }
        }
    }
}
