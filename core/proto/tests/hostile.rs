//! A neighbour with a valid link that does not keep to the rules: what it sends is dropped and counted, the link stays,
//! since honest relays forward such things, and the node goes on.

use std::collections::VecDeque;
use std::time::Duration;

use bbh_proto::api::Settings;
use bbh_proto::link::{Link, LinkInput};
use bbh_proto::node::Counters;
use bbh_proto::{Effect, Identity, Node, NodeConfig};
use bbh_types::radio::{LinkId, LinkLimits, PeerAddr, RadioCommand, RadioEvent};
use bbh_types::{BoundedVec, ContentId, Instant, NodeId, Query, SearchMode};
use bbh_wire::message::{AttachReply, AttachVerdict, DownloadInquiry, RoutingConnect, SearchRequest, TreeInfo};
use bbh_wire::{Destination, Lane, Message, Packet, Protection, Role, fragment};
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

const LINK: LinkId = LinkId(1);

/// A node and a neighbour of it that the test plays.
struct Scene {
    now: Instant,
    node: Node,
    enemy: Identity,
    link: Link,
    heard: VecDeque<Packet>,
    closed: bool,
    next_message: u32,
}

impl Scene {
    fn new() -> Self {
        let now = Instant::ZERO;
        let config = NodeConfig {
            identity: Identity::from_seed([1; 32]),
            boot: 1,
            settings: Settings::default(),
            seed: [1; 32],
        };
        let mut node = Node::new(config, now);
        let enemy = Identity::from_seed([2; 32]);
        let mut rng = ChaCha12Rng::seed_from_u64(2);
        let link = Link::new(LINK, PeerAddr(9), true, LinkLimits::BLUETOOTH, &enemy, &mut rng, now);
        let opened =
            RadioEvent::Opened { link: LINK, peer: PeerAddr(1), dialler: false, limits: LinkLimits::BLUETOOTH };
        node.handle_radio(now, opened);
        let mut scene = Self { now, node, enemy, link, heard: VecDeque::new(), closed: false, next_message: 0 };
        scene.exchange();
        assert!(scene.link.is_up());
        scene
    }

    /// The enemy's tree is one of 100, so the node attaches to it, as to any parent.
    fn with_the_enemy_as_parent() -> Self {
        let mut scene = Self::new();
        let info = TreeInfo { tree: bbh_types::TreeId(7), epoch: 0, size: 100, role: Role::Root, free_slots: 3 };
        scene.tell(info);
        let asked = scene.heard.iter().any(|packet| packet.payload.get(1) == Some(&17));
        assert!(asked, "the node asks to be taken in: {:?}", scene.heard);
        scene.tell(AttachReply { verdict: AttachVerdict::Accepted, info });
        assert_eq!(scene.node.status(scene.now).parent, Some(scene.enemy.node_id()));
        scene
    }

    /// The enemy's tree is a single node with a lower id or smaller size, so it attaches to the node.
    fn with_the_enemy_as_child() -> Self {
        let mut scene = Self::new();
        let node = scene.node.id();
        let attachment = scene.enemy.attach(node, 1, "enemy");
        scene.tell(bbh_wire::message::AttachRequest { attachment, size: 1 });
        assert_eq!(scene.node.status(scene.now).children, [scene.enemy.node_id()]);
        scene
    }

