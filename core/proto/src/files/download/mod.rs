//! Downloading (report 9.4: DownloadManager): the list, and which of it runs.

mod disk;
mod fetch;
mod plan;
mod source;
mod task;
mod transfer;
mod window;

use std::collections::{BTreeMap, BTreeSet};

use bbh_types::{ContentId, Instant, NodeId};
use bbh_wire::message::{DownloadCancel, DownloadReply, UploadData, UploadStart};
use rand_core::Rng;

use self::source::Liars;
use self::task::{Download, Stage};
use super::throttle::Throttle;
use crate::api::{DownloadRecord, DownloadStatus, Effect, Event, Intent, StorageAnswer, StorageRequest};
use crate::messaging::{Context, Received};

/// Downloads on the list. One more takes the place of the oldest complete one; if there is none it is refused.
pub const MAX_DOWNLOADS: usize = 1000;
/// Downloads that fetch, or ask for their first source, at the same time.
pub const MAX_ACTIVE: usize = 8;
/// Sources that are kept per content.
pub const MAX_SOURCES: usize = 64;

/// What all downloads share.
#[derive(Debug, Default)]
struct Shared {
    /// Whose transfer a number is.
    transfers: BTreeMap<u32, (ContentId, NodeId)>,
    next_transfer: Option<u32>,
    next_inquiry: Option<u32>,
    liars: Liars,
    /// How many downloads more may run.
    seats: usize,
    /// How many downloads have something to wait for.
    crowd: u32,
}

impl Shared {
    /// A number for an inquiry.
    fn inquiry(&mut self, cx: &mut Context<'_>) -> u32 {
        let number = self.next_inquiry.unwrap_or_else(|| cx.rng.next_u32());
        self.next_inquiry = Some(number.wrapping_add(1));
        number
    }

    /// A number for a transfer.
    fn transfer(&mut self, cx: &mut Context<'_>, content: ContentId, node: NodeId) -> u32 {
        let mut number = self.next_transfer.unwrap_or_else(|| cx.rng.next_u32());
        while self.transfers.contains_key(&number) {
            number = number.wrapping_add(1);
        }
        self.next_transfer = Some(number.wrapping_add(1));
        self.transfers.insert(number, (content, node));
        number
    }
}

/// The downloads of this node.
#[derive(Debug)]
pub struct DownloadManager {
    list: Vec<ContentId>,
    downloads: BTreeMap<ContentId, Download>,
    shared: Shared,
    timers: BTreeSet<(Instant, ContentId)>,
    due: BTreeMap<ContentId, Instant>,
    seated: BTreeSet<ContentId>,
    in_line: BTreeSet<ContentId>,
    strays: Throttle,
    now: Instant,
}

impl Default for DownloadManager {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            downloads: BTreeMap::new(),
            shared: Shared { seats: MAX_ACTIVE, ..Shared::default() },
            timers: BTreeSet::new(),
            due: BTreeMap::new(),
            seated: BTreeSet::new(),
            in_line: BTreeSet::new(),
            strays: Throttle::new(1, 4),
            now: Instant::ZERO,
        }
    }
}

impl DownloadManager {
    /// All downloads, in the list's order.
    pub fn list(&self) -> Vec<DownloadStatus> {
        self.list
            .iter()
            .filter_map(|content| self.downloads.get(content))
            .map(|download| download.status(self.now))
            .collect()
    }

    /// One download.
    pub fn get(&self, content: &ContentId) -> Option<DownloadStatus> {
        self.downloads.get(content).map(|download| download.status(self.now))
    }

