//! How two trees become one, safely (design §6; docs/protocol.md tells it step by step).
//!
//! Only a root attaches, and only while it holds its own merge lock, from before it asks until the answer; a tree of
//! more than one node is taken in only with the consent of the root above, which gives it only while its own lock is
//! free. Then no loop can form: suppose roots attached in a ring; each got its consent while the next one's lock was
//! free, so the next one took its lock later; the lock times would grow all the way round the ring. Losses in between
//! don't matter, since an orphan that has become a root is asked, too, when the question reaches it from below.
//!
//! The smaller tree moves. Where it met the larger one at a node that is not its root, the root walks there first:
//! each step turns one edge round, between two neighbours who both know of it, so that it is a tree at every moment.

use std::time::Duration;

use bbh_types::radio::LinkId;
use bbh_types::{Instant, NodeId};
use bbh_wire::frame::CloseReason;
use bbh_wire::message::{
    AttachReply, AttachRequest, AttachVerdict, Attachment, RootTransfer, RootTransferReply, TreeFound, TreeInfo,
    TreeMerge, TreeMergeReply,
};

use super::{Relation, TreeAction, TreeManager};

/// How long a merge may hold the lock.
pub const LOCK_LEASE: Duration = Duration::from_secs(6);

/// A root's merge lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    /// Free: consent may be given.
    Idle,
    /// This root has asked over that link to be taken in.
    Attaching { link: LinkId, size: u32, until: Instant },
    /// This root has handed its office to the child on that link, which has not answered yet.
    Transferring { link: LinkId, until: Instant },
}

impl Lock {
    pub(super) fn until(self) -> Option<Instant> {
        match self {
            Self::Idle => None,
            Self::Attaching { until, .. } | Self::Transferring { until, .. } => Some(until),
        }
    }

    pub(super) fn link_closed(&mut self, closed: LinkId) {
        match *self {
            Self::Attaching { link, .. } | Self::Transferring { link, .. } if link == closed => *self = Self::Idle,
            _ => {}
        }
    }
}

impl TreeManager {
    /// Decides what to do with a neighbour of another tree.
    pub(super) fn consider_contact(&mut self, now: Instant, link: LinkId) {
        let Some(neighbour) = self.neighbours.get(&link) else { return };
        let (Some(info), Some(node), Relation::Contact) = (neighbour.info, neighbour.node, neighbour.relation) else {
            return;
        };
        if info.tree == self.tree {
            // An AttachReply that makes this a tree link may be on its way: the one who dialled decides.
            let attaching = matches!(self.lock, Lock::Attaching { link: at, .. } if at == link);
            if neighbour.dialler && !attaching && neighbour.consent.is_none() {
                self.actions.push_back(TreeAction::Close(link, CloseReason::Redundant));
            }
            return;
        }
        if !self.is_smaller_than(info, node) {
            return;
        }
        let again = self.jitter(1500, 2500);
        if self.parent.is_none() {
            match self.lock {
                Lock::Idle => self.ask_to_attach(now, link, node),
                Lock::Attaching { link: at, .. } if at == link => return,
                _ => {}
            }
        } else if let Some(parent) = self.parent {
            let found = TreeFound { contact: self.me, other: info.tree };
            self.actions.push_back(TreeAction::Send(parent, found.into()));
        }
        if let Some(neighbour) = self.neighbours.get_mut(&link) {
            neighbour.retry_at = Some(now + again);
        }
    }

    /// The total order by which one of two trees moves: the smaller; the lower tree id; between two free nodes the
    /// lower node id (fixes 2 and 8). Both sides see the same two descriptions.
    fn is_smaller_than(&self, other: TreeInfo, node: NodeId) -> bool {
        let mine = self.info();
        if mine.size <= 1 && other.size <= 1 {
            return self.me < node;
        }
        (mine.size, mine.tree) < (other.size, other.tree)
    }

    fn ask_to_attach(&mut self, now: Instant, link: LinkId, node: NodeId) {
        let size = self.size();
        self.lock = Lock::Attaching { link, size, until: now + LOCK_LEASE };
        let attachment = self.attach_to(node);
        self.actions.push_back(TreeAction::Send(link, AttachRequest { attachment, size }.into()));
    }

    // ------------------------------------------------------------ the larger tree's side

    pub(super) fn handle_attach_request(&mut self, now: Instant, link: LinkId, node: NodeId, request: AttachRequest) {
        let verdict = self.judge(link, node, &request);
        match verdict {
            Some(verdict) => self.answer_attach(now, link, verdict, request.attachment),
            None => {
                self.next_request += 1;
                let number = self.next_request;
                let merge = TreeMerge { contact: self.me, attacher: node, request: number };
                if let (Some(parent), Some(neighbour)) = (self.parent, self.neighbours.get_mut(&link)) {
                    neighbour.consent = Some((number, request.attachment));
                    self.actions.push_back(TreeAction::Send(parent, merge.into()));
                }
            }
        }
    }

