//! A download of what is here already.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use bbh_library::{StoredEntry, create_free};

use crate::NodeError;
use crate::shell::Reply;
use crate::storage::disk::explain;
use crate::view::DownloadView;

/// Answers with where the file is, or with a copy in the folder where it is wanted.
pub(crate) fn answer(held: Arc<StoredEntry>, to: Option<PathBuf>, reply: Reply<DownloadView>) {
    let here = held.path.to_string_lossy().into_owned();
    let wanted = to.filter(|to| held.path.parent() != Some(to));
    let Some(folder) = wanted else {
        let _ = reply.send(Ok(DownloadView::held(&held, here)));
        return;
    };
    let copy = move || {
        let _ = reply.send(match copy_to(&held, &folder) {
            Ok(path) => Ok(DownloadView::held(&held, path.to_string_lossy().into_owned())),
            Err(error) => Err(NodeError::Failed(explain("copy to", &folder, &error))),
        });
    };
    if let Err(error) = thread::Builder::new().name("bbh-copy".to_owned()).spawn(copy) {
        // The reply was dropped with the closure: the asker is told that the node is gone.
        tracing::error!(%error, "no thread for a copy");
    }
}

fn copy_to(held: &StoredEntry, folder: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let mut source = fs::File::open(&held.path)?;
    let (mut copy, path) = create_free(folder, &held.record.name)?;
    let copied = io::copy(&mut source, &mut copy).and_then(|bytes| {
        if bytes == held.record.size { copy.sync_all() } else { Err(io::Error::other("the file has changed")) }
    });
    if copied.is_err() {
        let _ = fs::remove_file(&path);
    }
    copied.map(|()| path)
}
