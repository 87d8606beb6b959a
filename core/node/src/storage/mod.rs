//! Downloads on disk: carries out the protocol's storage requests on threads of its own.
//!
//! One thread writes. A second one makes data and records durable, since that takes the disk long while more data
//! arrives. A finished file is moved and checked on a thread that exists only for that. What concerns one download
//! stays in order: requests for a content wait until what must come before them is done.

pub mod disk;
mod finish;
mod paths;

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use bbh_proto::api::{DownloadRecord, Intent};
use bbh_proto::{StorageAnswer, StorageRequest};
use bbh_store::{Store, StoredDownload, StoredIntent};
use bbh_types::ContentId;

use crate::answer::{AnswerSender, Pending};
use crate::shares::Shares;
use disk::{Disk, allocated_bytes, explain};
use finish::Finisher;
pub(crate) use paths::recover;

/// Most temporary files kept open.
const MAX_OPEN: usize = 64;
/// What is left free on the disk, for the records and for others.
const SPARE_BYTES: u64 = 8 << 20;
/// What is answered when a thread has died.
const BROKEN: &str = "the storage has failed inside: restart bbh; what is recorded as verified is kept";

/// What the worker works with.
pub(crate) struct StorageConfig {
    /// Folder of temporary files; exists.
    pub(crate) partial: PathBuf,
    /// Where finished files go that the user wants nowhere else.
    pub(crate) download_dir: Arc<Mutex<PathBuf>>,
    pub(crate) store: Arc<Store>,
    pub(crate) shares: Arc<Shares>,
    pub(crate) disk: Arc<dyn Disk>,
}

/// The worker's front. Dropping it ends the threads once they have done what was asked.
pub(crate) struct Storage {
    jobs: mpsc::Sender<Job>,
    answers: AnswerSender<StorageAnswer>,
    thread: Option<thread::JoinHandle<()>>,
}

enum Job {
    Request(StorageRequest, Pending<StorageAnswer>),
    /// Where the user wants a download, before it begins.
    Destination(ContentId, PathBuf),
    /// A record is durable, or could not be made so.
    Saved(ContentId),
    /// A finished file has been dealt with.
    Finished(ContentId),
    /// The front is gone.
    End,
}

impl Storage {
    /// Starts the threads.
    ///
    /// # Errors
    /// If the system gives none.
    pub(crate) fn start(config: StorageConfig, answers: AnswerSender<StorageAnswer>) -> io::Result<Self> {
        let (jobs, receiver) = mpsc::channel();
        let (saves, save_receiver) = mpsc::channel();
        let saver = Saver { store: config.store.clone() };
        let saver = thread::Builder::new().name("bbh-sync".to_owned()).spawn(move || saver.run(&save_receiver))?;
        let finisher = Arc::new(Finisher {
            partial: config.partial.clone(),
            store: config.store.clone(),
            shares: config.shares.clone(),
            disk: config.disk.clone(),
        });
        let own = jobs.clone();
        let worker = Worker { config, finisher, saves, own, open: BTreeMap::new(), busy: BTreeMap::new() };
        let thread = thread::Builder::new().name("bbh-disk".to_owned()).spawn(move || {
            worker.run(&receiver);
            let _ = saver.join();
        })?;
        Ok(Self { jobs, answers, thread: Some(thread) })
    }

    /// Asks for something; the answer comes through the channel, exactly one, whatever happens.
    pub(crate) fn request(&self, request: StorageRequest) {
        let pending = Pending::new(fallback(&request), &self.answers);
        // If the thread has died, dropping the request answers it.
        let _ = self.jobs.send(Job::Request(request, pending));
    }

