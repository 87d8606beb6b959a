//! What waits to go out on one link, and in which order (design §5).
//!
//! Lanes go strictly first to last: control, chat, search, bulk. The first three are queues with a limit in bytes. Bulk
//! has one queue per flow (source and destination), and the flows take turns by bytes (deficit round robin), so that
//! each gets the same share whatever the size of its packets.
//!
//! **Credit.** A flow that the neighbour has to pass on is sent only as far as the neighbour has room: at most
//! [`FLOW_CREDIT`] bytes that it has not yet passed on. So no relay ever has to drop bulk data, and none holds more
//! than [`FLOW_LIMIT`] bytes of a flow. A flow's state is kept only while packets wait or credit is out; a state
//! without either equals a fresh one, so that both ends of the link agree without ever expiring anything.

use std::collections::{BTreeMap, VecDeque};

use bbh_types::NodeId;
use bbh_types::radio::LinkId;
use bbh_wire::frame::{Flow, KIND_PACKET, OVERHEAD, PREFIX, TAG};
use bbh_wire::{Destination, Lane, Packet};

/// Most bytes of packets that wait in lane control; more means that the link is too slow to be of use.
pub const CONTROL_LIMIT: usize = 512 * 1024;
/// From this many bytes waiting in lane control on, relayed packets are dropped: what others send must not drive out
/// what the two neighbours have to tell each other, nor close their link.
pub const RELAYED_CONTROL_LIMIT: usize = CONTROL_LIMIT / 2;
/// Most bytes of packets that wait in each of the lanes chat and search.
pub const LANE_LIMIT: usize = 256 * 1024;
/// Most bytes of relayed packets of one bulk flow that wait (design §7).
pub const FLOW_LIMIT: usize = 64 * 1024;
/// Most bytes of this node's own packets of one bulk flow that wait: two messages of the largest size, so that
/// one can be made while the other leaves.
pub const OWN_FLOW_LIMIT: usize = 192 * 1024;
/// Most bulk flows with packets waiting or credit out.
pub const MAX_FLOWS: usize = 256;
/// Most bytes of bulk packets of all flows that wait.
pub const BULK_LIMIT: usize = 4 * 1024 * 1024;
/// Bytes of a flow that a neighbour may be sent before it has passed them on: with one frame of grace just what it may
/// hold.
pub const FLOW_CREDIT: u32 = 60 * 1024;
/// From this many bytes waiting on, a flow's packets get the congestion mark.
pub const CONGESTION_MARK: usize = 40 * 1024;

/// Why a packet was not taken; all but [`EnqueueError::TooSlow`] concern that packet only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// The handshake is not over, or the link is closing.
    #[error("the link is not up")]
    NotUp,
    /// Control packets pile up: the link has to be closed.
    #[error("the link is too slow: {CONTROL_LIMIT} bytes of control packets wait")]
    TooSlow,
    /// The lane is full.
    #[error("the link's queue is full")]
    LaneFull,
    /// The flow's queue is full, or those of all flows together are.
    #[error("the link's queue for this flow is full")]
    FlowFull,
    /// There is no place for another flow.
    #[error("{MAX_FLOWS} other flows use the link")]
    TooManyFlows,
    /// No frame of this link can carry it.
    #[error("a packet of {length} bytes exceeds the link's {limit}")]
    TooLarge {
        /// The packet's length in bytes.
        length: usize,
        /// The link's limit.
        limit: usize,
    },
    /// Lane bulk is for packets to one node.
    #[error("bulk packets go to one node each")]
    NotUnicast,
}

/// The flow of a packet in lane bulk to one node; other packets belong to none.
pub fn bulk_flow(packet: &Packet) -> Option<Flow> {
    match packet.destination {
        Destination::One(destination) if packet.lane == Lane::Bulk => {
            Some(Flow { source: packet.source, destination, lane: packet.lane })
        }
        _ => None,
    }
}

/// A packet as a frame not yet sealed: place for the prefix, kind, packet, and capacity for the tag.
#[derive(Debug)]
struct Item {
    frame: Vec<u8>,
    from: Option<LinkId>,
}

impl Item {
    fn packet_len(&self) -> usize {
        self.frame.len() - PREFIX - 1
    }
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
}

impl Queue {
    fn push(&mut self, item: Item) {
        self.bytes += item.packet_len();
        self.items.push_back(item);
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.packet_len();
        Some(item)
    }
}

#[derive(Debug)]
struct BulkFlow {
    queue: Queue,
    /// What may still be sent; `None` if the neighbour is the destination. Negative after a packet larger than all
    /// of the credit.
    credit: Option<i64>,
    /// Bytes it may send in this turn.
    deficit: usize,
    /// Whether it is in the ring of those that take turns.
    in_ring: bool,
}

