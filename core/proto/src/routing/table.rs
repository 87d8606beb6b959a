//! The routing table of a tree node: every node below it, and the neighbour that leads there (report 4.6, BTR).
//!
//! It holds each descendant's signed [`Attachment`]; the shape of the subtree follows from their parents. So one removal
//! takes a whole branch off, and no relay can invent a descendant. A node that moves tells its new parent all that is
//! below it then, so what was below it before is forgotten when its new attachment comes: the farewell of a node that
//! left it in between may have been lost with the old way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bbh_types::NodeId;
use bbh_wire::message::{Attachment, Device};

use crate::identity::check_attachment;

/// Most descendants a node keeps (a bound on memory: about 300 bytes each).
pub const MAX_DESCENDANTS: usize = 20_000;
/// Most links between a node and a descendant that it keeps: every look-up walks them, and no packet crosses more.
pub const MAX_DEPTH: u8 = 255;

/// Why an attachment was not taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Its signature is not the node's.
    #[error("the attachment's signature is wrong")]
    BadSignature,
    /// Its parent is not below the neighbour that told it.
    #[error("the attachment's parent is not below that neighbour")]
    UnknownParent,
    /// It would make a node its own ancestor, or this node a descendant of itself.
    #[error("the attachment would close a loop")]
    Loop,
    /// A newer attachment of that node is known.
    #[error("a newer attachment of that node is known")]
    Outdated,
    /// It is more than [`MAX_DEPTH`] links away.
    #[error("the node is more than {MAX_DEPTH} links away")]
    TooDeep,
    /// The table is full.
    #[error("the routing table is full")]
    Full,
}

#[derive(Debug)]
struct Entry {
    attachment: Attachment,
    children: BTreeSet<NodeId>,
}

/// All nodes below this one.
#[derive(Debug)]
pub struct RoutingTable {
    me: NodeId,
    entries: BTreeMap<NodeId, Entry>,
    children: BTreeSet<NodeId>,
}

impl RoutingTable {
    /// An empty table of this node.
    pub fn new(me: NodeId) -> Self {
        Self { me, entries: BTreeMap::new(), children: BTreeSet::new() }
    }

    /// Number of nodes below this one.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no node is below this one.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The direct children.
    pub fn children(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.children.iter().copied()
    }

    /// Whether that node is below this one.
    pub fn contains(&self, node: NodeId) -> bool {
        self.entries.contains_key(&node)
    }

    /// The direct child that leads to `node`, and the links between here and there.
    pub fn route(&self, node: NodeId) -> Option<(NodeId, u8)> {
        let mut at = node;
        let mut hops = 1_u8;
        loop {
            let parent = self.entries.get(&at)?.attachment.parent;
            if parent == self.me {
                return Some((at, hops));
            }
            at = parent;
            hops = hops.saturating_add(1);
        }
    }

    /// Whether `node` is `child` or below it.
    pub fn is_below(&self, node: NodeId, child: NodeId) -> bool {
        self.route(node).is_some_and(|(via, _)| via == child)
    }

    /// Takes over an attachment that the direct child `via` told of, or that `via` itself made to this node.
    ///
    /// Returns whether anything changed: what is known already changes nothing.
    ///
    /// # Errors
    /// [`RouteError`]; the table is then as before.
    pub fn insert(&mut self, via: NodeId, attachment: Attachment) -> Result<bool, RouteError> {
        let node = attachment.node();
        let parent = attachment.parent;
        if node == self.me || node == parent {
            return Err(RouteError::Loop);
        }
        let own_child = parent == self.me;
        if own_child != (node == via) {
            return Err(RouteError::UnknownParent);
        }
        if !own_child {
            match self.route(parent) {
                Some((child, hops)) if child == via && hops < MAX_DEPTH => {}
                Some((child, _)) if child == via => return Err(RouteError::TooDeep),
                _ => return Err(RouteError::UnknownParent),
            }
        }
        let known = self.entries.get(&node).map(|entry| &entry.attachment);
        match known {
            Some(known) if *known == attachment => return Ok(false),
            Some(known) if known.counter >= attachment.counter => return Err(RouteError::Outdated),
            None if self.entries.len() >= MAX_DESCENDANTS => return Err(RouteError::Full),
            _ => {}
        }
        if known.is_some() && self.is_ancestor(node, parent) {
            return Err(RouteError::Loop);
        }
        if !check_attachment(&attachment) {
            return Err(RouteError::BadSignature);
        }
        match self.entries.get_mut(&node) {
            // Under the same parent it has only been renamed.
            Some(entry) if entry.attachment.parent == parent => entry.attachment = attachment,
            _ => {
                self.remove_branch(node);
                self.siblings(parent).insert(node);
                self.entries.insert(node, Entry { attachment, children: BTreeSet::new() });
            }
        }
        Ok(true)
    }

    /// Whether `ancestor` is `node` or lies between it and this node.
    fn is_ancestor(&self, ancestor: NodeId, node: NodeId) -> bool {
        let mut at = node;
        while at != self.me {
            if at == ancestor {
                return true;
            }
            match self.entries.get(&at) {
                Some(entry) => at = entry.attachment.parent,
                None => return false,
            }
        }
        false
    }

    fn siblings(&mut self, parent: NodeId) -> &mut BTreeSet<NodeId> {
        match self.entries.get_mut(&parent) {
            Some(entry) => &mut entry.children,
            None => &mut self.children,
        }
    }

    fn unhook(&mut self, node: NodeId) {
        if let Some(parent) = self.entries.get(&node).map(|entry| entry.attachment.parent) {
            self.siblings(parent).remove(&node);
        }
    }

