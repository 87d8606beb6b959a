//! How a download finds its sources and fetches from them.
//!
//! One source at a time serves ([`MAX_TRANSFERS`]); the structure allows several: each source has a transfer of its
//! own, and [`plan::missing`] hands out only what no other one is to bring.

use std::time::Duration;

use bbh_types::{ByteRanges, Instant, NodeId};
use bbh_wire::message::{CancelReason, DownloadCancel, DownloadInquiry, Offer, UploadData, UploadStart};
use rand_core::Rng;

use super::source::{Offered, Source};
use super::task::{Download, PATIENCE, Stage};
use super::transfer::{Arrival, Phase, Transfer};
use super::{MAX_SOURCES, Shared, plan};
use crate::messaging::{Context, Received};

/// Transfers of one download at the same time.
const MAX_TRANSFERS: usize = 1;
/// How long replies are gathered after the first.
const GATHER: Duration = Duration::from_millis(300);
/// Least time between two inquiries for the same content.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Inquiries in a row that may come to nothing before it is taken slowly.
const MAX_ATTEMPTS: u32 = 3;
/// Inquiries per second that all downloads together may send in the long run.
const INQUIRIES_PER_SECOND: u32 = 4;
/// Longest patience with a silent source.
const MAX_PATIENCE: Duration = Duration::from_secs(32);

/// How the search for a source stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hunt {
    /// None is needed.
    Idle,
    /// Replies are waited for.
    Asking {
        /// The end of it.
        until: Instant,
        /// When the inquiry is sent once more if nobody has replied: it, or a reply, may have been lost.
        again: Instant,
        /// When to choose among those that have replied.
        gather: Option<Instant>,
    },
    /// Asks again then.
    Resting { until: Instant },
}

impl Download {
    // ------------------------------------------------------------ finding sources

    /// Asks everybody.
    pub(super) fn ask(&mut self, cx: &mut Context<'_>, shared: &mut Shared) {
        let inquiry = shared.inquiry(cx);
        self.inquiry = Some(inquiry);
        self.attempts = self.attempts.saturating_add(1);
        self.send_inquiry(cx, inquiry);
        let until = cx.now + cx.settings.search_timeout;
        self.hunt = Hunt::Asking { until, again: cx.now + repeat_after(cx), gather: None };
    }

    fn send_inquiry(&mut self, cx: &mut Context<'_>, inquiry: u32) {
        self.asked = Some(cx.now);
        cx.broadcast(DownloadInquiry { inquiry, content: self.content });
    }

    /// Waits before it asks again.
    fn rest(&mut self, until: Instant) {
        self.hunt = Hunt::Resting { until };
        self.seat = self.sources.values().any(|source| source.is_working() && source.queued_at().is_none());
    }

    /// When a download without a source asks again: the more of them wait, the more rarely each of them does.
    fn next_turn(cx: &Context<'_>, shared: &Shared) -> Instant {
        let fair = Duration::from_secs(1) / INQUIRIES_PER_SECOND * shared.crowd;
        cx.now + cx.settings.inquiry_interval.max(fair)
    }

    /// Somebody has answered an inquiry.
    pub(super) fn on_reply(
        &mut self,
        cx: &mut Context<'_>,
        shared: &mut Shared,
        received: &Received,
        inquiry: u32,
        offer: Offer,
    ) {
        let node = received.source;
        if self.stage != Stage::Running || self.inquiry != Some(inquiry) || shared.liars.has(self.content, node) {
            return;
        }
        let mut offered = Offered { inquiry, at: cx.now, size: 0, queue_position: None, full: true };
        match offer {
            Offer::Absent => {
                self.sources.retain(|other, source| *other != node || source.transfer.is_some());
                return;
            }
            Offer::Full => {}
            Offer::Available { size, queue_position } => {
                if self.size.is_some_and(|proven| proven != size) {
                    return self.drop_liar(cx, shared, node);
                }
                self.claimed.get_or_insert(size);
                (offered.size, offered.queue_position, offered.full) = (size, queue_position, false);
            }
        }
        if !self.sources.contains_key(&node) && !self.make_room_for_source() {
            return;
        }
        let source = self.sources.entry(node).or_default();
        source.offer = Some(offered);
        source.hops = Some(received.hops);
        self.had_source = true;
        self.changed = true;
        let gather = cx.now + GATHER;
        match &mut self.hunt {
            Hunt::Asking { gather: first, .. } => {
                first.get_or_insert(gather);
            }
            Hunt::Resting { .. } => self.hunt = Hunt::Asking { until: gather, again: gather, gather: Some(gather) },
            Hunt::Idle => {}
        }
    }

