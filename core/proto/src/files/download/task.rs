//! One download on the list: what the user wants of it, where it stands, its file. How it finds sources and fetches
//! from them is in [`super::fetch`].

use std::collections::BTreeMap;
use std::time::Duration;

use bbh_types::{BoundedString, ByteRanges, ContentId, Instant, MAX_NAME_BYTES, NodeId};

use super::super::meter::Meter;
use super::Shared;
use super::disk::Disk;
use super::fetch::Hunt;
use super::plan;
use super::source::Source;
use super::transfer::Phase;
use crate::api::{
    DownloadRecord, DownloadState, DownloadStatus, Effect, Event, Intent, SourceStatus, StorageAnswer, StorageRequest,
};
use crate::messaging::Context;

/// How long a source may be silent before it is replaced, on a path of which nothing is known.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// Least time between two events that only tell of progress.
const PROGRESS: Duration = Duration::from_millis(250);

/// What is being done with a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// On the list, not started.
    Queued,
    /// Started, but as many as may run are running.
    InLine,
    /// Looking for sources or fetching.
    Running,
    /// All is written; the file is being moved to its place.
    Finishing,
    Paused,
    Complete,
    Failed,
}

/// One download.
#[derive(Debug)]
pub(super) struct Download {
    pub(super) content: ContentId,
    name: String,
    /// The size that others claim.
    pub(super) claimed: Option<u64>,
    /// The size that the last group has proven.
    pub(super) size: Option<u64>,
    path: Option<String>,
    pub(super) stage: Stage,
    pub(super) error: Option<String>,
    pub(super) disk: Disk,
    pub(super) sources: BTreeMap<NodeId, Source>,
    pub(super) hunt: Hunt,
    /// The newest inquiry and when it was sent.
    pub(super) inquiry: Option<u32>,
    pub(super) asked: Option<Instant>,
    /// Inquiries since the last byte that was right.
    pub(super) attempts: u32,
    /// Somebody has offered it once, so that it is worth waiting.
    pub(super) had_source: bool,
    /// A source has taken an order once.
    pub(super) served: bool,
    /// Counts among the downloads that may run at the same time.
    pub(super) seat: bool,
    pub(super) patience: Duration,
    pub(super) meter: Meter,
    /// Something but the state has changed since the last event.
    pub(super) changed: bool,
    announced: Instant,
    announced_state: Option<DownloadState>,
    announced_error: Option<String>,
}

impl Download {
    pub(super) fn new(content: ContentId, name: &str, claimed: Option<u64>, now: Instant) -> Self {
        Self {
            content,
            name: BoundedString::<MAX_NAME_BYTES>::truncated(name).into_inner(),
            claimed,
            size: None,
            path: None,
            stage: Stage::Queued,
            error: None,
            disk: Disk::new(ByteRanges::new(), now),
            sources: BTreeMap::new(),
            hunt: Hunt::Idle,
            inquiry: None,
            asked: None,
            attempts: 0,
            had_source: false,
            served: false,
            seat: false,
            patience: PATIENCE,
            meter: Meter::default(),
            changed: false,
            announced: Instant::ZERO,
            announced_state: None,
            announced_error: None,
        }
    }

    /// As it was when the process ended; not yet running.
    pub(super) fn restored(record: DownloadRecord, now: Instant) -> Self {
        let mut download = Self::new(record.content, &record.name, record.size, now);
        if let Some(size) = record.size {
            download.size = Some(size);
            download.disk = Disk::new(plan::whole_groups(&record.verified, size), now);
        }
        download.path = record.path;
        download.stage = match record.intent {
            Intent::Queued | Intent::Active => Stage::Queued,
            Intent::Paused => Stage::Paused,
            Intent::Complete => Stage::Complete,
        };
        // It was worth waiting for before: that its sources may not be here yet is no failure.
        download.had_source = record.intent == Intent::Active;
        download.served = download.had_source;
        download
    }

    pub(super) fn is_wanted(&self) -> bool {
        matches!(self.stage, Stage::InLine | Stage::Running | Stage::Finishing)
    }

    pub(super) fn set_name(&mut self, name: &str) {
        if self.name.is_empty() {
            self.name = BoundedString::<MAX_NAME_BYTES>::truncated(name).into_inner();
            self.disk.touch();
            self.changed = true;
        }
    }

