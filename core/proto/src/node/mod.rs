//! The node: puts links, tree, sessions and managers together.
//!
//! Bytes come in at [`Node::handle_radio`], become packets in a [`Link`], are sorted in `transit` (deliver, pass on,
//! drop), and what is for this node reaches the [`TreeManager`] or, through the [`Dispatcher`], a manager. What they
//! answer leaves the same way, outermost layer last: messages become packets here, packets become frames in the links
//! at the moment the radio can take them.

mod transit;

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bbh_types::radio::{LinkId, LinkLimits, PeerAddr, RadioCommand, RadioEvent};
use bbh_types::{Instant, NodeId};
use bbh_wire::fragment::Reassembly;
use bbh_wire::frame::{CloseReason, Flow};
use bbh_wire::{Lane, Role};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use crate::api::{
    Command, DownloadStatus, Effect, Event, LibraryAnswer, NetworkStatus, Settings, StorageAnswer, Transmit,
};
use crate::files::FileManagers;
use crate::identity::Identity;
use crate::link::{Link, LinkError};
use crate::messaging::session::Sessions;
use crate::messaging::{Context, Dispatcher, Mesh, Outbound};
use crate::routing::broadcast::{BroadcastFilter, TokenBucket};
use crate::routing::devices::DeviceQueries;
use crate::routing::tree::TreeCounters;
use crate::routing::{TreeAction, TreeManager};

/// What a node starts with.
#[derive(Debug)]
pub struct NodeConfig {
    /// Who it is.
    pub identity: Identity,
    /// Grows with every start, so that what this run signs counts more than what earlier ones signed.
    pub boot: u32,
    /// The user's settings.
    pub settings: Settings,
    /// Seed of all randomness: from the system's generator, or a number in a simulation.
    pub seed: [u8; 32],
}

/// What a node has dropped, and why. Everything that strangers can cause is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets for this node that were opened and handed to a manager.
    pub delivered: u64,
    /// Packets passed on.
    pub forwarded: u64,
    /// Packets whose header or content makes no sense.
    pub malformed: u64,
    /// Packets whose source can't be where they came from.
    pub forged_source: u64,
    /// Signed packets with a wrong signature.
    pub bad_signature: u64,
    /// Signed packets seen before, or beyond their neighbour's or origin's rate.
    pub refused_broadcasts: u64,
    /// Packets that had crossed too many links.
    pub hop_limit: u64,
    /// Packets without a way.
    pub unreachable: u64,
    /// Packets a session could not open (wrong key, replayed, unknown session), and handshakes that went wrong.
    pub unopened: u64,
    /// Messages of kinds this program does not know.
    pub unknown_kinds: u64,
    /// Packets for which a link's queue had no room.
    pub overflowed: u64,
    /// Links closed because the other side broke the protocol.
    pub broken_links: u64,
    /// What the tree manager refused.
    pub tree: TreeCounters,
}

/// The protocol of one device. See the crate's documentation for how to drive it.
pub struct Node {
    identity: Arc<Identity>,
    me: NodeId,
    settings: Settings,
    rng: ChaCha12Rng,
    now: Instant,
    links: BTreeMap<LinkId, Link>,
    /// Which link is asked first for its next transmission.
    turn: Option<LinkId>,
    tree: TreeManager,
    sessions: Sessions,
    /// Fragments under a link's protection and under a session's are numbered apart.
    link_parts: Reassembly,
    session_parts: Reassembly,
    next_message: u32,
    next_signed: u64,
    filter: BroadcastFilter,
    advice: TokenBucket,
    dispatcher: Dispatcher,
    devices: DeviceQueries,
    connected: bool,
    next_token: u64,
    outbound: VecDeque<Outbound>,
    effects: VecDeque<Effect>,
    events: VecDeque<Event>,
    /// Nodes found unreachable while sending, to be told to the managers afterwards.
    unreachable: VecDeque<NodeId>,
    /// Where this node's own bulk messages went lately.
    own_bulk: BTreeMap<NodeId, Instant>,
    last_sent: Option<Instant>,
    last_received: Option<Instant>,
    counters: Counters,
}