    /// Forgets the least useful source if there are too many. False if all are needed.
    fn make_room_for_source(&mut self) -> bool {
        if self.sources.len() < MAX_SOURCES {
            return true;
        }
        let old = |source: &Source| source.offer.is_none_or(|offer| Some(offer.inquiry) != self.inquiry);
        let idle = self.sources.iter().filter(|(_, source)| source.transfer.is_none() && old(source));
        let Some(node) = idle.max_by_key(|(_, source)| source.rank()).map(|(node, _)| *node) else { return false };
        self.sources.remove(&node);
        true
    }

    /// Chooses among those that have replied; `over` if no more replies are waited for.
    fn decide(&mut self, cx: &mut Context<'_>, shared: &mut Shared, over: bool) {
        let candidates = self.sources.iter().filter(|(_, source)| source.is_candidate(self.inquiry, cx.now));
        let best = candidates.min_by_key(|(node, source)| (source.rank(), **node)).map(|(node, _)| *node);
        let running = self.sources.values().filter(|source| source.is_working()).count();
        let queued = self.sources.values().filter_map(Source::queued_at).min();
        match (best, queued) {
            (Some(node), _) if running < MAX_TRANSFERS => self.order_from(cx, shared, node),
            // Somewhere else it comes sooner.
            (Some(node), Some(place)) if self.sources.get(&node).is_some_and(|source| source.place() < place) => {
                self.order_from(cx, shared, node);
            }
            _ if running > 0 => match queued {
                Some(_) => self.rest(Self::next_turn(cx, shared) + cx.settings.inquiry_interval),
                None => self.hunt = Hunt::Idle,
            },
            _ if over => self.give_up(cx, shared),
            _ => {
                if let Hunt::Asking { gather, .. } = &mut self.hunt {
                    *gather = None;
                }
            }
        }
    }

    /// Nobody can be asked for it at the moment.
    fn give_up(&mut self, cx: &mut Context<'_>, shared: &mut Shared) {
        self.stop_transfers(cx, shared);
        if self.had_source {
            let full = self
                .sources
                .values()
                .any(|source| source.offer.is_some_and(|offer| offer.full && Some(offer.inquiry) == self.inquiry));
            let reason = if full {
                "the upload queues of all devices that have this file are full"
            } else {
                "no device that has this file can be reached at the moment"
            };
            self.error = Some(format!("{reason}: asking again"));
            self.rest(Self::next_turn(cx, shared));
        } else if cx.mesh.is_connected() {
            self.fail(
                cx,
                shared,
                "nobody who can be reached has this file: try again when other devices are near".into(),
            );
        } else {
            self.fail(cx, shared, "no other device can be reached: get closer to one and start it again".into());
        }
    }

    /// Something is missing and nobody brings it: turns to another source, or asks.
    fn look(&mut self, cx: &mut Context<'_>, shared: &mut Shared) {
        if self.stage != Stage::Running || self.is_all_verified() || self.sources.values().any(Source::is_working) {
            return;
        }
        if self.sources.values().any(|source| source.transfer.is_none() && source.is_candidate(self.inquiry, cx.now)) {
            return self.decide(cx, shared, false);
        }
        if matches!(self.hunt, Hunt::Asking { .. }) {
            return;
        }
        let soonest = self.asked.map_or(cx.now, |asked| asked + ASK_AGAIN);
        if self.attempts >= MAX_ATTEMPTS {
            self.error.get_or_insert_with(|| "its sources do not deliver: asking again".into());
            self.rest(Self::next_turn(cx, shared));
        } else if soonest > cx.now {
            self.rest(soonest);
        } else {
            self.ask(cx, shared);
        }
    }

