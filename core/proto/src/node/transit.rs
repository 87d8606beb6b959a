//! Packets on their way through the node: in from a link, out to a link, or here.

use bbh_types::NodeId;
use bbh_types::radio::LinkId;
use bbh_wire::fragment;
use bbh_wire::frame::{CloseReason, Flow};
use bbh_wire::message::Unreachable;
use bbh_wire::packet::{INITIAL_HOP_LIMIT, SIGNATURE_BLOCK};
use bbh_wire::{Destination, Lane, Message, Packet, Protection};

use super::Node;
use crate::identity::open_signed;
use crate::link::{EnqueueError, Link, LinkInput};
use crate::messaging::{Outbound, Received};
use crate::routing::tree::Relation;

/// Largest encoded packet that every link can carry: a Bluetooth frame less its overhead (design §5).
pub const MAX_ROUTED_PACKET: usize = bbh_types::radio::LinkLimits::BLUETOOTH.max_frame - bbh_wire::frame::OVERHEAD;

const UNREACHABLE_KIND: u8 = 52;

impl Node {
    // ------------------------------------------------------------ in

    pub(super) fn take_bytes(&mut self, id: LinkId, bytes: &[u8]) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let outcome = link.handle_data(self.now, bytes);
        // What was whole before the error counts.
        while let Some(input) = self.links.get_mut(&id).and_then(Link::poll_input) {
            match input {
                LinkInput::Up { remote, .. } => self.tree.neighbour_up(id, remote),
                LinkInput::Packet(packet, length) => {
                    self.last_received = Some(self.now);
                    self.take_packet(id, packet, length);
                }
                LinkInput::Closed(reason) => {
                    tracing::debug!(link = id.0, ?reason, "closed by the other side");
                    self.effects.push_back(crate::api::Effect::Radio(bbh_types::radio::RadioCommand::Close(id)));
                    self.forget_link(id);
                }
            }
            self.settle();
        }
        if let Err(error) = outcome {
            self.break_link(id, &error);
        }
    }

    fn take_packet(&mut self, id: LinkId, packet: Packet, length: usize) {
        let Some(neighbour) = self.links.get(&id).and_then(Link::remote) else { return };
        if packet.protection == Protection::Link {
            self.deliver_from_neighbour(id, neighbour, packet);
            return;
        }
        if !self.is_tree_link(id) {
            self.counters.forged_source += 1;
            self.consumed(id, &packet, length);
            return;
        }
        match packet.destination {
            Destination::One(to) => {
                if !self.tree.is_plausible_source(id, packet.source) {
                    self.counters.forged_source += 1;
                    self.consumed(id, &packet, length);
                } else if to == self.me {
                    self.deliver_from_afar(packet);
                } else {
                    self.pass_on(id, packet, length);
                }
            }
            Destination::List(_) | Destination::Broadcast => self.take_signed(id, neighbour, packet),
        }
    }

    fn is_tree_link(&self, id: LinkId) -> bool {
        matches!(self.tree.relation(id), Some(Relation::Parent | Relation::Child))
    }

    /// A packet between neighbours, protected by the link alone.
    fn deliver_from_neighbour(&mut self, id: LinkId, neighbour: NodeId, packet: Packet) {
        if packet.source != neighbour || packet.destination != Destination::One(self.me) {
            self.counters.forged_source += 1;
            return;
        }
        let Ok(whole) = self.link_parts.push(self.now, neighbour, &packet.payload) else {
            self.counters.malformed += 1;
            return;
        };
        let Some(message) = whole.and_then(|bytes| self.decode(packet.lane, &bytes)) else { return };
        match message {
            Message::TreeInfo(_)
            | Message::AttachRequest(_)
            | Message::AttachReply(_)
            | Message::RoutingConnect(_)
            | Message::RoutingDisconnect(_)
            | Message::RoutingResync(_)
            | Message::RootQuery(_)
            | Message::TreeFound(_)
            | Message::TreeMerge(_)
            | Message::TreeMergeReply(_)
            | Message::RootTransfer(_)
            | Message::RootTransferReply(_) => self.tree.handle_message(self.now, id, message),
            // A contact is no member of the tree yet: it has nothing to ask for.
            _ if !self.is_tree_link(id) => self.counters.forged_source += 1,
            message => {
                let received =
                    Received { source: neighbour, hops: 1, broadcast: false, congested: packet.congested, message };
                self.dispatch(received);
            }
        }
    }

    /// A packet for this node alone, from a node that is no neighbour.
    fn deliver_from_afar(&mut self, packet: Packet) {
        let hops = hops_of(&packet);
        match packet.protection {
            Protection::Session => match self.sessions.handle_packet(self.now, &packet) {
                Ok(Some(payload)) => {
                    let Ok(whole) = self.session_parts.push(self.now, packet.source, &payload) else {
                        self.counters.malformed += 1;
                        return;
                    };
                    let Some(message) = whole.and_then(|bytes| self.decode(packet.lane, &bytes)) else { return };
                    let congested = packet.congested;
                    self.dispatch(Received { source: packet.source, hops, broadcast: false, congested, message });
                }
                Ok(None) => {}
                Err(_) => self.counters.unopened += 1,
            },
            Protection::Clear => self.deliver_clear(packet),
            Protection::Link | Protection::Signed => self.counters.malformed += 1,
        }
    }

    /// Handshakes, and advice that nobody has to believe.
    fn deliver_clear(&mut self, packet: Packet) {
        let Some((0, encoded)) = packet.payload.split_first() else {
            self.counters.malformed += 1;
            return;
        };
        match self.decode(packet.lane, encoded) {
            Some(Message::Unreachable(Unreachable { destination })) => self.unreachable.push_back(destination),
            Some(
                message @ (Message::SessionInit(_)
                | Message::SessionReply(_)
                | Message::SessionFinish(_)
                | Message::SessionUnknown(_)),
            ) => {
                let outcome = self.sessions.handle_handshake(self.now, packet.source, message);
                self.counters.unopened += u64::from(outcome.is_err());
            }
            Some(_) => self.counters.malformed += 1,
            None => {}
        }
    }

    /// A packet for many: passed on over the tree's edges, each copy once, only if its origin has signed it.
    fn take_signed(&mut self, id: LinkId, neighbour: NodeId, mut packet: Packet) {
        if packet.source == self.me || !self.filter.admits(self.now, neighbour, packet.source, packet.sequence) {
            self.counters.refused_broadcasts += 1;
            return;
        }
        let Some(payload) = open_signed(&packet) else {
            self.counters.bad_signature += 1;
            return;
        };
        if !self.filter.passed(self.now, packet.source, packet.sequence) {
            self.counters.refused_broadcasts += 1;
            return;
        }
        let for_me = match &packet.destination {
            Destination::Broadcast => true,
            Destination::List(nodes) => nodes.contains(&self.me),
            Destination::One(_) => false,
        };
        if for_me {
            // What this version can't read may mean something to others: it is passed on all the same.
            let content = payload.split_first().filter(|&(&form, _)| form == 0).map(|(_, encoded)| encoded);
            if let Some(message) = content.and_then(|encoded| self.decode(packet.lane, encoded)) {
                let broadcast = packet.destination == Destination::Broadcast;
                let (source, hops, congested) = (packet.source, hops_of(&packet), packet.congested);
                self.dispatch(Received { source, hops, broadcast, congested, message });
            }
        }
        if packet.hop_limit <= 1 {
            self.counters.hop_limit += 1;
            return;
        }
        packet.hop_limit -= 1;
        self.spread(packet, Some(id));
    }

    /// Reads a message. One in another lane than its own would jump the queue, and escape the credit of lane bulk.
    fn decode(&mut self, lane: Lane, encoded: &[u8]) -> Option<Message> {
        match Message::decode(encoded) {
            Ok(Some(message)) if message.lane() == lane => Some(message),
            Ok(Some(_)) => {
                self.counters.malformed += 1;
                None
            }
            Ok(None) => {
                self.counters.unknown_kinds += 1;
                None
            }
            Err(_) => {
                self.counters.malformed += 1;
                None
            }
        }
    }

    fn dispatch(&mut self, received: Received) {
        self.counters.delivered += 1;
        if let Message::RootReply(reply) = received.message {
            self.devices.handle_reply(self.me, reply);
            return;
        }
        if !self.with_managers(|dispatcher, cx| dispatcher.handle_message(cx, received)) {
            self.counters.unknown_kinds += 1;
        }
    }

    // ------------------------------------------------------------ through

    fn pass_on(&mut self, from: LinkId, mut packet: Packet, length: usize) {
        if packet.hop_limit <= 1 {
            self.counters.hop_limit += 1;
            self.consumed(from, &packet, length);
            return;
        }
        packet.hop_limit -= 1;
        self.counters.forwarded += 1;
        self.route(packet, Some((from, length)));
    }

    /// Puts a packet to one node into the queue of the link that leads there.
    pub(super) fn route(&mut self, packet: Packet, from: Option<(LinkId, usize)>) {
        let Destination::One(to) = packet.destination else { return };
        let next = self.tree.next_hop(to).filter(|&next| from.is_none_or(|(from, _)| from != next));
        let Some((next, link)) = next.and_then(|next| Some((next, self.links.get_mut(&next)?))) else {
            self.counters.unreachable += 1;
            if let Some((from, length)) = from {
                self.consumed(from, &packet, length);
                self.advise_unreachable(&packet, to);
            } else {
                self.unreachable.push_back(to);
            }
            return;
        };
        let outcome = link.enqueue(&packet, from.map(|(from, _)| from));
        self.note(next, outcome);
    }

    /// What became of a packet that was put into a link's queue.
    fn note(&mut self, link: LinkId, outcome: Result<(), EnqueueError>) {
        if let Err(error) = outcome {
            self.counters.overflowed += 1;
            self.return_credit(link);
            if error == EnqueueError::TooSlow
                && let Some(link) = self.links.get_mut(&link)
            {
                // Without its control messages a neighbour's picture of the tree is wrong: start over.
                link.close(self.now, CloseReason::ProtocolError);
            }
        }
    }

    /// Tells the source that there is no way (fix 13), unless the packet was such advice itself.
    fn advise_unreachable(&mut self, packet: &Packet, to: NodeId) {
        let is_advice = packet.protection == Protection::Clear && packet.payload.get(1) == Some(&UNREACHABLE_KIND);
        if is_advice || !self.advice.take(self.now) {
            return;
        }
        let message = Message::from(Unreachable { destination: to });
        let advice = self.packet(packet.source, message.lane(), Protection::Clear, whole(&message));
        self.route(advice, None);
    }

    /// A packet that came in is out of the way: its sender may send as much again.
    fn consumed(&mut self, from: LinkId, packet: &Packet, length: usize) {
        let (Destination::One(destination), Lane::Bulk) = (&packet.destination, packet.lane) else { return };
        let flow = Flow { source: packet.source, destination: *destination, lane: packet.lane };
        if let Some(link) = self.links.get_mut(&from) {
            link.grant_credit(self.now, flow, length as u32);
        }
    }

    /// What has left over `link` gives credit to the links it came from.
    pub(super) fn return_credit(&mut self, link: LinkId) {
        while let Some((from, flow, bytes)) = self.links.get_mut(&link).and_then(Link::poll_credit_return) {
            if let Some(link) = self.links.get_mut(&from) {
                link.grant_credit(self.now, flow, bytes);
            }
        }
    }

    /// One copy over each edge but the one it came from; a list is split by where its nodes are.
    fn spread(&mut self, packet: Packet, from: Option<LinkId>) {
        let edges: Vec<LinkId> = self.tree.tree_links().filter(|&link| Some(link) != from).collect();
        for edge in edges {
            let part;
            let copy = match &packet.destination {
                Destination::List(nodes) => {
                    let there: Vec<NodeId> =
                        nodes.iter().copied().filter(|&node| self.tree.next_hop(node) == Some(edge)).collect();
                    if there.is_empty() {
                        continue;
                    }
                    part = Packet { destination: Destination::List(there), ..packet.clone() };
                    &part
                }
                _ => &packet,
            };
            if let Some(link) = self.links.get_mut(&edge) {
                let outcome = link.enqueue(copy, from);
                self.counters.forwarded += u64::from(from.is_some() && outcome.is_ok());
                self.note(edge, outcome);
            }
        }
    }

    // ------------------------------------------------------------ out

    pub(super) fn send(&mut self, outbound: Outbound) {
        match outbound {
            Outbound::To(to, message) => self.send_to(to, &message),
            Outbound::ToMany(nodes, message) => self.send_signed(Destination::List(nodes), &message),
            Outbound::Broadcast(message) => self.send_signed(Destination::Broadcast, &message),
        }
    }

    fn send_to(&mut self, to: NodeId, message: &Message) {
        if to == self.me {
            return;
        }
        self.last_sent = Some(self.now);
        if message.lane() == Lane::Bulk {
            self.own_bulk.insert(to, self.now);
        }
        let edge = self.tree.tree_links().find(|id| self.links.get(id).and_then(Link::remote) == Some(to));
        match edge {
            Some(link) => self.send_on_link(link, message),
            None => {
                if self.sessions.send(self.now, to, &message.encode(), message.lane()).is_err() {
                    self.counters.overflowed += 1;
                }
            }
        }
    }

    /// To a neighbour: its link protects the message already, one layer is enough (design §4).
    pub(super) fn send_on_link(&mut self, id: LinkId, message: &Message) {
        self.next_message = self.next_message.wrapping_add(1);
        let Some(link) = self.links.get(&id) else { return };
        let Some(to) = link.remote() else { return };
        let room = link.max_packet().unwrap_or(MAX_ROUTED_PACKET) - Packet::UNICAST_HEADER;
        for payload in fragment::split(&message.encode(), room, self.next_message) {
            let packet = self.packet(to, message.lane(), Protection::Link, payload);
            let Some(link) = self.links.get_mut(&id) else { return };
            let outcome = link.enqueue(&packet, None);
            self.note(id, outcome);
        }
    }

    fn send_signed(&mut self, destination: Destination, message: &Message) {
        self.next_signed += 1;
        self.last_sent = Some(self.now);
        let mut packet = Packet {
            lane: message.lane(),
            protection: Protection::Signed,
            congested: false,
            hop_limit: INITIAL_HOP_LIMIT,
            source: self.me,
            destination,
            sequence: self.next_signed,
            payload: whole(message),
        };
        if packet.encoded_len() + SIGNATURE_BLOCK > MAX_ROUTED_PACKET {
            self.counters.overflowed += 1;
            return;
        }
        self.identity.sign_packet(&mut packet);
        self.filter.passed(self.now, self.me, self.next_signed);
        self.spread(packet, None);
    }

    fn packet(&self, to: NodeId, lane: Lane, protection: Protection, payload: Vec<u8>) -> Packet {
        Packet {
            lane,
            protection,
            congested: false,
            hop_limit: INITIAL_HOP_LIMIT,
            source: self.me,
            destination: Destination::One(to),
            sequence: 0,
            payload,
        }
    }

    /// Bulk messages of this node that wait for room on `link` may go on.
    pub(super) fn offer_room(&mut self, link: LinkId) {
        let now = self.now;
        self.own_bulk.retain(|_, last| now.since(*last) < std::time::Duration::from_secs(30));
        let waiting: Vec<NodeId> =
            self.own_bulk.keys().copied().filter(|&to| self.tree.next_hop(to) == Some(link)).collect();
        for to in waiting {
            self.with_managers(|dispatcher, cx| dispatcher.handle_room(cx, to));
        }
    }
}

/// Links a packet has crossed; a relay that lies about it gains nothing but its own mention further off or nearer.
fn hops_of(packet: &Packet) -> u8 {
    INITIAL_HOP_LIMIT.saturating_sub(packet.hop_limit).saturating_add(1)
}

fn whole(message: &Message) -> Vec<u8> {
    let mut payload = vec![0];
    payload.extend(message.encode());
    payload
}
