//! What the storage worker needs of the system, so that tests can fill the disk.

use std::fs::File;
use std::io;
use std::path::Path;

/// The disk below the downloads.
pub trait Disk: Send + Sync {
    /// Bytes that this user may still write in the file system of `folder`.
    ///
    /// # Errors
    /// What the system says.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;

    /// Writes all of `bytes` at `start`.
    ///
    /// # Errors
    /// What the system says; then any part may have been written.
    fn write_at(&self, file: &File, bytes: &[u8], start: u64) -> io::Result<()>;
}

/// The real one.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        #[cfg(unix)]
        {
            let found = rustix::fs::statvfs(folder)?;
            Ok(found.f_bavail.saturating_mul(found.f_frsize))
        }
        // Elsewhere the first write beyond the end tells.
        #[cfg(not(unix))]
        {
            let _ = folder;
            Ok(u64::MAX)
        }
    }

    fn write_at(&self, file: &File, bytes: &[u8], start: u64) -> io::Result<()> {
        #[cfg(unix)]
        {
            std::os::unix::fs::FileExt::write_all_at(file, bytes, start)
        }
        #[cfg(not(unix))]
        {
            use std::io::{Seek, SeekFrom, Write};
            // One thread writes, so nobody else moves the position.
            let mut file = file;
            file.seek(SeekFrom::Start(start))?;
            file.write_all(bytes)
        }
    }
}

/// Bytes that a file takes on disk already: sparse files take less than their length.
pub(crate) fn allocated_bytes(file: &File) -> io::Result<u64> {
    let metadata = file.metadata()?;
    #[cfg(unix)]
    {
        Ok(std::os::unix::fs::MetadataExt::blocks(&metadata).saturating_mul(512))
    }
    #[cfg(not(unix))]
    {
        Ok(metadata.len())
    }
}

/// What went wrong, in words that say what to do. `doing` completes "can't …".
pub(crate) fn explain(doing: &str, path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::StorageFull => {
            format!("the disk is full: can't {doing} '{path}'; free some space, then resume the download")
        }
        io::ErrorKind::QuotaExceeded => {
            format!("your disk quota is used up: can't {doing} '{path}'; free some space, then resume the download")
        }
        io::ErrorKind::FileTooLarge => {
            format!("the file system takes no file that large: can't {doing} '{path}'; use another folder")
        }
        io::ErrorKind::PermissionDenied => {
            format!("no permission to {doing} '{path}': change its permissions or choose another folder, then resume")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("the disk is read-only: can't {doing} '{path}'; make it writable or choose another folder")
        }
        io::ErrorKind::NotFound => {
            format!("can't {doing} '{path}': it is gone; if its disk was removed, connect it again, then resume")
        }
        _ => format!("can't {doing} '{path}' ({error}): check the disk, then resume the download"),
    }
}