    /// There may be others to ask now.
    pub(super) fn on_network_changed(&mut self, cx: &mut Context<'_>, shared: &Shared) {
        // Not all at once: each of those that wait, and each node near by, does the same.
        let spread = 100_000 + 1_000_000 / u64::from(INQUIRIES_PER_SECOND) * u64::from(shared.crowd);
        let soon = cx.now + Duration::from_micros(cx.rng.next_u64() % spread);
        let soon = self.asked.map_or(soon, |asked| soon.max(asked + ASK_AGAIN));
        match &mut self.hunt {
            Hunt::Resting { until } => *until = soon.min(*until),
            Hunt::Asking { until, again, gather: None } => {
                *again = soon.min(*again);
                *until = (*until).max(*again + cx.settings.search_timeout / 3);
            }
            Hunt::Asking { .. } | Hunt::Idle => {}
        }
    }

    // ------------------------------------------------------------ fetching

    /// Orders what is missing from that source, and from no other one.
    fn order_from(&mut self, cx: &mut Context<'_>, shared: &mut Shared, node: NodeId) {
        let Some(size) = self.size.or_else(|| Some(self.sources.get(&node)?.offer?.size)) else { return };
        if !self.seat && shared.seats == 0 {
            self.stop_transfers(cx, shared);
            return self.line_up();
        }
        self.seat = true;
        self.hunt = Hunt::Idle;
        self.error = None;
        self.stop_transfers(cx, shared);
        if self.size.is_none() {
            self.disk.forget_held();
        }
        self.send_order(cx, shared, node, size, None);
    }

    fn send_order(
        &mut self,
        cx: &mut Context<'_>,
        shared: &mut Shared,
        node: NodeId,
        size: u64,
        before: Option<Transfer>,
    ) {
        let outstanding: ByteRanges = self
            .sources
            .values()
            .filter_map(|source| source.transfer.as_ref())
            .flat_map(|transfer| transfer.outstanding().into_iter().collect::<Vec<_>>())
            .collect();
        let ranges = plan::missing(size, self.size.is_none(), self.disk.verified(), &outstanding);
        let Some(source) = self.sources.get_mut(&node).filter(|_| !ranges.is_empty()) else { return };
        let number = shared.transfer(cx, self.content, node);
        let mut transfer = Transfer::new(number, size, ranges, cx.now);
        if let Some(before) = before {
            transfer.follow(before);
        }
        transfer.order(cx, node, self.content, self.disk.credit());
        source.transfer = Some(transfer);
        self.changed = true;
    }

    /// Ends all transfers, and says so to the sources.
    pub(super) fn stop_transfers(&mut self, cx: &mut Context<'_>, shared: &mut Shared) {
        let nodes: Vec<_> = self.sources.keys().copied().collect();
        for node in nodes {
            if let Some(transfer) = self.take_transfer(cx, shared, node)
                && !transfer.is_through()
            {
                cancel(cx, node, transfer.number);
            }
        }
    }

    /// Ends the transfer of one source, silently.
    fn take_transfer(&mut self, cx: &Context<'_>, shared: &mut Shared, node: NodeId) -> Option<Transfer> {
        let source = self.sources.get_mut(&node)?;
        let transfer = source.transfer.take()?;
        shared.transfers.remove(&transfer.number);
        if transfer.phase == Phase::Serving {
            source.rate = transfer.meter.rate(cx.now);
        }
        self.changed = true;
        Some(transfer)
    }

    fn drop_liar(&mut self, cx: &mut Context<'_>, shared: &mut Shared, node: NodeId) {
        shared.liars.add(self.content, node);
        if let Some(transfer) = self.take_transfer(cx, shared, node) {
            cancel(cx, node, transfer.number);
        }
        self.sources.remove(&node);
        self.changed = true;
        self.look(cx, shared);
    }

    /// A source does not bring what it should. Its transfer stays until another one is found, or until it goes on.
    fn stall(&mut self, cx: &mut Context<'_>, shared: &mut Shared, node: NodeId) {
        let Some(source) = self.sources.get_mut(&node) else { return };
        let Some(transfer) = &mut source.transfer else { return };
        if !transfer.stalled {
            tracing::debug!(content = %self.content, source = %node, "a source is silent");
            transfer.stalled = true;
            source.failures = source.failures.saturating_add(1);
            source.offer = None;
            self.patience = (self.patience * 2).min(MAX_PATIENCE);
            self.look(cx, shared);
        }
    }

