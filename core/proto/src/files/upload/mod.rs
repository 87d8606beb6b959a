//! Uploading (report 9.4: UploadManager): offers, the slots and the queue before them, and the stream of pieces.

mod client;

use std::collections::BTreeMap;

use bbh_bao::GROUP;
use bbh_types::{ContentId, FileRecord, Instant, NodeId};
use bbh_wire::message::{
    CancelReason, DownloadCancel, DownloadInquiry, DownloadOrder, DownloadReply, Offer, UploadAck, UploadStart,
};

use self::client::{Client, Seat};
use super::throttle::Throttle;
use crate::api::{Effect, LibraryRequest};
use crate::messaging::{Context, Received};

/// File bytes in one piece at most.
pub const PIECE: u64 = 4 * GROUP;
/// Pieces that are asked of the library at the same time for one downloader.
pub const READ_AHEAD: usize = 2;
/// Downloaders in the queue.
pub const MAX_QUEUE: usize = 64;
/// Transfers of one downloader.
pub const MAX_TRANSFERS: usize = 16;
/// Inquiries and orders that wait for the library.
const MAX_LOOKUPS: usize = 128;
/// Those among them that may be of one node.
const MAX_LOOKUPS_PER_NODE: usize = 16;

/// An upload as the user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadStatus {
    /// Who downloads.
    pub node: NodeId,
    /// What.
    pub content: ContentId,
    /// The file's name.
    pub name: String,
    /// Its place in the queue, from 1; `None` if it has a slot.
    pub queue_position: Option<u16>,
    /// Bytes sent in this transfer, hashes included.
    pub sent: u64,
    /// File bytes per second over the last seconds.
    pub rate: u64,
}

/// Why the library was asked for a file.
#[derive(Debug)]
enum Purpose {
    /// Somebody wants to know what can be had; `alone` if he asked nobody else.
    Inquiry { inquiry: u32, alone: bool },
    /// Somebody has ordered.
    Order(DownloadOrder),
}

#[derive(Debug)]
struct Lookup {
    source: NodeId,
    content: ContentId,
    purpose: Purpose,
}

/// The uploads of this node.
#[derive(Debug)]
pub struct UploadManager {
    clients: BTreeMap<NodeId, Client>,
    lookups: BTreeMap<u64, Lookup>,
    /// Whom a piece is read for, by token.
    reads: BTreeMap<u64, NodeId>,
    arrivals: u64,
    inquiries: Throttle,
    orders: Throttle,
    now: Instant,
}

impl Default for UploadManager {
    fn default() -> Self {
        Self {
            clients: BTreeMap::new(),
            lookups: BTreeMap::new(),
            reads: BTreeMap::new(),
            arrivals: 0,
            inquiries: Throttle::new(5, 20),
            orders: Throttle::new(20, 40),
            now: Instant::ZERO,
        }
    }
}

/// Who is served first: the smallest. The one place that decides on the order of the queue.
fn rank(client: &Client) -> u64 {
    match client.seat {
        Seat::Active => 0,
        Seat::Queued { arrival, .. } => arrival,
    }
}

/// Whether an order can be carried out for a file of that size.
fn check(order: &DownloadOrder, size: u64) -> bool {
    if size == 0 {
        return *order.ranges == [(0, 0)];
    }
    let mut left = size;
    !order.ranges.is_empty()
        && order.ranges.iter().all(|&(start, end)| {
            let in_file = start < end && end <= size;
            let aligned = start.is_multiple_of(GROUP) && (end.is_multiple_of(GROUP) || end == size);
            // Nobody needs a byte twice in one order.
            let once = end.saturating_sub(start) <= left;
            left = left.saturating_sub(end.saturating_sub(start));
            in_file && aligned && once
        })
}

impl UploadManager {
    /// What runs and what waits, the queue in its order.
    pub fn list(&self) -> Vec<UploadStatus> {
        let line = self.line();
        let mut list: Vec<_> = self
            .clients
            .iter()
            .flat_map(|(node, client)| {
                let place = line.iter().position(|waiting| waiting == node);
                client.transfers.values().map(move |transfer| UploadStatus {
                    node: *node,
                    content: transfer.content,
                    name: transfer.name.clone(),
                    queue_position: place.map(position),
                    sent: transfer.sent,
                    rate: transfer.meter.rate(self.now),
                })
            })
            .collect();
        list.sort_by_key(|status| status.queue_position);
        list
    }

    /// The place in the queue that an order of `node` would get now, from 1; `None` if it would be served at once.
    pub fn queue_position(&self, slots: u8, node: NodeId) -> Option<u16> {
        let line = self.line();
        match self.clients.get(&node) {
            Some(client) if client.is_active() => None,
            Some(_) => line.iter().position(|waiting| *waiting == node).map(position),
            None if line.is_empty() && self.active() < usize::from(slots) => None,
            None => Some(position(line.len())),
        }
    }

    fn active(&self) -> usize {
        self.clients.values().filter(|client| client.is_active()).count()
    }

