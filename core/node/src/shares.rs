//! The library behind the node: kept in the node's store, asked by the protocol on a thread of its own.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use bbh_library::{IndexStore, Library, LibraryConfig, LibraryError, Stamp, StoredEntry, path_to_bytes};
use bbh_proto::{LibraryAnswer, LibraryRequest};
use bbh_store::Store;
use bbh_types::ContentId;
use bbh_wire::codec;

use crate::answer::{AnswerSender, Pending};

/// Requests that may wait for the library at a time: strangers' searches must not use up memory. The protocol asks for
/// far fewer slices.
const MAX_WAITING: usize = 512;
/// Largest record of one shared file in bytes; names and tags have bounds that keep it far below.
const MAX_ENTRY: usize = 64 * 1024;
/// Largest record of what is shared, in bytes.
const MAX_SHARES: usize = 256 << 20;

/// The index of shared files in the node's store.
struct StoredIndex(Arc<Store>);

type IndexError = bbh_library::StoreError;

impl IndexStore for StoredIndex {
    fn load(&self) -> Result<Vec<StoredEntry>, IndexError> {
        let mut entries = Vec::new();
        let mut unreadable = 0_u64;
        self.0.for_each_index_entry(|_, value| match codec::decode(value, MAX_ENTRY) {
            Ok(entry) => entries.push(entry),
            Err(_) => unreadable += 1,
        })?;
        if unreadable > 0 {
            // The next rescan hashes these files again.
            tracing::warn!(unreadable, "records of shared files can't be read and are left out");
        }
        Ok(entries)
    }

    fn put(&self, entries: &[StoredEntry]) -> Result<(), IndexError> {
        Ok(self.0.put_index_entries(entries.iter().map(|entry| (path_to_bytes(&entry.path), codec::encode(entry))))?)
    }

    fn remove(&self, paths: &[PathBuf]) -> Result<(), IndexError> {
        Ok(self.0.remove_index_entries(paths.iter().map(|path| path_to_bytes(path)))?)
    }

    fn load_shares(&self) -> Result<bbh_library::Shares, IndexError> {
        match self.0.shares()? {
            Some(record) => Ok(codec::decode(&record, MAX_SHARES)?),
            None => Ok(bbh_library::Shares::default()),
        }
    }

    fn put_shares(&self, shares: &bbh_library::Shares) -> Result<(), IndexError> {
        Ok(self.0.put_shares(&codec::encode(shares))?)
    }
}

/// The shared files of a running node.
pub(crate) struct Shares {
    library: Library,
    scanning: AtomicUsize,
    work: Arc<Work>,
    /// Scans end when this is true.
    stopping: AtomicBool,
}

impl Shares {
    /// Opens the library. `trees` is the folder of its hash trees; what is `private` is never shared.
    ///
    /// # Errors
    /// If the store or the folder can't be used.
    pub(crate) fn open(store: Arc<Store>, trees: &Path, private: Vec<PathBuf>) -> Result<Self, LibraryError> {
        let config = LibraryConfig { outboard_dir: trees.to_owned(), private };
        Ok(Self {
            library: Library::open(config, StoredIndex(store))?,
            scanning: AtomicUsize::new(0),
            work: Arc::default(),
            stopping: AtomicBool::new(false),
        })
    }

    pub(crate) fn library(&self) -> &Library {
        &self.library
    }

    /// Whether files are being hashed, so that whatever changes the library has to wait.
    pub(crate) fn is_scanning(&self) -> bool {
        self.scanning.load(Ordering::Relaxed) > 0
    }

    /// Whether the node ends.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Counts a scan for as long as the guard lives.
    pub(crate) fn begin_scan(self: &Arc<Self>) -> ScanGuard {
        self.scanning.fetch_add(1, Ordering::Relaxed);
        ScanGuard(Arc::clone(self))
    }

