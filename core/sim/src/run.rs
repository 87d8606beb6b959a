//! One run of a scenario from beginning to end: what it measures, what must hold on the way, what it tells.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bbh_proto::{Command, Event};
use bbh_types::{Instant, Query, SearchMode};
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use crate::chance::{below, unit};
use crate::invariants::{acyclic, one_tree_each};
use crate::memory::SharedContent;
use crate::metrics::{Metric, Samples};
use crate::picture::Frame;
use crate::scenario::{Act, Scenario};
use crate::watch::{Change, Stand, Watch};
use crate::world::{Cost, NodeIndex, Setup, World};

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The scenario.
    pub scenario: Scenario,
    /// Nodes at the beginning, at least 1.
    pub nodes: usize,
    /// The world's seed.
    pub seed: u64,
    /// Links of each node, the parent's included.
    pub max_links: u8,
    /// How long the world is watched at rest, for what an idle node costs.
    pub observe: Duration,
    /// How long the nodes may take to become one tree before the run has failed.
    pub limit: Duration,
    /// Whether to tell what happens, line by line.
    pub trace: bool,
    /// Whether to keep pictures.
    pub pictures: bool,
}

impl Options {
    /// The usual figures: four links, a minute at rest, five minutes to form.
    pub fn new(scenario: Scenario, nodes: usize, seed: u64) -> Self {
        let (observe, limit) = (Duration::from_secs(60), Duration::from_secs(300));
        Self { scenario, nodes, seed, max_links: 4, observe, limit, trace: false, pictures: false }
    }
}

/// What a run tells while it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A line of the trace: the time, the node, what.
    Trace(String),
    /// Where the run stands, about once a second of the world.
    Progress {
        /// What is going on.
        phase: &'static str,
        /// The world's time.
        now: Instant,
        /// Trees, single nodes included.
        trees: usize,
        /// Groups of nodes that could be one tree.
        components: usize,
    },
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What was measured.
    pub samples: Samples,
    /// What went wrong first, if anything did.
    pub failure: Option<String>,
    /// Pictures, in the order of time.
    pub frames: Vec<Frame>,
}

/// Runs it. The same options give the same outcome and the same notes.
///
/// # Panics
/// If a node wants to be called again and again at the same moment.
pub fn run(options: &Options, notes: &mut dyn FnMut(Note)) -> Outcome {
    let plan = options.scenario.plan(options.nodes, options.max_links, options.seed);
    let mut runner = Runner {
        world: World::new(plan.air, options.seed),
        watch: Watch::default(),
        rng: ChaCha12Rng::seed_from_u64(!options.seed),
        options,
        notes,
        phase: "forming",
        steps: 0,
        changes: 0,
        changed_at: Instant::ZERO,
        together: Duration::ZERO,
        apart: Duration::ZERO,
        told: Instant::ZERO,
        searches: 0,
        searching: VecDeque::new(),
        outcome: Outcome { samples: Samples::default(), failure: None, frames: Vec::new() },
    };
    if let Err(failure) = runner.whole(plan.nodes, plan.acts.into()) {
        runner.fault(failure);
        runner.picture("failed");
    }
    runner.outcome
}

/// Steps between looks at the whole world for rings.
const FULL_CHECK: u64 = 20_000;
/// Most pictures of a run.
const MAX_FRAMES: usize = 12;
/// Probes of each kind in a world at rest.
const PROBES: usize = 3;
/// How long a search is followed.
const SEARCH_TIME: Duration = Duration::from_secs(5);
/// Between two searches while things happen.
const SEARCH_EVERY: Duration = Duration::from_secs(6);
/// How long nothing must have changed for a search to be held to reach all, once, and to be answered.
const CALM: Duration = Duration::from_secs(3);
const SLICE: Duration = Duration::from_millis(250);

fn seconds(at: Instant) -> f64 {
    at.since(Instant::ZERO).as_secs_f64()
}

/// A search under way.
struct Search {
    asker: NodeIndex,
    target: Option<NodeIndex>,
    at: Instant,
    /// The other nodes of the asker's tree when it asked.
    connected: BTreeSet<NodeIndex>,
    /// Whether no tree had changed for a while when it asked.
    calm: bool,
    /// The number of changes of trees when it asked.
    changes: u64,
}