    /// A source has taken the order.
    pub(super) fn on_start(&mut self, cx: &mut Context<'_>, shared: &mut Shared, node: NodeId, start: &UploadStart) {
        let Some(source) = self.sources.get_mut(&node) else { return };
        let Some(transfer) = source.transfer.as_mut().filter(|own| own.number == start.transfer) else { return };
        if transfer.size != start.size {
            tracing::info!(content = %self.content, source = %node, "a source contradicts itself on the size");
            return self.drop_liar(cx, shared, node);
        }
        transfer.on_start(cx.now, start.queue_position);
        self.served = true;
        self.changed = true;
        match start.queue_position {
            None => {
                self.seat = true;
                self.error = None;
                self.grant(cx);
            }
            Some(place) => {
                self.error = Some(format!("place {place} in the queue of the device that has it"));
                if self.hunt == Hunt::Idle {
                    // While it waits here it looks around for a place where it comes sooner.
                    self.rest(Self::next_turn(cx, shared) + cx.settings.inquiry_interval);
                }
                self.seat = false;
            }
        }
    }

    /// A source ends the transfer.
    pub(super) fn on_cancel(
        &mut self,
        cx: &mut Context<'_>,
        shared: &mut Shared,
        node: NodeId,
        number: u32,
        reason: CancelReason,
    ) {
        let Some(source) = self.sources.get_mut(&node) else { return };
        if source.transfer.as_ref().is_none_or(|transfer| transfer.number != number) {
            return;
        }
        match (reason, &mut source.offer) {
            (CancelReason::Full, Some(offer)) => offer.full = true,
            (_, offer) => *offer = None,
        }
        source.failures = source.failures.saturating_add(1);
        self.take_transfer(cx, shared, node);
        if reason == CancelReason::Absent {
            self.sources.remove(&node);
            if self.sources.is_empty() && self.disk.verified_bytes() == 0 {
                let reason = "the devices that were asked do not have this file any more: search for it again";
                return self.fail(cx, shared, reason.into());
            }
        }
        self.look(cx, shared);
    }