    /// The queue in its order.
    fn line(&self) -> Vec<NodeId> {
        let mut line: Vec<_> =
            self.clients.iter().filter(|(_, client)| !client.is_active()).map(|(node, _)| *node).collect();
        line.sort_by_key(|node| self.clients.get(node).map(rank));
        line
    }

    fn lookup(&mut self, cx: &mut Context<'_>, source: NodeId, content: ContentId, purpose: Purpose) -> bool {
        let of_source = self.lookups.values().filter(|lookup| lookup.source == source).count();
        if self.lookups.len() >= MAX_LOOKUPS || of_source >= MAX_LOOKUPS_PER_NODE {
            return false;
        }
        let token = cx.token();
        self.lookups.insert(token, Lookup { source, content, purpose });
        cx.effects.push_back(Effect::Library(LibraryRequest::Lookup { token, content }));
        true
    }

    /// Somebody asks who has a content.
    pub(super) fn on_inquiry(&mut self, cx: &mut Context<'_>, received: &Received, inquiry: DownloadInquiry) {
        if received.source == cx.node || !self.inquiries.admit(cx.now, received.source) {
            return;
        }
        let purpose = Purpose::Inquiry { inquiry: inquiry.inquiry, alone: !received.broadcast };
        self.lookup(cx, received.source, inquiry.content, purpose);
    }

    /// Somebody wants ranges.
    pub(super) fn on_order(&mut self, cx: &mut Context<'_>, source: NodeId, order: DownloadOrder) {
        if source == cx.node || !self.orders.admit(cx.now, source) {
            return;
        }
        self.now = cx.now;
        if let Some(client) = self.clients.get(&source)
            && client.has(order.transfer, order.content)
            && let Some(size) = client.size_of(order.transfer)
        {
            return self.accept(cx, source, order, "", size);
        }
        let pending = self.lookups.values_mut().find_map(|lookup| match &mut lookup.purpose {
            Purpose::Order(other) if lookup.source == source && other.transfer == order.transfer => Some(other),
            _ => None,
        });
        match pending {
            Some(other) if other.content == order.content => *other = order,
            Some(_) => {}
            None => {
                let content = order.content;
                self.lookup(cx, source, content, Purpose::Order(order));
            }
        }
    }

    /// The library tells whether it has a file.
    pub(super) fn on_held(&mut self, cx: &mut Context<'_>, token: u64, file: Option<&FileRecord>) {
        let Some(Lookup { source, content, purpose }) = self.lookups.remove(&token) else { return };
        self.now = cx.now;
        match purpose {
            Purpose::Inquiry { inquiry, alone } => {
                let offer = match file {
                    Some(file) => {
                        let queue_position = self.queue_position(cx.settings.upload_slots, source);
                        if queue_position.is_some_and(|place| usize::from(place) > MAX_QUEUE) {
                            Offer::Full
                        } else {
                            Offer::Available { size: file.size, queue_position }
                        }
                    }
                    None if alone => Offer::Absent,
                    None => return,
                };
                cx.send(source, DownloadReply { inquiry, content, offer });
            }
            Purpose::Order(order) => match file {
                Some(file) => self.accept(cx, source, order, &file.name, file.size),
                None => refuse(cx, source, order.transfer, CancelReason::Absent),
            },
        }
    }

    fn accept(&mut self, cx: &mut Context<'_>, source: NodeId, order: DownloadOrder, name: &str, size: u64) {
        let number = order.transfer;
        if !check(&order, size) {
            if let Some(client) = self.clients.get_mut(&source) {
                client.end(number, cx.now);
            }
            refuse(cx, source, number, CancelReason::BadOrder);
            return self.tidy(cx);
        }
        if let Some(client) = self.clients.get_mut(&source)
            && !client.has(number, order.content)
        {
            client.drop_finished();
        }
        let line = self.line();
        let free = line.is_empty() && self.active() < usize::from(cx.settings.upload_slots);
        match self.clients.get(&source) {
            Some(client) if client.transfers.len() >= MAX_TRANSFERS && !client.transfers.contains_key(&number) => {
                return refuse(cx, source, number, CancelReason::Full);
            }
            None if !free && line.len() >= MAX_QUEUE => return refuse(cx, source, number, CancelReason::Full),
            _ => {}
        }
        let arrivals = &mut self.arrivals;
        let client = self.clients.entry(source).or_insert_with(|| {
            *arrivals += 1;
            let seat = if free { Seat::Active } else { Seat::Queued { arrival: *arrivals, told: 0 } };
            Client::new(source, seat, cx.now)
        });
        client.hear(cx.now);
        client.order(order, name, size, cx.now);
        let queue_position = self.queue_position(cx.settings.upload_slots, source);
        if let Some(client) = self.clients.get_mut(&source)
            && let Seat::Queued { told, .. } = &mut client.seat
        {
            *told = queue_position.unwrap_or(0);
        }
        cx.send(source, UploadStart { transfer: number, size, queue_position });
        self.pump(cx, source);
    }