impl BulkFlow {
    /// Whether its first packet may go. Even the largest packet may once nothing else is under way.
    fn is_ready(&self) -> bool {
        self.queue.items.front().is_some_and(|item| {
            self.credit.is_none_or(|credit| credit >= item.packet_len() as i64 || credit == i64::from(FLOW_CREDIT))
        })
    }

    fn is_settled(&self) -> bool {
        self.queue.items.is_empty() && self.credit.is_none_or(|credit| credit == i64::from(FLOW_CREDIT))
    }
}

/// The queues of one link.
#[derive(Debug)]
pub struct Outbox {
    neighbour: NodeId,
    max_packet: usize,
    lanes: [Queue; 3],
    flows: BTreeMap<Flow, BulkFlow>,
    ring: VecDeque<Flow>,
    bulk_bytes: usize,
    passed_on: VecDeque<(LinkId, Flow, u32)>,
    dropped: u64,
}

impl Outbox {
    /// The queues of a link to `neighbour` whose frames may have `max_frame` bytes.
    pub fn new(neighbour: NodeId, max_frame: usize) -> Self {
        Self {
            neighbour,
            max_packet: max_frame.saturating_sub(OVERHEAD),
            lanes: Default::default(),
            flows: BTreeMap::new(),
            ring: VecDeque::new(),
            bulk_bytes: 0,
            passed_on: VecDeque::new(),
            dropped: 0,
        }
    }

    /// The largest packet a frame can carry, in bytes.
    pub const fn max_packet(&self) -> usize {
        self.max_packet
    }

    /// Packets not taken so far.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether nothing waits, sendable or not.
    pub fn is_empty(&self) -> bool {
        self.bulk_bytes == 0 && self.lanes.iter().all(|lane| lane.items.is_empty())
    }

    /// Puts a packet into its queue. `from` is the link it was received on, if it is a relayed one.
    ///
    /// # Errors
    /// [`EnqueueError`]; the packet is dropped and counted, and credit for it reported by [`Outbox::poll_passed_on`].
    pub fn enqueue(&mut self, packet: &Packet, from: Option<LinkId>) -> Result<(), EnqueueError> {
        let result = self.try_enqueue(packet, from);
        if result.is_err() {
            self.drop_packet(packet, from);
        }
        result
    }

    /// Drops a packet as [`Outbox::enqueue`] does, because the link is closing.
    ///
    /// # Errors
    /// Always [`EnqueueError::NotUp`].
    pub fn refuse(&mut self, packet: &Packet, from: Option<LinkId>) -> Result<(), EnqueueError> {
        self.drop_packet(packet, from);
        Err(EnqueueError::NotUp)
    }

    fn drop_packet(&mut self, packet: &Packet, from: Option<LinkId>) {
        self.dropped += 1;
        if let (Some(flow), Some(from)) = (bulk_flow(packet), from) {
            self.passed_on.push_back((from, flow, packet.encoded_len() as u32));
        }
    }

    fn try_enqueue(&mut self, packet: &Packet, from: Option<LinkId>) -> Result<(), EnqueueError> {
        let length = packet.encoded_len();
        if length > self.max_packet {
            return Err(EnqueueError::TooLarge { length, limit: self.max_packet });
        }
        let lane = packet.lane as usize;
        let Some(queue) = self.lanes.get_mut(lane) else {
            return self.enqueue_bulk(packet, from);
        };
        let (limit, error) = match packet.lane {
            Lane::Control if from.is_some() => (RELAYED_CONTROL_LIMIT, EnqueueError::LaneFull),
            Lane::Control => (CONTROL_LIMIT, EnqueueError::TooSlow),
            _ => (LANE_LIMIT, EnqueueError::LaneFull),
        };
        if queue.bytes + length > limit {
            return Err(error);
        }
        queue.push(Item { frame: frame_of(packet), from });
        Ok(())
    }

    fn enqueue_bulk(&mut self, packet: &Packet, from: Option<LinkId>) -> Result<(), EnqueueError> {
        let flow = bulk_flow(packet).ok_or(EnqueueError::NotUnicast)?;
        let length = packet.encoded_len();
        let waiting = self.flows.get(&flow).map_or(0, |state| state.queue.bytes);
        let limit = if from.is_some() { FLOW_LIMIT } else { OWN_FLOW_LIMIT };
        if waiting + length > limit || self.bulk_bytes + length > BULK_LIMIT {
            return Err(EnqueueError::FlowFull);
        }
        if !self.flows.contains_key(&flow) && self.flows.len() >= MAX_FLOWS {
            return Err(EnqueueError::TooManyFlows);
        }
        // A source's own queue is no congestion: it makes more only when there is room.
        let frame = if from.is_some() && waiting > CONGESTION_MARK && !packet.congested {
            frame_of(&Packet { congested: true, ..packet.clone() })
        } else {
            frame_of(packet)
        };
        let credit = (flow.destination != self.neighbour).then_some(i64::from(FLOW_CREDIT));
        let state = self.flows.entry(flow).or_insert_with(|| BulkFlow {
            queue: Queue::default(),
            credit,
            deficit: 0,
            in_ring: false,
        });
        state.queue.push(Item { frame, from });
        self.bulk_bytes += length;
        self.join_ring(flow);
        Ok(())
    }

