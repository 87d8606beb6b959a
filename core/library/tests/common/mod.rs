//! A library over a folder that goes away with the test.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bbh_library::{Job, Library, LibraryConfig, MemoryStore, Problem, Reason, ScanReport};
use bbh_types::{ContentId, FileRecord, Query, SearchMode};

pub struct World {
    pub dir: tempfile::TempDir,
    pub store: Arc<MemoryStore>,
    pub library: Library,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("music")).expect("a new folder");
        let store = Arc::new(MemoryStore::default());
        let library = open(dir.path(), &store);
        Self { dir, store, library }
    }

    /// As after a restart of the process.
    pub fn restart(&mut self) {
        self.library = open(self.dir.path(), &self.store);
    }

    /// A path below the temporary folder, resolved.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().expect("it exists").join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("a new folder");
        fs::write(&path, bytes).expect("a new file");
        path
    }

    pub fn share(&self, name: &str) -> ScanReport {
        self.library.share(&[self.path(name)], Job::default()).expect("the store works")
    }

    pub fn rescan(&self) -> ScanReport {
        self.library.rescan(Job::default()).expect("the store works")
    }

    /// What is shared, as `folder/name`, sorted.
    pub fn shown(&self) -> Vec<String> {
        let show = |record: &FileRecord| format!("{}/{}", &*record.folder, &*record.name);
        let mut shown: Vec<_> = self.library.entries().iter().map(|entry| show(&entry.record)).collect();
        shown.sort();
        shown
    }

    pub fn find(&self, words: &str) -> Vec<FileRecord> {
        self.library.search(&Query::new([words], SearchMode::All).expect("not empty"), 1000)
    }

    pub fn names(&self, words: &str) -> Vec<String> {
        let mut names: Vec<_> = self.find(words).iter().map(|record| record.name.to_string()).collect();
        names.sort();
        names
    }

    pub fn outboard_files(&self) -> Vec<String> {
        let files = fs::read_dir(self.path("outboards")).expect("the library made it");
        let mut names: Vec<_> =
            files.map(|file| file.expect("readable").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn open(dir: &Path, store: &Arc<MemoryStore>) -> Library {
    let config = LibraryConfig { outboard_dir: dir.join("outboards"), private: vec![dir.join("private")] };
    Library::open(config, Arc::clone(store)).expect("a new library")
}

pub fn bytes(length: usize, seed: u8) -> Vec<u8> {
    let mut data = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut data);
    data
}

pub fn id_of(data: &[u8]) -> ContentId {
    ContentId::from_bytes(*blake3::hash(data).as_bytes())
}

pub fn reason(report: &ScanReport, path: &Path) -> Option<Reason> {
    report.problems.iter().find(|problem: &&Problem| problem.path == path).map(|problem| problem.reason.clone())
}
