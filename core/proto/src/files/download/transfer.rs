//! One order to one source, from the order to its last piece.

use std::collections::VecDeque;
use std::time::Duration;

use bbh_types::{BoundedVec, ByteRanges, ContentId, Instant, NodeId};
use bbh_wire::message::{DownloadOrder, MAX_SLICE, UploadAck, UploadData};

use super::super::meter::Meter;
use super::disk::Credit;
use super::window::{self, Window};
use crate::messaging::Context;

/// How often a place in a queue is confirmed by the same order again.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long a source may leave those unanswered.
const QUEUE_SILENT: Duration = Duration::from_secs(50);
/// Longest time without an acknowledgement while data arrives.
const ACK_WITHIN: Duration = Duration::from_secs(5);
/// Pieces of no use that a source may send in one transfer, in bytes.
const MAX_USELESS: u64 = 2 * window::MAX;

/// How far a transfer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not answered yet.
    Ordered,
    /// In the source's queue.
    Queued {
        /// The place, from 1.
        position: u16,
        /// When the source last said so.
        heard: Instant,
        /// When the order was last sent.
        asked: Instant,
    },
    /// Data comes.
    Serving,
}

/// What an arriving piece means for the order of things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is what was to come.
    Expected {
        /// Bytes before it in the order that did not come.
        skipped: u64,
    },
    /// It was not to come, or has come already.
    Stray,
    /// More has come than was granted, or far too much that is of no use: the source breaks the rules.
    Abuse,
}

/// One order.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) number: u32,
    /// The size the source told, by which its slices are read.
    pub(super) size: u64,
    pub(super) phase: Phase,
    /// Nothing came for too long; it is replaced unless something comes after all.
    pub(super) stalled: bool,
    pub(super) meter: Meter,
    /// What is to come, in this order.
    expected: VecDeque<(u64, u64)>,
    received: u64,
    /// Bytes that were sent but lost on the way, as far as gaps show.
    skipped: u64,
    granted: u64,
    window: Window,
    /// `received` in the last acknowledgement.
    acked: u64,
    acked_at: Instant,
    useless: u64,
    /// When something last came of it.
    alive: Instant,
    /// The last grant was repeated because nothing came.
    nudged: bool,
}

impl Transfer {
    pub(super) fn new(number: u32, size: u64, ranges: Vec<(u64, u64)>, now: Instant) -> Self {
        Self {
            number,
            size,
            phase: Phase::Ordered,
            stalled: false,
            meter: Meter::default(),
            expected: ranges.into(),
            received: 0,
            skipped: 0,
            granted: 0,
            window: Window::new(now),
            acked: 0,
            acked_at: now,
            useless: 0,
            alive: now,
            nudged: false,
        }
    }

    /// A transfer of the same source that goes on where `self` is through: its window is known to fit.
    pub(super) fn follow(&mut self, before: Self) {
        self.window = before.window;
        self.meter = before.meter;
    }

    /// What is still to come of it.
    pub(super) fn outstanding(&self) -> ByteRanges {
        self.expected.iter().filter(|(start, end)| start < end).map(|&(start, end)| start..end).collect()
    }

    /// Whether all that was ordered has come, or been passed over.
    pub(super) fn is_through(&self) -> bool {
        self.expected.is_empty()
    }

    pub(super) fn is_queued(&self) -> bool {
        matches!(self.phase, Phase::Queued { .. })
    }

    /// Sends the order, first or again. `credit` is what the disk leaves room for.
    pub(super) fn order(&mut self, cx: &mut Context<'_>, to: NodeId, content: ContentId, credit: Credit) {
        self.granted = self.granted.max(self.limit(credit));
        let ranges = BoundedVec::truncated(self.expected.iter().copied().collect());
        cx.send(to, DownloadOrder { transfer: self.number, content, ranges, granted: self.granted });
    }

    fn limit(&self, credit: Credit) -> u64 {
        self.received + self.skipped + self.window.size().saturating_sub(credit.behind).min(credit.most)
    }

    /// Grants more, if there is enough to grant. `credit` is what the disk leaves room for.
    pub(super) fn grant(&mut self, cx: &mut Context<'_>, to: NodeId, credit: Credit) {
        let limit = self.limit(credit).max(self.granted);
        let step = self.window.size() / 4;
        let came = self.received - self.acked;
        let late = came > 0 && cx.now.since(self.acked_at) >= ACK_WITHIN;
        if came >= step || limit - self.granted >= step || late {
            if self.is_held_back() && limit > self.granted {
                // Until now the silence was ours.
                self.alive = cx.now;
            }
            self.granted = limit;
            self.acknowledge(cx, to);
        }
    }

