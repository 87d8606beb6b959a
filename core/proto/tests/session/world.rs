//! Some nodes' sessions, and all packets between them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::OnceLock;
use std::time::Duration;

use bbh_proto::Identity;
use bbh_proto::messaging::session::{SessionError, Sessions};
use bbh_types::{Instant, NodeId};
use bbh_wire::fragment::{Reassembly, split};
use bbh_wire::{Destination, Lane, Message, Packet, Protection};
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

pub fn identity(number: u8) -> Identity {
    Identity::from_seed([number; 32])
}

pub fn node(number: u8) -> NodeId {
    static NODES: OnceLock<Vec<NodeId>> = OnceLock::new();
    NODES.get_or_init(|| (0..=u8::MAX).map(|number| identity(number).node_id()).collect())[usize::from(number)]
}

/// Two node numbers, that of the lower id first.
pub fn lower_and_higher() -> (u8, u8) {
    if node(1) < node(2) { (1, 2) } else { (2, 1) }
}

/// The kind of a message that travels in clear.
pub fn kind(packet: &Packet) -> Option<u8> {
    (packet.protection == Protection::Clear).then(|| packet.payload[1])
}

pub const INIT: Option<u8> = Some(48);
pub const REPLY: Option<u8> = Some(49);
pub const FINISH: Option<u8> = Some(50);
pub const UNKNOWN: Option<u8> = Some(51);

/// A packet in clear that says to be from `source`.
pub fn clear(source: NodeId, destination: NodeId, message: impl Into<Message>) -> Packet {
    Packet {
        lane: Lane::Control,
        protection: Protection::Clear,
        congested: false,
        hop_limit: 64,
        source,
        destination: Destination::One(destination),
        sequence: 0,
        payload: split(&message.into().encode(), 4000, 0).remove(0),
    }
}

pub struct World {
    pub now: Instant,
    pub nodes: BTreeMap<NodeId, (Sessions, Reassembly)>,
    /// What arrived: at whom, from whom, what.
    pub arrived: Vec<(NodeId, NodeId, Vec<u8>)>,
    /// All packets ever sent.
    pub seen: Vec<Packet>,
    pub failed: Vec<(NodeId, NodeId)>,
    seed: u64,
}

impl World {
    pub fn new(numbers: impl IntoIterator<Item = u8>) -> Self {
        let mut world = Self {
            now: Instant::from_micros(1_000_000),
            nodes: BTreeMap::new(),
            arrived: Vec::new(),
            seen: Vec::new(),
            failed: Vec::new(),
            seed: 0,
        };
        for number in numbers {
            world.restart(number);
        }
        world
    }

    /// A node without any memory of before.
    pub fn restart(&mut self, number: u8) {
        self.seed += 1;
        let sessions = Sessions::new(&identity(number), &mut ChaCha12Rng::seed_from_u64(self.seed));
        self.nodes.insert(node(number), (sessions, Reassembly::default()));
    }

    pub fn sessions(&mut self, number: u8) -> &mut Sessions {
        &mut self.nodes.get_mut(&node(number)).unwrap().0
    }

    pub fn send(&mut self, from: u8, to: u8, message: &[u8]) {
        let now = self.now;
        self.sessions(from).send(now, node(to), message, Lane::Chat).unwrap();
    }

    /// Hands a packet to its destination.
    pub fn deliver(&mut self, packet: &Packet) -> Result<(), SessionError> {
        let Destination::One(to) = packet.destination else { panic!("sessions send to one node") };
        let Some((sessions, reassembly)) = self.nodes.get_mut(&to) else { return Ok(()) };
        if packet.protection == Protection::Clear {
            let message = Message::decode(&packet.payload[1..]).unwrap().unwrap();
            return sessions.handle_handshake(self.now, packet.source, message);
        }
        if let Some(payload) = sessions.handle_packet(self.now, packet)?
            && let Some(message) = reassembly.push(self.now, packet.source, &payload).unwrap()
        {
            self.arrived.push((to, packet.source, message));
        }
        Ok(())
    }

    /// What all nodes have to send at this moment.
    pub fn collect(&mut self) -> VecDeque<Packet> {
        let mut packets = VecDeque::new();
        for (&id, (sessions, _)) in &mut self.nodes {
            packets.extend(std::iter::from_fn(|| sessions.poll_packet()));
            self.failed.extend(std::iter::from_fn(|| sessions.poll_failed()).map(|failed| (id, failed)));
        }
        self.seen.extend(packets.iter().cloned());
        packets
    }

    /// Delivers all packets that `keep` lets pass, and their answers, until none is left.
    pub fn pump(&mut self, mut keep: impl FnMut(&Packet) -> bool) {
        loop {
            let packets = self.collect();
            if packets.is_empty() {
                return;
            }
            for packet in packets.iter().filter(|packet| keep(packet)) {
                let _ = self.deliver(packet);
            }
        }
    }

    pub fn run(&mut self, time: Duration) {
        self.run_filtered(time, |_| true);
    }

    /// Lets time pass, by the nodes' own timers.
    pub fn run_filtered(&mut self, time: Duration, mut keep: impl FnMut(&Packet) -> bool) {
        let end = self.now + time;
        self.pump(&mut keep);
        loop {
            let next = self.nodes.values().filter_map(|(sessions, _)| sessions.poll_timeout()).min();
            let Some(next) = next.filter(|&next| next <= end) else { break };
            self.now = self.now.max(next);
            for (sessions, _) in self.nodes.values_mut() {
                if sessions.poll_timeout().is_some_and(|at| at <= next) {
                    sessions.handle_timeout(next);
                    assert!(sessions.poll_timeout().is_none_or(|at| at > next), "a timer that stands still");
                }
            }
            self.pump(&mut keep);
        }
        self.now = end;
    }

    pub fn messages_at(&self, number: u8) -> Vec<&[u8]> {
        self.arrived.iter().filter(|(at, ..)| *at == node(number)).map(|(.., message)| &message[..]).collect()
    }

    pub fn sent(&self, kind_wanted: Option<u8>) -> usize {
        self.seen.iter().filter(|packet| kind(packet) == kind_wanted).count()
    }
}