    /// The verdict on a request, or `None` if the root has to be asked.
    fn judge(&self, link: LinkId, node: NodeId, request: &AttachRequest) -> Option<AttachVerdict> {
        let attachment = &request.attachment;
        if attachment.parent != self.me || attachment.node() != node || request.size == 0 {
            return Some(AttachVerdict::Invalid);
        }
        if self.neighbours.len() > self.max_links {
            return Some(AttachVerdict::Full);
        }
        if self.neighbours.get(&link).and_then(|n| n.info).is_some_and(|info| info.tree == self.tree) {
            return Some(AttachVerdict::SameTree);
        }
        if request.size == 1 {
            // A leaf closes no loop, unless this node is about to become one itself.
            let about_to = matches!(self.lock, Lock::Attaching { size: 1, .. });
            return Some(if about_to { AttachVerdict::Busy } else { AttachVerdict::Accepted });
        }
        if self.parent.is_some() {
            return None;
        }
        Some(self.consent(node))
    }

    /// This root's consent to take in the tree of `attacher`.
    fn consent(&self, attacher: NodeId) -> AttachVerdict {
        if attacher == self.me {
            AttachVerdict::SameTree
        } else if self.lock != Lock::Idle {
            AttachVerdict::Busy
        } else {
            AttachVerdict::Accepted
        }
    }

    pub(super) fn handle_tree_merge(&mut self, via: NodeId, merge: TreeMerge) {
        if !self.table.is_below(merge.contact, via) {
            self.counters.misplaced += 1;
            return;
        }
        match self.parent {
            Some(parent) => self.actions.push_back(TreeAction::Send(parent, merge.into())),
            None => {
                let verdict = self.consent(merge.attacher);
                let reply = TreeMergeReply { contact: merge.contact, request: merge.request, verdict };
                self.pass_down(reply);
            }
        }
    }

    fn pass_down(&mut self, reply: TreeMergeReply) {
        let link = self.table.route(reply.contact).and_then(|(child, _)| self.child_link(child));
        if let Some(link) = link {
            self.actions.push_back(TreeAction::Send(link, reply.into()));
        }
    }

    pub(super) fn handle_merge_reply(&mut self, now: Instant, reply: TreeMergeReply) {
        if reply.contact != self.me {
            self.pass_down(reply);
            return;
        }
        let asked = self.neighbours.iter_mut().find_map(|(&link, neighbour)| {
            let (number, attachment) = neighbour.consent.take()?;
            if number == reply.request {
                return Some((link, attachment));
            }
            neighbour.consent = Some((number, attachment));
            None
        });
        if let Some((link, attachment)) = asked {
            self.answer_attach(now, link, reply.verdict, attachment);
        }
    }

    fn answer_attach(&mut self, now: Instant, link: LinkId, verdict: AttachVerdict, attachment: Attachment) {
        let mut verdict = verdict;
        if verdict == AttachVerdict::Accepted {
            verdict = self.take_child(link, &attachment);
        }
        let reply = AttachReply { verdict, info: self.info() };
        self.actions.push_back(TreeAction::Send(link, reply.into()));
        if verdict == AttachVerdict::Accepted {
            self.tell_parent(vec![attachment]);
            self.changed(now);
        }
    }

