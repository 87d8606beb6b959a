//! A whole node between neighbours: one that says what the input wants, an honest one, and later a witness.

use std::collections::BTreeMap;
use std::time::Duration;

use bbh_bao::{Hasher, Outboard, encode_slice};
use bbh_proto::api::Settings;
use bbh_proto::link::cipher::{Opener, Sealer};
use bbh_proto::link::handshake::{Handshake, Purpose};
use bbh_proto::messaging::session::Sessions;
use bbh_proto::{Effect, LibraryAnswer, LibraryRequest, Node, NodeConfig, StorageAnswer, StorageRequest};
use bbh_types::radio::{LinkId, LinkLimits, PeerAddr, RadioCommand, RadioEvent};
use bbh_types::{BoundedString, ContentId, FileKind, FileRecord, Instant, Md5Hash, NodeId, Tags};
use bbh_wire::fragment::{Reassembly, split};
use bbh_wire::frame::{Body, KIND_PACKET, PREFIX};
use bbh_wire::{Destination, Lane, Message, Packet, Protection};
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use crate::input::identity;

/// The node under test.
pub const NODE: u8 = 1;
/// Its hostile neighbour, above or below it.
pub const ENEMY: u8 = 2;
/// Its honest neighbour, below it.
pub const FRIEND: u8 = 3;
/// Somebody who meets it in the end.
pub const WITNESS: u8 = 7;

/// Payload of a packet that fits into every frame.
const ROOM: usize = 3900;
/// Most frames, effects or events that one step may lead to. A download asks for a few pieces and ranges at a time.
const MANY: usize = 2000;

/// A file, and what is needed to serve it.
pub struct Content {
    pub bytes: Vec<u8>,
    pub outboard: Outboard,
    pub id: ContentId,
}

impl Content {
    fn new(length: usize, step: u8) -> Self {
        let bytes: Vec<u8> = (0..length).map(|n| (n as u8).wrapping_mul(step) ^ (n >> 8) as u8).collect();
        let mut hasher = Hasher::new();
        hasher.update(&bytes);
        let (id, outboard) = hasher.finalize();
        Self { bytes, outboard, id }
    }

    /// What the node shares.
    pub fn shared() -> Self {
        Self::new(20_000, 7)
    }

    /// What the node may want from others.
    pub fn wanted() -> Self {
        Self::new(40_000, 11)
    }

    pub fn record(&self) -> FileRecord {
        FileRecord {
            content_id: self.id,
            md5: Md5Hash([0; 16]),
            name: BoundedString::truncated("beer.txt"),
            folder: BoundedString::truncated("cellar"),
            size: self.bytes.len() as u64,
            kind: FileKind::Document,
            tags: Tags::default(),
        }
    }

    pub fn slice(&self, start: u64, end: u64) -> Option<Vec<u8>> {
        let bytes = self.bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)?;
        encode_slice(self.bytes.len() as u64, start..end, &self.outboard, bytes).ok()
    }
}

/// The other end of a link to the node.
pub struct Neighbour {
    number: u8,
    link: LinkId,
    sealer: Sealer,
    opener: Opener,
    parts: Reassembly,
    /// Takes nothing off the node's hands.
    pub stalled: bool,
    unread: usize,
    pub open: bool,
    pub heard: Vec<Message>,
}

pub struct Scene {
    pub now: Instant,
    pub node: Node,
    neighbours: BTreeMap<u8, Neighbour>,
    last_link: u64,
    next_message: u32,
    next_signed: u64,
    pub shared: Content,
    pub wanted: Content,
    /// Nodes behind the enemy.
    strangers: BTreeMap<u8, (Sessions, Reassembly)>,
    /// What the node has asked last, by the message's kind.
    pub asked: BTreeMap<u8, Message>,
}

