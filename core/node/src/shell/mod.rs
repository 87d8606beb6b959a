//! The task that owns the protocol: it feeds it one thing at a time and carries out what comes of it.
//!
//! There is one timer in the whole process, set to what the protocol or a waiting asker needs next, so that an idle
//! node sleeps.

mod search;

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bbh_proto::api::{Command, Event};
use bbh_proto::node::Counters;
use bbh_proto::{Effect, LibraryAnswer, Node, StorageAnswer, StorageRequest};
use bbh_store::Store;
use bbh_types::radio::RadioEvent;
use bbh_types::{ContentId, Instant, NodeId, Query};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time;

use crate::NodeError;
use crate::radio::RadioSet;
use crate::settings::Settings;
use crate::shares::{LibraryWorker, Shares};
use crate::storage::Storage;
use crate::view::{DeviceView, DownloadView, HitSource, NodeEvent, SettingValue, Status};
pub use search::SearchStream;
use search::{KnownFiles, Search};

/// How long the list of devices may take.
const DEVICES_TIME: Duration = Duration::from_secs(5);
/// How long a ping may take; the protocol gives up before.
const PING_TIME: Duration = Duration::from_secs(12);
/// How long stopping may take: links that close, records that become durable.
const STOP_TIME: Duration = Duration::from_secs(3);
/// Radio events taken before others have their turn.
const BATCH: usize = 32;
/// Timers are this coarse anyway; it bounds what a timer that is always due could cost.
const TICK: Duration = Duration::from_millis(1);
/// Timers at least so far ahead are set to full steps of [`GRID`].
const FAR: Duration = Duration::from_millis(500);
/// See [`FAR`].
const GRID: Duration = Duration::from_millis(128);

pub(crate) type Reply<T> = oneshot::Sender<Result<T, NodeError>>;