    /// A piece has come.
    pub(super) fn on_data(
        &mut self,
        cx: &mut Context<'_>,
        shared: &mut Shared,
        received: &Received,
        data: &UploadData,
    ) {
        let node = received.source;
        let Some(source) = self.sources.get_mut(&node) else { return };
        let Some(transfer) = source.transfer.as_mut().filter(|own| own.number == data.transfer) else { return };
        if self.stage != Stage::Running {
            return;
        }
        let size = transfer.size;
        let range = data.start..data.end;
        if data.start > data.end || data.end > size {
            return self.drop_liar(cx, shared, node);
        }
        let (arrival, took) = transfer.on_data(cx.now, data, received.congested);
        let skipped = match arrival {
            Arrival::Abuse => {
                tracing::info!(content = %self.content, source = %node, "a source sends what nobody asked for");
                return self.drop_liar(cx, shared, node);
            }
            Arrival::Expected { skipped } => skipped,
            Arrival::Stray => 0,
        };
        let known = !range.is_empty() && self.disk.verified().gaps(&range).next().is_none();
        if !known {
            let bytes = match bbh_bao::verify_slice(&self.content, size, range, &data.slice) {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::warn!(content = %self.content, source = %node, %error, "a source lies: dropped");
                    return self.drop_liar(cx, shared, node);
                }
            };
            if data.end == size && self.size.is_none() {
                self.size = Some(size);
                self.disk.reserve(cx, self.content, size);
            }
            let new = self.disk.accept(cx, self.content, data.start, bytes);
            if let Some(source) = self.sources.get_mut(&node) {
                source.verified += new;
                source.failures = 0;
                source.hops = Some(received.hops);
                if let Some(transfer) = &mut source.transfer {
                    transfer.meter.add(cx.now, new);
                }
            }
            self.meter.add(cx.now, new);
            self.attempts = 0;
        }
        self.patience = (took * 4).max(self.patience * 7 / 8).clamp(PATIENCE, MAX_PATIENCE);
        (self.served, self.seat, self.changed) = (true, true, true);
        self.hunt = Hunt::Idle;
        self.error = None;
        self.grant(cx);
        self.go_on(cx, shared, node, skipped > 0);
        self.check_done(cx, shared);
    }

    /// After a piece of `node`: orders the rest if the order is through, or if the proof of the size was lost.
    fn go_on(&mut self, cx: &mut Context<'_>, shared: &mut Shared, node: NodeId, gap: bool) {
        let Some(transfer) = self.sources.get(&node).and_then(|source| source.transfer.as_ref()) else { return };
        let unproven = gap && self.size.is_none();
        if self.is_all_verified() || !(transfer.is_through() || unproven) {
            return;
        }
        let size = transfer.size;
        let Some(transfer) = self.take_transfer(cx, shared, node) else { return };
        if !transfer.is_through() {
            cancel(cx, node, transfer.number);
        }
        self.send_order(cx, shared, node, size, Some(transfer));
    }

    /// Grants the sources what window and disk allow.
    pub(super) fn grant(&mut self, cx: &mut Context<'_>) {
        let credit = self.disk.credit();
        for (node, source) in &mut self.sources {
            if let Some(transfer) = &mut source.transfer
                && transfer.phase == Phase::Serving
                && !transfer.is_through()
            {
                transfer.grant(cx, *node, credit);
            }
        }
    }

    /// It is said that a node can't be reached.
    pub(super) fn on_unreachable(&mut self, cx: &mut Context<'_>, shared: &mut Shared, node: NodeId) {
        let transfer = self.sources.get(&node).and_then(|source| source.transfer.as_ref());
        if transfer.is_some_and(|transfer| !transfer.is_lively(cx.now)) {
            self.stall(cx, shared, node);
        }
    }

    // ------------------------------------------------------------ time

    pub(super) fn fetch_on_timeout(&mut self, cx: &mut Context<'_>, shared: &mut Shared) {
        let now = cx.now;
        let mut silent = Vec::new();
        let credit = self.disk.credit();
        for (node, source) in &mut self.sources {
            if let Some(transfer) = source.transfer.as_mut().filter(|transfer| !transfer.stalled)
                && !transfer.on_time(cx, *node, self.content, credit, self.patience)
            {
                silent.push(*node);
            }
        }
        for node in silent {
            self.stall(cx, shared, node);
        }
        match self.hunt {
            Hunt::Asking { until, .. } if until <= now => self.decide(cx, shared, true),
            Hunt::Asking { gather: Some(gather), .. } if gather <= now => self.decide(cx, shared, false),
            Hunt::Asking { until, again, gather: None } if again <= now => {
                if let Some(inquiry) = self.inquiry {
                    self.send_inquiry(cx, inquiry);
                }
                self.hunt = Hunt::Asking { until, again: now + repeat_after(cx), gather: None };
            }
            Hunt::Resting { until } if until <= now => self.ask(cx, shared),
            _ => {}
        }
    }

    pub(super) fn fetch_due(&self) -> Option<Instant> {
        let hunt = match self.hunt {
            Hunt::Idle => None,
            Hunt::Asking { until, gather: Some(gather), .. } => Some(until.min(gather)),
            Hunt::Asking { until, again, gather: None } => Some(until.min(again)),
            Hunt::Resting { until } => Some(until),
        };
        let transfers = self.sources.values().filter_map(|source| source.transfer.as_ref()?.due(self.patience));
        transfers.chain(hunt).min()
    }
}

/// When an unanswered inquiry is sent once more.
fn repeat_after(cx: &Context<'_>) -> Duration {
    (cx.settings.search_timeout / 3).max(Duration::from_millis(100))
}

/// Tells a source to stop.
pub(super) fn cancel(cx: &mut Context<'_>, to: NodeId, transfer: u32) {
    cx.send(to, DownloadCancel { transfer, by_downloader: true, reason: CancelReason::Stopped });
}