    fn join_ring(&mut self, flow: Flow) {
        if let Some(state) = self.flows.get_mut(&flow)
            && !state.in_ring
            && state.is_ready()
        {
            state.in_ring = true;
            state.deficit = 0;
            self.ring.push_back(flow);
        }
    }

    /// The next packet to send, as a frame to be sealed: four bytes for the prefix, then the plaintext.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        let mut lanes = self.lanes.iter_mut();
        if let Some(item) = lanes.find_map(Queue::pop) {
            return Some(item.frame);
        }
        loop {
            let flow = *self.ring.front()?;
            let state = self.flows.get_mut(&flow).expect("a flow in the ring has a state");
            let length = state.queue.items.front().map_or(0, Item::packet_len);
            if !state.is_ready() {
                state.in_ring = false;
                self.ring.pop_front();
            } else if state.deficit < length {
                // No packet is larger, so a flow sends at least once in each round.
                state.deficit += self.max_packet;
                self.ring.rotate_left(1);
            } else {
                let item = state.queue.pop().expect("a ready flow has a packet");
                state.deficit -= length;
                if let Some(credit) = &mut state.credit {
                    *credit -= length as i64;
                }
                self.bulk_bytes -= length;
                if let Some(from) = item.from {
                    self.passed_on.push_back((from, flow, length as u32));
                }
                if !state.is_ready() {
                    state.in_ring = false;
                    self.ring.pop_front();
                }
                self.forget_settled(flow);
                return Some(item.frame);
            }
        }
    }

    /// The next packet of lane control alone, in the form of [`Outbox::pop`].
    pub fn pop_control(&mut self) -> Option<Vec<u8>> {
        self.lanes[Lane::Control as usize].pop().map(|item| item.frame)
    }

    /// The neighbour has passed on that many bytes of a flow. Credit that was never used is not counted.
    pub fn add_credit(&mut self, flow: Flow, bytes: u32) {
        if let Some(state) = self.flows.get_mut(&flow)
            && let Some(credit) = &mut state.credit
        {
            *credit = (*credit + i64::from(bytes)).min(i64::from(FLOW_CREDIT));
            self.join_ring(flow);
            self.forget_settled(flow);
        }
    }

    fn forget_settled(&mut self, flow: Flow) {
        if self.flows.get(&flow).is_some_and(|state| state.is_settled() && !state.in_ring) {
            self.flows.remove(&flow);
        }
    }

    /// Bytes of this node's own packets of a flow that would be taken now.
    pub fn bulk_room(&self, flow: Flow) -> usize {
        let all = BULK_LIMIT - self.bulk_bytes;
        match self.flows.get(&flow) {
            Some(state) => OWN_FLOW_LIMIT.saturating_sub(state.queue.bytes).min(all),
            None if self.flows.len() >= MAX_FLOWS => 0,
            None => OWN_FLOW_LIMIT.min(all),
        }
    }

    /// Bytes of a flow that have left the link on which they came, because they were sent or dropped here: link, flow
    /// and bytes, for [`super::Link::grant_credit`] of that link.
    pub fn poll_passed_on(&mut self) -> Option<(LinkId, Flow, u32)> {
        self.passed_on.pop_front()
    }

    /// Drops what waits, but for lane control if `keep_control`.
    pub fn clear(&mut self, keep_control: bool) {
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            if number != Lane::Control as usize || !keep_control {
                self.dropped += lane.items.len() as u64;
                *lane = Queue::default();
            }
        }
        self.ring.clear();
        self.bulk_bytes = 0;
        for (flow, state) in std::mem::take(&mut self.flows) {
            for item in state.queue.items {
                self.dropped += 1;
                if let Some(from) = item.from {
                    self.passed_on.push_back((from, flow, item.packet_len() as u32));
                }
            }
        }
    }
}

fn frame_of(packet: &Packet) -> Vec<u8> {
    let mut frame = Vec::with_capacity(PREFIX + 1 + packet.encoded_len() + TAG);
    frame.extend_from_slice(&[0; PREFIX]);
    frame.push(KIND_PACKET);
    packet.encode(&mut frame);
    frame
}
