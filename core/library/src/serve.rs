//! Slices of shared files for others.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bbh_bao::{EncodeError, SliceError, encode_slice, slice_len, verify_slice_borrowed};
use bbh_types::ContentId;

use crate::library::Library;
use crate::outboards::{FileOutboard, read_exact_at};
use crate::persist::{Stamp, StoredEntry};

/// Most bytes of a file in one slice.
pub const MAX_SLICE_BYTES: u64 = 1 << 20;

/// Files kept open for the next slice; uploads run in few slots.
const MAX_OPEN: usize = 16;

/// Why no slice can be given.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No shared file has that content.
    #[error("no shared file has the content {0}")]
    Unknown(ContentId),
    /// The file is not what was hashed any more; it is offered again after a rescan.
    #[error("{} has changed since it was shared: rescan the shared files", path.display())]
    Changed {
        /// Which file.
        path: PathBuf,
    },
    /// The file or its hash tree could not be read; it is looked at again by the next rescan.
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// No slice of that range exists.
    #[error(transparent)]
    Range(#[from] SliceError),
    /// More than [`MAX_SLICE_BYTES`] were asked for.
    #[error("a slice holds at most {MAX_SLICE_BYTES} bytes, not {0}")]
    TooLong(u64),
}

/// A file being uploaded.
#[derive(Debug)]
struct OpenFile {
    id: ContentId,
    path: PathBuf,
    file: File,
    stamp: Stamp,
    outboard: FileOutboard,
}

/// The files used last, the latest at the end.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles(Mutex<Vec<Arc<OpenFile>>>);

impl OpenFiles {
    fn get(&self, id: &ContentId) -> Option<Arc<OpenFile>> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let position = files.iter().position(|open| open.id == *id)?;
        let open = files.remove(position);
        files.push(Arc::clone(&open));
        Some(open)
    }

    fn put(&self, open: Arc<OpenFile>) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|other| other.id != open.id);
        if files.len() >= MAX_OPEN {
            files.remove(0);
        }
        files.push(open);
    }

    /// Closes a file that is no longer shared, or no longer the same.
    pub(crate) fn close(&self, path: &Path) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|open| open.path != path);
    }
}

impl Library {
    /// The slice ([`bbh_bao::encode_slice`]) of `range` of a shared file, at most [`MAX_SLICE_BYTES`] long. It is
    /// checked before it is handed out, so that a file that was changed behind the library's back never
    /// makes its owner look like a liar.
    ///
    /// # Errors
    /// [`ReadError`]. After `Changed` and `Unreadable` the file is not offered until a rescan has looked at
    /// it; another file with the same content, if there is one, is used instead.
    pub fn read_slice(&self, content_id: &ContentId, range: Range<u64>) -> Result<Vec<u8>, ReadError> {
        let mut failed = None;
        if let Some(open) = self.open_files().get(content_id) {
            match read(&open, range.clone()) {
                Err(error @ (ReadError::Changed { .. } | ReadError::Unreadable { .. })) => {
                    self.give_up(&open.path, content_id);
                    failed = Some(error);
                }
                result => return result,
            }
        }
        for entry in self.entries_of(content_id) {
            match open_entry(&entry).and_then(|file| self.with_outboard(&entry, file)) {
                Ok(open) => match read(&open, range.clone()) {
                    Err(error @ (ReadError::Changed { .. } | ReadError::Unreadable { .. })) => {
                        self.give_up(&entry.path, content_id);
                        failed = Some(error);
                    }
                    result => {
                        self.open_files().put(Arc::new(open));
                        return result;
                    }
                },
                Err(error) => {
                    self.give_up(&entry.path, content_id);
                    failed = Some(error);
                }
            }
        }
        Err(failed.unwrap_or(ReadError::Unknown(*content_id)))
    }

    fn with_outboard(&self, entry: &StoredEntry, file: File) -> Result<OpenFile, ReadError> {
        let id = entry.record.content_id;
        let path = entry.path.clone();
        match self.outboards().read(&id, entry.record.size) {
            Ok(outboard) => Ok(OpenFile { id, path, file, stamp: entry.stamp, outboard }),
            Err(error) => Err(ReadError::Unreadable { path, error }),
        }
    }

    fn give_up(&self, path: &Path, content_id: &ContentId) {
        self.open_files().close(path);
        self.mark_stale(path, content_id);
    }
}

fn open_entry(entry: &StoredEntry) -> Result<File, ReadError> {
    File::open(&entry.path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ReadError::Changed { path: entry.path.clone() },
        _ => ReadError::Unreadable { path: entry.path.clone(), error },
    })
}

fn read(open: &OpenFile, range: Range<u64>) -> Result<Vec<u8>, ReadError> {
    let unreadable = |error| ReadError::Unreadable { path: open.path.clone(), error };
    let changed = || ReadError::Changed { path: open.path.clone() };
    let size = open.stamp.size;
    slice_len(size, &range)?;
    let length = range.end - range.start;
    if length > MAX_SLICE_BYTES {
        return Err(ReadError::TooLong(length));
    }
    if Stamp::of(&open.file.metadata().map_err(unreadable)?) != open.stamp {
        return Err(changed());
    }
    let mut data = vec![0; usize::try_from(length).expect("at most a MiB")];
    read_exact_at(&open.file, &mut data, range.start).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => changed(),
        _ => unreadable(error),
    })?;
    let slice = encode_slice(size, range.clone(), &open.outboard, &data).map_err(|error| match error {
        EncodeError::Range(error) => ReadError::Range(error),
        EncodeError::Outboard(error) => unreadable(error),
        EncodeError::DataLength { .. } => changed(),
    })?;
    match verify_slice_borrowed(&open.id, size, range, &slice) {
        Ok(_) => Ok(slice),
        Err(_) => Err(changed()),
    }
}