    fn acknowledge(&mut self, cx: &mut Context<'_>, to: NodeId) {
        (self.acked, self.acked_at) = (self.received, cx.now);
        cx.send(to, UploadAck { transfer: self.number, received: self.received, granted: self.granted });
    }

    /// Whether the source may not even send one piece.
    fn is_held_back(&self) -> bool {
        self.granted < self.received + self.skipped + MAX_SLICE as u64
    }

    /// The source has answered the order.
    pub(super) fn on_start(&mut self, now: Instant, queue_position: Option<u16>) {
        if self.phase != Phase::Serving {
            // Of one that serves only data is a sign of life.
            self.alive = now;
            self.stalled = false;
        }
        self.phase = match (queue_position, self.phase) {
            (None, _) => Phase::Serving,
            (Some(position), Phase::Queued { asked, .. }) => Phase::Queued { position, heard: now, asked },
            (Some(position), _) => Phase::Queued { position, heard: now, asked: now },
        };
    }

    /// A piece has come. Gives what it means, and how long it took since the one before.
    pub(super) fn on_data(&mut self, now: Instant, data: &UploadData, congested: bool) -> (Arrival, Duration) {
        let length = data.slice.len() as u64;
        let took = now.since(self.alive);
        self.received += length;
        if self.received > self.granted {
            return (Arrival::Abuse, took);
        }
        self.alive = now;
        self.stalled = false;
        self.nudged = false;
        self.phase = Phase::Serving;
        self.window.on_data(now, length, congested);
        let place = self.expected.iter().position(|&(start, end)| {
            start == data.start && (start == end || data.start < data.end) || start < data.start && data.start < end
        });
        let Some(place) = place else {
            self.useless += length.max(1024);
            return (if self.useless > MAX_USELESS { Arrival::Abuse } else { Arrival::Stray }, took);
        };
        let mut skipped: u64 = self.expected.drain(..place).map(|(start, end)| end - start).sum();
        if let Some(front) = self.expected.front_mut() {
            skipped = skipped.saturating_add(data.start - front.0);
            front.0 = data.end;
            if front.0 >= front.1 {
                self.expected.pop_front();
            }
        }
        // What a source passes over can't have been more than it was allowed to send.
        self.skipped = self.skipped.saturating_add(skipped).min(self.granted - self.received);
        (Arrival::Expected { skipped }, took)
    }

    /// Acts if its time has come; false if it has come to nothing. `patience` is how long a source may be silent.
    pub(super) fn on_time(
        &mut self,
        cx: &mut Context<'_>,
        to: NodeId,
        content: ContentId,
        credit: Credit,
        patience: Duration,
    ) -> bool {
        let now = cx.now;
        match self.phase {
            Phase::Ordered => now < self.alive + patience,
            Phase::Queued { position, heard, asked } => {
                if now >= heard + QUEUE_SILENT {
                    return false;
                }
                if now >= asked + KEEP_ALIVE {
                    self.phase = Phase::Queued { position, heard, asked: now };
                    self.order(cx, to, content, credit);
                }
                true
            }
            Phase::Serving => {
                self.grant(cx, to, credit);
                if self.is_held_back() && credit.busy {
                    // It may not send: that is no stall. The answer of the disk sets it going again.
                    self.alive = now;
                }
                if now >= self.alive + patience {
                    return false;
                }
                if !self.nudged && now >= self.alive + patience / 2 {
                    // Perhaps it waits for a grant that got lost.
                    self.nudged = true;
                    self.acknowledge(cx, to);
                }
                true
            }
        }
    }

    /// When [`Transfer::on_time`] is to be called; never for a stalled one.
    pub(super) fn due(&self, patience: Duration) -> Option<Instant> {
        if self.stalled {
            return None;
        }
        Some(match self.phase {
            Phase::Ordered => self.alive + patience,
            Phase::Queued { heard, asked, .. } => (asked + KEEP_ALIVE).min(heard + QUEUE_SILENT),
            Phase::Serving if self.nudged => self.alive + patience,
            Phase::Serving => self.alive + patience / 2,
        })
    }

    /// Whether something came of it a moment ago, so that nobody's word that it is gone counts.
    pub(super) fn is_lively(&self, now: Instant) -> bool {
        self.phase == Phase::Serving && now.since(self.alive) < Duration::from_secs(1)
    }
}