    /// A downloader grants more.
    pub(super) fn on_ack(&mut self, cx: &mut Context<'_>, source: NodeId, ack: &UploadAck) {
        let Some(client) = self.clients.get_mut(&source) else { return };
        self.now = cx.now;
        if client.is_active() && client.transfers.contains_key(&ack.transfer) {
            client.hear(cx.now);
            client.on_ack(ack, cx.now);
            self.pump(cx, source);
        }
    }

    /// A downloader wants no more.
    pub(super) fn on_cancel(&mut self, cx: &mut Context<'_>, source: NodeId, transfer: u32) {
        self.now = cx.now;
        self.lookups.retain(|_, lookup| {
            !matches!(&lookup.purpose, Purpose::Order(order) if lookup.source == source && order.transfer == transfer)
        });
        if let Some(client) = self.clients.get_mut(&source) {
            client.end(transfer, cx.now);
        }
        self.tidy(cx);
    }

    /// The library has read a piece, or can't.
    pub(super) fn on_slice(&mut self, cx: &mut Context<'_>, token: u64, result: &Result<Vec<u8>, String>) {
        let Some(node) = self.reads.remove(&token) else { return };
        self.now = cx.now;
        if let Some(client) = self.clients.get_mut(&node) {
            client.on_slice(cx, token, result);
        }
        self.pump(cx, node);
    }

    pub(super) fn on_unreachable(&mut self, cx: &mut Context<'_>, node: NodeId) {
        if let Some(client) = self.clients.get_mut(&node)
            && client.is_active()
        {
            client.lose(cx.now);
        }
    }

    /// Bulk messages to `node` may have room.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>, node: NodeId) {
        if let Some(client) = self.clients.get_mut(&node) {
            for token in client.pump(cx) {
                self.reads.insert(token, node);
            }
        }
    }

    /// Drops whom nothing keeps, fills the slots and tells the others their new places.
    fn tidy(&mut self, cx: &mut Context<'_>) {
        self.clients.retain(|_, client| client.is_active() || !client.transfers.is_empty());
        while self.active() < usize::from(cx.settings.upload_slots) {
            let Some(&first) = self.line().first() else { break };
            let Some(client) = self.clients.get_mut(&first) else { break };
            client.seat = Seat::Active;
            client.hear(cx.now);
            client.tell(cx, None);
            self.pump(cx, first);
        }
        for (place, node) in self.line().into_iter().enumerate() {
            let Some(client) = self.clients.get_mut(&node) else { continue };
            let place = position(place);
            if let Seat::Queued { told, .. } = &mut client.seat
                && *told != place
            {
                *told = place;
                client.tell(cx, Some(place));
            }
        }
    }

    /// The number of slots may have changed.
    pub(super) fn on_configure(&mut self, cx: &mut Context<'_>) {
        self.tidy(cx);
    }

    pub(super) fn on_timeout(&mut self, cx: &mut Context<'_>) {
        self.now = cx.now;
        let before = self.clients.len();
        self.clients.retain(|node, client| {
            let keep = client.deadline() > cx.now;
            if !keep && !client.transfers.is_empty() {
                tracing::debug!(%node, "an upload ends: nothing is left to send or nothing was heard");
            }
            keep
        });
        if self.clients.len() != before {
            self.tidy(cx);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.clients.values().map(Client::deadline).min()
    }
}

/// The place in the queue behind that many others.
fn position(before: usize) -> u16 {
    u16::try_from(before + 1).unwrap_or(u16::MAX)
}

fn refuse(cx: &mut Context<'_>, to: NodeId, transfer: u32, reason: CancelReason) {
    cx.send(to, DownloadCancel { transfer, by_downloader: false, reason });
}

#[cfg(test)]
mod tests {
    use bbh_types::BoundedVec;

    use super::*;

    #[test]
    fn orders_that_make_no_sense_are_refused() {
        let order = |ranges: &[(u64, u64)]| DownloadOrder {
            transfer: 1,
            content: ContentId::from_bytes([0; 32]),
            ranges: BoundedVec::new(ranges.to_vec()).unwrap(),
            granted: 0,
        };
        let size = 3 * GROUP + 5;
        assert!(check(&order(&[(3 * GROUP, size), (0, 3 * GROUP)]), size));
        assert!(check(&order(&[(GROUP, 2 * GROUP)]), size));
        assert!(check(&order(&[(0, 0)]), 0));
        for wrong in [
            &[][..],
            &[(0, 0)],
            &[(GROUP, 0)],
            &[(1, GROUP)],
            &[(0, GROUP + 1)],
            &[(0, 4 * GROUP)],
            &[(0, size + 1)],
            &[(0, size), (0, size)],
            &[(u64::MAX - 1, u64::MAX)],
        ] {
            assert!(!check(&order(wrong), size), "{wrong:?}");
        }
        assert!(!check(&order(&[]), 0));
        assert!(!check(&order(&[(0, GROUP)]), 0));
    }
}
