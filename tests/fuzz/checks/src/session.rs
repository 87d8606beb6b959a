//! End-to-end sessions, in a network that forges, changes, loses and repeats.

use std::collections::VecDeque;
use std::time::Duration;

use bbh_proto::messaging::session::{MAX_HALF_OPEN, MAX_SESSIONS, Sessions};
use bbh_types::{Instant, NodeId};
use bbh_wire::fragment::Reassembly;
use bbh_wire::packet::SESSION_BLOCK;
use bbh_wire::{Destination, Lane, Message, Packet, Protection};
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use crate::input::{Input, identity};

/// Most packets on their way that the input may choose from.
const MAX_ON_THE_WAY: usize = 64;

struct World {
    now: Instant,
    /// Nodes 1 and 2.
    ends: [(Sessions, Reassembly); 2],
    on_the_way: VecDeque<Packet>,
    /// At which end what arrived.
    arrived: Vec<(usize, Vec<u8>)>,
}

impl World {
    fn new() -> Self {
        let end = |number: u8| {
            let mut rng = ChaCha12Rng::seed_from_u64(number.into());
            (Sessions::new(identity(number), &mut rng), Reassembly::default())
        };
        let now = Instant::from_micros(1_000_000);
        Self { now, ends: [end(1), end(2)], on_the_way: VecDeque::new(), arrived: Vec::new() }
    }

    fn node(end: usize) -> NodeId {
        identity(end as u8 + 1).node_id()
    }

    fn send(&mut self, from: usize, message: &[u8]) {
        // Refused while too much waits: that is a limit at work.
        let _ = self.ends[from].0.send(self.now, Self::node(1 - from), message, Lane::Chat);
        self.collect();
    }

    fn collect(&mut self) {
        for (sessions, reassembly) in &mut self.ends {
            while let Some(packet) = sessions.poll_packet() {
                assert!(packet.payload.len() >= SESSION_BLOCK || packet.protection == Protection::Clear);
                self.on_the_way.push_back(packet);
            }
            while sessions.poll_failed().is_some() {}
            let (kept, half_open) = sessions.counts();
            assert!(kept <= 2 * MAX_SESSIONS && half_open <= MAX_HALF_OPEN);
            reassembly.expire(self.now);
        }
    }

    /// Hands a packet to the node at its destination, or to the first.
    fn deliver(&mut self, packet: &Packet) {
        let to = usize::from(packet.destination == Destination::One(Self::node(1)));
        let (sessions, reassembly) = &mut self.ends[to];
        let before = self.on_the_way.len();
        if packet.protection == Protection::Clear {
            if let Some((0, encoded)) = packet.payload.split_first()
                && let Ok(Some(message)) = Message::decode(encoded)
            {
                let _ = sessions.handle_handshake(self.now, packet.source, message);
            }
        } else if let Ok(Some(payload)) = sessions.handle_packet(self.now, packet) {
            let whole = reassembly.push(self.now, packet.source, &payload);
            if let Some(message) = whole.expect("what is authentic is well made") {
                self.arrived.push((to, message));
            }
        }
        self.collect();
        // One answer or repetition; but the end of a handshake lets go what has waited for it.
        assert!(self.on_the_way.len() - before <= 1 || packet.protection == Protection::Clear);
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        for end in 0..2 {
            let sessions = &mut self.ends[end].0;
            if sessions.poll_timeout().is_some_and(|at| at <= self.now) {
                sessions.handle_timeout(self.now);
                assert!(sessions.poll_timeout().is_none_or(|at| at > self.now), "a timer that stands still");
            }
        }
        self.collect();
    }

    /// As it is without an enemy.
    fn pump(&mut self) {
        for _ in 0..10_000 {
            let Some(packet) = self.on_the_way.pop_front() else { return };
            self.deliver(&packet);
        }
        panic!("packets without end");
    }
}

/// Steps, by their first byte modulo 8:
///
/// | step | |
/// |---|---|
/// | 0 | `end u8, length u16`: that node sends so many bytes to the other |
/// | 1 | `n u8`: the n-th packet on the way arrives |
/// | 2 | `n u8`: it is lost |
/// | 3 | `n u8`: it arrives and stays on the way |
/// | 4 | `n u8, place u16, bits u8`: it arrives changed, and is lost |
/// | 5 | `length u16`, packet: arrives |
/// | 6 | `end u8, claimed u8, length u16`, message: arrives in clear, as if from a node |
/// | 7 | `tenths u8`: time passes |
///
/// Only what was sent ever arrives, and once the network is good again, so does what is sent.
pub fn session(data: &[u8]) {
    let mut input = Input(data);
    let mut world = World::new();
    let mut sent = Vec::new();
    while !input.is_empty() {
        let step = input.u8() % 8;
        match step {
            0 => {
                let (from, length) = (usize::from(input.u8() & 1), usize::from(input.u16()) % 20_000);
                let message = vec![sent.len() as u8; length.max(1)];
                world.send(from, &message);
                sent.push((1 - from, message));
            }
            1..=4 => {
                let number = usize::from(input.u8());
                let Some(number) = number.checked_rem(world.on_the_way.len()) else { continue };
                if step == 3 {
                    let packet = world.on_the_way[number].clone();
                    world.deliver(&packet);
                    continue;
                }
                let packet = world.on_the_way.remove(number).expect("it is there");
                if step == 1 {
                    world.deliver(&packet);
                } else if step == 4 {
                    let (place, bits) = (usize::from(input.u16()), input.u8());
                    let mut bytes = Vec::new();
                    packet.encode(&mut bytes);
                    let place = place % bytes.len();
                    bytes[place] ^= bits;
                    if let Ok(packet) = Packet::decode(&bytes) {
                        world.deliver(&packet);
                    }
                }
            }
            5 => {
                if let Ok(packet) = Packet::decode(input.string()) {
                    world.deliver(&packet);
                }
            }
            6 => {
                let (to, claimed) = (usize::from(input.u8() & 1), input.u8() % 8);
                let packet = Packet {
                    lane: Lane::Control,
                    protection: Protection::Clear,
                    congested: false,
                    hop_limit: 64,
                    source: identity(claimed).node_id(),
                    destination: Destination::One(World::node(to)),
                    sequence: 0,
                    payload: [&[0], input.string()].concat(),
                };
                world.deliver(&packet);
            }
            _ => world.wait(Duration::from_millis(100) * u32::from(input.u8())),
        }
        world.on_the_way.truncate(MAX_ON_THE_WAY);
    }
    let mut left = sent;
    for arrived in &world.arrived {
        let place = left.iter().position(|sent| sent == arrived);
        left.swap_remove(place.expect("nothing arrives that was not sent, and nothing twice"));
    }

    world.on_the_way.clear();
    world.arrived.clear();
    for _ in 0..20 {
        world.wait(Duration::from_secs(1));
        world.pump();
    }
    // What is sent first may be lost: it tells an end that the other has forgotten their session.
    world.arrived.clear();
    for number in 0..4_u8 {
        for end in 0..2 {
            world.send(end, &[0xee, number]);
            world.pump();
        }
        world.wait(Duration::from_secs(2));
        world.pump();
    }
    for end in 0..2 {
        assert!(world.arrived.contains(&(end, vec![0xee, 3])), "node {} is deaf: {:?}", end + 1, world.arrived);
    }
}