    /// Carries bytes to and fro until nobody has any more.
    fn exchange(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(bytes) = self.link.poll_transmit(self.now) {
                quiet = false;
                self.link.handle_sent(1);
                self.node.handle_radio(self.now, RadioEvent::Data { link: LINK, bytes });
            }
            while let Some(transmit) = self.node.poll_transmit() {
                quiet = false;
                self.node.handle_radio(self.now, RadioEvent::Sent { link: LINK, count: 1 });
                self.link.handle_data(self.now, &transmit.bytes).expect("the node keeps to the protocol");
            }
            while let Some(input) = self.link.poll_input() {
                match input {
                    LinkInput::Packet(packet, _) => self.heard.push_back(packet),
                    LinkInput::Closed(_) => self.closed = true,
                    LinkInput::Up { .. } => {}
                }
            }
            while let Some(effect) = self.node.poll_effect() {
                if effect == Effect::Radio(RadioCommand::Close(LINK)) {
                    self.closed = true;
                }
            }
            while self.node.poll_event().is_some() {}
            if quiet {
                return;
            }
        }
    }

    fn send(&mut self, packet: &Packet) {
        self.link.enqueue(packet, None).expect("the queue is drained after each packet");
        self.exchange();
    }

    /// A message as a neighbour sends it.
    fn tell(&mut self, message: impl Into<Message>) {
        self.next_message += 1;
        let message = message.into();
        for payload in fragment::split(&message.encode(), 3900, self.next_message) {
            let mut packet = self.packet(self.enemy.node_id(), Protection::Link, payload);
            packet.lane = message.lane();
            self.send(&packet);
        }
    }

    fn packet(&self, source: NodeId, protection: Protection, payload: Vec<u8>) -> Packet {
        Packet {
            lane: Lane::Search,
            protection,
            congested: false,
            hop_limit: 64,
            source,
            destination: Destination::One(self.node.id()),
            sequence: 0,
            payload,
        }
    }

    fn broadcast(&self, by: &Identity, sequence: u64) -> Packet {
        let query = Query::new(["beer"], SearchMode::All).expect("one word is enough");
        let message = Message::from(SearchRequest { search: 1, query });
        let mut payload = vec![0];
        payload.extend(message.encode());
        let mut packet = self.packet(by.node_id(), Protection::Signed, payload);
        packet.destination = Destination::Broadcast;
        packet.sequence = sequence;
        by.sign_packet(&mut packet);
        packet
    }

    fn counters(&self) -> Counters {
        self.node.counters()
    }

    /// The node still serves: it answers a search request of a stranger by asking its library.
    fn assert_alive(&mut self) {
        assert!(!self.closed, "the link has to stay");
        let before = self.counters().delivered;
        let stranger = Identity::from_seed([77; 32]);
        self.now += Duration::from_secs(1);
        let packet = self.broadcast(&stranger, 1 << 40);
        self.send(&packet);
        assert_eq!(self.counters().delivered, before + 1, "{:?}", self.counters());
    }
}

#[test]
fn a_forged_source_is_dropped_whether_it_comes_from_above_or_below() {
    let mut scene = Scene::with_the_enemy_as_child();
    let victim = Identity::from_seed([3; 32]).node_id();
    for protection in [Protection::Link, Protection::Session, Protection::Clear] {
        let packet = scene.packet(victim, protection, vec![0; 64]);
        scene.send(&packet);
    }
    assert_eq!(scene.counters().forged_source, 3);
    scene.assert_alive();

    let mut scene = Scene::with_the_enemy_as_parent();
    let own = scene.node.id();
    let packet = scene.packet(own, Protection::Clear, vec![0; 64]);
    scene.send(&packet);
    assert_eq!(scene.counters().forged_source, 1);
    scene.assert_alive();
}

#[test]
fn a_broadcast_with_a_bad_signature_is_dropped_and_not_passed_on() {
    let mut scene = Scene::with_the_enemy_as_parent();
    let stranger = Identity::from_seed([3; 32]);
    let mut packet = scene.broadcast(&stranger, 1);
    *packet.payload.last_mut().unwrap() ^= 1;
    scene.send(&packet);
    let mut other_name = scene.broadcast(&stranger, 2);
    other_name.source = Identity::from_seed([4; 32]).node_id();
    scene.send(&other_name);
    assert_eq!(scene.counters().bad_signature, 2);
    assert_eq!(scene.counters().delivered, 0);
    scene.assert_alive();
}

#[test]
fn a_broadcast_is_delivered_once_however_often_it_comes() {
    let mut scene = Scene::with_the_enemy_as_parent();
    let packet = scene.broadcast(&Identity::from_seed([3; 32]), 1);
    for _ in 0..5 {
        scene.send(&packet);
    }
    assert_eq!((scene.counters().delivered, scene.counters().refused_broadcasts), (1, 4));
    scene.assert_alive();
}

