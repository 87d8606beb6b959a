//! Tree formation by older rules, to compare with: the published TSF and the 2005 report's version of it.
//!
//! No time, no radio, no loss: all nodes are in one range and meet evenly at random; only who may link to whom, and
//! how many children a node takes, decide what becomes of them. A network in which no further link is allowed has
//! come to its end, in one tree or not.

use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use crate::chance::below;
use crate::shape::Shape;

/// Which rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// TSF's three link rules alone (Tan & Guttag 2002): free and free, the master becomes the root; free and a tree
    /// node that is no root, the free one becomes its child; root and root.
    Published,
    /// The report's (10.1.3, 9.4.2, 10.1.6): of two free nodes the replier becomes the root; a root takes in no free
    /// node; trees merge only where their coordinators meet, the asker's root under the other's, and not at all at a
    /// root that is within one child of its limit.
    Report,
}

/// What has formed in the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Each node's parent.
    pub parents: Vec<Option<usize>>,
    /// The forest's shape.
    pub shape: Shape,
}

impl Outcome {
    /// Whether it is one tree.
    pub fn is_one_tree(&self) -> bool {
        self.shape.trees <= 1
    }
}

/// Lets `nodes` nodes that take up to `max_children` children each meet until no further link is allowed.
pub fn form(nodes: usize, max_children: usize, rules: Rules, seed: u64) -> Outcome {
    let mut forest = Forest::new(nodes, max_children, rules, seed);
    while !forest.is_finished() {
        match rules {
            Rules::Published => forest.meet_anyone(),
            Rules::Report => forest.meet_by_office(),
        }
    }
    let shape = Shape::of(&forest.parents).expect("a link joins two trees, so that no ring can form");
    Outcome { shape, parents: forest.parents }
}

struct Forest {
    rng: ChaCha12Rng,
    max_children: usize,
    /// Children at which a root takes part in no merge as the upper one.
    merge_limit: usize,
    parents: Vec<Option<usize>>,
    children: Vec<usize>,
    /// By node: its tree's root.
    root: Vec<usize>,
    /// By root: all nodes of its tree.
    members: Vec<Vec<usize>>,
    free: Vec<usize>,
    roots: Vec<usize>,
}

impl Forest {
    fn new(nodes: usize, max_children: usize, rules: Rules, seed: u64) -> Self {
        Self {
            rng: ChaCha12Rng::seed_from_u64(seed),
            max_children,
            merge_limit: match rules {
                Rules::Published => max_children,
                Rules::Report => max_children.saturating_sub(1),
            },
            parents: vec![None; nodes],
            children: vec![0; nodes],
            root: (0..nodes).collect(),
            members: (0..nodes).map(|node| vec![node]).collect(),
            free: (0..nodes).collect(),
            roots: Vec::new(),
        }
    }

    fn is_free(&self, node: usize) -> bool {
        self.parents[node].is_none() && self.children[node] == 0
    }

    fn is_root(&self, node: usize) -> bool {
        self.parents[node].is_none() && self.children[node] > 0
    }

    /// A free node always finds another free one or a leaf with room; without any, trees merge while one root can.
    fn is_finished(&self) -> bool {
        let mergeable = self.roots.len() > 1 && self.roots.iter().any(|&root| self.children[root] < self.merge_limit);
        let joinable = self.free.len() > 1 || !self.free.is_empty() && !self.roots.is_empty();
        self.max_children == 0 || !mergeable && !joinable
    }

    fn link(&mut self, child: usize, parent: usize) {
        for node in [child, parent] {
            if self.is_free(node) {
                self.free.retain(|&free| free != node);
            }
        }
        self.roots.retain(|&root| root != child);
        if self.parents[parent].is_none() && self.children[parent] == 0 {
            self.roots.push(parent);
        }
        self.parents[child] = Some(parent);
        self.children[parent] += 1;
        let top = self.root[parent];
        let moved = std::mem::take(&mut self.members[child]);
        moved.iter().for_each(|&node| self.root[node] = top);
        self.members[top].extend(moved);
    }

    /// A free node meets a node of a tree.
    fn join(&mut self, free: usize, node: usize) {
        if !self.is_root(node) && self.children[node] < self.max_children {
            self.link(free, node);
        }
    }

    /// Any two nodes meet, the first as the master.
    fn meet_anyone(&mut self) {
        let n = self.parents.len();
        let (master, slave) = (below(&mut self.rng, n), below(&mut self.rng, n));
        if self.root[master] == self.root[slave] {
            return;
        }
        match (self.is_free(master), self.is_free(slave)) {
            (true, true) => self.link(slave, master),
            (true, false) => self.join(master, slave),
            (false, true) => self.join(slave, master),
            (false, false) if self.is_root(master) && self.is_root(slave) => {
                // The roles of a link can be exchanged: where the master has no room, the slave may have.
                if self.children[master] < self.merge_limit {
                    self.link(slave, master);
                } else if self.children[slave] < self.merge_limit {
                    self.link(master, slave);
                }
            }
            _ => {}
        }
    }

    /// One of those who look for others asks: a free node anybody, a tree's coordinator that of another tree.
    fn meet_by_office(&mut self) {
        let asker = below(&mut self.rng, self.free.len() + self.roots.len());
        if let Some(&asker) = self.free.get(asker) {
            let other = below(&mut self.rng, self.parents.len());
            if other == asker {
            } else if self.is_free(other) {
                self.link(asker, other);
            } else {
                self.join(asker, other);
            }
        } else {
            let asker = self.roots[asker - self.free.len()];
            let replier = self.roots[below(&mut self.rng, self.roots.len())];
            if asker != replier && self.children[replier] < self.merge_limit {
                self.link(asker, replier);
            }
        }
    }
}