    /// Notes where the user wants a download that is about to be put on the list.
    pub(crate) fn set_destination(&self, content: ContentId, folder: PathBuf) {
        let _ = self.jobs.send(Job::Destination(content, folder));
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let _ = self.jobs.send(Job::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is answered if the request is never carried out.
fn fallback(request: &StorageRequest) -> Option<StorageAnswer> {
    let broken = || Err(BROKEN.to_owned());
    Some(match request {
        StorageRequest::Reserve { content, .. } => StorageAnswer::Reserved { content: *content, result: broken() },
        StorageRequest::Write { content, start, bytes } => {
            let end = start.saturating_add(bytes.len() as u64);
            StorageAnswer::Written { content: *content, start: *start, end, result: broken() }
        }
        StorageRequest::Save(record) => StorageAnswer::Saved { content: record.content, result: broken() },
        StorageRequest::Finish { content } => {
            StorageAnswer::Finished { content: *content, result: broken().map(|()| String::new()) }
        }
        StorageRequest::Discard { .. } => return None,
    })
}

/// What a download's requests have to wait for.
#[derive(Default)]
struct Busy {
    saves: u32,
    finishing: bool,
    waiting: VecDeque<(StorageRequest, Pending<StorageAnswer>)>,
}

struct Worker {
    config: StorageConfig,
    finisher: Arc<Finisher>,
    saves: mpsc::Sender<Save>,
    own: mpsc::Sender<Job>,
    open: BTreeMap<ContentId, Arc<File>>,
    busy: BTreeMap<ContentId, Busy>,
}

impl Worker {
    /// Works until the front is gone and nothing is under way.
    fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        let mut ending = false;
        while let Ok(job) = jobs.recv() {
            // A panic answers its request with the fallback and leaves the others in peace.
            let done = catch_unwind(AssertUnwindSafe(|| match job {
                Job::Request(request, pending) => self.take(request, pending),
                Job::Destination(content, folder) => self.set_destination(content, &folder),
                Job::Saved(content) => self.release(content, |busy| busy.saves = busy.saves.saturating_sub(1)),
                Job::Finished(content) => self.release(content, |busy| busy.finishing = false),
                Job::End => ending = true,
            }));
            if done.is_err() {
                tracing::error!("the storage has failed inside; it goes on");
            }
            if ending && self.busy.is_empty() {
                return;
            }
        }
    }

    /// Carries a request out, or lets it wait.
    fn take(&mut self, request: StorageRequest, pending: Pending<StorageAnswer>) {
        let content = content_of(&request);
        if let Some(busy) = self.busy.get_mut(&content) {
            let alone = !matches!(request, StorageRequest::Write { .. } | StorageRequest::Save(_));
            if busy.finishing || !busy.waiting.is_empty() || (alone && busy.saves > 0) {
                busy.waiting.push_back((request, pending));
                return;
            }
        }
        self.carry_out(request, pending);
    }

    fn release(&mut self, content: ContentId, change: impl FnOnce(&mut Busy)) {
        if let Some(busy) = self.busy.get_mut(&content) {
            change(busy);
        }
        while let Some(busy) = self.busy.get_mut(&content) {
            if busy.finishing {
                return;
            }
            match busy.waiting.front() {
                None if busy.saves == 0 => {
                    self.busy.remove(&content);
                    return;
                }
                None => return,
                Some((StorageRequest::Write { .. } | StorageRequest::Save(_), _)) => {}
                Some(_) if busy.saves > 0 => return,
                Some(_) => {}
            }
            if let Some((request, pending)) = busy.waiting.pop_front() {
                self.carry_out(request, pending);
            }
        }
    }

    fn carry_out(&mut self, request: StorageRequest, pending: Pending<StorageAnswer>) {
        match request {
            StorageRequest::Reserve { content, size } => {
                let result = self.reserve(content, size);
                pending.answer(StorageAnswer::Reserved { content, result });
            }
            StorageRequest::Write { content, start, bytes } => {
                let result = self.write(content, start, &bytes);
                let end = start.saturating_add(bytes.len() as u64);
                pending.answer(StorageAnswer::Written { content, start, end, result });
            }
            StorageRequest::Save(record) => {
                let content = record.content;
                self.busy.entry(content).or_default().saves += 1;
                let done = Done(self.own.clone(), Some(Job::Saved(content)));
                let file = self.existing_file(content);
                // A dead thread drops the job, which answers it and tells that it is done.
                let _ = self.saves.send(Save { record, file, pending, _done: done });
            }
            StorageRequest::Finish { content } => {
                self.open.remove(&content);
                self.busy.entry(content).or_default().finishing = true;
                let done = Done(self.own.clone(), Some(Job::Finished(content)));
                let folder = lock(&self.config.download_dir).clone();
                let finisher = Arc::clone(&self.finisher);
                let work = move || {
                    let _done = done;
                    // Taken in, so that it lets go of the store before the end is told.
                    let finisher = finisher;
                    finisher.finish(content, &folder, |result| {
                        let result = result.map(|path| path.to_string_lossy().into_owned());
                        pending.answer(StorageAnswer::Finished { content, result });
                    });
                };
                if let Err(error) = thread::Builder::new().name("bbh-finish".to_owned()).spawn(work) {
                    tracing::error!(%error, "no thread for a finished download");
                }
            }
            StorageRequest::Discard { content } => {
                self.open.remove(&content);
                paths::remove(&paths::part(&self.config.partial, content));
                if let Err(error) = self.config.store.remove_download(content) {
                    tracing::error!(%error, "a download's record can't be removed");
                }
            }
        }
    }

    fn set_destination(&mut self, content: ContentId, folder: &Path) {
        let stored = self.config.store.update_download(content, |old| StoredDownload {
            to: Some(folder.to_owned()),
            ..old.unwrap_or_else(|| {
                stored_download(&DownloadRecord {
                    content,
                    name: String::new(),
                    size: None,
                    verified: bbh_types::ByteRanges::new(),
                    intent: Intent::Queued,
                    path: None,
                })
            })
        });
        if let Err(error) = stored {
            tracing::error!(%error, "a download's folder can't be recorded");
        }
    }

    fn reserve(&mut self, content: ContentId, size: u64) -> Result<(), String> {
        let path = paths::part(&self.config.partial, content);
        let failed = |error: io::Error| explain("make the temporary file", &path, &error);
        let file = self.file(content)?;
        let needed = size.saturating_sub(allocated_bytes(&file).map_err(failed)?);
        let free = self.config.disk.free_bytes(&self.config.partial).map_err(failed)?;
        if free < needed.saturating_add(SPARE_BYTES) {
            self.open.remove(&content);
            let missing = needed.saturating_add(SPARE_BYTES) - free;
            return Err(format!(
                "the disk has no room for this file: {needed} bytes are needed in '{}' and {free} are free; free at \
                 least {missing} more, then resume the download",
                self.config.partial.display()
            ));
        }
        // Sparse: it takes no room yet, but a file system's limit on sizes shows now.
        if file.metadata().map_err(failed)?.len() != size {
            file.set_len(size).map_err(failed)?;
        }
        Ok(())
    }

    fn write(&mut self, content: ContentId, start: u64, bytes: &[u8]) -> Result<(), String> {
        let file = self.file(content)?;
        self.config
            .disk
            .write_at(&file, bytes, start)
            .map_err(|error| explain("write", &paths::part(&self.config.partial, content), &error))
    }

    /// The temporary file to make durable, if there is one. Syncing a file opened anew covers what was written before.
    fn existing_file(&mut self, content: ContentId) -> Option<Arc<File>> {
        if !self.open.contains_key(&content) && !paths::part(&self.config.partial, content).exists() {
            return None;
        }
        self.file(content).ok()
    }

    fn file(&mut self, content: ContentId) -> Result<Arc<File>, String> {
        if let Some(file) = self.open.get(&content) {
            return Ok(Arc::clone(file));
        }
        let path = paths::part(&self.config.partial, content);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = Arc::new(file.map_err(|error| explain("make the temporary file", &path, &error))?);
        if self.open.len() >= MAX_OPEN {
            self.open.pop_first();
        }
        self.open.insert(content, Arc::clone(&file));
        Ok(file)
    }
}

/// Tells the worker that something is over, also when its thread panics.
struct Done(mpsc::Sender<Job>, Option<Job>);

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(job) = self.1.take() {
            let _ = self.0.send(job);
        }
    }
}