    /// Does something with a download and sees to all that may follow from it.
    fn with(
        &mut self,
        cx: &mut Context<'_>,
        content: ContentId,
        act: impl FnOnce(&mut Download, &mut Context<'_>, &mut Shared),
    ) {
        self.now = cx.now;
        if let Some(download) = self.downloads.get_mut(&content) {
            act(download, cx, &mut self.shared);
            download.save(cx);
            download.announce(cx);
        }
        self.settle(content);
    }

    /// Brings timers and counts up to date with a download.
    fn settle(&mut self, content: ContentId) {
        let download = self.downloads.get(&content);
        let due = download.and_then(Download::due);
        if self.due.get(&content) != due.as_ref() {
            if let Some(before) = self.due.remove(&content) {
                self.timers.remove(&(before, content));
            }
            if let Some(due) = due {
                self.due.insert(content, due);
                self.timers.insert((due, content));
            }
        }
        let mark = |set: &mut BTreeSet<ContentId>, member: bool| {
            if member { set.insert(content) } else { set.remove(&content) }
        };
        mark(&mut self.seated, download.is_some_and(|download| download.seat));
        mark(&mut self.in_line, download.is_some_and(|download| download.stage == Stage::InLine));
        self.shared.seats = MAX_ACTIVE.saturating_sub(self.seated.len());
        self.shared.crowd = u32::try_from(self.timers.len()).unwrap_or(u32::MAX);
    }

    /// Lets those in line run, as far as there are seats, in the list's order.
    fn promote(&mut self, cx: &mut Context<'_>) {
        if self.in_line.is_empty() || self.shared.seats == 0 {
            return;
        }
        for content in self.list.clone() {
            if self.shared.seats == 0 {
                break;
            }
            if self.in_line.contains(&content) {
                self.with(cx, content, Download::run);
            }
        }
    }

    /// Puts a content on the list, and starts it unless it shall only be there.
    pub(super) fn add(
        &mut self,
        cx: &mut Context<'_>,
        content: ContentId,
        name: Option<&str>,
        size: Option<u64>,
        queue_only: bool,
    ) {
        let name = name.unwrap_or_default();
        if !self.downloads.contains_key(&content) {
            if !self.make_room(cx) {
                tracing::warn!(%content, "the list of downloads is full");
                return cx.events.push_back(Event::DownloadChanged(content));
            }
            self.list.push(content);
            self.downloads.insert(content, Download::new(content, name, size, cx.now));
        }
        self.with(cx, content, |download, cx, shared| {
            download.set_name(name);
            download.changed = true;
            if !queue_only {
                download.start(cx, shared);
            } else if !download.is_wanted() {
                download.disk.touch();
            }
        });
    }

    /// Makes sure that one more fits on the list.
    fn make_room(&mut self, cx: &mut Context<'_>) -> bool {
        if self.list.len() < MAX_DOWNLOADS {
            return true;
        }
        let complete =
            |content: &ContentId| self.downloads.get(content).is_some_and(|download| download.stage == Stage::Complete);
        let Some(oldest) = self.list.iter().copied().find(complete) else { return false };
        self.cancel(cx, oldest);
        true
    }

    /// Starts or goes on.
    pub(super) fn start(&mut self, cx: &mut Context<'_>, content: ContentId) {
        self.with(cx, content, Download::start);
        self.promote(cx);
    }

    /// Stops fetching.
    pub(super) fn pause(&mut self, cx: &mut Context<'_>, content: ContentId) {
        self.with(cx, content, Download::pause);
        self.promote(cx);
    }

    /// The process is about to end.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        for download in self.downloads.values_mut() {
            download.record_now(cx);
        }
    }

    /// Takes it off the list.
    pub(super) fn cancel(&mut self, cx: &mut Context<'_>, content: ContentId) {
        let Some(mut download) = self.downloads.remove(&content) else { return };
        download.stop_transfers(cx, &mut self.shared);
        self.list.retain(|other| *other != content);
        self.settle(content);
        cx.effects.push_back(Effect::Storage(StorageRequest::Discard { content }));
        cx.events.push_back(Event::DownloadChanged(content));
        self.promote(cx);
    }

    /// Puts a download on the list as it was when the process ended.
    pub(super) fn restore(&mut self, cx: &mut Context<'_>, record: &DownloadRecord) {
        let content = record.content;
        if self.downloads.contains_key(&content) || !self.make_room(cx) {
            return;
        }
        self.list.push(content);
        self.downloads.insert(content, Download::restored(record.clone(), cx.now));
        let active = record.intent == Intent::Active;
        self.with(cx, content, |download, cx, shared| {
            if active {
                download.start(cx, shared);
            }
        });
    }

    /// Somebody answers an inquiry.
    pub(super) fn on_reply(&mut self, cx: &mut Context<'_>, received: &Received, reply: &DownloadReply) {
        if received.source != cx.node {
            self.with(cx, reply.content, |download, cx, shared| {
                download.on_reply(cx, shared, received, reply.inquiry, reply.offer);
            });
        }
    }

    /// The download whose transfer that is, if it is one of this source's.
    fn content_of(&self, transfer: u32, source: NodeId) -> Option<ContentId> {
        self.shared.transfers.get(&transfer).filter(|(_, node)| *node == source).map(|(content, _)| *content)
    }

    /// A source takes an order.
    pub(super) fn on_start(&mut self, cx: &mut Context<'_>, source: NodeId, start: &UploadStart) {
        match self.content_of(start.transfer, source) {
            Some(content) => {
                self.with(cx, content, |download, cx, shared| download.on_start(cx, shared, source, start));
                self.promote(cx);
            }
            None => self.on_stray(cx, source, start.transfer),
        }
    }

    /// A source sends a piece.
    pub(super) fn on_data(&mut self, cx: &mut Context<'_>, received: &Received, data: &UploadData) {
        match self.content_of(data.transfer, received.source) {
            Some(content) => {
                self.with(cx, content, |download, cx, shared| download.on_data(cx, shared, received, data));
                self.promote(cx);
            }
            None => self.on_stray(cx, received.source, data.transfer),
        }
    }

    /// A source sends for a transfer that is none: tells it, now and then.
    fn on_stray(&mut self, cx: &mut Context<'_>, source: NodeId, transfer: u32) {
        if source != cx.node && self.strays.admit(cx.now, source) {
            fetch::cancel(cx, source, transfer);
        }
    }

    /// A source ends a transfer.
    pub(super) fn on_cancel(&mut self, cx: &mut Context<'_>, source: NodeId, cancel: &DownloadCancel) {
        if let Some(content) = self.content_of(cancel.transfer, source) {
            self.with(cx, content, |download, cx, shared| {
                download.on_cancel(cx, shared, source, cancel.transfer, cancel.reason);
            });
            self.promote(cx);
        }
    }

    /// The disk answers.
    pub(super) fn on_storage(&mut self, cx: &mut Context<'_>, answer: &StorageAnswer) {
        let (StorageAnswer::Reserved { content, .. }
        | StorageAnswer::Written { content, .. }
        | StorageAnswer::Saved { content, .. }
        | StorageAnswer::Finished { content, .. }) = answer;
        self.with(cx, *content, |download, cx, shared| download.on_storage(cx, shared, answer));
        self.promote(cx);
    }

    pub(super) fn on_unreachable(&mut self, cx: &mut Context<'_>, node: NodeId) {
        let contents: BTreeSet<ContentId> =
            self.shared.transfers.values().filter(|(_, source)| *source == node).map(|(content, _)| *content).collect();
        for content in contents {
            self.with(cx, content, |download, cx, shared| download.on_unreachable(cx, shared, node));
        }
        self.promote(cx);
    }

    pub(super) fn on_network_changed(&mut self, cx: &mut Context<'_>) {
        // Only downloads that wait for something can be waiting for this.
        for content in self.due.keys().copied().collect::<Vec<_>>() {
            self.with(cx, content, |download, cx, shared| download.on_network_changed(cx, shared));
        }
    }

    pub(super) fn on_timeout(&mut self, cx: &mut Context<'_>) {
        self.now = cx.now;
        let due: Vec<_> = self.timers.iter().take_while(|(at, _)| *at <= cx.now).map(|(_, content)| *content).collect();
        for content in due {
            self.with(cx, content, Download::on_timeout);
        }
        self.promote(cx);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }
}
