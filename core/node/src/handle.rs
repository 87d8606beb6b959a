//! Starting a node and talking to it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::Duration;

use bbh_library::{Job, Library, LibraryError, Progress, ScanReport};
use bbh_proto::api::Command;
use bbh_proto::node::Counters;
use bbh_proto::{Identity, Node, NodeConfig};
use bbh_store::{Opened, Store, StoreError};
use bbh_types::{ContentId, Instant, NodeId, Priority, Query};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::air::AirRadio;
use crate::radio::{RadioPort, RadioSet, tcp::TcpRadio};
use crate::settings::Settings;
use crate::shares::{LibraryWorker, Shares};
use crate::shell::{Action, Parts, Reply, Request, SearchQuery, SearchStream, Shell};
use crate::storage::disk::{Disk, SystemDisk};
use crate::storage::{Storage, StorageConfig, download_record, recover};
use crate::view::{DeviceView, DownloadView, NodeEvent, SettingValue, ShareReport, SharedFile, Status};
use crate::{NodeError, StartError};

/// Events kept for a watcher that is slow; beyond, it misses some and is told so.
const EVENTS: usize = 256;
/// How long scans and the like may delay the end: a disk may hang.
const WORK_PATIENCE: Duration = Duration::from_secs(5);

/// How a node starts.
#[derive(Clone)]
pub struct NodeOptions {
    /// Where it keeps everything; made if need be.
    pub data: PathBuf,
    /// The simulated radio to join.
    pub air: Option<AirOptions>,
    /// Where to listen for TCP links, `HOST:PORT`; port 0 lets the system choose.
    pub listen: Option<String>,
    /// Peers to keep TCP links to, `HOST:PORT` each.
    pub peers: Vec<String>,
    /// Settings to change before the start, as [`NodeHandle::set`] takes them; they are kept.
    pub settings: Vec<(String, String)>,
    /// The disk below the downloads.
    pub disk: Arc<dyn Disk>,
}

/// A place in the simulated air.
#[derive(Debug, Clone, PartialEq)]
pub struct AirOptions {
    /// The hub, `HOST:PORT`.
    pub hub: String,
    /// Metres.
    pub x: f64,
    /// Metres.
    pub y: f64,
}

impl NodeOptions {
    /// A node in that data folder without any radio.
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            air: None,
            listen: None,
            peers: Vec::new(),
            settings: Vec::new(),
            disk: Arc::new(SystemDisk),
        }
    }
}

/// A running node. Clones talk to the same one; it stops when the last of them is dropped.
///
/// Every method only waits for an answer: whoever drops its future gives up waiting, which also ends a scan.
#[derive(Clone)]
pub struct NodeHandle {
    requests: mpsc::UnboundedSender<Request>,
    events: broadcast::Sender<NodeEvent>,
    shares: Weak<Shares>,
    ended: watch::Receiver<bool>,
    about: Arc<About>,
}

struct About {
    node: NodeId,
    listening: Option<SocketAddr>,
    notices: Vec<String>,
}

/// Which shared files are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharedThing {
    /// A file, or a folder with all below it.
    Path(PathBuf),
    /// All files with this content.
    Content(ContentId),
}