    fn state(&self) -> DownloadState {
        match self.stage {
            Stage::Queued => DownloadState::Queued,
            Stage::InLine => DownloadState::Waiting,
            Stage::Paused => DownloadState::Paused,
            Stage::Complete => DownloadState::Complete,
            Stage::Failed => DownloadState::Failed,
            Stage::Finishing => DownloadState::Active,
            Stage::Running => {
                let mut transfers =
                    self.sources.values().filter_map(|source| source.transfer.as_ref()).filter(|own| !own.stalled);
                let all_here = self.is_all_verified();
                if all_here || transfers.clone().any(|transfer| transfer.phase == Phase::Serving) {
                    DownloadState::Active
                } else if self.served
                    || transfers.any(|own| own.is_queued())
                    || matches!(self.hunt, Hunt::Resting { .. })
                {
                    DownloadState::Waiting
                } else {
                    DownloadState::Searching
                }
            }
        }
    }

    pub(super) fn is_all_verified(&self) -> bool {
        self.size == Some(self.disk.verified_bytes())
    }

    pub(super) fn status(&self, now: Instant) -> DownloadStatus {
        let state = self.state();
        let sources = self.sources.iter().map(|(node, source)| {
            let transfer = source.transfer.as_ref().filter(|transfer| !transfer.stalled);
            let phase = transfer.map(|transfer| transfer.phase);
            SourceStatus {
                node: *node,
                active: phase == Some(Phase::Serving),
                verified: source.verified,
                queue_position: match phase {
                    Some(Phase::Queued { position, .. }) => Some(position),
                    Some(Phase::Serving) => None,
                    _ => source.offer.and_then(|offer| offer.queue_position),
                },
                hops: source.hops,
            }
        });
        DownloadStatus {
            content: self.content,
            name: self.name.clone(),
            path: self.path.clone(),
            size: self.size.or(self.claimed),
            verified: self.disk.verified_bytes(),
            state,
            rate: if state == DownloadState::Active { self.meter.rate(now) } else { 0 },
            error: self.error.clone(),
            sources: sources.collect(),
        }
    }

    /// Makes a record of it durable if one is due, or if there is anything new while it does not run.
    pub(super) fn save(&mut self, cx: &mut Context<'_>) {
        let intent = match self.stage {
            Stage::Queued => Intent::Queued,
            Stage::InLine | Stage::Running | Stage::Finishing => Intent::Active,
            // A failure is not tried again behind the user's back.
            Stage::Paused | Stage::Failed => Intent::Paused,
            Stage::Complete => Intent::Complete,
        };
        let (content, size) = (self.content, self.size);
        let (name, path) = (&self.name, &self.path);
        self.disk.record(cx, self.stage != Stage::Running, |disk| DownloadRecord {
            content,
            name: name.clone(),
            size,
            verified: disk.written().clone(),
            intent,
            path: path.clone(),
        });
    }

    /// Starts it, goes on with it, or asks again at once.
    pub(super) fn start(&mut self, cx: &mut Context<'_>, shared: &mut Shared) {
        match self.stage {
            Stage::Complete | Stage::Finishing | Stage::InLine => return,
            Stage::Running => {
                if matches!(self.hunt, Hunt::Resting { .. }) {
                    self.ask(cx, shared);
                }
                return;
            }
            Stage::Queued | Stage::Paused | Stage::Failed => {}
        }
        self.error = None;
        self.attempts = 0;
        self.patience = PATIENCE;
        self.sources.clear();
        self.disk.touch();
        if shared.seats == 0 {
            return self.line_up();
        }
        self.run(cx, shared);
    }

    /// Has to wait until one of those that run ends.
    pub(super) fn line_up(&mut self) {
        self.stage = Stage::InLine;
        self.hunt = Hunt::Idle;
        self.seat = false;
        self.error = Some("as many downloads as may run at the same time are running: it waits for one to end".into());
    }

    /// Its turn has come.
    pub(super) fn run(&mut self, cx: &mut Context<'_>, shared: &mut Shared) {
        self.stage = Stage::Running;
        self.seat = true;
        self.error = None;
        if let Some(size) = self.size {
            // Once more in every run: the disk may have filled up meanwhile.
            self.disk.reserve(cx, self.content, size);
        }
        if !self.is_all_verified() {
            self.ask(cx, shared);
        }
    }