#[test]
fn a_flood_of_10000_packets_of_all_sorts_is_dropped_and_counted_and_the_link_stays() {
    let mut scene = Scene::with_the_enemy_as_parent();
    let stranger = Identity::from_seed([3; 32]);
    for n in 0..10_000_u64 {
        let mut packet = match n % 5 {
            0 => scene.broadcast(&stranger, n),
            1 => scene.packet(stranger.node_id(), Protection::Session, n.to_be_bytes().repeat(8)),
            2 => scene.packet(stranger.node_id(), Protection::Clear, n.to_be_bytes().repeat(8)),
            3 => scene.packet(scene.enemy.node_id(), Protection::Link, vec![9, 9, n as u8]),
            _ => scene.packet(stranger.node_id(), Protection::Clear, vec![0; 30]),
        };
        if n % 5 == 4 {
            packet.destination = Destination::One(NodeId::from_bytes([n as u8; 16]));
        }
        scene.send(&packet);
    }
    let counters = scene.counters();
    assert!(counters.refused_broadcasts > 1_000, "{counters:?}");
    assert!(counters.unopened >= 1_990, "{counters:?}");
    assert!(counters.malformed + counters.unknown_kinds >= 3_990, "{counters:?}");
    assert!(counters.unreachable >= 1_990, "{counters:?}");
    scene.assert_alive();
}

#[test]
fn invented_and_forged_descendants_are_refused() {
    let mut scene = Scene::with_the_enemy_as_child();
    let ghost = Identity::from_seed([5; 32]);
    let enemy = scene.enemy.node_id();
    let mut forged = ghost.attach(enemy, 1, "ghost");
    forged.counter = 2;
    let honest_but_elsewhere = ghost.attach(NodeId::from_bytes([9; 16]), 1, "ghost");
    let attachments = BoundedVec::new(vec![forged, honest_but_elsewhere]).unwrap();
    scene.tell(RoutingConnect { sequence: 0, attachments });
    let tree = scene.counters().tree;
    assert_eq!((tree.forged_attachments, tree.refused_attachments), (1, 1));
    assert_eq!(scene.node.tree().table().len(), 1, "only the enemy itself is below");
    scene.assert_alive();
}

#[test]
fn a_message_in_another_lane_than_its_own_is_dropped() {
    let mut scene = Scene::with_the_enemy_as_parent();
    let ping = Message::from(bbh_wire::message::Ping { token: 1 });
    let mut packet = scene.packet(scene.enemy.node_id(), Protection::Link, [vec![0], ping.encode()].concat());
    packet.lane = Lane::Chat;
    scene.send(&packet);
    assert_eq!((scene.counters().delivered, scene.counters().malformed), (0, 1));
    packet.lane = Lane::Control;
    scene.send(&packet);
    assert_eq!(scene.counters().delivered, 1);
    scene.assert_alive();
}

#[test]
fn kinds_of_a_newer_version_are_skipped() {
    let mut scene = Scene::with_the_enemy_as_parent();
    let packet = scene.packet(scene.enemy.node_id(), Protection::Link, vec![0, 250, 1, 2, 3]);
    scene.send(&packet);
    assert_eq!(scene.counters().unknown_kinds, 1);
    scene.assert_alive();
}

#[test]
fn an_inquiry_by_a_stranger_without_a_link_of_the_tree_is_not_served() {
    let mut scene = Scene::new();
    let packet = scene.broadcast(&Identity::from_seed([3; 32]), 1);
    scene.send(&packet);
    assert_eq!(scene.counters().forged_source, 1, "a contact is no way through");
    scene.tell(DownloadInquiry { inquiry: 1, content: ContentId::from_bytes([0; 32]) });
    assert_eq!(scene.counters().forged_source, 2);
    assert_eq!(scene.counters().delivered, 0);
    assert!(!scene.closed);
}
