//! Which files lie below what is shared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::persist::Stamp;
use crate::report::{Problem, Reason};

/// A file to be shared.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// Resolved.
    pub(crate) path: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) name: String,
    pub(crate) folder: String,
    pub(crate) stamp: Stamp,
}

/// A search through the file system.
pub(crate) struct Walk<'a> {
    /// Never shared, with all below: resolved folders of the program's own.
    pub(crate) private: &'a [PathBuf],
    /// Taken out by the user, of the root at hand.
    excluded: Vec<PathBuf>,
    pub(crate) cancel: &'a AtomicBool,
    /// By resolved path; the first way to a file counts.
    pub(crate) found: BTreeMap<PathBuf, Found>,
    pub(crate) problems: Vec<Problem>,
}

/// A folder or link that is still to be looked into.
struct Pending {
    path: PathBuf,
    /// What others see as the folder.
    folder: String,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(private: &'a [PathBuf], cancel: &'a AtomicBool) -> Self {
        Self { private, excluded: Vec::new(), cancel, found: BTreeMap::new(), problems: Vec::new() }
    }

    /// Finds all below `root`, a resolved path. Symbolic links are followed, but only after everything that can be
    /// reached without them, and never into a folder that was seen before.
    ///
    /// Of what the user took out (`excluded`), that stays out; not so what `root` itself lies in, because it was shared
    /// by name.
    pub(crate) fn root(&mut self, root: &Path, excluded: &[PathBuf]) {
        self.excluded = excluded.iter().filter(|top| !root.starts_with(top)).cloned().collect();
        let metadata = match fs::metadata(root) {
            Ok(metadata) => metadata,
            Err(error) => return self.problem(root, Reason::of(&error)),
        };
        if self.is_barred(root) {
            return;
        }
        if !metadata.is_dir() {
            return self.file(root, root, root.file_name(), String::new(), &metadata);
        }
        let mut folders =
            vec![Pending { path: root.to_owned(), folder: root.file_name().map(display).unwrap_or_default() }];
        let mut links = VecDeque::new();
        let mut seen = BTreeSet::from([root.to_owned()]);
        while !self.cancel.load(Ordering::Relaxed) {
            if let Some(folder) = folders.pop() {
                self.folder(root, &folder, &mut folders, &mut links, &mut seen);
            } else if let Some(link) = links.pop_front() {
                folders.extend(self.link(root, link, &mut seen));
            } else {
                break;
            }
        }
    }

    fn folder(
        &mut self,
        root: &Path,
        folder: &Pending,
        folders: &mut Vec<Pending>,
        links: &mut VecDeque<Pending>,
        seen: &mut BTreeSet<PathBuf>,
    ) {
        let listing = match fs::read_dir(&folder.path) {
            Ok(listing) => listing,
            Err(error) => return self.problem(&folder.path, Reason::of(&error)),
        };
        for item in listing {
            let item = match item {
                Ok(item) => item,
                Err(error) => return self.problem(&folder.path, Reason::of(&error)),
            };
            let path = item.path();
            // Of the link itself, where it is one.
            let metadata = match item.metadata() {
                Ok(metadata) => metadata,
                Err(error) => {
                    self.problem(&path, Reason::of(&error));
                    continue;
                }
            };
            if metadata.is_symlink() {
                links.push_back(Pending { path, folder: folder.folder.clone() });
            } else if self.is_barred(&path) {
            } else if metadata.is_dir() {
                if seen.insert(path.clone()) {
                    let folder = join(&folder.folder, &display(&item.file_name()));
                    folders.push(Pending { path, folder });
                }
            } else {
                self.file(root, &path, Some(&item.file_name()), folder.folder.clone(), &metadata);
            }
        }
    }

    /// Follows one link; returns the folder it leads to, if that is a new one.
    fn link(&mut self, root: &Path, link: Pending, seen: &mut BTreeSet<PathBuf>) -> Option<Pending> {
        let target =
            link.path.canonicalize().and_then(|target| fs::metadata(&target).map(|metadata| (target, metadata)));
        let (target, metadata) = match target {
            Ok(target) => target,
            Err(error) => {
                self.problem(&link.path, Reason::of_link(&error));
                return None;
            }
        };
        if self.is_barred(&target) {
            return None;
        }
        if !metadata.is_dir() {
            self.file(root, &target, link.path.file_name(), link.folder, &metadata);
            return None;
        }
        if link.path.starts_with(&target) || root.starts_with(&target) {
            self.problem(&link.path, Reason::LinkLoop);
            return None;
        }
        let folder = join(&link.folder, &link.path.file_name().map(display).unwrap_or_default());
        seen.insert(target.clone()).then_some(Pending { path: target, folder })
    }

    fn file(&mut self, root: &Path, path: &Path, name: Option<&OsStr>, folder: String, metadata: &fs::Metadata) {
        if !metadata.is_file() {
            return self.problem(path, Reason::Special);
        }
        if self.found.get(path).is_some_and(|known| rank(&known.root, path) <= rank(root, path)) {
            return;
        }
        let found = Found {
            path: path.to_owned(),
            root: root.to_owned(),
            name: name.map(display).unwrap_or_default(),
            folder,
            stamp: Stamp::of(metadata),
        };
        self.found.insert(found.path.clone(), found);
    }

    /// Whether a path must not be shared; says so only where that may surprise.
    fn is_barred(&mut self, path: &Path) -> bool {
        if self.private.iter().any(|private| path.starts_with(private)) {
            self.problem(path, Reason::Private);
            return true;
        }
        is_below(path, &self.excluded)
    }

    fn problem(&mut self, path: &Path, reason: Reason) {
        self.problems.push(Problem { path: path.to_owned(), reason });
    }
}

/// Which of several shared folders a file is shown below: the lower the better. Those that hold the file come before those
/// that only link to it, outer ones before inner ones.
pub(crate) fn rank(root: &Path, path: &Path) -> (bool, usize) {
    (!path.starts_with(root), root.components().count())
}

/// Whether `path` is one of `tops` or below one.
pub(crate) fn is_below(path: &Path, tops: &[PathBuf]) -> bool {
    tops.iter().any(|top| path.starts_with(top))
}

/// The folder that others see of a file at `path` below `root`.
pub(crate) fn shown_folder(root: &Path, path: &Path) -> String {
    let Some(folder) = path.parent().filter(|folder| folder.starts_with(root)) else {
        return String::new();
    };
    let top = root.file_name().map(display).unwrap_or_default();
    folder
        .strip_prefix(root)
        .map_or(top.clone(), |below| below.iter().fold(top, |shown, name| join(&shown, &display(name))))
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// Names that are not Unicode get replacement characters.
fn display(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}
