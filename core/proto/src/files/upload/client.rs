//! One downloader: its transfers, and the pieces that are on their way from the library to it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bbh_bao::GROUP;
use bbh_types::{BoundedBytes, ContentId, Instant, NodeId};
use bbh_wire::message::{CancelReason, DownloadCancel, DownloadOrder, UploadAck, UploadData, UploadStart};

use super::super::meter::Meter;
use super::{PIECE, READ_AHEAD};
use crate::api::{Effect, LibraryRequest};
use crate::messaging::Context;

/// Room that is enough for the largest pieces; with less of it they are half as large, so that the line does not run
/// empty before there is room for the next one.
const LARGE_ROOM: usize = 2 * room_for(PIECE);
/// How long a slot is kept for the next order after all is sent.
const LINGER: Duration = Duration::from_secs(2);
/// How long a node that can't be reached keeps its slot without a word.
const UNREACHABLE: Duration = Duration::from_secs(10);
/// How long a word of a node proves that it can be reached.
const JUST_HEARD: Duration = Duration::from_secs(1);
/// How long an exhausted grant is left without a new one.
const EXHAUSTED: Duration = Duration::from_secs(30);
/// How long a downloader may be silent in the queue, or with data still to be sent.
const SILENT: Duration = Duration::from_secs(60);

/// Room in which a slice of that many bytes fits with all that packets and their seals add to it.
const fn room_for(length: u64) -> usize {
    length as usize + length as usize / 16 + 512
}

/// Where a downloader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seat {
    /// In a slot.
    Active,
    /// In the queue.
    Queued {
        /// Counts the arrivals.
        arrival: u64,
        /// The place it was told last; 0 for none yet.
        told: u16,
    },
}

/// One order and what became of it.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) content: ContentId,
    pub(super) name: String,
    size: u64,
    /// Not yet asked of the library.
    ranges: VecDeque<(u64, u64)>,
    granted: u64,
    /// Bytes of slices sent.
    pub(super) sent: u64,
    /// Bytes of slices sent or asked of the library.
    promised: u64,
    /// Bytes that the downloader says it has received, and when it said so.
    acked: u64,
    acked_at: Instant,
    pub(super) meter: Meter,
}

impl Transfer {
    /// The next piece of at most `most` bytes, and its slice's length.
    fn next_piece(&self, most: u64) -> Option<(u64, u64, u64)> {
        let &(start, end) = self.ranges.front()?;
        // Fewer groups if the grant ends before.
        (1..=most / GROUP).rev().find_map(|groups| {
            let end = end.min(start + groups * GROUP);
            let length = bbh_bao::slice_len(self.size, &(start..end)).ok()?;
            (self.promised.checked_add(length)? <= self.granted).then_some((start, end, length))
        })
    }

    fn take(&mut self, end: u64, length: u64) {
        self.promised += length;
        if let Some(front) = self.ranges.front_mut() {
            front.0 = end;
            if front.0 >= front.1 {
                self.ranges.pop_front();
            }
        }
    }
}

/// A piece that was asked of the library.
#[derive(Debug)]
struct Read {
    token: u64,
    /// Its transfer; `None` once that wants it no longer.
    transfer: Option<u32>,
    start: u64,
    end: u64,
    /// Bytes the slice has to have.
    length: u64,
    slice: Option<Vec<u8>>,
}

/// One downloader.
#[derive(Debug)]
pub(super) struct Client {
    node: NodeId,
    pub(super) seat: Seat,
    pub(super) transfers: BTreeMap<u32, Transfer>,
    reads: VecDeque<Read>,
    /// When it last sent an order or granted something.
    heard: Instant,
    /// Since when there is nothing left to send.
    idle: Option<Instant>,
    /// Since when it can't be reached.
    unreachable: Option<Instant>,
    /// When something was last sent or could not be.
    worked: Instant,
    /// The transfer that was served last.
    turn: u32,
    /// Bytes per second that arrive there, by its acknowledgements; 0 while nothing is known.
    path_rate: u64,
}