impl NodeHandle {
    /// Starts a node on a thread of its own and returns when it is ready.
    ///
    /// # Errors
    /// [`StartError`]; then nothing is left running.
    pub async fn start(options: NodeOptions) -> Result<Self, StartError> {
        let (ready, is_ready) = oneshot::channel();
        let (ended, has_ended) = watch::channel(false);
        thread::Builder::new().name("bbh-node".to_owned()).spawn(move || {
            let end = End(ended);
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = ready.send(Err(error.into()));
                    return;
                }
            };
            let shares = runtime.block_on(async {
                match assemble(options, has_ended).await {
                    Ok((shell, handle)) => {
                        let shares = handle.shares.upgrade();
                        if let Some(Err(error)) = shares.clone().map(rescan_in_background) {
                            tracing::error!(%error, "the shared folders can't be looked at");
                        }
                        let events = handle.events.clone();
                        if ready.send(Ok(handle)).is_ok() {
                            shell.run().await;
                        }
                        let _ = events.send(NodeEvent::Stopped);
                        shares
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        None
                    }
                }
            });
            drop(runtime);
            if let Some(shares) = shares {
                shares.begin_stop();
                let work = shares.work();
                drop(shares);
                work.wait(WORK_PATIENCE);
            }
            // The store is closed now: another node may open the folder.
            drop(end);
        })?;
        is_ready.await.unwrap_or_else(|_| Err(io::Error::other("the node failed while it started").into()))
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.about.node
    }

    /// Where it listens for TCP links.
    pub fn listening(&self) -> Option<SocketAddr> {
        self.about.listening
    }

    /// What was put right at the start and the user should know.
    pub fn notices(&self) -> &[String] {
        &self.about.notices
    }

    /// What happens from now on.
    pub fn events(&self) -> broadcast::Receiver<NodeEvent> {
        self.events.subscribe()
    }

    /// Where the node stands.
    ///
    /// # Errors
    /// [`NodeError::Stopped`].
    pub async fn status(&self) -> Result<Status, NodeError> {
        self.ask(Request::Status).await
    }

    /// What the node has dropped, and why.
    ///
    /// # Errors
    /// [`NodeError::Stopped`].
    pub async fn counters(&self) -> Result<Counters, NodeError> {
        self.ask(Request::Counters).await
    }

    /// All other nodes of the tree.
    ///
    /// # Errors
    /// If the list is not complete within 5 s.
    pub async fn devices(&self) -> Result<Vec<DeviceView>, NodeError> {
        self.ask(Request::Devices).await
    }

    /// The time to a node and back; `None` if it does not answer.
    ///
    /// # Errors
    /// [`NodeError::Stopped`].
    pub async fn ping(&self, node: NodeId) -> Result<Option<Duration>, NodeError> {
        self.ask(|reply| Request::Ping(node, reply)).await
    }

    /// Carries the radio elsewhere, in metres.
    ///
    /// # Errors
    /// If it has no place, or that is none.
    pub async fn move_to(&self, x: f64, y: f64) -> Result<(), NodeError> {
        if !x.is_finite() || !y.is_finite() {
            return Err(NodeError::usage("a position is two numbers, in metres"));
        }
        self.ask(|reply| Request::Move(x, y, reply)).await
    }

    /// Shares files and folders, given by absolute paths, and tells `progress` how far it is, often and from several
    /// threads. Dropping the future ends it; what was hashed by then stays shared.
    ///
    /// # Errors
    /// Only if nothing could be done at all; single files that can't be shared are in the report.
    pub async fn share(
        &self,
        paths: Vec<PathBuf>,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<ShareReport, NodeError> {
        if let Some(path) = paths.iter().find(|path| !path.is_absolute()) {
            return Err(NodeError::usage(format!("'{}' is not an absolute path", path.display())));
        }
        self.scan(progress, move |library, job| {
            let report = library.share(&paths, job)?;
            let files = library.entries_below(&paths);
            Ok((report, files.iter().map(|entry| SharedFile::new(entry)).collect()))
        })
        .await
    }

    /// Looks for changes in all that is shared. The report has the files that are new or changed.
    ///
    /// # Errors
    /// As [`NodeHandle::share`].
    pub async fn rescan(&self, progress: impl Fn(Progress) + Send + Sync + 'static) -> Result<ShareReport, NodeError> {
        self.scan(progress, |library, job| {
            let report = library.rescan(job)?;
            let new = report.added.iter().chain(&report.changed);
            let files = new.filter_map(|path| library.entry(path)).map(|entry| SharedFile::new(&entry)).collect();
            Ok((report, files))
        })
        .await
    }

    async fn scan(
        &self,
        progress: impl Fn(Progress) + Send + Sync + 'static,
        work: impl FnOnce(&Library, Job<'_>) -> Result<(ScanReport, Vec<SharedFile>), LibraryError> + Send + 'static,
    ) -> Result<ShareReport, NodeError> {
        let cancel = Arc::new(AtomicBool::new(false));
        let _cancel_on_drop = CancelOnDrop(Arc::clone(&cancel));
        let events = self.events.clone();
        self.blocking(move |shares| {
            let scan = shares.begin_scan();
            let watch = |now: Progress| {
                if shares.is_stopping() {
                    cancel.store(true, Ordering::Relaxed);
                }
                progress(now);
            };
            let job = Job { progress: Some(&watch), cancel: Some(&cancel) };
            let (report, files) = work(shares.library(), job).map_err(|error| NodeError::failed(error.to_string()))?;
            drop(scan);
            if !(report.added.is_empty() && report.changed.is_empty() && report.removed.is_empty()) {
                let _ = events.send(NodeEvent::SharesChanged);
            }
            let mut problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
            if report.cancelled {
                problems.push("the scan was cancelled: not everything was looked at".to_owned());
            }
            Ok(ShareReport { files, problems })
        })
        .await
    }

    /// Stops sharing; gives the paths that are no longer shared. The files themselves stay.
    ///
    /// # Errors
    /// If nothing like that is shared.
    pub async fn unshare(&self, what: SharedThing) -> Result<Vec<String>, NodeError> {
        let events = self.events.clone();
        self.blocking(move |shares| {
            let shared_before = shares.library().shares();
            let removed = match &what {
                SharedThing::Path(path) if !path.is_absolute() => {
                    return Err(NodeError::usage(format!("'{}' is not an absolute path", path.display())));
                }
                SharedThing::Path(path) => shares.library().unshare(path),
                SharedThing::Content(content) => shares.library().unshare_content(content),
            };
            let removed = removed.map_err(|error| NodeError::failed(error.to_string()))?;
            if removed.is_empty() && shares.library().shares() == shared_before {
                return Err(NodeError::failed(match what {
                    SharedThing::Path(path) => format!("nothing at '{}' is shared", path.display()),
                    SharedThing::Content(content) => format!("nothing with the content {content} is shared"),
                }));
            }
            let _ = events.send(NodeEvent::SharesChanged);
            Ok(removed.iter().map(|path| path.to_string_lossy().into_owned()).collect())
        })
        .await
    }

    /// All shared files, sorted by path.
    ///
    /// # Errors
    /// [`NodeError::Stopped`].
    pub async fn shared(&self) -> Result<Vec<SharedFile>, NodeError> {
        self.blocking(|shares| Ok(shares.library().entries().iter().map(|entry| SharedFile::new(entry)).collect()))
            .await
    }

    /// Sets the preference of a content in the upload queue.
    ///
    /// # Errors
    /// If nothing like that is shared.
    pub async fn set_priority(&self, content: ContentId, priority: Priority) -> Result<(), NodeError> {
        self.blocking(move |shares| match shares.library().set_priority(&content, priority) {
            Ok(true) => Ok(()),
            Ok(false) => Err(NodeError::failed(format!("nothing with the content {content} is shared"))),
            Err(error) => Err(NodeError::failed(error.to_string())),
        })
        .await
    }

    /// Looks for files on other nodes. Without a `timeout` the setting's counts. Hits come as they arrive, a content
    /// again when more sources answer.
    ///
    /// # Errors
    /// [`NodeError::Stopped`].
    pub async fn search(&self, query: Query, timeout: Option<Duration>) -> Result<SearchStream, NodeError> {
        let query = SearchQuery { query, mode_given: true };
        self.ask(|reply| Request::Search(query, timeout, reply)).await
    }

    /// As [`NodeHandle::search`], with the search mode of the settings instead of the query's.
    ///
    /// # Errors
    /// As there.
    pub async fn search_as_set(&self, query: Query, timeout: Option<Duration>) -> Result<SearchStream, NodeError> {
        let query = SearchQuery { query, mode_given: false };
        self.ask(|reply| Request::Search(query, timeout, reply)).await
    }

    /// Puts a content on the download list and, unless `queue_only`, starts it. The finished file goes to `to`, an
    /// absolute path, or to the download folder. What is here already is complete at once.
    ///
    /// # Errors
    /// If the folder can't be used.
    pub async fn download(
        &self,
        content: ContentId,
        to: Option<PathBuf>,
        queue_only: bool,
    ) -> Result<DownloadView, NodeError> {
        if let Some(folder) = &to {
            if !folder.is_absolute() || folder.to_str().is_none() {
                let text = format!("'{}' is not an absolute path in UTF-8", folder.display());
                return Err(NodeError::usage(text));
            }
            let folder = folder.clone();
            self.blocking(move |_| {
                std::fs::create_dir_all(&folder).map_err(|error| {
                    NodeError::failed(format!("the folder '{}' can't be used: {error}", folder.display()))
                })
            })
            .await?;
        }
        self.ask(|reply| Request::Download { content, to, queue_only, reply }).await
    }

    /// The download list.
    ///
    /// # Errors
    /// [`NodeError::Stopped`].
    pub async fn downloads(&self) -> Result<Vec<DownloadView>, NodeError> {
        self.ask(Request::Downloads).await
    }

    /// One download; `None` if it is not on the list.
    ///
    /// # Errors
    /// [`NodeError::Stopped`].
    pub async fn one_download(&self, content: ContentId) -> Result<Option<DownloadView>, NodeError> {
        Ok(self.downloads().await?.into_iter().find(|download| download.content_id == content))
    }

    /// Starts a download that is on the list.
    ///
    /// # Errors
    /// If there is none such.
    pub async fn start_download(&self, content: ContentId) -> Result<Option<DownloadView>, NodeError> {
        self.ask(|reply| Request::Act(Action::Start, content, reply)).await
    }

    /// Stops fetching; what is there stays.
    ///
    /// # Errors
    /// If there is none such.
    pub async fn pause(&self, content: ContentId) -> Result<Option<DownloadView>, NodeError> {
        self.ask(|reply| Request::Act(Action::Pause, content, reply)).await
    }

    /// Goes on after a pause or a failure.
    ///
    /// # Errors
    /// If there is none such.
    pub async fn resume(&self, content: ContentId) -> Result<Option<DownloadView>, NodeError> {
        self.ask(|reply| Request::Act(Action::Resume, content, reply)).await
    }

    /// Takes a download off the list and removes its temporary file; a finished file stays.
    ///
    /// # Errors
    /// If there is none such.
    pub async fn cancel(&self, content: ContentId) -> Result<Option<DownloadView>, NodeError> {
        self.ask(|reply| Request::Act(Action::Cancel, content, reply)).await
    }

    /// Waits until a download is complete or has failed, telling each state in between to `each`.
    ///
    /// # Errors
    /// If it is or gets off the list.
    pub async fn wait_for(
        &self,
        content: ContentId,
        mut each: impl FnMut(&DownloadView),
    ) -> Result<DownloadView, NodeError> {
        let gone = || NodeError::failed(format!("there is no download of {content}: it was cancelled"));
        let mut events = self.events();
        let mut view = self.one_download(content).await?.ok_or_else(gone)?;
        loop {
            each(&view);
            if view.is_over() {
                return Ok(view);
            }
            view = loop {
                match events.recv().await {
                    Ok(NodeEvent::DownloadChanged(changed, Some(view))) if changed == content => break *view,
                    Ok(NodeEvent::DownloadChanged(changed, None)) if changed == content => return Err(gone()),
                    Ok(NodeEvent::Stopped) | Err(broadcast::error::RecvError::Closed) => {
                        return Err(NodeError::Stopped);
                    }
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        break self.one_download(content).await?.ok_or_else(gone)?;
                    }
                }
            };
        }
    }

    /// All settings.
    ///
    /// # Errors
    /// [`NodeError::Stopped`].
    pub async fn settings(&self) -> Result<BTreeMap<&'static str, SettingValue>, NodeError> {
        Ok(self.ask(Request::Settings).await?.into_iter().collect())
    }

    /// Changes a setting, at once and for good.
    ///
    /// # Errors
    /// If there is no such setting or the value is out of its range, with what would be right.
    pub async fn set(&self, key: &str, value: &str) -> Result<(), NodeError> {
        let (key, value) = (key.to_owned(), value.to_owned());
        self.ask(|reply| Request::Set(key, value, reply)).await
    }

    /// Stops the node: closes its links, makes records durable, and returns when the data folder is free.
    pub async fn stop(&self) {
        let _ = self.requests.send(Request::Stop);
        self.ended().await;
    }

    /// Waits until the node has ended, for whatever reason.
    pub async fn ended(&self) {
        // An error means that the thread is gone, which is the same.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, NodeError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| NodeError::Stopped)?;
        answer.await.unwrap_or(Err(NodeError::Stopped))
    }

    /// Does something that may take long on a thread of its own.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Shares>) -> Result<T, NodeError> + Send + 'static,
    ) -> Result<T, NodeError> {
        let (reply, answer) = oneshot::channel();
        let shares = self.shares.upgrade().ok_or(NodeError::Stopped)?;
        // Counted before the thread runs, so that the node's end waits for it.
        let busy = shares.begin_work();
        thread::Builder::new()
            .name("bbh-work".to_owned())
            .spawn(move || {
                let result = work(&shares);
                drop(shares);
                drop(busy);
                let _ = reply.send(result);
            })
            .map_err(|error| NodeError::failed(format!("the system gives no thread for this: {error}")))?;
        answer.await.unwrap_or_else(|_| Err(NodeError::failed("this failed inside the node; see its log")))
    }
}