struct Save {
    record: DownloadRecord,
    /// The temporary file, if there is one.
    file: Option<Arc<File>>,
    pending: Pending<StorageAnswer>,
    _done: Done,
}

/// Makes data, then records durable.
struct Saver {
    store: Arc<Store>,
}

impl Saver {
    fn run(&self, saves: &mpsc::Receiver<Save>) {
        while let Ok(save) = saves.recv() {
            if catch_unwind(AssertUnwindSafe(|| self.save(save))).is_err() {
                tracing::error!("a download's record could not be kept: the store has failed inside");
            }
        }
    }

    fn save(&self, Save { record, file, pending, _done }: Save) {
        let content = record.content;
        let data = file.map_or(Ok(()), |file| file.sync_data());
        let result = data
            .map_err(|error| explain("write", Path::new("the temporary file"), &error))
            .and_then(|()| self.record(&record).map_err(|error| error.to_string()));
        pending.answer(StorageAnswer::Saved { content, result });
    }

    fn record(&self, record: &DownloadRecord) -> Result<(), bbh_store::StoreError> {
        self.store.update_download(record.content, |old| {
            let (to, moving_to) = old.map_or((None, None), |old| (old.to, old.moving_to));
            StoredDownload { to, moving_to, ..stored_download(record) }
        })
    }
}

fn stored_download(record: &DownloadRecord) -> StoredDownload {
    StoredDownload {
        name: record.name.clone(),
        size: record.size,
        verified: record.verified.clone(),
        intent: match record.intent {
            Intent::Queued => StoredIntent::Queued,
            Intent::Active => StoredIntent::Active,
            Intent::Paused => StoredIntent::Paused,
            Intent::Complete => StoredIntent::Complete,
        },
        path: record.path.clone(),
        to: None,
        moving_to: None,
    }
}

/// The protocol's record of a stored download.
pub(crate) fn download_record(content: ContentId, stored: StoredDownload) -> DownloadRecord {
    DownloadRecord {
        content,
        name: stored.name,
        size: stored.size,
        verified: stored.verified,
        intent: match stored.intent {
            StoredIntent::Queued => Intent::Queued,
            StoredIntent::Active => Intent::Active,
            StoredIntent::Paused => Intent::Paused,
            StoredIntent::Complete => Intent::Complete,
        },
        path: stored.path,
    }
}

fn content_of(request: &StorageRequest) -> ContentId {
    match request {
        StorageRequest::Reserve { content, .. }
        | StorageRequest::Write { content, .. }
        | StorageRequest::Finish { content }
        | StorageRequest::Discard { content } => *content,
        StorageRequest::Save(record) => record.content,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