struct Runner<'a> {
    world: World,
    watch: Watch,
    rng: ChaCha12Rng,
    options: &'a Options,
    notes: &'a mut dyn FnMut(Note),
    phase: &'static str,
    steps: u64,
    changes: u64,
    changed_at: Instant,
    together: Duration,
    apart: Duration,
    told: Instant,
    searches: u32,
    searching: VecDeque<Search>,
    outcome: Outcome,
}

impl Runner<'_> {
    fn whole(&mut self, nodes: Vec<Setup>, acts: VecDeque<(Duration, Act)>) -> Result<(), String> {
        self.form(nodes)?;
        if acts.is_empty() {
            self.rest()?;
            self.probe()?;
        } else {
            self.act(acts)?;
        }
        self.phase = "settling";
        self.settle()?;
        self.run_to(self.world.now() + CALM)?;
        self.phase = "searching";
        if self.search() {
            self.run_to(self.world.now() + SEARCH_TIME)?;
        }
        self.end_searches();
        self.picture("at the end");
        self.shape();
        Ok(())
    }

    // ------------------------------------------------------------ phases

    /// All nodes appear within a second, in any order, and become one tree each group.
    fn form(&mut self, nodes: Vec<Setup>) -> Result<(), String> {
        let mut order = Vec::with_capacity(nodes.len());
        for setup in nodes {
            let node = self.world.add_off(setup);
            order.push((Duration::from_secs_f64(unit(&mut self.rng)), node));
        }
        order.sort_unstable();
        let before = self.cost();
        for (at, node) in order {
            self.run_to(Instant::ZERO + at)?;
            self.apply(Act::Start(node.0))?;
        }
        let mut picture_at = Duration::from_secs(1);
        let limit = Instant::ZERO + self.options.limit;
        while !self.is_one_tree()? {
            if self.world.now() >= limit {
                return Err(self.not_one_tree());
            }
            if self.options.pictures && self.world.now() >= Instant::ZERO + picture_at {
                self.picture("forming");
                picture_at *= 2;
            }
            self.step(limit)?;
        }
        let formed = seconds(self.world.now());
        self.outcome.samples.add(Metric::Forming, formed);
        self.picture("one tree");
        self.settle()?;
        self.outcome.samples.add(Metric::Settled, seconds(self.world.now()));
        let (after, count) = (self.cost(), self.options.nodes as f64);
        self.outcome.samples.add(Metric::FormingBytes, (after.sent_bytes - before.sent_bytes) as f64 / count);
        (self.together, self.apart) = (Duration::ZERO, Duration::ZERO);
        Ok(())
    }

    /// Nothing happens: what does an idle node cost?
    fn rest(&mut self) -> Result<(), String> {
        self.phase = "at rest";
        let before = self.cost();
        let start = self.world.now();
        self.run_to(start + self.options.observe)?;
        self.count_cost(before, start);
        Ok(())
    }

    fn count_cost(&mut self, before: Cost, start: Instant) {
        let after = self.cost();
        let node_hours = self.world.now().since(start).as_secs_f64() / 3600.0 * self.watch.present().count() as f64;
        if node_hours > 0.0 {
            let bytes = (after.sent_bytes - before.sent_bytes) as f64;
            self.outcome.samples.add(Metric::Bytes, bytes / node_hours);
            self.outcome.samples.add(Metric::Wakeups, (after.wakeups - before.wakeups) as f64 / node_hours);
        }
    }

    /// Nodes join, search and die, one at a time.
    fn probe(&mut self) -> Result<(), String> {
        for _ in 0..PROBES {
            self.phase = "searching";
            if self.search() {
                self.run_to(self.world.now() + SEARCH_TIME)?;
            }
            self.end_searches();

            self.phase = "joining";
            let Some(beside) = self.any(|_, _| true) else { return Ok(()) };
            let (x, y) = self.world.position(beside);
            let position = (x + 4.0 * unit(&mut self.rng) - 2.0, y + 2.0 * unit(&mut self.rng));
            let mut setup = Setup { position, ..Setup::at(0.0, 0.0) };
            setup.settings.max_links = self.options.max_links;
            self.apply(Act::Join(setup))?;
            self.time(Metric::Join)?;

            self.phase = "healing";
            let inner = self.any(|watch, node| {
                watch.present().any(|child| watch.parent(child) == Some(node)) && watch.parent(node).is_some()
            });
            if let Some(inner) = inner {
                self.apply(Act::Kill(inner.0))?;
                self.time(Metric::Heal)?;
            }
        }
        Ok(())
    }

    /// Measures how long it takes to one tree, then waits for quiet.
    fn time(&mut self, metric: Metric) -> Result<(), String> {
        let start = self.world.now();
        self.look()?;
        // A death that leaves every group whole has nothing to heal.
        if !self.watch.is_one_tree_each() {
            self.until_one_tree()?;
            self.outcome.samples.add(metric, self.world.now().since(start).as_secs_f64());
        }
        self.settle()
    }

    /// The scenario's events, with searches in between.
    fn act(&mut self, mut acts: VecDeque<(Duration, Act)>) -> Result<(), String> {
        self.phase = "acting";
        let (before, start) = (self.cost(), self.world.now());
        let mut search_at = start + SEARCH_EVERY;
        let mut half = false;
        while let Some((at, _)) = acts.front() {
            let at = start + *at;
            while search_at <= at {
                self.run_to(search_at)?;
                self.end_searches();
                self.search();
                search_at += SEARCH_EVERY;
            }
            self.run_to(at)?;
            while acts.front().is_some_and(|(next, _)| start + *next <= at) {
                if let Some((_, act)) = acts.pop_front() {
                    self.apply(act)?;
                }
            }
            if !half && self.world.now().since(start) >= Duration::from_secs(30) {
                half = true;
                self.picture("while things happen");
            }
        }
        self.run_to(self.world.now() + SEARCH_TIME.min(SLICE))?;
        if matches!(self.options.scenario, Scenario::Meeting | Scenario::Partition) {
            let begun = self.world.now();
            self.until_one_tree()?;
            let took = self.world.now().since(begun) + SEARCH_TIME.min(SLICE);
            self.outcome.samples.add(Metric::Merge, took.as_secs_f64());
        }
        self.run_to(self.world.now() + SEARCH_TIME)?;
        self.end_searches();
        self.count_cost(before, start);
        let whole = self.together + self.apart;
        if !whole.is_zero() {
            self.outcome.samples.add(Metric::OneTreeShare, self.together.as_secs_f64() / whole.as_secs_f64());
        }
        Ok(())
    }

    /// Until every group is one tree, parents and children agree and every table is right.
    fn settle(&mut self) -> Result<(), String> {
        let limit = self.world.now() + self.options.limit;
        loop {
            if self.watch.is_one_tree_each() && one_tree_each(&self.world).is_ok() {
                return Ok(());
            }
            if self.world.now() >= limit {
                return Err(self.not_one_tree());
            }
            self.run_to(self.world.now() + SLICE)?;
        }
    }

    fn until_one_tree(&mut self) -> Result<(), String> {
        let limit = self.world.now() + self.options.limit;
        while !self.is_one_tree()? {
            if self.world.now() >= limit {
                return Err(self.not_one_tree());
            }
            self.step(limit)?;
        }
        Ok(())
    }

    fn is_one_tree(&mut self) -> Result<bool, String> {
        self.look()?;
        Ok(self.watch.is_one_tree_each())
    }

    fn not_one_tree(&self) -> String {
        let amiss = one_tree_each(&self.world).err().unwrap_or_default();
        let (limit, trees, components) = (self.options.limit.as_secs(), self.watch.trees(), self.watch.components());
        format!("not one tree after {limit} s: {trees} trees where there could be {components}; {amiss}")
    }

    // ------------------------------------------------------------ searches

    /// A node asks for a file that another has. Returns false if there are no two nodes.
    fn search(&mut self) -> bool {
        let Some(asker) = self.any(|_, _| true) else { return false };
        let head = self.watch.head(asker);
        let connected: BTreeSet<NodeIndex> =
            self.watch.present().filter(|&node| node != asker && self.watch.head(node) == head).collect();
        let target = connected.iter().nth(below(&mut self.rng, connected.len())).copied();
        self.searches += 1;
        let word = format!("probe{:06}", self.searches);
        if let Some(target) = target {
            self.world.share(target, SharedContent::new(&format!("{word}.txt"), word.clone().into_bytes()));
        }
        self.world.follow_search(&word);
        let at = self.world.now();
        // News of a change may still be on the way through the tree, and make the asker ask again.
        let calm = at.since(self.changed_at) >= CALM;
        self.searching.push_back(Search { asker, target, at, connected, calm, changes: self.changes });
        let who = target.map_or_else(|| "nobody".to_owned(), |target| format!("n{}", target.0));
        self.trace(asker.0, &format!("searches for what {who} has"));
        let query = Query::new([word.as_str()], SearchMode::All).expect("a word that is short enough");
        self.world.command(asker, Command::Search { search: self.searches, query, timeout: Some(SEARCH_TIME) });
        true
    }

    fn end_searches(&mut self) {
        while let Some(search) = self.searching.pop_front() {
            let events = self.world.take_events(search.asker);
            let heard = self.world.search_heard();
            // A tree that changes meanwhile may hear it anew, or lose it.
            let calm = search.calm && search.changes == self.changes;
            if calm && let Some((node, times)) = heard.iter().find(|(_, times)| **times > 1) {
                self.fault(format!("a search reached node {} {times} times", node.0));
            }
            let living: Vec<_> = search.connected.iter().filter(|node| self.world.node(**node).is_some()).collect();
            let reached = living.iter().filter(|node| heard.contains_key(node)).count();
            if calm && reached < living.len() {
                self.fault(format!("a search of node {} reached {reached} of {}", search.asker.0, living.len()));
            }
            if !living.is_empty() {
                self.outcome.samples.add(Metric::SearchReach, reached as f64 / living.len() as f64);
            }
            let Some(owner) = search.target else { continue };
            let target = self.world.id(owner);
            let hit = events.into_iter().find_map(|(at, event)| match event {
                Event::SearchHits { source, hops, .. } if source == target => Some((at, hops)),
                _ => None,
            });
            self.outcome.samples.add(Metric::SearchAnswered, f64::from(u8::from(hit.is_some())));
            // A node that has restarted may miss an answer: its old sessions are gone.
            if let Some((at, hops)) = hit {
                let took = at.since(search.at).as_secs_f64() * 1000.0;
                self.outcome.samples.add(Metric::Search, took);
                self.outcome.samples.add(Metric::SearchPerLink, took / (2.0 * f64::from(hops.max(1))));
            } else if calm && [search.asker, owner].iter().all(|&node| self.world.boots(node) == 1) {
                let asker = search.asker.0;
                let dropped = |node| self.world.node(node).map(bbh_proto::Node::counters);
                let counters = format!("{:?}, {:?}", dropped(search.asker), dropped(owner));
                self.trace(asker, &format!("gets no answer of n{}: {counters}", owner.0));
                self.fault(format!("a search of node {asker} was not answered by node {}", owner.0));
            }
        }
    }

    /// Something went wrong that does not keep the run from going on; the first such thing is told.
    fn fault(&mut self, what: String) {
        let when = self.when();
        self.outcome.failure.get_or_insert_with(|| format!("{when}: {what}"));
    }

    fn when(&self) -> String {
        format!("at {:.3} s, {}", seconds(self.world.now()), self.phase)
    }

    // ------------------------------------------------------------ time and notes

    fn any(&mut self, wanted: impl Fn(&Watch, NodeIndex) -> bool) -> Option<NodeIndex> {
        let nodes: Vec<NodeIndex> = self.watch.present().filter(|&node| wanted(&self.watch, node)).collect();
        nodes.get(below(&mut self.rng, nodes.len())).copied()
    }

    fn apply(&mut self, act: Act) -> Result<(), String> {
        let text = match act {
            Act::Move(node, x, y) => {
                self.world.move_to(NodeIndex(node), x, y);
                // One line a step of a walk would drown the rest.
                (self.options.scenario != Scenario::Waypoint).then(|| (node, format!("goes to {x:.1}, {y:.1}")))
            }
            Act::Kill(node) => {
                self.world.kill(NodeIndex(node));
                Some((node, "dies".to_owned()))
            }
            Act::Start(node) => {
                self.world.start(NodeIndex(node));
                let (x, y) = self.world.position(NodeIndex(node));
                Some((node, format!("starts at {x:.1}, {y:.1} as {}", self.world.id(NodeIndex(node)))))
            }
            Act::Radio(node, on) => {
                self.world.switch_radio(NodeIndex(node), on);
                Some((node, format!("switches its radio {}", if on { "on" } else { "off" })))
            }
            Act::Join(setup) => {
                let (x, y) = setup.position;
                let node = self.world.add(setup).0;
                Some((node, format!("appears at {x:.1}, {y:.1} as {}", self.world.id(NodeIndex(node)))))
            }
        };
        if let Some((node, text)) = text {
            self.trace(node, &text);
        }
        self.look()
    }

    fn run_to(&mut self, until: Instant) -> Result<(), String> {
        while self.step(until)? {}
        self.look()
    }

    fn step(&mut self, until: Instant) -> Result<bool, String> {
        let before = self.world.now();
        let together = self.watch.is_one_tree_each();
        let more = self.world.step(until);
        *(if together { &mut self.together } else { &mut self.apart }) += self.world.now().since(before);
        self.look()?;
        self.steps += 1;
        if self.steps.is_multiple_of(FULL_CHECK) {
            acyclic(&self.world)?;
        }
        if self.world.now().since(self.told) >= Duration::from_secs(1) {
            self.told = self.world.now();
            let (trees, components) = (self.watch.trees(), self.watch.components());
            (self.notes)(Note::Progress { phase: self.phase, now: self.told, trees, components });
        }
        Ok(more)
    }

    /// Takes over what the step has changed.
    fn look(&mut self) -> Result<(), String> {
        let changes = self.watch.update(&mut self.world)?;
        if !changes.is_empty() {
            self.changes += changes.len() as u64;
            self.changed_at = self.world.now();
        }
        if self.options.trace {
            for Change { node, before, after } in changes {
                if let (before, Some(after)) = (before, after) {
                    self.trace(node, &describe(before.as_ref(), &after));
                }
            }
        }
        Ok(())
    }

    fn trace(&mut self, node: usize, text: &str) {
        if self.options.trace {
            (self.notes)(Note::Trace(format!("{:9.3} s  n{node:<5} {text}", seconds(self.world.now()))));
        }
    }

    fn picture(&mut self, what: &str) {
        if self.options.pictures && self.outcome.frames.len() < MAX_FRAMES {
            let title = format!("{:.1} s: {what}", seconds(self.world.now()));
            self.outcome.frames.push(Frame::of(&self.world, &self.watch, title));
        }
    }

    fn cost(&self) -> Cost {
        let mut sum = Cost::default();
        for n in 0..self.world.len() {
            let cost = self.world.cost(NodeIndex(n));
            sum.sent_bytes += cost.sent_bytes;
            sum.sent_frames += cost.sent_frames;
            sum.wakeups += cost.wakeups;
        }
        sum
    }

    fn shape(&mut self) {
        let shape = self.watch.shape();
        let samples = &mut self.outcome.samples;
        samples.add(Metric::Trees, shape.trees as f64);
        samples.add(Metric::MeanPath, shape.mean_path);
        if shape.largest > 1 {
            samples.add(Metric::PathPerLog, shape.mean_path / (shape.largest as f64).log2());
        }
        samples.add(Metric::Diameter, shape.diameter as f64);
        samples.add(Metric::Depth, shape.depth as f64);
        samples.add(Metric::Piconets, shape.piconets as f64);
        samples.add(Metric::Broadcast, shape.broadcast);
    }
}

fn describe(before: Option<&Stand>, after: &Stand) -> String {
    let mut text = String::new();
    let role = |stand: &Stand| format!("{:?}", stand.role).to_lowercase();
    match before {
        Some(before) if before.role == after.role => text.push_str(&role(after)),
        Some(before) => text.push_str(&format!("{} -> {}", role(before), role(after))),
        None => text.push_str(&role(after)),
    }
    match after.parent {
        Some(parent) => text.push_str(&format!(", parent n{parent}")),
        None => text.push_str(", no parent"),
    }
    text.push_str(&format!(", tree {:016x} of {}", after.tree.0, after.size));
    text
}
