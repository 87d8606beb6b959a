//! The world: nodes, air and time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bbh_air::{Air, Config, Place, RadioId};
use bbh_proto::api::Settings;
use bbh_proto::{Command, Effect, Event, Identity, LibraryRequest, Node, NodeConfig};
use bbh_types::radio::{RadioCommand, RadioEvent};
use bbh_types::{Instant, NodeId};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use crate::memory::{Disk, SharedContent};

/// A node of the world, numbered in the order of adding; it keeps its number over death and rebirth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub usize);

/// How a node begins.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Metres east and north.
    pub position: (f64, f64),
    /// Its settings.
    pub settings: Settings,
    /// Range in metres, if not the air's.
    pub range: Option<f64>,
    /// Metres its beacons carry, if not as far as its links.
    pub voice: Option<f64>,
    /// It may not scan.
    pub deaf: bool,
}

impl Setup {
    /// A node there, with default settings.
    pub fn at(x: f64, y: f64) -> Self {
        Self { position: (x, y), settings: Settings::default(), range: None, voice: None, deaf: false }
    }
}

/// What a node has cost so far, over all its lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes handed to the radio, lengths and tags included.
    pub sent_bytes: u64,
    /// Frames handed to the radio.
    pub sent_frames: u64,
    /// Moments at which its timer or its radio had something for it: each wakes a phone's processor.
    pub wakeups: u64,
}

struct Inhabitant {
    setup: Setup,
    identity: Identity,
    boots: u32,
    disk: Disk,
    alive: Option<Node>,
    /// `None` while the node or its radio is off.
    radio: Option<RadioId>,
    timer: Option<Instant>,
    events: Vec<(Instant, Event)>,
    timeouts: u64,
    cost: Cost,
    last_woken: Option<Instant>,
    /// Whether it is on the list of those that something has happened to.
    touched: bool,
    /// Timeouts in a row without time passing, to notice a node that does not rest.
    restless: u32,
    last_timeout: Option<Instant>,
}

impl Inhabitant {
    fn wake(&mut self, now: Instant) {
        if self.last_woken != Some(now) {
            self.last_woken = Some(now);
            self.cost.wakeups += 1;
        }
    }
}

/// Timeouts of one node at one moment after which it counts as one that never rests.
const RESTLESS: u32 = 10_000;

/// Nodes in an air, in virtual time.
pub struct World {
    air: Air,
    now: Instant,
    rng: ChaCha12Rng,
    nodes: Vec<Inhabitant>,
    by_radio: BTreeMap<RadioId, usize>,
    timers: BTreeSet<(Instant, usize)>,
    touched: Vec<usize>,
    /// Whether the nodes that are on, their places or their radios have changed.
    stirred: bool,
    probe: Option<Probe>,
}

/// A search that is being followed.
struct Probe {
    word: String,
    /// How often each node has looked into its library for it.
    heard: BTreeMap<usize, u32>,
}