    /// Stops fetching; what is there stays.
    fn halt(&mut self, cx: &mut Context<'_>, shared: &mut Shared, stage: Stage) {
        self.stop_transfers(cx, shared);
        self.disk.halt();
        self.hunt = Hunt::Idle;
        self.seat = false;
        self.stage = stage;
    }

    /// The process is about to end: what the disk has is recorded now.
    pub(super) fn record_now(&mut self, cx: &mut Context<'_>) {
        if self.stage == Stage::Running {
            self.disk.touch();
            self.save(cx);
        }
    }

    pub(super) fn pause(&mut self, cx: &mut Context<'_>, shared: &mut Shared) {
        if matches!(self.stage, Stage::Queued | Stage::InLine | Stage::Running | Stage::Failed) {
            self.halt(cx, shared, Stage::Paused);
            self.error = None;
        }
    }

    pub(super) fn fail(&mut self, cx: &mut Context<'_>, shared: &mut Shared, reason: String) {
        tracing::info!(content = %self.content, reason, "a download failed");
        self.halt(cx, shared, Stage::Failed);
        self.error = Some(reason);
    }

    /// Moves the file to its place once all is written.
    pub(super) fn check_done(&mut self, cx: &mut Context<'_>, shared: &mut Shared) {
        let Some(size) = self.size.filter(|_| self.stage == Stage::Running && self.is_all_verified()) else { return };
        self.stop_transfers(cx, shared);
        self.hunt = Hunt::Idle;
        self.error = None;
        if self.disk.is_complete(size) {
            self.stage = Stage::Finishing;
            self.seat = false;
            cx.effects.push_back(Effect::Storage(StorageRequest::Finish { content: self.content }));
        }
    }

    /// An answer of the disk about this download.
    pub(super) fn on_storage(&mut self, cx: &mut Context<'_>, shared: &mut Shared, answer: &StorageAnswer) {
        let failure = match answer {
            StorageAnswer::Reserved { result: Ok(()), .. } => {
                self.disk.on_room(cx, self.content);
                None
            }
            StorageAnswer::Reserved { result: Err(reason), .. } => Some(reason),
            StorageAnswer::Written { start, end, result, .. } => {
                // An answer to a write of before the download was taken off the list and put on it again says nothing.
                if !self.disk.on_written(*start, *end, result.is_ok()) {
                    return;
                }
                result.as_ref().err()
            }
            StorageAnswer::Saved { result, .. } => {
                if !self.disk.on_recorded(result.is_ok()) {
                    return;
                }
                result.as_ref().err()
            }
            StorageAnswer::Finished { result, .. } => {
                if self.stage != Stage::Finishing {
                    return;
                }
                if let Ok(path) = result {
                    self.stage = Stage::Complete;
                    self.path = Some(path.clone());
                    self.disk.touch();
                }
                result.as_ref().err()
            }
        };
        match failure {
            Some(reason) if matches!(self.stage, Stage::Running | Stage::Finishing) => {
                self.fail(cx, shared, reason.clone());
            }
            Some(reason) => {
                tracing::warn!(content = %self.content, reason, "the disk failed for a download that does not run");
            }
            None => {
                self.grant(cx);
                self.check_done(cx, shared);
            }
        }
    }

    pub(super) fn on_timeout(&mut self, cx: &mut Context<'_>, shared: &mut Shared) {
        if self.stage == Stage::Running {
            self.fetch_on_timeout(cx, shared);
        }
    }

    /// Tells the user, unless he was told a moment ago and only progress is new.
    pub(super) fn announce(&mut self, cx: &mut Context<'_>) {
        let state = self.state();
        if self.announced_error != self.error {
            self.announced_error = self.error.clone();
            self.changed = true;
        }
        if self.announced_state != Some(state) || (self.changed && cx.now.since(self.announced) >= PROGRESS) {
            self.announced_state = Some(state);
            self.announced = cx.now;
            self.changed = false;
            cx.events.push_back(Event::DownloadChanged(self.content));
        }
    }

    /// When [`Download::on_timeout`] is to be called.
    pub(super) fn due(&self) -> Option<Instant> {
        let fetch = if self.stage == Stage::Running { self.fetch_due() } else { None };
        let progress = self.changed.then(|| self.announced + PROGRESS);
        [fetch, progress, self.disk.record_at()].into_iter().flatten().min()
    }
}
