//! The library: what is shared, kept up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bbh_types::{BoundedString, ContentId, FileKind, FileRecord, Md5Hash, Priority, Query};

use crate::index::Index;
use crate::outboards::OutboardDir;
use crate::persist::{IndexStore, Shares, StoreError, StoredEntry};
use crate::report::{Job, Problem, Reason, ScanReport};
use crate::scan::{Hashed, hash_files};
use crate::serve::OpenFiles;
use crate::walk::{Found, Walk, is_below, rank, shown_folder};

/// Hashed files are handed to the store in groups of that many…
const BATCH_FILES: usize = 64;
/// …or when hashing them took that many bytes, so that little is lost if the process is killed.
const BATCH_BYTES: u64 = 128 << 20;

/// Where a library keeps its own files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryConfig {
    /// Folder for hash trees, made if need be. It belongs to this library alone: what it does not know in
    /// there is removed.
    pub outboard_dir: PathBuf,
    /// Folders with keys, databases and unfinished downloads: never shared, even if a folder around them is. The outboard
    /// folder need not be named.
    pub private: Vec<PathBuf>,
}

/// Why the library as a whole cannot go on. What is wrong with single files is told in the
/// [`ScanReport`] instead.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The store failed.
    #[error("the list of shared files cannot be kept: {0}")]
    Store(#[source] StoreError),
    /// The folder for hash trees cannot be used.
    #[error("the folder for hash trees {} cannot be used: {error}", path.display())]
    OutboardDir {
        /// The folder.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    shares: Shares,
}

/// All files that this device shares. Methods may be called from several threads; searches and reads go on
/// during a scan.
pub struct Library {
    store: Box<dyn IndexStore>,
    outboards: OutboardDir,
    private: Vec<PathBuf>,
    state: RwLock<State>,
    open: OpenFiles,
    /// Held by whatever changes what is shared.
    changing: Mutex<()>,
}

impl Library {
    /// Opens the library: reads the index back and tidies up. Looks at no shared file; that is what
    /// [`Library::rescan`] is for.
    ///
    /// # Errors
    /// If the store or the folder for hash trees cannot be used.
    pub fn open(config: LibraryConfig, store: impl IndexStore + 'static) -> Result<Self, LibraryError> {
        let folder = |error| LibraryError::OutboardDir { path: config.outboard_dir.clone(), error };
        let outboards = OutboardDir::open(config.outboard_dir.clone()).map_err(folder)?;
        let mut private = config.private.clone();
        private.push(outboards.dir().to_owned());
        let private = private.iter().map(|path| resolve(path)).collect();

        let mut index = Index::default();
        for entry in store.load().map_err(LibraryError::Store)? {
            index.put(entry);
        }
        let shares = store.load_shares().map_err(LibraryError::Store)?;
        for id in outboards.contents().map_err(folder)? {
            if index.with_content(&id).next().is_none() {
                outboards.remove(&id);
            }
        }
        Ok(Self {
            store: Box::new(store),
            outboards,
            private,
            state: RwLock::new(State { index, shares }),
            open: OpenFiles::default(),
            changing: Mutex::new(()),
        })
    }

    /// Shares files and folders with all below them. What is shared already and has not changed is not
    /// read again; what was taken out below them before is in again.
    ///
    /// # Errors
    /// Only if the library cannot go on; what cannot be shared is in the report.
    pub fn share(&self, paths: &[PathBuf], job: Job<'_>) -> Result<ScanReport, LibraryError> {
        let _changing = self.begin_change();
        let mut problems = Vec::new();
        let mut roots = BTreeSet::new();
        for path in paths {
            match self.resolve_root(path) {
                Ok(root) => {
                    roots.insert(root);
                }
                Err(reason) => problems.push(Problem { path: path.clone(), reason }),
            }
        }
        let mut shares = self.read().shares.clone();
        for root in &roots {
            shares.excluded.retain(|excluded| !excluded.starts_with(root));
            if !shares.roots.contains(root) {
                shares.roots.push(root.clone());
            }
        }
        self.keep_shares(shares)?;
        self.scan(&roots, problems, job)
    }

    /// Shares one file, such as a finished download. If it lies in a shared folder it is part of that;
    /// otherwise it is shared by itself.
    ///
    /// # Errors
    /// As [`Library::share`].
    pub fn add_file(&self, path: &Path, job: Job<'_>) -> Result<ScanReport, LibraryError> {
        let covering = resolve(path);
        let shares = self.read().shares.clone();
        if !is_below(&covering, &shares.roots) || is_below(&covering, &shares.excluded) {
            return self.share(&[path.to_owned()], job);
        }
        let _changing = self.begin_change();
        let never = AtomicBool::new(false);
        let mut walk = Walk::new(&self.private, job.cancel.unwrap_or(&never));
        walk.root(&covering, &[]);
        let root =
            shares.roots.iter().filter(|root| covering.starts_with(root)).min_by_key(|root| rank(root, &covering));
        for found in walk.found.values_mut() {
            if let Some(root) = root {
                found.folder = shown_folder(root, &found.path);
                found.root.clone_from(root);
            }
        }
        self.apply(walk.found, walk.problems, Vec::new(), job)
    }

    /// Looks at everything that is shared: notices changed and removed files and, in shared folders, new
    /// ones. What has the same size, time and inode as before is not read.
    ///
    /// # Errors
    /// As [`Library::share`].
    pub fn rescan(&self, job: Job<'_>) -> Result<ScanReport, LibraryError> {
        let _changing = self.begin_change();
        let roots = self.read().shares.roots.iter().cloned().collect();
        self.scan(&roots, Vec::new(), job)
    }

    /// Stops sharing a file, or a folder with all below it, and returns what is no longer shared. Below a
    /// folder that stays shared it is remembered as taken out, until it is shared again by name.
    ///
    /// # Errors
    /// If the store fails.
    pub fn unshare(&self, path: &Path) -> Result<Vec<PathBuf>, LibraryError> {
        let _changing = self.begin_change();
        self.unshare_resolved(&resolve(path))
    }

    /// Stops sharing all files with that content, as [`Library::unshare`] does.
    ///
    /// # Errors
    /// If the store fails.
    pub fn unshare_content(&self, id: &ContentId) -> Result<Vec<PathBuf>, LibraryError> {
        let _changing = self.begin_change();
        let paths: Vec<_> = self.read().index.with_content(id).map(|entry| entry.path.clone()).collect();
        let mut removed = Vec::new();
        for path in paths {
            removed.extend(self.unshare_resolved(&path)?);
        }
        Ok(removed)
    }

    /// Sets the preference of all files with that content; false if there is none.
    ///
    /// # Errors
    /// If the store fails.
    pub fn set_priority(&self, id: &ContentId, priority: Priority) -> Result<bool, LibraryError> {
        let _changing = self.begin_change();
        let mut entries: Vec<_> = self.read().index.with_content(id).map(|entry| (**entry).clone()).collect();
        entries.iter_mut().for_each(|entry| entry.priority = priority);
        let any = !entries.is_empty();
        self.keep(entries)?;
        Ok(any)
    }

    /// All shared files, sorted by path; also those that wait for a rescan because they have changed.
    pub fn entries(&self) -> Vec<Arc<StoredEntry>> {
        self.read().index.entries().cloned().collect()
    }

    /// The shared files at or below `paths`, sorted by path: what [`Library::share`] with them has shared.
    pub fn entries_below(&self, paths: &[PathBuf]) -> Vec<Arc<StoredEntry>> {
        let tops: Vec<_> = paths.iter().map(|path| resolve(path)).collect();
        let wanted = |entry: &&Arc<StoredEntry>| is_below(&entry.path, &tops) || tops.contains(&entry.root);
        self.read().index.entries().filter(wanted).cloned().collect()
    }

    /// The shared file at `path`.
    pub fn entry(&self, path: &Path) -> Option<Arc<StoredEntry>> {
        self.read().index.get(&resolve(path)).cloned()
    }

    /// What is shared, as the user said it.
    pub fn shares(&self) -> Shares {
        self.read().shares.clone()
    }

    /// A file with that content, if one can be had.
    pub fn lookup(&self, id: &ContentId) -> Option<FileRecord> {
        self.read().index.with_content(id).find(|entry| !entry.stale).map(|entry| entry.record.clone())
    }

    /// The preference of the file with that content.
    pub fn priority(&self, id: &ContentId) -> Option<Priority> {
        self.read().index.with_content(id).next().map(|entry| entry.priority)
    }

    /// Files with that MD5, each content once. Different contents may share one, by malice.
    pub fn lookup_md5(&self, md5: &Md5Hash) -> Vec<FileRecord> {
        let state = self.read();
        let entries = state.index.with_md5(md5).filter(|entry| !entry.stale);
        let by_content: BTreeMap<_, _> = entries.map(|entry| (entry.record.content_id, &entry.record)).collect();
        by_content.into_values().cloned().collect()
    }

    /// The shared files that `query` finds in names, folders and tags: words are found anywhere, in any case, with or
    /// without accents. Each content once, at most `limit`.
    pub fn search(&self, query: &Query, limit: usize) -> Vec<FileRecord> {
        self.read().index.search(query, limit)
    }

    pub(crate) fn outboards(&self) -> &OutboardDir {
        &self.outboards
    }

    pub(crate) fn open_files(&self) -> &OpenFiles {
        &self.open
    }

    /// The entries with that content that can be served.
    pub(crate) fn entries_of(&self, id: &ContentId) -> Vec<Arc<StoredEntry>> {
        self.read().index.with_content(id).filter(|entry| !entry.stale).cloned().collect()
    }

    /// Takes a file out of service until the next rescan.
    pub(crate) fn mark_stale(&self, path: &Path, id: &ContentId) {
        let mut state = self.write();
        let Some(entry) = state.index.get(path).filter(|entry| entry.record.content_id == *id && !entry.stale) else {
            return;
        };
        let entry = StoredEntry { stale: true, ..(**entry).clone() };
        if let Err(error) = self.store.put(std::slice::from_ref(&entry)) {
            // The next start offers it once more, and finds out once more.
            tracing::warn!(%error, "a changed file could not be marked in the store");
        }
        state.index.put(entry);
    }

    fn scan(
        &self,
        roots: &BTreeSet<PathBuf>,
        problems: Vec<Problem>,
        job: Job<'_>,
    ) -> Result<ScanReport, LibraryError> {
        let shares = self.read().shares.clone();
        let never = AtomicBool::new(false);
        let cancel = job.cancel.unwrap_or(&never);
        let mut walk = Walk::new(&self.private, cancel);
        walk.problems = problems;
        for root in roots {
            walk.root(root, &shares.excluded);
        }
        let Walk { found, problems, .. } = walk;
        // A walk that was cancelled has not seen everything: nothing counts as gone.
        let gone = if cancel.load(Ordering::Relaxed) {
            Vec::new()
        } else {
            let everything = shares.roots.iter().all(|root| roots.contains(root));
            let state = self.read();
            let entries = state.index.entries().filter(|entry| everything || roots.contains(&entry.root));
            entries.map(|entry| entry.path.clone()).filter(|path| !found.contains_key(path)).collect()
        };
        self.apply(found, problems, gone, job)
    }

    /// Brings the index to what was found.
    fn apply(
        &self,
        found: BTreeMap<PathBuf, Found>,
        problems: Vec<Problem>,
        gone: Vec<PathBuf>,
        job: Job<'_>,
    ) -> Result<ScanReport, LibraryError> {
        let mut report = ScanReport { problems, ..ScanReport::default() };
        let mut dropped = self.forget(&gone)?;
        report.removed = gone;

        let mut work = Vec::new();
        let mut relabelled = Vec::new();
        {
            let state = self.read();
            for found in found.into_values() {
                match state.index.get(&found.path) {
                    Some(entry) if entry.stamp == found.stamp && !entry.stale => {
                        report.unchanged += 1;
                        relabelled.extend(relabel(entry, &found, &state.shares));
                    }
                    _ => work.push(found),
                }
            }
        }
        self.keep(relabelled)?;

        let (mut batch, mut batch_bytes) = (Vec::new(), 0);
        let hashed = hash_files(&work, &self.outboards, job, |position, result| {
            let found = &work[position];
            let old = self.read().index.get(&found.path).cloned();
            match result {
                Ok(hashed) => {
                    match &old {
                        None => report.added.push(found.path.clone()),
                        Some(old) if old.record.content_id == hashed.hashes.content_id => report.unchanged += 1,
                        Some(_) => report.changed.push(found.path.clone()),
                    }
                    batch_bytes += hashed.hashes.size;
                    batch.push(entry_of(found, hashed, old.as_deref()));
                    dropped.extend(old.map(|old| old.record.content_id));
                    if batch.len() >= BATCH_FILES || batch_bytes >= BATCH_BYTES {
                        batch_bytes = 0;
                        return self.keep(std::mem::take(&mut batch));
                    }
                }
                Err(reason) => {
                    report.problems.push(Problem { path: found.path.clone(), reason });
                    if old.is_some() {
                        dropped.extend(self.forget(std::slice::from_ref(&found.path))?);
                        report.removed.push(found.path.clone());
                    }
                }
            }
            Ok(())
        });
        self.keep(batch)?;
        report.hashed_bytes = hashed?;
        // Only now: until the last batch was kept, a file that is new at one place and gone at another
        // seems to be gone altogether.
        self.drop_outboards(dropped);
        report.cancelled = job.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed));
        report.added.sort();
        report.changed.sort();
        Ok(report)
    }

    fn unshare_resolved(&self, path: &Path) -> Result<Vec<PathBuf>, LibraryError> {
        let mut shares = self.read().shares.clone();
        shares.roots.retain(|root| !root.starts_with(path));
        let (mut removed, mut moved) = (Vec::new(), Vec::new());
        let mut found_again = is_below(path, &shares.roots);
        for entry in self.read().index.entries() {
            let root_stays = shares.roots.contains(&entry.root);
            if entry.path.starts_with(path) {
                // Reached by a link from elsewhere, or as part of a folder around it.
                found_again |= root_stays;
                removed.push(entry.path.clone());
            } else if !root_stays {
                let other = shares.roots.iter().filter(|root| entry.path.starts_with(root));
                match other.min_by_key(|root| rank(root, &entry.path)) {
                    Some(root) => {
                        let mut entry = (**entry).clone();
                        entry.record.folder = BoundedString::truncated(&shown_folder(root, &entry.path));
                        entry.root.clone_from(root);
                        moved.push(entry);
                    }
                    None => removed.push(entry.path.clone()),
                }
            }
        }
        shares.excluded.retain(|excluded| !excluded.starts_with(path));
        if found_again {
            shares.excluded.push(path.to_owned());
        }
        if shares.roots.is_empty() {
            shares.excluded.clear();
        }
        self.keep_shares(shares)?;
        self.keep(moved)?;
        let dropped = self.forget(&removed)?;
        self.drop_outboards(dropped);
        Ok(removed)
    }

    /// The resolved path of something that may be shared.
    fn resolve_root(&self, path: &Path) -> Result<PathBuf, Reason> {
        let root = path
            .canonicalize()
            .map_err(|error| if path.is_symlink() { Reason::of_link(&error) } else { Reason::of(&error) })?;
        let metadata = root.metadata().map_err(|error| Reason::of(&error))?;
        if is_below(&root, &self.private) {
            return Err(Reason::Private);
        }
        if metadata.is_dir() || metadata.is_file() { Ok(root) } else { Err(Reason::Special) }
    }

    fn keep_shares(&self, shares: Shares) -> Result<(), LibraryError> {
        self.store.put_shares(&shares).map_err(LibraryError::Store)?;
        self.write().shares = shares;
        Ok(())
    }

    /// Entries go to the store first: what is offered survives a restart.
    fn keep(&self, entries: Vec<StoredEntry>) -> Result<(), LibraryError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.store.put(&entries).map_err(LibraryError::Store)?;
        let mut state = self.write();
        for entry in entries {
            self.open.close(&entry.path);
            state.index.put(entry);
        }
        Ok(())
    }

    /// Removes entries; returns their contents, whose hash trees may be of no use now.
    fn forget(&self, paths: &[PathBuf]) -> Result<Vec<ContentId>, LibraryError> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        self.store.remove(paths).map_err(LibraryError::Store)?;
        let mut state = self.write();
        let entries = paths.iter().filter_map(|path| {
            self.open.close(path);
            state.index.remove(path)
        });
        Ok(entries.map(|entry| entry.record.content_id).collect())
    }

    fn drop_outboards(&self, mut contents: Vec<ContentId>) {
        contents.sort_unstable();
        contents.dedup();
        let state = self.read();
        for id in contents {
            if state.index.with_content(&id).next().is_none() {
                self.outboards.remove(&id);
            }
        }
    }

    fn begin_change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The path with all links resolved; of what does not exist any more, as well as it goes.
