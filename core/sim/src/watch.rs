//! Who is whose parent, followed step by step, so that a look at the whole world is seldom needed.

use std::collections::{BTreeMap, BTreeSet};

use bbh_types::{NodeId, TreeId};
use bbh_wire::Role;

use crate::shape::Shape;
use crate::world::{NodeIndex, World};

/// What a node says of its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) role: Role,
    pub(crate) tree: TreeId,
    pub(crate) parent: Option<usize>,
    pub(crate) size: u32,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    stand: Option<Stand>,
    children: Vec<usize>,
    /// The parent, where that knows of its child.
    up: Option<usize>,
}

impl Seen {
    fn is_head(&self) -> bool {
        self.stand.is_some() && self.up.is_none()
    }
}

/// The forest as it stands. An edge counts when both its ends know of it and both radios are on: a parent always
/// knows of a child before the child does, so an edge that only the child knows of has been lost already.
#[derive(Debug, Default)]
pub struct Watch {
    nodes: Vec<Seen>,
    by_id: BTreeMap<NodeId, usize>,
    /// Nodes without an edge upwards: one for each tree.
    heads: usize,
    components: usize,
}

/// A node whose own view of its place has changed; the size of its tree does not count.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) node: usize,
    pub(crate) before: Option<Stand>,
    pub(crate) after: Option<Stand>,
}

impl Watch {
    /// Takes over what has happened since the last call.
    ///
    /// # Errors
    /// A ring of parents, which must never be.
    pub(crate) fn update(&mut self, world: &mut World) -> Result<Vec<Change>, String> {
        let touched = world.take_touched();
        for n in self.nodes.len()..world.len() {
            self.by_id.insert(world.id(NodeIndex(n)), n);
            self.nodes.push(Seen::default());
        }
        let mut changes = Vec::new();
        let mut affected = BTreeSet::new();
        for NodeIndex(n) in touched {
            let node = world.node(NodeIndex(n)).filter(|_| world.has_radio(NodeIndex(n)));
            let stand = node.map(|node| {
                let tree = node.tree();
                let parent = tree.parent().and_then(|(_, id)| self.by_id.get(&id).copied());
                Stand { role: tree.role(), tree: tree.tree(), parent, size: tree.size() }
            });
            let ids = node.into_iter().flat_map(|node| node.tree().children());
            let children: Vec<usize> = ids.filter_map(|(_, id)| self.by_id.get(&id).copied()).collect();
            let seen = &mut self.nodes[n];
            let known = |stand: &Option<Stand>| stand.as_ref().map(|s| (s.role, s.tree, s.parent));
            let same = known(&seen.stand) == known(&stand);
            if same && seen.children == children {
                seen.stand = stand;
                continue;
            }
            affected.insert(n);
            self.heads -= usize::from(seen.is_head());
            affected.extend(seen.children.iter().chain(&children));
            seen.children = children;
            let before = std::mem::replace(&mut seen.stand, stand.clone());
            self.heads += usize::from(seen.is_head());
            if !same {
                changes.push(Change { node: n, before, after: stand });
            }
        }
        let mut risen = Vec::new();
        for &n in &affected {
            let up = self.edge(n);
            let seen = &mut self.nodes[n];
            if up != seen.up {
                self.heads -= usize::from(seen.is_head());
                seen.up = up;
                self.heads += usize::from(seen.is_head());
                risen.extend(up.map(|_| n));
            }
        }
        risen.into_iter().try_for_each(|n| self.check_ring(n))?;
        if world.take_stirred() {
            self.components = world.radio_components().len();
        }
        Ok(changes)
    }

    fn edge(&self, n: usize) -> Option<usize> {
        let parent = self.nodes[n].stand.as_ref()?.parent?;
        let above = &self.nodes[parent];
        (above.stand.is_some() && above.children.contains(&n)).then_some(parent)
    }

    fn check_ring(&self, start: usize) -> Result<(), String> {
        let mut at = start;
        for _ in 0..=self.nodes.len() {
            match self.nodes[at].up {
                Some(up) if up == start => return Err(format!("a ring of parents through node {start}")),
                Some(up) => at = up,
                None => return Ok(()),
            }
        }
        Err(format!("a ring of parents above node {start}"))
    }

    /// Trees, single nodes included.
    pub fn trees(&self) -> usize {
        self.heads
    }

    /// Groups of nodes that could be one tree.
    pub fn components(&self) -> usize {
        self.components
    }

    /// Whether there are as many trees as there could be at least.
    pub fn is_one_tree_each(&self) -> bool {
        self.heads == self.components
    }

    /// The node at the head of this node's tree; `None` if it is off.
    pub fn head(&self, node: NodeIndex) -> Option<NodeIndex> {
        let mut at = node.0;
        self.nodes.get(at)?.stand.as_ref()?;
        while let Some(up) = self.nodes[at].up {
            at = up;
        }
        Some(NodeIndex(at))
    }

    /// The node's parent, where that knows of its child.
    pub fn parent(&self, node: NodeIndex) -> Option<NodeIndex> {
        self.nodes.get(node.0)?.up.map(NodeIndex)
    }

    /// The node's role as it sees it; `None` if it or its radio is off.
    pub fn role(&self, node: NodeIndex) -> Option<Role> {
        Some(self.nodes.get(node.0)?.stand.as_ref()?.role)
    }

    /// The nodes that are on, radio included.
    pub fn present(&self) -> impl Iterator<Item = NodeIndex> + '_ {
        self.nodes.iter().enumerate().filter(|(_, seen)| seen.stand.is_some()).map(|(n, _)| NodeIndex(n))
    }

    /// The forest's shape, of the nodes that are on.
    pub fn shape(&self) -> Shape {
        let mut number = vec![usize::MAX; self.nodes.len()];
        let present: Vec<NodeIndex> = self.present().collect();
        present.iter().enumerate().for_each(|(i, node)| number[node.0] = i);
        let parents: Vec<Option<usize>> =
            present.iter().map(|node| self.nodes[node.0].up.map(|up| number[up])).collect();
        Shape::of(&parents).expect("edges are checked for rings when they appear")
    }
}