/// Tells that the node has ended, also when its thread panics.
struct End(watch::Sender<bool>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Puts a node together on the current runtime.
async fn assemble(options: NodeOptions, ended: watch::Receiver<bool>) -> Result<(Shell, NodeHandle), StartError> {
    let started = tokio::time::Instant::now();
    let NodeOptions { data, air, listen, peers, settings: wanted, disk } = options;
    let data = std::path::absolute(&data).map_err(|source| StartError::Folder { path: data.clone(), source })?;

    let own = data.join("node");
    let Opened { store, notices } = Store::open(&own).map_err(|error| match error {
        StoreError::InUse(_) => StartError::InUse(data.clone()),
        error => StartError::Store(error),
    })?;
    let store = Arc::new(store);
    let partial = private_folder(&data, "partial")?;
    let trees = private_folder(&data, "trees")?;
    let private = vec![own, partial.clone(), data.join("control.json")];
    let shares = Arc::new(Shares::open(store.clone(), &trees, private).map_err(StartError::Library)?);

    let identity = Identity::from_seed(*store.seed());
    let (id, fingerprint) = (identity.node_id(), identity.fingerprint());
    let settings = settle_settings(&store, &id, &wanted)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| StartError::System(io::Error::other(error)))?;
    let boot = store.next_boot().map_err(StartError::Store)?;
    let config = NodeConfig { identity, boot, settings: settings.protocol(), seed };
    let downloads = recover(&store, &partial).map_err(StartError::Store)?;

    let mut ports = Vec::new();
    if let Some(AirOptions { hub, x, y }) = air {
        let (radio, events) =
            AirRadio::connect(&hub, x, y).await.map_err(|error| StartError::Air { hub, reason: error.to_string() })?;
        ports.push(RadioPort { radio: Box::new(radio), events });
    }
    let mut listening = None;
    if listen.is_some() || !peers.is_empty() {
        let (radio, events) = TcpRadio::start(listen.as_deref(), &peers)
            .await
            .map_err(|source| StartError::Listen { address: listen.unwrap_or_default(), source })?;
        listening = radio.local_addr();
        ports.push(radio.into_port(events));
    }

    let download_dir = Arc::new(Mutex::new(settings.download_dir(&data)));
    let (storage_sender, storage_answers) = mpsc::unbounded_channel();
    let (library_sender, library_answers) = mpsc::unbounded_channel();
    let storage = Storage::start(
        StorageConfig {
            partial,
            download_dir: download_dir.clone(),
            store: store.clone(),
            shares: shares.clone(),
            disk,
        },
        storage_sender,
    )?;
    let library = LibraryWorker::start(shares.clone(), library_sender)?;
    let (requests_sender, requests) = mpsc::unbounded_channel();
    let (events, _) = broadcast::channel(EVENTS);

    let handle = NodeHandle {
        requests: requests_sender.clone(),
        events: events.clone(),
        shares: Arc::downgrade(&shares),
        ended,
        about: Arc::new(About { node: id, listening, notices: notices.iter().map(ToString::to_string).collect() }),
    };
    let mut shell = Shell::new(Parts {
        node: Node::new(config, Instant::ZERO),
        fingerprint,
        radios: RadioSet::new(ports),
        storage,
        storage_answers,
        library,
        library_answers,
        store,
        shares,
        settings,
        data,
        download_dir,
        requests,
        requests_back: requests_sender.downgrade(),
        events,
        started,
    });
    for (content, download) in downloads {
        shell.prepare(Command::Restore(download_record(content, download)));
    }
    Ok((shell, handle))
}

