//! Names of temporary files, and what a crash has left of them.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bbh_store::{Store, StoreError, StoredDownload, StoredIntent};
use bbh_types::{ByteRanges, ContentId};

/// The temporary file of a download.
pub(super) fn part(partial: &Path, content: ContentId) -> PathBuf {
    partial.join(format!("{content}.part"))
}

/// Where a finished file is copied to, beside its final place, if that is on another disk.
pub(super) fn copy_in(folder: &Path, content: ContentId) -> PathBuf {
    folder.join(format!(".{content}.part"))
}

/// Brings records and temporary files together after a start: what a crash interrupted is undone, what is no longer
/// there no longer counts as verified, and files without a record are removed.
///
/// # Errors
/// If the store can't be read. What can't be tidied up is told to the log and left.
pub(crate) fn recover(store: &Store, partial: &Path) -> Result<Vec<(ContentId, StoredDownload)>, StoreError> {
    let mut downloads = store.downloads()?;
    for (content, download) in &mut downloads {
        let part = part(partial, *content);
        if let Some(target) = download.moving_to.take() {
            undo_move(*content, &part, &target, download.size);
            let stored = download.clone();
            store.update_download(*content, |_| stored)?;
        }
        if download.intent != StoredIntent::Complete {
            let length = fs::metadata(&part).map_or(0, |metadata| metadata.len());
            if download.verified.iter().next_back().is_some_and(|last| last.end > length) {
                tracing::warn!(%content, "a temporary file is gone or cut: the download begins anew");
                download.verified = ByteRanges::new();
            }
        }
    }
    let owned = |name: &OsStr| {
        downloads.iter().any(|(content, download)| {
            download.intent != StoredIntent::Complete && part(partial, *content).file_name() == Some(name)
        })
    };
    match fs::read_dir(partial) {
        Ok(entries) => {
            for entry in entries.flatten().filter(|entry| !owned(&entry.file_name())) {
                remove(&entry.path());
            }
        }
        Err(error) => tracing::warn!(%error, "the folder of temporary files can't be read"),
    }
    Ok(downloads)
}

/// A crash came between the note that a file is about to be moved and the note that it was.
fn undo_move(content: ContentId, part: &Path, target: &Path, size: Option<u64>) {
    if let Some(folder) = target.parent() {
        remove(&copy_in(folder, content));
    }
    let length = fs::metadata(target).map(|metadata| metadata.len());
    if part.exists() {
        // Only the empty file that keeps the name free is ours beyond doubt.
        if length.is_ok_and(|length| length == 0) && size != Some(0) {
            remove(target);
        }
    } else if length.ok() == size
        && size.is_some()
        && let Err(error) = fs::rename(target, part)
    {
        tracing::warn!(%content, %error, "a file moved before a crash can't be taken back");
    }
}

/// Removes a file that may not be there.
pub(super) fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "a temporary file can't be removed");
        }
        _ => {}
    }
}
