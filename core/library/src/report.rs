//! What the caller of a scan gives and gets.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// How far a scan has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Files done, failed ones included.
    pub files_done: u64,
    /// Files to be hashed in all.
    pub files_total: u64,
    /// Bytes hashed; more than the total if files grow or are read twice.
    pub bytes_done: u64,
    /// Bytes to be hashed in all, as the sizes said when the scan began.
    pub bytes_total: u64,
}

/// How a scan is watched and ended by its caller.
#[derive(Clone, Copy, Default)]
pub struct Job<'a> {
    /// Called from several threads, often: after every 256 KiB and every file.
    pub progress: Option<&'a (dyn Fn(Progress) + Sync)>,
    /// Once true the scan stops within moments; what is hashed by then is kept.
    pub cancel: Option<&'a AtomicBool>,
}

/// Why a file or folder is not shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Nothing is there, or not any more.
    NotFound,
    /// The system refuses to read it.
    NotAllowed,
    /// Reading failed otherwise, in the system's words.
    Unreadable(String),
    /// A symbolic link to something that is not there.
    DeadLink,
    /// A symbolic link that leads back to a folder around it, or to itself.
    LinkLoop,
    /// Neither a file nor a folder: a pipe, a socket, a device.
    Special,
    /// It changed each time it was read.
    Changing,
    /// A folder of this program's own.
    Private,
    /// Its hash tree could not be written, in the system's words.
    NoRoom(String),
}

impl Reason {
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::PermissionDenied => Self::NotAllowed,
            _ => Self::Unreadable(error.to_string()),
        }
    }

    pub(crate) fn of_link(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::DeadLink,
            // The standard library's own name for ELOOP is not stable yet.
            kind if format!("{kind:?}") == "FilesystemLoop" => Self::LinkLoop,
            _ => Self::of(error),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such file or folder"),
            Self::NotAllowed => f.write_str("it may not be read: check its permissions"),
            Self::Unreadable(error) => write!(f, "it cannot be read: {error}"),
            Self::DeadLink => f.write_str("the symbolic link leads nowhere"),
            Self::LinkLoop => f.write_str("the symbolic link leads back to a folder that contains it"),
            Self::Special => f.write_str("it is neither a file nor a folder"),
            Self::Changing => f.write_str("it changes while it is read: share it again when it is complete"),
            Self::Private => f.write_str("it belongs to this program's own data, which is never shared"),
            Self::NoRoom(error) => write!(f, "its hash tree cannot be stored: {error}"),
        }
    }
}

/// Something that is not shared, though it was asked for or lies below what was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What.
    pub path: PathBuf,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.reason)
    }
}

/// What a scan did. Paths are resolved ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScanReport {
    /// Files that were not shared before.
    pub added: Vec<PathBuf>,
    /// Files whose content is another one now.
    pub changed: Vec<PathBuf>,
    /// Files that are no longer shared: gone, or unreadable now.
    pub removed: Vec<PathBuf>,
    /// Number of files that are as they were, and were not read.
    pub unchanged: u64,
    /// Everything that is not shared, with the reason.
    pub problems: Vec<Problem>,
    /// Bytes read for hashing.
    pub hashed_bytes: u64,
    /// The scan was cancelled: what it had not reached is as before.
    pub cancelled: bool,
}