impl World {
    /// An empty world.
    ///
    /// # Panics
    /// If the air's configuration is out of its bounds: a fault of the scenario.
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            air: Air::new(config, seed).expect("a scenario's figures are within the model's bounds"),
            now: Instant::ZERO,
            rng: ChaCha12Rng::seed_from_u64(seed),
            nodes: Vec::new(),
            by_radio: BTreeMap::new(),
            timers: BTreeSet::new(),
            touched: Vec::new(),
            stirred: true,
            probe: None,
        }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Adds a node, switched on.
    pub fn add(&mut self, setup: Setup) -> NodeIndex {
        let index = self.add_off(setup);
        self.start(index);
        index
    }

    /// Adds a node that is still off; [`World::start`] switches it on.
    pub fn add_off(&mut self, setup: Setup) -> NodeIndex {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let index = self.nodes.len();
        self.nodes.push(Inhabitant {
            setup,
            identity: Identity::from_seed(seed),
            boots: 0,
            disk: Disk::default(),
            alive: None,
            radio: None,
            timer: None,
            events: Vec::new(),
            timeouts: 0,
            cost: Cost::default(),
            last_woken: None,
            touched: false,
            restless: 0,
            last_timeout: None,
        });
        NodeIndex(index)
    }

    /// Switches a dead node on again: the same identity and disk, all else forgotten.
    pub fn start(&mut self, index: NodeIndex) {
        let inhabitant = &mut self.nodes[index.0];
        if inhabitant.alive.is_some() {
            return;
        }
        inhabitant.boots += 1;
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let config = NodeConfig {
            identity: inhabitant.identity.clone(),
            boot: inhabitant.boots,
            settings: inhabitant.setup.settings.clone(),
            seed,
        };
        inhabitant.alive = Some(Node::new(config, self.now));
        self.join_air(index.0);
        let inhabitant = &self.nodes[index.0];
        let records: Vec<_> = inhabitant.disk.records().cloned().collect();
        for record in records {
            self.command(index, Command::Restore(record));
        }
        self.drive(index.0);
        self.deliver();
    }

    fn join_air(&mut self, index: usize) {
        let inhabitant = &mut self.nodes[index];
        let Setup { position: (x, y), range, voice, deaf, .. } = inhabitant.setup;
        let place = Place { range, voice, deaf, ..Place::at(x, y) };
        let radio = self.air.join(self.now, place).expect("a scenario's positions and ranges are within bounds");
        inhabitant.radio = Some(radio);
        self.by_radio.insert(radio, index);
        self.stirred = true;
    }

    fn leave_air(&mut self, index: usize) {
        if let Some(radio) = self.nodes[index].radio.take() {
            self.by_radio.remove(&radio);
            self.air.leave(self.now, radio);
            self.stirred = true;
        }
    }

    /// Kills a node without a word.
    pub fn kill(&mut self, index: NodeIndex) {
        self.leave_air(index.0);
        let inhabitant = &mut self.nodes[index.0];
        if inhabitant.alive.take().is_some() {
            if let Some(at) = inhabitant.timer.take() {
                self.timers.remove(&(at, index.0));
            }
            self.touch(index.0);
        }
        self.deliver();
    }

    /// Switches the radio of a node that is on off or on; the node itself goes on.
    pub fn switch_radio(&mut self, index: NodeIndex, on: bool) {
        let inhabitant = &self.nodes[index.0];
        if inhabitant.alive.is_none() || inhabitant.radio.is_some() == on {
            return;
        }
        if on {
            self.join_air(index.0);
        } else {
            self.leave_air(index.0);
        }
        let now = self.now;
        if let Some(node) = &mut self.nodes[index.0].alive {
            node.handle_radio(now, RadioEvent::State { on });
            self.drive(index.0);
        }
        self.deliver();
    }

    /// Carries a node elsewhere.
    pub fn move_to(&mut self, index: NodeIndex, x: f64, y: f64) {
        let inhabitant = &mut self.nodes[index.0];
        inhabitant.setup.position = (x, y);
        if let Some(radio) = inhabitant.radio {
            self.air.move_to(self.now, radio, x, y).expect("a scenario's positions are places");
            self.stirred = true;
        }
        self.deliver();
    }

    /// Gives a node a file to share.
    pub fn share(&mut self, index: NodeIndex, content: SharedContent) {
        self.nodes[index.0].disk.share(content);
    }

    /// Gives a node a command, if it is on.
    pub fn command(&mut self, index: NodeIndex, command: Command) {
        let now = self.now;
        if let Some(node) = &mut self.nodes[index.0].alive {
            node.handle_command(now, command);
            self.drive(index.0);
            self.deliver();
        }
    }

    /// A node that is on.
    pub fn node(&self, index: NodeIndex) -> Option<&Node> {
        self.nodes[index.0].alive.as_ref()
    }

    /// A node's id, on or off.
    pub fn id(&self, index: NodeIndex) -> NodeId {
        self.nodes[index.0].identity.node_id()
    }

    /// A node's disk.
    pub fn disk(&self, index: NodeIndex) -> &Disk {
        &self.nodes[index.0].disk
    }

    /// All nodes that are on.
    pub fn living(&self) -> impl Iterator<Item = (NodeIndex, &Node)> {
        self.nodes.iter().enumerate().filter_map(|(n, i)| Some((NodeIndex(n), i.alive.as_ref()?)))
    }

    /// How many nodes there are, on or off.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Where a node is, in metres east and north.
    pub fn position(&self, index: NodeIndex) -> (f64, f64) {
        self.nodes[index.0].setup.position
    }

    /// Whether a node's radio is on.
    pub fn has_radio(&self, index: NodeIndex) -> bool {
        self.nodes[index.0].radio.is_some()
    }

    /// How often a node has been switched on.
    pub fn boots(&self, index: NodeIndex) -> u32 {
        self.nodes[index.0].boots
    }

    /// What a node has cost so far.
    pub fn cost(&self, index: NodeIndex) -> Cost {
        self.nodes[index.0].cost
    }

    /// The nodes to which something has happened since the last call, each once.
    pub fn take_touched(&mut self) -> Vec<NodeIndex> {
        let touched = std::mem::take(&mut self.touched);
        touched.iter().for_each(|&index| self.nodes[index].touched = false);
        touched.into_iter().map(NodeIndex).collect()
    }

    /// Whether nodes or radios have come, gone or moved since the last call.
    pub fn take_stirred(&mut self) -> bool {
        std::mem::take(&mut self.stirred)
    }

    /// Follows searches for this word from now on, instead of any before.
    pub fn follow_search(&mut self, word: &str) {
        self.probe = Some(Probe { word: word.to_owned(), heard: BTreeMap::new() });
    }

    /// How often each node has looked into its library for the word that is followed; nodes that never did are not
    /// listed.
    pub fn search_heard(&self) -> BTreeMap<NodeIndex, u32> {
        let heard = self.probe.iter().flat_map(|probe| &probe.heard);
        heard.map(|(&index, &times)| (NodeIndex(index), times)).collect()
    }

    fn touch(&mut self, index: usize) {
        if !std::mem::replace(&mut self.nodes[index].touched, true) {
            self.touched.push(index);
        }
    }

    /// The nodes that could be one tree: in radio range of each other, directly or through others, and able to find
    /// each other. Nodes whose radio is off are none.
    pub fn radio_components(&self) -> Vec<Vec<NodeIndex>> {
        let mut left: BTreeSet<usize> = self.by_radio.values().copied().collect();
        let mut components = Vec::new();
        while let Some(first) = left.pop_first() {
            let mut component = vec![NodeIndex(first)];
            let mut waiting = VecDeque::from([first]);
            while let Some(next) = waiting.pop_front() {
                let Some(radio) = self.nodes[next].radio else { continue };
                for other in self.air.could_meet(radio) {
                    if let Some(&index) = self.by_radio.get(&other)
                        && left.remove(&index)
                    {
                        component.push(NodeIndex(index));
                        waiting.push_back(index);
                    }
                }
            }
            components.push(component);
        }
        components
    }

    /// What a node has told since the last call, and when; that its place in the tree has changed is left out.
    pub fn take_events(&mut self, index: NodeIndex) -> Vec<(Instant, Event)> {
        std::mem::take(&mut self.nodes[index.0].events)
    }

    /// How often a node's timer has gone off.
    pub fn timeouts(&self, index: NodeIndex) -> u64 {
        self.nodes[index.0].timeouts
    }

    // ------------------------------------------------------------ time

    /// Lets everything due up to the next moment happen. Returns false if nothing ever will.
    ///
    /// # Panics
    /// If a node wants to be called again and again at the same moment.
    pub fn step(&mut self, until: Instant) -> bool {
        let air = self.air.poll_timeout();
        let timer = self.timers.first().map(|&(at, _)| at);
        let Some(next) = [air, timer].into_iter().flatten().min() else {
            self.now = until;
            return false;
        };
        if next > until {
            self.now = until;
            return false;
        }
        self.now = self.now.max(next);
        self.air.handle_timeout(self.now);
        self.deliver();
        while let Some(&(at, index)) = self.timers.first() {
            if at > self.now {
                break;
            }
            self.timers.pop_first();
            let inhabitant = &mut self.nodes[index];
            inhabitant.timer = None;
            inhabitant.timeouts += 1;
            inhabitant.restless = if inhabitant.last_timeout == Some(self.now) { inhabitant.restless + 1 } else { 0 };
            inhabitant.last_timeout = Some(self.now);
            inhabitant.wake(self.now);
            if let Some(node) = &mut inhabitant.alive {
                assert!(inhabitant.restless < RESTLESS, "node {index} does not rest: {:?}", node.timeouts());
                node.handle_timeout(self.now);
                self.drive(index);
                self.deliver();
            }
        }
        true
    }

    /// Lets that much time pass.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// Lets time pass until `done` or for at most `limit`; returns how long it took, or `None`.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> Option<Duration> {
        let start = self.now;
        let until = start + limit;
        loop {
            if done(self) {
                return Some(self.now.since(start));
            }
            if !self.step(until) {
                return done(self).then(|| self.now.since(start));
            }
        }
    }

    /// Hands the air's events to their nodes until there are none.
    fn deliver(&mut self) {
        while let Some((radio, event)) = self.air.poll_event() {
            self.hand_over(radio, event);
        }
    }

    fn hand_over(&mut self, radio: RadioId, event: RadioEvent) {
        let Some(&index) = self.by_radio.get(&radio) else { return };
        let inhabitant = &mut self.nodes[index];
        inhabitant.wake(self.now);
        if let Some(node) = &mut inhabitant.alive {
            node.handle_radio(self.now, event);
            self.drive(index);
        }
    }

    /// Drains a node after a mutation.
    fn drive(&mut self, index: usize) {
        let now = self.now;
        self.touch(index);
        let Inhabitant { alive, radio, disk, timer, events, cost, .. } = &mut self.nodes[index];
        let Some(node) = alive else { return };
        loop {
            let mut idle = true;
            while let Some(transmit) = node.poll_transmit() {
                idle = false;
                let bytes = transmit.bytes.len() as u64;
                // Refused where the air has just closed the link: the event is on its way.
                if radio.is_some_and(|radio| self.air.send(now, radio, transmit.link, transmit.bytes).is_ok()) {
                    cost.sent_bytes += bytes;
                    cost.sent_frames += 1;
                }
            }
            while let Some(effect) = node.poll_effect() {
                idle = false;
                match effect {
                    Effect::Radio(command) => match *radio {
                        Some(radio) => self.air.command(now, radio, command).expect("beacons are short"),
                        None => {
                            if let RadioCommand::Connect(peer) = command {
                                node.handle_radio(now, RadioEvent::OpenFailed { peer });
                            }
                        }
                    },
                    Effect::Library(request) => {
                        if let (Some(probe), LibraryRequest::Search { query, .. }) = (&mut self.probe, &request)
                            && query.words().any(|word| word == probe.word)
                        {
                            *probe.heard.entry(index).or_default() += 1;
                        }
                        node.handle_library(now, disk.library(request));
                    }
                    Effect::Storage(request) => {
                        if let Some(answer) = disk.storage(request) {
                            node.handle_storage(now, answer);
                        }
                    }
                }
            }
            while let Some(event) = node.poll_event() {
                idle = false;
                if event != Event::NetworkChanged {
                    events.push((now, event));
                }
            }
            if idle {
                break;
            }
        }
        let next = node.poll_timeout().map(|at| at.max(now));
        if *timer != next {
            if let Some(old) = timer.take() {
                self.timers.remove(&(old, index));
            }
            if let Some(at) = next {
                self.timers.insert((at, index));
            }
            *timer = next;
        }
    }
}
