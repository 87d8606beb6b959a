//! A complete temporary file becomes a file of the user's.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bbh_library::{Job, free_path};
use bbh_store::{Store, StoredDownload, StoredIntent};
use bbh_types::{ByteRanges, ContentId};

use super::disk::{Disk, explain};
use super::paths;
use crate::shares::Shares;

/// What finishing needs.
pub(super) struct Finisher {
    pub(super) partial: PathBuf,
    pub(super) store: Arc<Store>,
    pub(super) shares: Arc<Shares>,
    pub(super) disk: Arc<dyn Disk>,
}

impl Finisher {
    /// Moves the temporary file of `content` to `folder` (unless its record names another one), records it as complete
    /// and shares it. Gives its new path to `answer` as soon as the download counts as complete.
    ///
    /// While a long scan holds the library, sharing comes after the answer.
    pub(super) fn finish(&self, content: ContentId, folder: &Path, answer: impl FnOnce(Result<PathBuf, String>)) {
        let path = match self.place(content, folder) {
            Ok(path) => path,
            Err(reason) => return answer(Err(reason)),
        };
        if self.shares.is_scanning() {
            let completed = self.complete(content, &path).map(|()| path.clone());
            let well = completed.is_ok();
            answer(completed);
            if well && let Err(reason) = self.share(content, &path) {
                tracing::error!(%content, reason, "a finished file was not shared");
            }
            return;
        }
        answer(self.share(content, &path).and_then(|()| self.complete(content, &path)).map(|()| path));
    }

    /// Moves the file to a free name.
    fn place(&self, content: ContentId, folder: &Path) -> Result<PathBuf, String> {
        let part = paths::part(&self.partial, content);
        let record = self.store.download(content).map_err(|error| error.to_string())?;
        let folder = record.as_ref().and_then(|record| record.to.as_deref()).unwrap_or(folder);
        let name = record.as_ref().map(|record| record.name.as_str()).filter(|name| !name.is_empty());
        let name = name.map_or_else(|| content.to_string(), str::to_owned);
        fs::create_dir_all(folder).map_err(|error| explain("make the folder", folder, &error))?;
        File::open(&part)
            .and_then(|file| file.sync_all())
            .map_err(|error| explain("read the temporary file", &part, &error))?;

        let path = loop {
            let path = free_path(folder, &name);
            // Noted first: after a crash the file is found wherever it was at that moment.
            self.note_move(content, Some(&path))?;
            // An empty file keeps the name, and is then replaced: nobody else's file is ever overwritten.
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(_) => break path,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(explain("write", &path, &error)),
            }
        };
        let moved = match fs::rename(&part, &path) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => self.copy(content, &part, folder, &path),
            moved => moved,
        };
        if let Err(error) = moved {
            paths::remove(&path);
            self.note_move(content, None)?;
            return Err(explain("move the finished file to", &path, &error));
        }
        #[cfg(unix)]
        if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
            tracing::warn!(%error, "a folder's change can't be made durable");
        }
        Ok(path)
    }

    /// Copies the file to another disk: first beside its place, so that a half copy never bears its name.
    fn copy(&self, content: ContentId, part: &Path, folder: &Path, path: &Path) -> io::Result<()> {
        let size = fs::metadata(part)?.len();
        if self.disk.free_bytes(folder)? < size {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let copy = paths::copy_in(folder, content);
        let copied = fs::copy(part, &copy)
            .and_then(|_| OpenOptions::new().write(true).open(&copy)?.sync_all())
            .and_then(|()| fs::rename(&copy, path));
        if copied.is_err() {
            paths::remove(&copy);
            return copied;
        }
        paths::remove(part);
        Ok(())
    }

    /// Shares the file, which reads and hashes all of it: what the disk gives back has to be what was verified on
    /// arrival.
    fn share(&self, content: ContentId, path: &Path) -> Result<(), String> {
        let report = self.shares.library().add_file(path, Job::default()).map_err(|error| error.to_string())?;
        match self.shares.library().entry(path) {
            Some(entry) if entry.record.content_id == content => Ok(()),
            Some(_) => {
                if let Err(error) = self.shares.library().unshare(path) {
                    tracing::error!(%error, "a damaged file can't be taken out of the shared ones");
                }
                let part = paths::part(&self.partial, content);
                if let Err(error) = fs::rename(path, &part) {
                    tracing::warn!(%error, "a damaged file can't be taken back");
                }
                self.note_move(content, None)?;
                Err("the disk does not give back what was written: check the disk and the memory, then cancel this \
                     download and start it anew"
                    .to_owned())
            }
            None => {
                // Each group of it was verified on arrival, so the file is good; only others can't have it.
                for problem in report.problems {
                    tracing::warn!(%content, reason = %problem.reason, "a finished file can't be shared");
                }
                Ok(())
            }
        }
    }

    fn complete(&self, content: ContentId, path: &Path) -> Result<(), String> {
        let path = path.to_string_lossy().into_owned();
        self.update(content, |record| {
            record.intent = StoredIntent::Complete;
            record.path = Some(path);
            record.moving_to = None;
        })
    }

    fn note_move(&self, content: ContentId, to: Option<&Path>) -> Result<(), String> {
        self.update(content, |record| record.moving_to = to.map(Path::to_owned))
    }

    fn update(&self, content: ContentId, change: impl FnOnce(&mut StoredDownload)) -> Result<(), String> {
        self.store
            .update_download(content, |old| {
                let mut record = old.unwrap_or_else(|| StoredDownload {
                    name: String::new(),
                    size: None,
                    verified: ByteRanges::new(),
                    intent: StoredIntent::Active,
                    path: None,
                    to: None,
                    moving_to: None,
                });
                change(&mut record);
                record
            })
            .map_err(|error| error.to_string())
    }
}