/// What can be asked of the shell.
pub(crate) enum Request {
    Status(Reply<Status>),
    Counters(Reply<Counters>),
    Devices(Reply<Vec<DeviceView>>),
    Ping(NodeId, Reply<Option<Duration>>),
    Move(f64, f64, Reply<()>),
    Search(SearchQuery, Option<Duration>, Reply<SearchStream>),
    CancelSearch(u32),
    Download { content: ContentId, to: Option<PathBuf>, queue_only: bool, reply: Reply<DownloadView> },
    Downloads(Reply<Vec<DownloadView>>),
    Act(Action, ContentId, Reply<Option<DownloadView>>),
    Settings(Reply<Vec<(&'static str, SettingValue)>>),
    Set(String, String, Reply<()>),
    Stop,
}

/// A query whose mode may be left to the settings.
pub(crate) struct SearchQuery {
    pub(crate) query: Query,
    pub(crate) mode_given: bool,
}

/// What can be done to a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Start,
    Pause,
    Resume,
    Cancel,
}

/// What the shell is made of.
pub(crate) struct Parts {
    pub(crate) node: Node,
    pub(crate) fingerprint: String,
    pub(crate) radios: RadioSet,
    pub(crate) storage: Storage,
    pub(crate) storage_answers: mpsc::UnboundedReceiver<StorageAnswer>,
    pub(crate) library: LibraryWorker,
    pub(crate) library_answers: mpsc::UnboundedReceiver<LibraryAnswer>,
    pub(crate) store: Arc<Store>,
    pub(crate) shares: Arc<Shares>,
    pub(crate) settings: Settings,
    pub(crate) data: PathBuf,
    pub(crate) download_dir: Arc<Mutex<PathBuf>>,
    pub(crate) requests: mpsc::UnboundedReceiver<Request>,
    pub(crate) requests_back: mpsc::WeakUnboundedSender<Request>,
    pub(crate) events: broadcast::Sender<NodeEvent>,
    pub(crate) started: time::Instant,
}

/// The task.
pub(crate) struct Shell {
    parts: Parts,
    /// Storage requests that are not answered yet.
    storage_open: usize,
    searches: BTreeMap<u32, Search>,
    next_search: u32,
    known: KnownFiles,
    next_token: u64,
    devices: BTreeMap<u64, (time::Instant, Reply<Vec<DeviceView>>)>,
    pings: BTreeMap<u64, (time::Instant, Reply<Option<Duration>>)>,
    changed: BTreeSet<ContentId>,
    stop_by: Option<time::Instant>,
}

impl Shell {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            storage_open: 0,
            searches: BTreeMap::new(),
            next_search: 0,
            known: KnownFiles::default(),
            next_token: 0,
            devices: BTreeMap::new(),
            pings: BTreeMap::new(),
            changed: BTreeSet::new(),
            stop_by: None,
        }
    }

    /// Gives the protocol a command before the task runs.
    pub(crate) fn prepare(&mut self, command: Command) {
        self.parts.node.handle_command(self.now(), command);
        self.drain();
    }

    /// Runs until the node is stopped. Everything it owns ends with it.
    pub(crate) async fn run(mut self) {
        let sleep = time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        let mut events = Vec::new();
        let mut storage = Vec::new();
        let mut library = Vec::new();
        self.drain();
        loop {
            if self.stop_by.is_some_and(|by| self.is_wound_up() || time::Instant::now() >= by) {
                break;
            }
            let deadline = self.deadline();
            if let Some(deadline) = deadline
                && sleep.deadline() != deadline
            {
                if deadline > sleep.deadline() + FAR {
                    // Only moved ahead, it would still wake the thread at its old time.
                    sleep.set(time::sleep_until(deadline));
                } else {
                    sleep.as_mut().reset(deadline);
                }
            }
            let Parts { radios, storage_answers, library_answers, requests, .. } = &mut self.parts;
            tokio::select! {
                request = requests.recv(), if self.stop_by.is_none() => {
                    // The last handle is gone: nobody can ask for anything any more.
                    self.take(request.unwrap_or(Request::Stop));
                    self.drain();
                }
                _ = storage_answers.recv_many(&mut storage, BATCH) => {
                    for answer in storage.drain(..) {
                        self.storage_open = self.storage_open.saturating_sub(1);
                        self.parts.node.handle_storage(self.now(), answer);
                        self.drain();
                    }
                }
                _ = library_answers.recv_many(&mut library, BATCH) => {
                    for answer in library.drain(..) {
                        self.parts.node.handle_library(self.now(), answer);
                        self.drain();
                    }
                }
                () = poll_fn(|cx| radios.poll_events(cx, &mut events, BATCH)) => {
                    for event in events.drain(..) {
                        self.take_radio(event);
                    }
                }
                () = &mut sleep, if deadline.is_some() => {}
            }
            self.on_time();
            self.tell_changes();
        }
        tracing::info!("the node has stopped");
    }

    /// The protocol's time.
    fn now(&self) -> Instant {
        let micros = self.parts.started.elapsed().as_micros();
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    fn deadline(&self) -> Option<time::Instant> {
        let node = self.parts.node.poll_timeout();
        let node = node.map(|at| self.parts.started + Duration::from_micros(at.as_micros()));
        let askers = self.devices.values().map(|(at, _)| *at).chain(self.pings.values().map(|(at, _)| *at));
        let earliest = node.into_iter().chain(askers).chain(self.stop_by).min()?;
        let now = time::Instant::now();
        if earliest < now + FAR {
            return Some(earliest.max(now + TICK));
        }
        // What is far ahead may come a little late, so that several things share one awakening. The runtime sorts its
        // timers in slots of 64 of its milliseconds, counted up from just before `started`, and wakes up at the beginning
        // of a slot to look for what is due within: at that very moment nothing is left to wake up for again.
        let steps = ((earliest - self.parts.started).as_millis() + 1).div_ceil(GRID.as_millis());
        let millis = u64::try_from(steps * GRID.as_millis()).unwrap_or(u64::MAX).saturating_sub(1);
        Some(self.parts.started + Duration::from_millis(millis))
    }

    fn on_time(&mut self) {
        let now = self.now();
        if self.parts.node.poll_timeout().is_some_and(|at| at <= now) {
            self.parts.node.handle_timeout(now);
            self.drain();
        }
        let clock = time::Instant::now();
        for (_, (_, reply)) in self.devices.extract_if(.., |_, (at, _)| *at <= clock) {
            let text = "the list of devices did not come in time: the tree may be healing; try again";
            let _ = reply.send(Err(NodeError::failed(text)));
        }
        for (_, (_, reply)) in self.pings.extract_if(.., |_, (at, _)| *at <= clock) {
            let _ = reply.send(Ok(None));
        }
    }

    fn take_radio(&mut self, event: RadioEvent) {
        self.parts.node.handle_radio(self.now(), event);
        self.drain();
    }

    /// Carries out all that the protocol wants now.
    fn drain(&mut self) {
        loop {
            let mut any = false;
            while let Some(transmit) = self.parts.node.poll_transmit() {
                any = true;
                self.parts.radios.send(transmit.link, transmit.bytes);
            }
            while let Some(effect) = self.parts.node.poll_effect() {
                any = true;
                match effect {
                    Effect::Radio(command) => self.parts.radios.command(command),
                    Effect::Library(request) => self.parts.library.request(request),
                    Effect::Storage(request) => {
                        if !matches!(request, StorageRequest::Discard { .. }) {
                            self.storage_open += 1;
                        }
                        self.parts.storage.request(request);
                    }
                }
            }
            while let Some(event) = self.parts.node.poll_event() {
                any = true;
                self.tell(event);
            }
            if !any {
                return;
            }
        }
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::NetworkChanged => {
                let _ = self.parts.events.send(NodeEvent::NetworkChanged);
            }
            Event::SearchHits { search, source, hops, queue_position, files } => {
                files.iter().for_each(|file| self.known.add(file));
                if let Some(search) = self.searches.get_mut(&search) {
                    search.add(&files, &HitSource { node_id: source, queue_position, hops });
                }
            }
            Event::SearchDone { search } => {
                if let Some(search) = self.searches.remove(&search) {
                    search.finish();
                }
            }
            Event::DownloadChanged(content) => {
                self.changed.insert(content);
            }
            Event::Devices { token, devices } => {
                if let Some((_, reply)) = self.devices.remove(&token) {
                    let _ = reply.send(Ok(devices.into_iter().map(DeviceView::new).collect()));
                }
            }
            Event::Pong { token, time } => {
                if let Some((_, reply)) = self.pings.remove(&token) {
                    let _ = reply.send(Ok(time));
                }
            }
        }
    }

    /// Tells the watchers which downloads have changed, once for many changes.
    fn tell_changes(&mut self) {
        let changed = std::mem::take(&mut self.changed);
        if changed.is_empty() || self.parts.events.receiver_count() == 0 {
            return;
        }
        let mut downloads: BTreeMap<_, _> =
            self.parts.node.downloads().into_iter().map(|status| (status.content, status)).collect();
        for content in changed {
            let view = downloads.remove(&content).map(|status| Box::new(DownloadView::new(status)));
            let _ = self.parts.events.send(NodeEvent::DownloadChanged(content, view));
        }
    }

    fn command(&mut self, command: Command) {
        self.parts.node.handle_command(self.now(), command);
        self.drain();
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Status(reply) => {
                let name = self.parts.settings.name().to_owned();
                let status = Status::new(self.parts.node.status(self.now()), name, self.parts.fingerprint.clone());
                let _ = reply.send(Ok(status));
            }
            Request::Counters(reply) => {
                let _ = reply.send(Ok(self.parts.node.counters()));
            }
            Request::Devices(reply) => {
                let token = self.token();
                self.devices.insert(token, (time::Instant::now() + DEVICES_TIME, reply));
                self.command(Command::ListDevices { token });
            }
            Request::Ping(node, reply) => {
                let token = self.token();
                self.pings.insert(token, (time::Instant::now() + PING_TIME, reply));
                self.command(Command::Ping { node, token });
            }
            Request::Move(x, y, reply) => {
                let moved = self.parts.radios.move_to(x, y);
                let refused = || NodeError::usage("this node has no place: only one with an air radio can be moved");
                let _ = reply.send(if moved { Ok(()) } else { Err(refused()) });
            }
            Request::Search(query, timeout, reply) => self.search(query, timeout, reply),
            Request::CancelSearch(search) => {
                if self.searches.remove(&search).is_some() {
                    self.command(Command::CancelSearch { search });
                }
            }
            Request::Download { content, to, queue_only, reply } => self.download(content, to, queue_only, reply),
            Request::Downloads(reply) => {
                let downloads = self.parts.node.downloads();
                let _ = reply.send(Ok(downloads.into_iter().map(DownloadView::new).collect()));
            }
            Request::Act(action, content, reply) => {
                let _ = reply.send(self.act(action, content));
            }
            Request::Settings(reply) => {
                let _ = reply.send(Ok(self.parts.settings.list(&self.parts.data)));
            }
            Request::Set(key, value, reply) => {
                let _ = reply.send(self.set(&key, &value));
            }
            Request::Stop => {
                self.parts.shares.begin_stop();
                self.command(Command::Stop);
                self.stop_by = Some(time::Instant::now() + STOP_TIME);
            }
        }
    }

    fn is_wound_up(&self) -> bool {
        self.storage_open == 0 && self.parts.radios.is_silent()
    }

    fn search(
        &mut self,
        SearchQuery { mut query, mode_given }: SearchQuery,
        timeout: Option<Duration>,
        reply: Reply<SearchStream>,
    ) {
        let Some(requests) = self.parts.requests_back.upgrade() else { return };
        if !mode_given {
            query.mode = self.parts.settings.search_mode();
        }
        self.next_search = self.next_search.wrapping_add(1);
        let number = self.next_search;
        let (search, stream) = Search::new(number, requests);
        self.searches.insert(number, search);
        // Whoever has gone meanwhile drops the stream, which cancels the search.
        let _ = reply.send(Ok(stream));
        self.command(Command::Search { search: number, query, timeout });
    }

    fn download(&mut self, content: ContentId, to: Option<PathBuf>, queue_only: bool, reply: Reply<DownloadView>) {
        if let Some(held) = self.parts.shares.held(&content) {
            crate::held::answer(held, to, reply);
            return;
        }
        if let Some(to) = to {
            self.parts.storage.set_destination(content, to);
        }
        let known = self.known.get(&content).cloned();
        let (name, size) = known.map_or((None, None), |(name, size)| (Some(name), Some(size)));
        self.command(Command::Download { content, name, size, queue_only });
        let refused = || NodeError::failed("the download was not put on the list: it may be too long");
        let _ = reply.send(self.view(content).ok_or_else(refused));
    }

    fn act(&mut self, action: Action, content: ContentId) -> Result<Option<DownloadView>, NodeError> {
        if self.view(content).is_none() {
            return Err(NodeError::failed(format!("there is no download of {content}")));
        }
        self.command(match action {
            Action::Start => Command::Start(content),
            Action::Pause => Command::Pause(content),
            Action::Resume => Command::Resume(content),
            Action::Cancel => Command::Cancel(content),
        });
        Ok(self.view(content))
    }

    fn view(&self, content: ContentId) -> Option<DownloadView> {
        let status = self.parts.node.downloads().into_iter().find(|status| status.content == content);
        status.map(DownloadView::new)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), NodeError> {
        let mut settings = self.parts.settings.clone();
        settings.set(key, value)?;
        settings.save(&self.parts.store).map_err(|error| NodeError::failed(error.to_string()))?;
        *self.parts.download_dir.lock().unwrap_or_else(PoisonError::into_inner) =
            settings.download_dir(&self.parts.data);
        let protocol = settings.protocol();
        self.parts.settings = settings;
        if protocol != *self.parts.node.settings() {
            self.command(Command::Configure(protocol));
        }
        let _ = self.parts.events.send(NodeEvent::SettingsChanged);
        Ok(())
    }
}