    /// Takes `node` and all below it off, if it is `via` or below it. Returns how many nodes went.
    pub fn remove(&mut self, via: NodeId, node: NodeId) -> usize {
        if self.is_below(node, via) { self.remove_branch(node) } else { 0 }
    }

    fn remove_branch(&mut self, node: NodeId) -> usize {
        self.unhook(node);
        let mut doomed = VecDeque::from([node]);
        let mut gone = 0;
        while let Some(next) = doomed.pop_front() {
            if let Some(entry) = self.entries.remove(&next) {
                doomed.extend(entry.children);
                gone += 1;
            }
        }
        gone
    }

    /// Takes off all that is below the direct child `via`, but not the child itself. Returns its former children.
    pub fn clear_below(&mut self, via: NodeId) -> Vec<NodeId> {
        let below: Vec<NodeId> =
            self.entries.get(&via).map(|entry| entry.children.iter().copied().collect()).unwrap_or_default();
        for &node in &below {
            self.remove(via, node);
        }
        below
    }

    /// All attachments, parents before their children, as a new parent wants to hear them.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        let mut waiting: VecDeque<NodeId> = self.children.iter().copied().collect();
        std::iter::from_fn(move || {
            let entry = &self.entries[&waiting.pop_front()?];
            waiting.extend(&entry.children);
            Some(&entry.attachment)
        })
    }

    /// All nodes below this one except those below (and with) the direct child `except`, the nearest first.
    pub fn devices(&self, except: Option<NodeId>) -> impl Iterator<Item = Device> {
        let mut waiting: VecDeque<(NodeId, u8)> =
            self.children.iter().filter(|&&child| Some(child) != except).map(|&child| (child, 1)).collect();
        std::iter::from_fn(move || {
            let (node, hops) = waiting.pop_front()?;
            let entry = &self.entries[&node];
            waiting.extend(entry.children.iter().map(|&child| (child, hops.saturating_add(1))));
            Some(Device { node, name: entry.attachment.name.clone(), hops })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn identity(n: u8) -> Identity {
        Identity::from_seed([n; 32])
    }

    fn attach(child: u8, parent: u8, counter: u64) -> Attachment {
        identity(child).attach(identity(parent).node_id(), counter, "x")
    }

    fn id(n: u8) -> NodeId {
        identity(n).node_id()
    }

    /// 0 - 1 - 3 - 4, and 0 - 2.
    fn table() -> RoutingTable {
        let mut table = RoutingTable::new(id(0));
        for (via, child, parent) in [(1, 1, 0), (2, 2, 0), (1, 3, 1), (1, 4, 3)] {
            assert_eq!(table.insert(id(via), attach(child, parent, 1)), Ok(true));
        }
        table
    }

    #[test]
    fn a_route_leads_over_the_child_and_counts_the_links() {
        let table = table();
        assert_eq!(table.route(id(4)), Some((id(1), 3)));
        assert_eq!(table.route(id(2)), Some((id(2), 1)));
        assert_eq!(table.route(id(9)), None);
        assert_eq!(table.attachments().count(), 4);
    }

    #[test]
    fn a_node_that_moves_tells_anew_what_is_below_it_and_its_old_parents_loss_of_it_changes_nothing() {
        let mut table = table();
        assert_eq!(table.insert(id(2), attach(3, 2, 2)), Ok(true));
        assert_eq!(table.route(id(4)), None, "4 may have left 3 before it moved");
        assert_eq!(table.insert(id(2), attach(4, 3, 1)), Ok(true));
        assert_eq!(table.route(id(4)), Some((id(2), 3)));
        assert_eq!(table.remove(id(1), id(3)), 0, "the old way's farewell comes late");
        assert_eq!(table.remove(id(2), id(3)), 2);
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_renamed_node_keeps_what_is_below_it() {
        let mut table = table();
        let renamed = identity(3).attach(id(1), 2, "another name");
        assert_eq!(table.insert(id(1), renamed), Ok(true));
        assert_eq!(table.route(id(4)), Some((id(1), 3)));
    }

    #[test]
    fn a_line_of_invented_nodes_ends_where_no_packet_goes() {
        let line: Vec<Identity> =
            (0..300_u16).map(|n| Identity::from_seed(std::array::from_fn(|i| n.to_be_bytes()[i % 2]))).collect();
        let mut table = RoutingTable::new(line[0].node_id());
        let via = line[1].node_id();
        let mut told = line.windows(2).map(|pair| table.insert(via, pair[1].attach(pair[0].node_id(), 1, "")));
        assert!(told.by_ref().take(usize::from(MAX_DEPTH)).all(|outcome| outcome == Ok(true)));
        assert_eq!(told.next(), Some(Err(RouteError::TooDeep)));
    }

    #[test]
    fn a_relay_can_neither_invent_nor_replay_nor_loop() {
        let mut table = table();
        let mut forged = attach(5, 1, 1);
        forged.key = identity(6).public_key();
        assert_eq!(table.insert(id(1), forged), Err(RouteError::BadSignature));
        assert_eq!(table.insert(id(1), attach(5, 2, 1)), Err(RouteError::UnknownParent), "2 is not below 1");
        assert_eq!(table.insert(id(2), attach(3, 2, 1)), Err(RouteError::Outdated));
        assert_eq!(table.insert(id(1), attach(3, 4, 2)), Err(RouteError::Loop));
        assert_eq!(table.insert(id(1), attach(0, 3, 2)), Err(RouteError::Loop));
        assert_eq!(table.insert(id(1), attach(3, 1, 1)), Ok(false), "known already");
        assert_eq!(table.len(), 4);
    }
}