/// What managers see of the network.
struct View<'a> {
    me: NodeId,
    links: &'a BTreeMap<LinkId, Link>,
    tree: &'a TreeManager,
}

impl Mesh for View<'_> {
    fn is_connected(&self) -> bool {
        self.tree.role() != Role::Free
    }

    fn bulk_room(&self, to: NodeId) -> usize {
        let flow = Flow { source: self.me, destination: to, lane: Lane::Bulk };
        self.tree.next_hop(to).and_then(|link| self.links.get(&link)).map_or(0, |link| link.bulk_room(flow))
    }
}

impl Node {
    /// A free node.
    pub fn new(config: NodeConfig, now: Instant) -> Self {
        let NodeConfig { identity, boot, settings, seed } = config;
        let mut rng = ChaCha12Rng::from_seed(seed);
        let mut fork = || {
            let mut seed = [0; 32];
            rng.fill_bytes(&mut seed);
            seed
        };
        let identity = Arc::new(identity);
        let tree = TreeManager::new(identity.clone(), boot, settings.name.clone(), settings.max_links, fork(), now);
        let sessions = Sessions::new(&identity, &mut ChaCha12Rng::from_seed(fork()));
        let files = FileManagers::new();
        let mut node = Self {
            me: identity.node_id(),
            identity,
            settings,
            now,
            links: BTreeMap::new(),
            turn: None,
            tree,
            sessions,
            link_parts: Reassembly::default(),
            session_parts: Reassembly::default(),
            next_message: 0,
            next_signed: u64::from(boot) << 32,
            filter: BroadcastFilter::default(),
            advice: TokenBucket::new(20.0, 60.0, now),
            dispatcher: Dispatcher::new(files),
            devices: DeviceQueries::default(),
            connected: false,
            next_token: 0,
            outbound: VecDeque::new(),
            effects: VecDeque::new(),
            events: VecDeque::new(),
            unreachable: VecDeque::new(),
            own_bulk: BTreeMap::new(),
            last_sent: None,
            last_received: None,
            counters: Counters::default(),
            rng,
        };
        node.settle();
        node
    }

    // ------------------------------------------------------------ what comes in

    /// The radio has something to tell.
    pub fn handle_radio(&mut self, now: Instant, event: RadioEvent) {
        self.now = now;
        match event {
            RadioEvent::Discovered { peer, beacon } => self.tree.discovered(now, peer, &beacon),
            RadioEvent::Opened { link, peer, dialler, limits } => self.open_link(link, peer, dialler, limits),
            RadioEvent::OpenFailed { peer } => self.tree.open_failed(now, peer),
            RadioEvent::Data { link, bytes } => {
                self.take_bytes(link, &bytes);
                self.offer_room(link);
            }
            RadioEvent::Sent { link, count } => {
                if let Some(channel) = self.links.get_mut(&link) {
                    channel.handle_sent(count);
                }
                self.offer_room(link);
            }
            RadioEvent::Closed { link } => self.forget_link(link),
            RadioEvent::State { on } => self.radio_switched(on),
        }
        self.settle();
    }

    /// The user wants something.
    pub fn handle_command(&mut self, now: Instant, command: Command) {
        self.now = now;
        match &command {
            Command::ListDevices { token } => self.list_devices(*token),
            Command::Configure(settings) => {
                self.settings = settings.clone();
                self.tree.configure(now, &settings.name, settings.max_links);
            }
            Command::Stop => {
                for link in self.links.values_mut() {
                    link.close(now, CloseReason::Stopping);
                }
            }
            _ => {}
        }
        self.with_managers(|dispatcher, cx| dispatcher.handle_command(cx, &command));
        self.settle();
    }

    /// The library has answered.
    pub fn handle_library(&mut self, now: Instant, answer: LibraryAnswer) {
        self.now = now;
        self.with_managers(|dispatcher, cx| dispatcher.handle_library(cx, &answer));
        self.settle();
    }

    /// The disk has answered.
    pub fn handle_storage(&mut self, now: Instant, answer: StorageAnswer) {
        self.now = now;
        self.with_managers(|dispatcher, cx| dispatcher.handle_storage(cx, &answer));
        self.settle();
    }