impl Client {
    pub(super) fn new(node: NodeId, seat: Seat, now: Instant) -> Self {
        Self {
            node,
            seat,
            transfers: BTreeMap::new(),
            reads: VecDeque::new(),
            heard: now,
            idle: Some(now),
            unreachable: None,
            worked: now,
            turn: 0,
            path_rate: 0,
        }
    }

    pub(super) fn is_active(&self) -> bool {
        self.seat == Seat::Active
    }

    /// It has said something that it wants.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.unreachable = None;
    }

    pub(super) fn has(&self, transfer: u32, content: ContentId) -> bool {
        self.transfers.get(&transfer).is_some_and(|own| own.content == content)
    }

    /// Takes an order that [`super::check`] has passed; the same transfer and content replaces what was not sent.
    pub(super) fn order(&mut self, order: DownloadOrder, name: &str, size: u64, now: Instant) {
        self.forget_reads(order.transfer);
        let ranges = order.ranges.into_inner().into();
        match self.transfers.get_mut(&order.transfer) {
            Some(transfer) if transfer.content == order.content => {
                transfer.ranges = ranges;
                transfer.promised = transfer.sent;
                transfer.granted = transfer.granted.max(order.granted);
            }
            _ => {
                let transfer = Transfer {
                    content: order.content,
                    name: name.to_owned(),
                    size,
                    ranges,
                    granted: order.granted,
                    sent: 0,
                    promised: 0,
                    acked: 0,
                    acked_at: now,
                    meter: Meter::default(),
                };
                self.transfers.insert(order.transfer, transfer);
            }
        }
        self.idle = None;
    }

    pub(super) fn size_of(&self, transfer: u32) -> Option<u64> {
        self.transfers.get(&transfer).map(|transfer| transfer.size)
    }

    pub(super) fn on_ack(&mut self, ack: &UploadAck, now: Instant) {
        let Some(transfer) = self.transfers.get_mut(&ack.transfer) else { return };
        transfer.granted = transfer.granted.max(ack.granted);
        let received = ack.received.min(transfer.sent);
        if received > transfer.acked {
            let micros = u64::try_from(now.since(transfer.acked_at).as_micros()).unwrap_or(u64::MAX).max(1);
            self.path_rate = (received - transfer.acked).saturating_mul(1_000_000) / micros;
            (transfer.acked, transfer.acked_at) = (received, now);
        }
    }

    /// Bytes of the largest piece: no more than passes in a second, lest the downloader takes the time in which one
    /// piece crosses a slow path for silence.
    fn largest_piece(&self, room: usize) -> u64 {
        self.path_rate.clamp(GROUP, if room >= LARGE_ROOM { PIECE } else { PIECE / 2 })
    }

    /// Ends one transfer.
    pub(super) fn end(&mut self, transfer: u32, now: Instant) {
        self.transfers.remove(&transfer);
        self.forget_reads(transfer);
        self.note_idle(now);
    }

    /// Tells where all its transfers stand.
    pub(super) fn tell(&self, cx: &mut Context<'_>, queue_position: Option<u16>) {
        for (&transfer, own) in &self.transfers {
            cx.send(self.node, UploadStart { transfer, size: own.size, queue_position });
        }
    }

    /// It is said that it can't be reached. Not believed of a node that was heard a moment ago: the word may be
    /// forged, and a true one comes again with whatever is sent next.
    pub(super) fn lose(&mut self, now: Instant) {
        if now.since(self.heard) >= JUST_HEARD {
            self.unreachable.get_or_insert(now);
        }
    }

    /// Forgets transfers of which everything is sent.
    pub(super) fn drop_finished(&mut self) {
        let reads = &self.reads;
        self.transfers.retain(|number, transfer| {
            !transfer.ranges.is_empty() || reads.iter().any(|read| read.transfer == Some(*number))
        });
    }

    fn forget_reads(&mut self, transfer: u32) {
        self.reads.retain(|read| read.transfer != Some(transfer) || read.slice.is_none());
        for read in self.reads.iter_mut().filter(|read| read.transfer == Some(transfer)) {
            // Kept until the library answers, so that it is never busy with more than READ_AHEAD of one node.
            read.transfer = None;
        }
    }

    fn note_idle(&mut self, now: Instant) {
        let busy = self.reads.iter().any(|read| read.transfer.is_some())
            || self.transfers.values().any(|transfer| !transfer.ranges.is_empty());
        if busy {
            self.idle = None;
        } else {
            self.idle.get_or_insert(now);
        }
    }

    /// The library's answer to one of its requests.
    pub(super) fn on_slice(&mut self, cx: &mut Context<'_>, token: u64, result: &Result<Vec<u8>, String>) {
        let Some(index) = self.reads.iter().position(|read| read.token == token) else { return };
        let read = &mut self.reads[index];
        let failure = match result {
            Ok(slice) if slice.len() as u64 == read.length => {
                read.slice = Some(slice.clone());
                None
            }
            Ok(slice) => Some(format!("a slice of {} bytes where {} are needed", slice.len(), read.length)),
            Err(reason) => Some(reason.clone()),
        };
        let transfer = read.transfer;
        if failure.is_some() || transfer.is_none() {
            self.reads.remove(index);
        }
        if let (Some(reason), Some(transfer)) = (failure, transfer) {
            tracing::warn!(node = %self.node, reason, "an upload ends: the file can't be read");
            let reason = CancelReason::Failed;
            cx.send(self.node, DownloadCancel { transfer, by_downloader: false, reason });
            self.end(transfer, cx.now);
        }
    }

    /// Sends what is there and asks the library for more, as far as grant and room go. Gives the new requests' tokens.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>) -> Vec<u64> {
        let mut tokens = Vec::new();
        if !self.is_active() || self.unreachable.is_some() {
            return tokens;
        }
        // What is sent here takes room only after this call.
        let mut room = cx.mesh.bulk_room(self.node);
        while let Some(read) = self.reads.front() {
            let Some(transfer) = read.transfer else { break };
            let needed = room_for(read.length);
            if read.slice.is_none() || room < needed {
                break;
            }
            room -= needed;
            let Some(Read { start, end, slice: Some(slice), .. }) = self.reads.pop_front() else { break };
            let Some(own) = self.transfers.get_mut(&transfer) else { continue };
            own.sent += slice.len() as u64;
            own.meter.add(cx.now, end - start);
            self.worked = cx.now;
            let slice = BoundedBytes::new(slice).expect("a piece and its proof are within the limit");
            cx.send(self.node, UploadData { transfer, start, end, slice });
        }
        // Read ahead of the room for it, so that a piece is at hand when there is some; but not without a way.
        while room > 0 && self.reads.len() < READ_AHEAD {
            let most = self.largest_piece(room);
            let after = self.transfers.range(self.turn.saturating_add(1)..);
            let next =
                after.chain(&self.transfers).find_map(|(&number, transfer)| Some((number, transfer.next_piece(most)?)));
            let Some((number, (start, end, length))) = next else { break };
            let Some(transfer) = self.transfers.get_mut(&number) else { break };
            transfer.take(end, length);
            self.turn = number;
            self.worked = cx.now;
            let token = cx.token();
            tokens.push(token);
            self.reads.push_back(Read { token, transfer: Some(number), start, end, length, slice: None });
            let content = transfer.content;
            cx.effects.push_back(Effect::Library(LibraryRequest::ReadSlice { token, content, start, end }));
        }
        self.note_idle(cx.now);
        tokens
    }

    /// Whether a transfer wants more than is granted.
    fn is_exhausted(&self) -> bool {
        self.reads.is_empty() && self.transfers.values().all(|transfer| transfer.next_piece(GROUP).is_none())
    }

    /// When it is given up if nothing is heard of it.
    pub(super) fn deadline(&self) -> Instant {
        if !self.is_active() {
            return self.heard + SILENT;
        }
        let mut deadline = self.heard.max(self.worked) + SILENT;
        if let Some(unreachable) = self.unreachable {
            deadline = deadline.min(unreachable + UNREACHABLE);
        }
        match self.idle {
            Some(idle) => deadline.min(idle + LINGER),
            None if self.is_exhausted() => deadline.min(self.heard.max(self.worked) + EXHAUSTED),
            None => deadline,
        }
    }
}