    fn take_child(&mut self, link: LinkId, attachment: &Attachment) -> AttachVerdict {
        let node = attachment.node();
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return AttachVerdict::Invalid };
        if neighbour.relation != Relation::Contact {
            return AttachVerdict::Invalid;
        }
        if self.table.insert(node, attachment.clone()).is_err() {
            self.counters.forged_attachments += 1;
            return AttachVerdict::Invalid;
        }
        neighbour.relation = Relation::Child;
        neighbour.routes_in = 0;
        neighbour.consent = None;
        self.discovery.forget(neighbour.peer);
        self.epoch = self.epoch.wrapping_add(u32::from(self.parent.is_none()));
        self.actions.push_back(TreeAction::LeadHeartbeat(link, true));
        AttachVerdict::Accepted
    }

    // ------------------------------------------------------------ the smaller tree's side

    pub(super) fn handle_attach_reply(&mut self, now: Instant, link: LinkId, reply: AttachReply) {
        match self.lock {
            Lock::Attaching { link: asked, .. } if asked == link => self.lock = Lock::Idle,
            _ => {
                self.counters.misplaced += 1;
                return;
            }
        }
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        if neighbour.relation != Relation::Contact {
            return;
        }
        match reply.verdict {
            AttachVerdict::Accepted => {
                neighbour.relation = Relation::Parent;
                neighbour.info = Some(reply.info);
                neighbour.retry_at = None;
                self.discovery.forget(neighbour.peer);
                self.parent = Some(link);
                (self.tree, self.epoch, self.told_size) = (reply.info.tree, reply.info.epoch, reply.info.size);
                self.actions.push_back(TreeAction::LeadHeartbeat(link, false));
                self.routes_out = 0;
                let all = self.table.attachments().cloned().collect();
                self.tell_parent(all);
                self.discovery.listen_hard(now);
                self.tree_changed(now);
            }
            AttachVerdict::Busy => {
                let again = self.jitter(300, 1200);
                if let Some(neighbour) = self.neighbours.get_mut(&link) {
                    neighbour.retry_at = Some(now + again);
                }
            }
            AttachVerdict::SameTree => self.actions.push_back(TreeAction::Close(link, CloseReason::Redundant)),
            AttachVerdict::Full | AttachVerdict::Invalid => {
                self.actions.push_back(TreeAction::Close(link, CloseReason::Refused));
            }
        }
    }

    pub(super) fn handle_tree_found(&mut self, now: Instant, via: NodeId, found: TreeFound) {
        if !self.table.is_below(found.contact, via) {
            self.counters.misplaced += 1;
            return;
        }
        match self.parent {
            Some(parent) => self.actions.push_back(TreeAction::Send(parent, found.into())),
            None if self.lock == Lock::Idle && found.other != self.tree => {
                self.hand_over(now, found, now + LOCK_LEASE);
            }
            None => {}
        }
    }

    /// Hands this root's office to the child that leads to the contact.
    fn hand_over(&mut self, now: Instant, found: TreeFound, until: Instant) {
        let Some((child, _)) = self.table.route(found.contact) else { return };
        let Some(link) = self.child_link(child) else { return };
        self.lock = Lock::Transferring { link, until };
        let attachment = self.attach_to(child);
        let lock_ms = until.since(now).as_millis() as u32;
        let transfer = RootTransfer { contact: found.contact, other: found.other, attachment, lock_ms };
        self.actions.push_back(TreeAction::Send(link, transfer.into()));
    }

    /// The parent makes this node the root: the edge turns round.
    pub(super) fn handle_root_transfer(&mut self, now: Instant, link: LinkId, old: NodeId, transfer: RootTransfer) {
        if transfer.attachment.parent != self.me || transfer.attachment.node() != old {
            self.counters.misplaced += 1;
            return;
        }
        if self.table.insert(old, transfer.attachment).is_err() {
            self.counters.forged_attachments += 1;
            self.actions.push_back(TreeAction::Close(link, CloseReason::ProtocolError));
            return;
        }
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        neighbour.relation = Relation::Child;
        neighbour.routes_in = 0;
        self.parent = None;
        self.actions.push_back(TreeAction::LeadHeartbeat(link, true));
        self.actions.push_back(TreeAction::Send(link, RootTransferReply {}.into()));
        let lease = Duration::from_millis(u64::from(transfer.lock_ms)).min(LOCK_LEASE);
        let found = TreeFound { contact: transfer.contact, other: transfer.other };
        if found.contact == self.me {
            let contact = self.neighbours.iter().find_map(|(&link, n)| {
                let other = n.info.is_some_and(|info| info.tree == found.other);
                (n.relation == Relation::Contact && other).then_some((link, n.node?))
            });
            if let Some((link, node)) = contact {
                self.ask_to_attach(now, link, node);
            }
        } else {
            self.hand_over(now, found, now + lease);
        }
        self.changed(now);
    }

    /// The child has become the root: this node is its child now.
    pub(super) fn handle_transfer_reply(&mut self, now: Instant, link: LinkId, child: NodeId) {
        if !matches!(self.lock, Lock::Transferring { link: at, .. } if at == link) {
            self.counters.misplaced += 1;
            return;
        }
        self.lock = Lock::Idle;
        self.told_size = self.size();
        self.table.remove(child, child);
        if let Some(neighbour) = self.neighbours.get_mut(&link) {
            neighbour.relation = Relation::Parent;
            // What it told as a child is no news of a parent.
            neighbour.retry_at = None;
        }
        self.parent = Some(link);
        self.actions.push_back(TreeAction::LeadHeartbeat(link, false));
        self.routes_out = 0;
        let all = self.table.attachments().cloned().collect();
        self.tell_parent(all);
        self.changed(now);
    }

    /// A merge that takes too long is given up: the link goes, so that a late answer can't count.
    pub(super) fn expire_lock(&mut self, now: Instant) {
        match self.lock {
            Lock::Attaching { link, until, .. } if now >= until => {
                self.lock = Lock::Idle;
                self.actions.push_back(TreeAction::Close(link, CloseReason::Refused));
            }
            // A child that answers neither way for so long is no neighbour any more. The lock stays until its link is
            // gone, since the answer may still be on its way.
            Lock::Transferring { link, until } if now >= until => {
                self.lock = Lock::Transferring { link, until: now + LOCK_LEASE };
                self.actions.push_back(TreeAction::Close(link, CloseReason::ProtocolError));
            }
            _ => {}
        }
    }
}
