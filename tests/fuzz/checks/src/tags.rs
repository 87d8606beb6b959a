//! Tags of shared files: whoever puts a file on the net writes them.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use bbh_library::{Job, Library, LibraryConfig, MemoryStore};
use bbh_types::MAX_TAGS;
use tempfile::TempDir;

const ENDINGS: [&str; 16] =
    ["mp3", "flac", "m4a", "ogg", "opus", "wav", "mp4", "wma", "aac", "aiff", "ape", "wv", "mpc", "spx", "avi", "mkv"];

struct Shelf {
    folder: TempDir,
    library: Library,
}

impl Shelf {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = LibraryConfig { outboard_dir: folder.path().join("trees"), private: Vec::new() };
        let library = Library::open(config, MemoryStore::default()).expect("an empty library");
        Self { folder, library }
    }

    fn share(&self, ending: &str, bytes: &[u8]) {
        let path: PathBuf = self.folder.path().join(format!("file.{ending}"));
        fs::write(&path, bytes).expect("a temporary file");
        let report = self.library.share(std::slice::from_ref(&path), Job::default()).expect("the library goes on");
        assert_eq!(report.problems, [], "whatever is wrong with its tags, a file is shared");
        let entries = self.library.entries();
        let [entry] = &entries[..] else { panic!("one file was shared, not {}", entries.len()) };
        assert_eq!(entry.record.content_id.as_bytes(), blake3::hash(bytes).as_bytes());
        let tags = &entry.record.tags;
        assert!(tags.len() <= MAX_TAGS);
        assert!(tags.iter().all(|(key, value)| !key.is_empty() && !value.trim().is_empty()));
        self.library.unshare(&path).expect("the library goes on");
        fs::remove_file(&path).expect("it is there");
    }
}

/// `ending u8`, then a file whose name ends so: it is shared, with tags or without.
pub fn tags(data: &[u8]) {
    static SHELF: Mutex<Option<Shelf>> = Mutex::new(None);
    let Some((&ending, bytes)) = data.split_first() else { return };
    // A panic is what a check is for: it must not spoil the next one.
    let mut shelf = SHELF.lock().unwrap_or_else(|poisoned| {
        let mut shelf = poisoned.into_inner();
        *shelf = None;
        shelf
    });
    shelf.get_or_insert_with(Shelf::new).share(ENDINGS[usize::from(ending) % ENDINGS.len()], bytes);
}