impl Scene {
    pub fn new() -> Self {
        let now = Instant::from_micros(1_000_000);
        let settings = Settings { name: "node".into(), ..Settings::default() };
        let config = NodeConfig { identity: identity(NODE).clone(), boot: 1, settings, seed: [1; 32] };
        Self {
            now,
            node: Node::new(config, now),
            neighbours: BTreeMap::new(),
            last_link: 0,
            next_message: 0,
            next_signed: 0,
            shared: Content::shared(),
            wanted: Content::wanted(),
            strangers: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }

    pub fn node_id() -> NodeId {
        identity(NODE).node_id()
    }

    pub fn neighbour(&mut self, number: u8) -> Option<&mut Neighbour> {
        self.neighbours.get_mut(&number).filter(|neighbour| neighbour.open)
    }

    // ------------------------------------------------------------ links

    /// A new link, on which the neighbour has proven who it is.
    pub fn connect(&mut self, number: u8) {
        self.disconnect(number);
        self.last_link += 1;
        let (link, limits) = (LinkId(self.last_link), LinkLimits::BLUETOOTH);
        let opened = RadioEvent::Opened { link, peer: PeerAddr(number.into()), dialler: false, limits };
        self.node.handle_radio(self.now, opened);
        let mut rng = ChaCha12Rng::seed_from_u64(self.last_link);
        let mut handshake = Handshake::new(Purpose::Link, true, identity(number).noise(), 4096, &mut rng);
        let first = framed(&handshake.write().expect("the dialler begins"));
        self.node.handle_radio(self.now, RadioEvent::Data { link, bytes: first });
        let answer = self.node.poll_transmit().expect("an answer");
        assert_eq!(answer.link, link);
        self.node.handle_radio(self.now, RadioEvent::Sent { link, count: 1 });
        handshake.read(&answer.bytes[PREFIX..]).expect("a genuine answer");
        let third = framed(&handshake.write().expect("the dialler ends it"));
        let keys = handshake.finish().expect("three messages have passed");
        assert_eq!(keys.remote, Self::node_id());
        let neighbour = Neighbour {
            number,
            link,
            sealer: Sealer::new(&keys.send),
            opener: Opener::new(&keys.receive),
            parts: Reassembly::default(),
            stalled: false,
            unread: 0,
            open: true,
            heard: Vec::new(),
        };
        self.neighbours.insert(number, neighbour);
        self.node.handle_radio(self.now, RadioEvent::Data { link, bytes: third });
        self.settle();
    }

    pub fn disconnect(&mut self, number: u8) {
        if let Some(neighbour) = self.neighbours.remove(&number)
            && neighbour.open
        {
            self.node.handle_radio(self.now, RadioEvent::Closed { link: neighbour.link });
            self.settle();
        }
    }

    /// A neighbour sends a frame with this plaintext.
    pub fn say(&mut self, number: u8, body: &[u8]) {
        if self.put(number, body) {
            self.settle();
        }
    }

    fn put(&mut self, number: u8, body: &[u8]) -> bool {
        let Some(neighbour) = self.neighbour(number) else { return false };
        let mut frame = body.to_vec();
        let tag = neighbour.sealer.seal(&[], &mut frame);
        frame.extend_from_slice(&tag);
        let link = neighbour.link;
        self.node.handle_radio(self.now, RadioEvent::Data { link, bytes: framed(&frame) });
        true
    }

    pub fn send(&mut self, number: u8, packet: &Packet) {
        let mut body = vec![KIND_PACKET];
        packet.encode(&mut body);
        self.say(number, &body);
    }

    /// A neighbour sends an encoded message, in its lane.
    pub fn tell(&mut self, number: u8, encoded: &[u8]) {
        let lane = lane_of(encoded);
        for payload in split(encoded, ROOM, self.message_number()) {
            let source = identity(number).node_id();
            self.send(number, &packet(lane, Protection::Link, source, Self::node_id(), payload));
        }
    }

    fn message_number(&mut self) -> u32 {
        self.next_message += 1;
        self.next_message
    }

    // ------------------------------------------------------------ what strangers say, by way of the enemy

    /// To all, properly signed.
    pub fn broadcast(&mut self, by: u8, encoded: &[u8]) {
        self.next_signed += 1;
        let payload = [&[0], &encoded[..encoded.len().min(ROOM - 100)]].concat();
        let source = identity(by).node_id();
        let mut packet = packet(lane_of(encoded), Protection::Signed, source, Self::node_id(), payload);
        (packet.destination, packet.sequence) = (Destination::Broadcast, self.next_signed);
        identity(by).sign_packet(&mut packet);
        self.send(ENEMY, &packet);
    }

    /// In clear.
    pub fn clear(&mut self, by: u8, encoded: &[u8]) {
        let payload = [&[0], &encoded[..encoded.len().min(ROOM)]].concat();
        let packet = packet(lane_of(encoded), Protection::Clear, identity(by).node_id(), Self::node_id(), payload);
        self.send(ENEMY, &packet);
    }

    /// Under a session, which is made if there is none.
    pub fn send_from_afar(&mut self, by: u8, encoded: &[u8]) {
        let mut rng = ChaCha12Rng::seed_from_u64(u64::from(by) + 100);
        let new = || (Sessions::new(identity(by), &mut rng), Reassembly::default());
        let (sessions, _) = self.strangers.entry(by).or_insert_with(new);
        // Refused while too much waits: that is a limit at work.
        let _ = sessions.send(self.now, Self::node_id(), encoded, lane_of(encoded));
        self.settle();
    }

    fn hand_to_stranger(&mut self, packet: &Packet) {
        let Destination::One(to) = packet.destination else { return };
        let found = self.strangers.iter_mut().find(|(number, _)| identity(**number).node_id() == to);
        let Some((_, (sessions, parts))) = found else { return };
        if packet.protection == Protection::Clear {
            if let Some(Ok(Some(message))) = packet.payload.get(1..).map(Message::decode) {
                let _ = sessions.handle_handshake(self.now, packet.source, message);
            }
        } else if let Ok(Some(payload)) = sessions.handle_packet(self.now, packet) {
            let whole = parts.push(self.now, packet.source, &payload).expect("the node makes proper fragments");
            if let Some(Ok(Some(message))) = whole.map(|whole| Message::decode(&whole)) {
                self.asked.insert(message.kind(), message);
            }
        }
    }

    // ------------------------------------------------------------ time, and everybody's part

    pub fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.node.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.node.handle_timeout(self.now);
            self.settle();
            assert!(
                self.node.poll_timeout().is_none_or(|at| at > self.now),
                "stands still: {:?}",
                self.node.timeouts()
            );
        }
        self.now = end;
        for (sessions, _) in self.strangers.values_mut() {
            sessions.handle_timeout(end);
        }
        self.settle();
    }

    /// Lets all others do their part until nobody has anything more to do.
    pub fn settle(&mut self) {
        for _ in 0..MANY {
            let mut quiet = true;
            while let Some(transmit) = self.node.poll_transmit() {
                quiet = false;
                self.take(transmit.link, &transmit.bytes);
            }
            while let Some(effect) = self.node.poll_effect() {
                quiet = false;
                self.carry_out(effect);
            }
            while self.node.poll_event().is_some() {}
            let mut packets = Vec::new();
            for (sessions, _) in self.strangers.values_mut() {
                packets.extend(std::iter::from_fn(|| sessions.poll_packet()));
            }
            for packet in packets {
                quiet = false;
                let mut body = vec![KIND_PACKET];
                packet.encode(&mut body);
                self.put(ENEMY, &body);
            }
            if quiet {
                return;
            }
        }
        panic!("the node does not come to rest");
    }

    /// The node has sent a frame.
    fn take(&mut self, link: LinkId, frame: &[u8]) {
        assert!(frame.len() <= LinkLimits::BLUETOOTH.max_frame);
        let Some(neighbour) = self.neighbours.values_mut().find(|neighbour| neighbour.link == link) else { return };
        let number = neighbour.number;
        let mut frame = frame.to_vec();
        let body = neighbour.opener.open(&mut frame[PREFIX..]).expect("the node keeps to the protocol");
        let mut answer = None;
        let mut passing = None;
        match Body::decode(body).expect("the node keeps to the protocol") {
            Body::Packet(bytes) => {
                let packet = Packet::decode(bytes).expect("the node makes and passes on packets");
                let whole = match packet.protection {
                    Protection::Link => neighbour
                        .parts
                        .push(self.now, packet.source, &packet.payload)
                        .expect("the node makes proper fragments"),
                    Protection::Signed => packet.payload.get(97..).map(<[u8]>::to_vec),
                    Protection::Session | Protection::Clear => {
                        passing = Some(packet);
                        None
                    }
                };
                if let Some(Ok(Some(message))) = whole.map(|whole| Message::decode(&whole)) {
                    self.asked.insert(message.kind(), message.clone());
                    neighbour.heard.push(message);
                }
            }
            Body::Beat { answer: true } if !neighbour.stalled => answer = Some(Body::Beat { answer: false }),
            _ => {}
        }
        if neighbour.stalled {
            neighbour.unread += 1;
            assert!(neighbour.unread <= LinkLimits::BLUETOOTH.max_in_flight);
        } else {
            self.node.handle_radio(self.now, RadioEvent::Sent { link, count: 1 });
        }
        if let Some(answer) = answer {
            let mut body = Vec::new();
            answer.encode(&mut body);
            self.put(number, &body);
        }
        if let Some(packet) = passing.filter(|_| number == ENEMY) {
            self.hand_to_stranger(&packet);
        }
    }

    pub fn unstall(&mut self, number: u8) {
        if let Some(neighbour) = self.neighbour(number) {
            neighbour.stalled = false;
            let (link, count) = (neighbour.link, std::mem::take(&mut neighbour.unread));
            self.node.handle_radio(self.now, RadioEvent::Sent { link, count });
            self.settle();
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Radio(RadioCommand::Connect(peer)) => {
                self.node.handle_radio(self.now, RadioEvent::OpenFailed { peer });
            }
            Effect::Radio(RadioCommand::Close(link)) => {
                if let Some(neighbour) = self.neighbours.values_mut().find(|neighbour| neighbour.link == link) {
                    neighbour.open = false;
                }
                self.node.handle_radio(self.now, RadioEvent::Closed { link });
            }
            Effect::Radio(_) => {}
            Effect::Library(request) => {
                let answer = self.look_up(request);
                self.node.handle_library(self.now, answer);
            }
            Effect::Storage(request) => {
                if let Some(answer) = self.store(request) {
                    self.node.handle_storage(self.now, answer);
                }
            }
        }
    }

    fn look_up(&self, request: LibraryRequest) -> LibraryAnswer {
        match request {
            LibraryRequest::Search { token, limit, .. } => {
                LibraryAnswer::Found { token, files: std::iter::repeat_n(self.shared.record(), limit.min(3)).collect() }
            }
            LibraryRequest::Lookup { token, content } => {
                LibraryAnswer::Held { token, file: (content == self.shared.id).then(|| self.shared.record()) }
            }
            LibraryRequest::ReadSlice { token, content, start, end } => {
                assert!(content == self.shared.id, "only what is here can be read");
                assert!(start < end && end - start <= 64 * 1024 && start % bbh_bao::GROUP == 0);
                LibraryAnswer::Slice { token, result: self.shared.slice(start, end).ok_or("no such range".into()) }
            }
        }
    }

    fn store(&self, request: StorageRequest) -> Option<StorageAnswer> {
        Some(match request {
            StorageRequest::Reserve { content, size } => {
                assert_eq!((content, size), (self.wanted.id, self.wanted.bytes.len() as u64), "an unproven size");
                StorageAnswer::Reserved { content, result: Ok(()) }
            }
            StorageRequest::Write { content, start, bytes } => {
                let end = start + bytes.len() as u64;
                let genuine = self.wanted.bytes.get(start as usize..end as usize);
                assert!(content == self.wanted.id && genuine == Some(&bytes), "unverified bytes");
                StorageAnswer::Written { content, start, end, result: Ok(()) }
            }
            StorageRequest::Save(record) => {
                assert_eq!(record.content, self.wanted.id, "nobody has asked for it");
                StorageAnswer::Saved { content: record.content, result: Ok(()) }
            }
            StorageRequest::Finish { content } => {
                assert_eq!(content, self.wanted.id, "nobody has asked for it");
                StorageAnswer::Finished { content, result: Ok("/beer.txt".into()) }
            }
            StorageRequest::Discard { .. } => return None,
        })
    }
}

/// The lane of a message's kind; control for what can't be read.
fn lane_of(encoded: &[u8]) -> Lane {
    Message::decode(encoded).ok().flatten().map_or(Lane::Control, |message| message.lane())
}

fn packet(lane: Lane, protection: Protection, source: NodeId, to: NodeId, payload: Vec<u8>) -> Packet {
    let destination = Destination::One(to);
    Packet { lane, protection, congested: false, hop_limit: 64, source, destination, sequence: 0, payload }
}

fn framed(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32).to_be_bytes()[..], content].concat()
}