fn resolve(path: &Path) -> PathBuf {
    if let Ok(resolved) = path.canonicalize() {
        return resolved;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !parent.as_os_str().is_empty() => resolve(parent).join(name),
        _ => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    }
}

/// The entry under its present name, if it is shown under another one so far.
fn relabel(entry: &StoredEntry, found: &Found, shares: &Shares) -> Option<StoredEntry> {
    let better =
        !shares.roots.contains(&entry.root) || rank(&found.root, &found.path) <= rank(&entry.root, &found.path);
    let (name, folder) = (BoundedString::truncated(&found.name), BoundedString::truncated(&found.folder));
    let same = entry.root == found.root && entry.record.name == name && entry.record.folder == folder;
    (better && !same).then(|| {
        let mut entry = entry.clone();
        entry.root.clone_from(&found.root);
        (entry.record.name, entry.record.folder) = (name, folder);
        entry
    })
}

fn entry_of(found: &Found, hashed: Hashed, old: Option<&StoredEntry>) -> StoredEntry {
    StoredEntry {
        path: found.path.clone(),
        root: found.root.clone(),
        record: FileRecord {
            content_id: hashed.hashes.content_id,
            md5: hashed.hashes.md5,
            name: BoundedString::truncated(&found.name),
            folder: BoundedString::truncated(&found.folder),
            size: hashed.hashes.size,
            kind: FileKind::of_name(&found.name),
            tags: hashed.tags,
        },
        stamp: hashed.stamp,
        priority: old.map_or(Priority::default(), |old| old.priority),
        stale: false,
    }
}