    /// Counts a thread that works with the library, for as long as the guard lives. It lets go of the library first.
    pub(crate) fn begin_work(&self) -> WorkGuard {
        *self.work.lock() += 1;
        WorkGuard(Arc::clone(&self.work))
    }

    /// The threads that work with the library.
    pub(crate) fn work(&self) -> Arc<Work> {
        Arc::clone(&self.work)
    }

    /// A file with that content that is still there and as it was, as far as a look at it shows.
    pub(crate) fn held(&self, content: &ContentId) -> Option<Arc<StoredEntry>> {
        self.library.lookup(content)?;
        let unchanged = |entry: &Arc<StoredEntry>| {
            entry.record.content_id == *content
                && !entry.stale
                && std::fs::metadata(&entry.path).is_ok_and(|metadata| Stamp::of(&metadata) == entry.stamp)
        };
        self.library.entries().into_iter().find(unchanged)
    }

    /// Tells all scans to end.
    pub(crate) fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

/// A scan that runs.
pub(crate) struct ScanGuard(Arc<Shares>);

impl Drop for ScanGuard {
    fn drop(&mut self) {
        self.0.scanning.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many threads work with the library.
#[derive(Default)]
pub(crate) struct Work {
    running: Mutex<usize>,
    idle: Condvar,
}

impl Work {
    /// Waits until none does, at most so long.
    pub(crate) fn wait(&self, patience: Duration) {
        drop(self.idle.wait_timeout_while(self.lock(), patience, |running| *running > 0));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, usize> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that works with the library.
pub(crate) struct WorkGuard(Arc<Work>);

impl Drop for WorkGuard {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.idle.notify_all();
    }
}

/// Answers the protocol's requests on a thread of its own.
pub(crate) struct LibraryWorker {
    requests: Option<mpsc::SyncSender<(LibraryRequest, Pending<LibraryAnswer>)>>,
    answers: AnswerSender<LibraryAnswer>,
    thread: Option<thread::JoinHandle<()>>,
}

impl LibraryWorker {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system gives none.
    pub(crate) fn start(shares: Arc<Shares>, answers: AnswerSender<LibraryAnswer>) -> io::Result<Self> {
        let (requests, receiver) = mpsc::sync_channel::<(LibraryRequest, Pending<LibraryAnswer>)>(MAX_WAITING);
        let thread = thread::Builder::new().name("bbh-library".to_owned()).spawn(move || {
            while let Ok((request, pending)) = receiver.recv() {
                // A panic answers its request with the fallback.
                let answered = catch_unwind(AssertUnwindSafe(|| pending.answer(answer(&shares, &request))));
                if answered.is_err() {
                    tracing::error!("the library has failed inside; it goes on");
                }
            }
        })?;
        Ok(Self { requests: Some(requests), answers, thread: Some(thread) })
    }

    /// Asks for something; the answer comes through the channel, exactly one, whatever happens. Beyond the limit the
    /// answer is that there is nothing.
    pub(crate) fn request(&self, request: LibraryRequest) {
        let pending = Pending::new(Some(fallback(&request)), &self.answers);
        if let Some(requests) = &self.requests
            && requests.try_send((request, pending)).is_err()
        {
            tracing::debug!("the library is too busy: a request was refused");
        }
    }
}

impl Drop for LibraryWorker {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn fallback(request: &LibraryRequest) -> LibraryAnswer {
    match request {
        LibraryRequest::Search { token, .. } => LibraryAnswer::Found { token: *token, files: Vec::new() },
        LibraryRequest::Lookup { token, .. } => LibraryAnswer::Held { token: *token, file: None },
        LibraryRequest::ReadSlice { token, .. } => {
            LibraryAnswer::Slice { token: *token, result: Err("the library is too busy".to_owned()) }
        }
    }
}

fn answer(shares: &Shares, request: &LibraryRequest) -> LibraryAnswer {
    let library = shares.library();
    match request {
        LibraryRequest::Search { token, query, limit } => {
            LibraryAnswer::Found { token: *token, files: library.search(query, *limit) }
        }
        LibraryRequest::Lookup { token, content } => {
            LibraryAnswer::Held { token: *token, file: library.lookup(content) }
        }
        LibraryRequest::ReadSlice { token, content, start, end } => {
            let result = library.read_slice(content, *start..*end).map_err(|error| error.to_string());
            LibraryAnswer::Slice { token: *token, result }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bbh_library::Job;
    use bbh_types::{Query, SearchMode};
    use tokio::sync::mpsc as tokio_mpsc;
    use tokio::time::timeout;

    use super::*;

    async fn answer_of(answers: &mut tokio_mpsc::UnboundedReceiver<LibraryAnswer>) -> LibraryAnswer {
        timeout(Duration::from_secs(10), answers.recv()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn shared_files_are_found_read_and_known_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let music = folder.path().join("Müsik");
        std::fs::create_dir(&music).unwrap();
        let bytes = vec![7; 100_000];
        std::fs::write(music.join("Hopfen und Malz.ogg"), &bytes).unwrap();
        let content = ContentId::from_bytes(*blake3::hash(&bytes).as_bytes());
        let data = folder.path().join("data");

        for run in 0..2 {
            let store = Arc::new(Store::open(&data).unwrap().store);
            let shares = Arc::new(Shares::open(store, &folder.path().join("trees"), vec![data.clone()]).unwrap());
            if run == 0 {
                let report = shares.library().share(std::slice::from_ref(&music), Job::default()).unwrap();
                assert_eq!(report.added.len(), 1);
            } else {
                let report = shares.library().rescan(Job::default()).unwrap();
                assert_eq!((report.unchanged, report.hashed_bytes), (1, 0));
            }
            assert_eq!(shares.held(&content).unwrap().path, music.canonicalize().unwrap().join("Hopfen und Malz.ogg"));
            let (sender, mut answers) = tokio_mpsc::unbounded_channel();
            let worker = LibraryWorker::start(shares, sender).unwrap();
            let query = Query::new(["malz müsik"], SearchMode::All).unwrap();
            worker.request(LibraryRequest::Search { token: 1, query, limit: 10 });
            worker.request(LibraryRequest::Lookup { token: 2, content });
            worker.request(LibraryRequest::Lookup { token: 3, content: ContentId::from_bytes([1; 32]) });
            worker.request(LibraryRequest::ReadSlice { token: 4, content, start: 65_536, end: 81_920 });
            let LibraryAnswer::Found { token: 1, files } = answer_of(&mut answers).await else { panic!() };
            assert_eq!(&*files[0].name, "Hopfen und Malz.ogg");
            let LibraryAnswer::Held { token: 2, file: Some(file) } = answer_of(&mut answers).await else { panic!() };
            assert_eq!(file, files[0]);
            assert_eq!(answer_of(&mut answers).await, LibraryAnswer::Held { token: 3, file: None });
            let LibraryAnswer::Slice { token: 4, result: Ok(slice) } = answer_of(&mut answers).await else { panic!() };
            assert!(slice.len() > 16_384);
        }
    }

    #[tokio::test]
    async fn a_flood_of_requests_is_answered_without_being_kept() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::in_memory().unwrap());
        let shares = Arc::new(Shares::open(store, &folder.path().join("trees"), Vec::new()).unwrap());
        let (sender, mut answers) = tokio_mpsc::unbounded_channel();
        let worker = LibraryWorker::start(shares, sender).unwrap();
        for token in 0..10_000 {
            worker.request(LibraryRequest::ReadSlice {
                token,
                content: ContentId::from_bytes([1; 32]),
                start: 0,
                end: 16_384,
            });
        }
        let mut tokens = std::collections::BTreeSet::new();
        for _ in 0..10_000 {
            let LibraryAnswer::Slice { token, result: Err(_) } = answer_of(&mut answers).await else { panic!() };
            assert!(tokens.insert(token));
        }
    }
}
