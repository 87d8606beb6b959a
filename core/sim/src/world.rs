//! The world: nodes, air and time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bbh_air::{Air, Config, Place, RadioId};
use bbh_proto::api::Settings;
use bbh_proto::{Command, Effect, Event, Identity, Node, NodeConfig};
use bbh_types::radio::RadioEvent;
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
}

impl Setup {
    /// A node there, with default settings.
    pub fn at(x: f64, y: f64) -> Self {
        Self { position: (x, y), settings: Settings::default() }
    }
}

struct Inhabitant {
    setup: Setup,
    seed: [u8; 32],
    boots: u32,
    disk: Disk,
    alive: Option<(Node, RadioId)>,
    timer: Option<Instant>,
    events: Vec<(Instant, Event)>,
    timeouts: u64,
    /// Timeouts in a row without time passing, to notice a node that does not rest.
    restless: u32,
    last_timeout: Option<Instant>,
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
        }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Adds a node, switched on.
    pub fn add(&mut self, setup: Setup) -> NodeIndex {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let index = self.nodes.len();
        self.nodes.push(Inhabitant {
            setup,
            seed,
            boots: 0,
            disk: Disk::default(),
            alive: None,
            timer: None,
            events: Vec::new(),
            timeouts: 0,
            restless: 0,
            last_timeout: None,
        });
        self.start(NodeIndex(index));
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
            identity: Identity::from_seed(inhabitant.seed),
            boot: inhabitant.boots,
            settings: inhabitant.setup.settings.clone(),
            seed,
        };
        let node = Node::new(config, self.now);
        let (x, y) = inhabitant.setup.position;
        let radio = self.air.join(self.now, Place::at(x, y)).expect("a scenario's positions are places");
        inhabitant.alive = Some((node, radio));
        self.by_radio.insert(radio, index.0);
        let records: Vec<_> = inhabitant.disk.records().cloned().collect();
        for record in records {
            self.command(index, Command::Restore(record));
        }
        self.drive(index.0);
        self.deliver();
    }

    /// Kills a node without a word.
    pub fn kill(&mut self, index: NodeIndex) {
        let inhabitant = &mut self.nodes[index.0];
        if let Some((_, radio)) = inhabitant.alive.take() {
            self.by_radio.remove(&radio);
            self.air.leave(self.now, radio);
            if let Some(at) = inhabitant.timer.take() {
                self.timers.remove(&(at, index.0));
            }
        }
        self.deliver();
    }

    /// Carries a node elsewhere.
    pub fn move_to(&mut self, index: NodeIndex, x: f64, y: f64) {
        let inhabitant = &mut self.nodes[index.0];
        inhabitant.setup.position = (x, y);
        if let Some((_, radio)) = &inhabitant.alive {
            self.air.move_to(self.now, *radio, x, y).expect("a scenario's positions are places");
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
        if let Some((node, _)) = &mut self.nodes[index.0].alive {
            node.handle_command(now, command);
            self.drive(index.0);
            self.deliver();
        }
    }

    /// A node that is on.
    pub fn node(&self, index: NodeIndex) -> Option<&Node> {
        self.nodes[index.0].alive.as_ref().map(|(node, _)| node)
    }

    /// A node's id, on or off.
    pub fn id(&self, index: NodeIndex) -> NodeId {
        Identity::from_seed(self.nodes[index.0].seed).node_id()
    }

    /// A node's disk.
    pub fn disk(&self, index: NodeIndex) -> &Disk {
        &self.nodes[index.0].disk
    }

    /// All nodes that are on.
    pub fn living(&self) -> impl Iterator<Item = (NodeIndex, &Node)> {
        self.nodes.iter().enumerate().filter_map(|(n, i)| Some((NodeIndex(n), &i.alive.as_ref()?.0)))
    }

    /// The nodes in radio range of each other, as groups: what could be one tree.
    pub fn radio_components(&self) -> Vec<Vec<NodeIndex>> {
        let mut left: BTreeSet<usize> = self.living().map(|(NodeIndex(n), _)| n).collect();
        let mut components = Vec::new();
        while let Some(first) = left.pop_first() {
            let mut component = vec![NodeIndex(first)];
            let mut waiting = VecDeque::from([first]);
            while let Some(next) = waiting.pop_front() {
                let Some((_, radio)) = &self.nodes[next].alive else { continue };
                for other in self.air.in_range(*radio) {
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

    /// What a node has told since the last call, and when.
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
            if let Some((node, _)) = &mut inhabitant.alive {
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
        if let Some((node, _)) = &mut self.nodes[index].alive {
            node.handle_radio(self.now, event);
            self.drive(index);
        }
    }

    /// Drains a node after a mutation.
    fn drive(&mut self, index: usize) {
        let now = self.now;
        let Inhabitant { alive, disk, timer, events, .. } = &mut self.nodes[index];
        let Some((node, radio)) = alive else { return };
        loop {
            let mut idle = true;
            while let Some(transmit) = node.poll_transmit() {
                idle = false;
                // A link that the air has just closed: the event is on its way.
                let _ = self.air.send(now, *radio, transmit.link, transmit.bytes);
            }
            while let Some(effect) = node.poll_effect() {
                idle = false;
                match effect {
                    Effect::Radio(command) => {
                        self.air.command(now, *radio, command).expect("the radio is on and beacons are short");
                    }
                    Effect::Library(request) => node.handle_library(now, disk.library(request)),
                    Effect::Storage(request) => {
                        if let Some(answer) = disk.storage(request) {
                            node.handle_storage(now, answer);
                        }
                    }
                }
            }
            while let Some(event) = node.poll_event() {
                idle = false;
                events.push((now, event));
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