    /// The moment of [`Node::poll_timeout`] has come. Calling it at another moment does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let mut broken = Vec::new();
        for (&id, link) in &mut self.links {
            if let Err(error) = link.handle_timeout(now) {
                broken.push((id, error));
            }
        }
        for (id, error) in broken {
            self.break_link(id, &error);
        }
        self.tree.handle_timeout(now);
        self.sessions.handle_timeout(now);
        self.link_parts.expire(now);
        self.session_parts.expire(now);
        self.devices.handle_timeout(now);
        self.with_managers(|dispatcher, cx| dispatcher.handle_timeout(cx));
        self.settle();
    }

    // ------------------------------------------------------------ what goes out

    /// The next frame to hand to the radio.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        // Round robin over the links, so that a fast one does not starve the others.
        let mut asked = self.turn;
        for _ in 0..self.links.len() {
            let after = asked.map_or(Bound::Unbounded, Bound::Excluded);
            let next = self.links.range((after, Bound::Unbounded)).next().or_else(|| self.links.first_key_value());
            let Some((&link, _)) = next else { break };
            asked = Some(link);
            let Some(channel) = self.links.get_mut(&link) else { break };
            let transmit = channel.poll_transmit(self.now);
            self.return_credit(link);
            if let Some(bytes) = transmit {
                self.turn = Some(link);
                return Some(Transmit { link, bytes });
            }
        }
        None
    }

    /// The next thing to be done outside.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        if self.effects.is_empty() {
            self.close_drained_links();
        }
        self.effects.pop_front()
    }

    /// The next thing to tell the user.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Node::handle_timeout`] has to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timeouts().into_iter().filter_map(|(_, at)| at).min()
    }

    /// What waits until when, by part: to find out why a node does not rest.
    pub fn timeouts(&self) -> [(&'static str, Option<Instant>); 7] {
        [
            ("links", self.links.values().filter_map(Link::poll_timeout).min()),
            ("tree", self.tree.poll_timeout()),
            ("sessions", self.sessions.poll_timeout()),
            ("link fragments", self.link_parts.poll_timeout()),
            ("session fragments", self.session_parts.poll_timeout()),
            ("devices", self.devices.poll_timeout()),
            ("managers", self.dispatcher.poll_timeout()),
        ]
    }

    // ------------------------------------------------------------ what may be asked

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.me
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// This node's tree manager, to look at.
    pub fn tree(&self) -> &TreeManager {
        &self.tree
    }

    /// What was dropped.
    pub fn counters(&self) -> Counters {
        Counters { tree: self.tree.counters(), ..self.counters }
    }

    /// All downloads, in the list's order.
    pub fn downloads(&self) -> Vec<DownloadStatus> {
        self.dispatcher.files.downloads()
    }

    /// Where the node stands. The lamps are as of `now`.
    pub fn status(&self, now: Instant) -> NetworkStatus {
        let role = self.tree.role();
        let lit = |last: Option<Instant>| last.is_some_and(|at| now.since(at) < Duration::from_secs(1));
        NetworkStatus {
            node: self.me,
            role,
            tree: (role != Role::Free).then(|| self.tree.tree()),
            tree_size: self.tree.size(),
            parent: self.tree.parent().map(|(_, node)| node),
            children: self.tree.children().map(|(_, node)| node).collect(),
            known_nodes: self.tree.table().len() + usize::from(self.tree.parent().is_some()),
            links: self.tree.tree_links().count(),
            sending: lit(self.last_sent),
            receiving: lit(self.last_received),
        }
    }

    // ------------------------------------------------------------ links

    fn open_link(&mut self, id: LinkId, peer: PeerAddr, dialler: bool, limits: LinkLimits) {
        let link = Link::new(id, peer, dialler, limits, &self.identity, &mut self.rng, self.now);
        self.links.insert(id, link);
        self.tree.link_opened(self.now, id, peer, dialler);
    }

    fn forget_link(&mut self, id: LinkId) {
        if let Some(mut link) = self.links.remove(&id) {
            // What waited for this link came over others, whose senders wait for their credit.
            link.abandon();
            while let Some((from, flow, bytes)) = link.poll_credit_return() {
                if let Some(link) = self.links.get_mut(&from) {
                    link.grant_credit(self.now, flow, bytes);
                }
            }
            self.tree.link_closed(self.now, id);
        }
    }

    fn break_link(&mut self, id: LinkId, error: &LinkError) {
        tracing::debug!(link = id.0, %error, "link broken");
        if !matches!(error, LinkError::TimedOut) {
            self.counters.broken_links += 1;
        }
        self.effects.push_back(Effect::Radio(RadioCommand::Close(id)));
        self.forget_link(id);
    }

    /// Links whose farewell has gone out.
    fn close_drained_links(&mut self) {
        let drained: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| link.should_close()).map(|(&id, _)| id).collect();
        for id in drained {
            self.effects.push_back(Effect::Radio(RadioCommand::Close(id)));
            self.forget_link(id);
        }
        self.settle();
    }

    fn radio_switched(&mut self, on: bool) {
        if on {
            self.tree.radio_restarted(self.now);
        } else {
            let all: Vec<LinkId> = self.links.keys().copied().collect();
            for id in all {
                self.forget_link(id);
            }
        }
    }

    // ------------------------------------------------------------ inside

    fn list_devices(&mut self, token: u64) {
        let table = self.tree.table();
        let mut own: Vec<_> = table
            .devices(None)
            .filter_map(|device| {
                let (via, _) = table.route(device.node)?;
                Some((device, via))
            })
            .collect();
        own.sort_by_key(|(device, _)| (device.hops, device.node));
        let parent = self.tree.parent().map(|(_, node)| node);
        if let Some(query) = self.devices.start(self.now, token, own, parent) {
            self.tree.ask_ancestors(query);
        }
    }

    /// Lets the managers do something.
    fn with_managers<T>(&mut self, act: impl FnOnce(&mut Dispatcher, &mut Context<'_>) -> T) -> T {
        let mesh = View { me: self.me, links: &self.links, tree: &self.tree };
        let mut cx = Context {
            now: self.now,
            node: self.me,
            settings: &self.settings,
            mesh: &mesh,
            rng: &mut self.rng,
            next_token: &mut self.next_token,
            outbound: &mut self.outbound,
            effects: &mut self.effects,
            events: &mut self.events,
        };
        act(&mut self.dispatcher, &mut cx)
    }

    /// Carries on until nothing is left to do but what the polls return.
    fn settle(&mut self) {
        loop {
            if let Some(action) = self.tree.poll_action() {
                self.carry_out(action);
            } else if let Some(outbound) = self.outbound.pop_front() {
                self.send(outbound);
            } else if let Some(packet) = self.sessions.poll_packet() {
                self.route(packet, None);
            } else if let Some(node) = self.sessions.poll_failed() {
                self.unreachable.push_back(node);
            } else if let Some(node) = self.unreachable.pop_front() {
                self.with_managers(|dispatcher, cx| dispatcher.handle_unreachable(cx, node));
            } else if let Some(event) = self.devices.poll_event() {
                self.events.push_back(event);
            } else {
                break;
            }
        }
    }

    fn carry_out(&mut self, action: TreeAction) {
        match action {
            TreeAction::Send(link, message) => self.send_on_link(link, &message),
            TreeAction::SendTo(node, message) => self.outbound.push_back(Outbound::To(node, message)),
            TreeAction::Close(id, reason) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.close(self.now, reason);
                }
            }
            TreeAction::Radio(command) => self.effects.push_back(Effect::Radio(command)),
            TreeAction::LeadHeartbeat(id, lead) => {
                if let Some(link) = self.links.get_mut(&id) {
                    link.beat_leader(lead);
                }
            }
            TreeAction::Changed => {
                self.events.push_back(Event::NetworkChanged);
                let connected = self.tree.role() != Role::Free;
                if connected || self.connected {
                    self.with_managers(|dispatcher, cx| dispatcher.handle_network_changed(cx));
                }
                self.connected = connected;
            }
        }
    }
}