/// The stored settings with the changes wanted at the start.
fn settle_settings(store: &Store, node: &NodeId, wanted: &[(String, String)]) -> Result<Settings, StartError> {
    let mut settings = Settings::load(store).map_err(StartError::Store)?;
    let before = settings.clone();
    for (key, value) in wanted {
        settings.set(key, value)?;
    }
    settings.ensure_name(&node.to_string());
    if settings != before {
        settings.save(store).map_err(StartError::Store)?;
    }
    Ok(settings)
}

/// A folder of the node's own, which only its user may enter.
fn private_folder(data: &Path, name: &str) -> Result<PathBuf, StartError> {
    let path = data.join(name);
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(&path).map_err(|source| StartError::Folder { path: path.clone(), source })?;
    Ok(path)
}

/// Notices what has changed in the shared folders while the node was off.
fn rescan_in_background(shares: Arc<Shares>) -> io::Result<()> {
    if shares.library().shares().roots.is_empty() {
        return Ok(());
    }
    let busy = shares.begin_work();
    thread::Builder::new().name("bbh-work".to_owned()).spawn(move || {
        let scan = shares.begin_scan();
        let cancel = AtomicBool::new(false);
        let watch = |_: Progress| {
            if shares.is_stopping() {
                cancel.store(true, Ordering::Relaxed);
            }
        };
        match shares.library().rescan(Job { progress: Some(&watch), cancel: Some(&cancel) }) {
            Ok(report) => tracing::info!(
                new = report.added.len(),
                changed = report.changed.len(),
                gone = report.removed.len(),
                problems = report.problems.len(),
                "the shared folders were looked at"
            ),
            Err(error) => tracing::error!(%error, "the shared folders can't be looked at"),
        }
        drop(scan);
        drop(shares);
        drop(busy);
    })?;
    Ok(())
}
