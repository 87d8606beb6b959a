//! The tree manager (report 9.4.2, VerwaltungsManager): this node's place in its tree.
//!
//! A free node is the root of a tree of one, so that joining, merging and healing are one thing: the root of the
//! smaller tree becomes a child of a node of the larger one, over the very link on which the two trees met.
//!
//! - here: neighbours, what is told to them, losses;
//! - [`routes`]: who is below, told to the parent and to those who ask;
//! - [`merge`]: who attaches to whom, the merge lock, re-rooting, consent;
//! - [`discovery`]: beacons heard and shown, whom to dial, how hard to listen.
//!
//! The coordinator's lease (design §6) belongs beside them, as a room of its own.

mod discovery;
mod merge;
mod routes;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bbh_types::radio::{LinkId, PeerAddr, RadioCommand};
use bbh_types::{Instant, NodeId, TreeId};
use bbh_wire::frame::CloseReason;
use bbh_wire::message::{Attachment, RoutingResync, TreeInfo};
use bbh_wire::{Message, Role};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use self::discovery::Discovery;
use self::merge::Lock;
use self::routes::{PAGES_BURST, PAGES_RATE, ROUTES_BURST, ROUTES_RATE};
use crate::identity::Identity;
use crate::routing::broadcast::TokenBucket;
use crate::routing::table::RoutingTable;

/// How long two nodes of different trees may hold a link without becoming parent and child.
pub const CONTACT_TIMEOUT: Duration = Duration::from_secs(8);

/// Tree messages a second that are taken from a neighbour, after a burst, if other nodes get messages because of them.
const NEIGHBOUR_RATE: f64 = 50.0;
const NEIGHBOUR_BURST: f64 = 200.0;
/// When news of the tree that came too fast are looked at.
const TREE_NEWS_DELAY: Duration = Duration::from_millis(100);
/// What the tree manager wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeAction {
    /// A message to a neighbour, protected by its link alone.
    Send(LinkId, Message),
    /// A message to a node of the tree.
    SendTo(NodeId, Message),
    /// Close a link.
    Close(LinkId, CloseReason),
    /// For the radio.
    Radio(RadioCommand),
    /// This side of the link has to keep the heartbeat going, or leave it to the other.
    LeadHeartbeat(LinkId, bool),
    /// Role, parent, children or tree have changed.
    Changed,
}

/// What a neighbour is to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The Noise handshake is not through.
    Opening,
    /// Of another tree, or not yet known.
    Contact,
    /// Towards the root.
    Parent,
    /// Away from the root.
    Child,
}

#[derive(Debug)]
struct Neighbour {
    peer: PeerAddr,
    dialler: bool,
    node: Option<NodeId>,
    relation: Relation,
    info: Option<TreeInfo>,
    /// A contact is closed then.
    deadline: Instant,
    /// A contact asks again then; news of the parent that came too fast are looked at then.
    retry_at: Option<Instant>,
    /// A child that wants to attach, for which the root's consent is awaited, and the request's number.
    consent: Option<(u32, Attachment)>,
    /// Number of the next routing change expected from a child.
    routes_in: u32,
    /// What it may have sent on to others.
    messages: TokenBucket,
    /// What it may change of the routes.
    routes: TokenBucket,
}

/// How often routing changes were refused, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TreeCounters {
    /// Attachments with a wrong signature.
    pub forged_attachments: u64,
    /// Attachments refused for any other reason.
    pub refused_attachments: u64,
    /// Tree messages that made no sense from that neighbour.
    pub misplaced: u64,
    /// Tree messages that came too fast.
    pub too_fast: u64,
}

/// See the module's documentation.
pub struct TreeManager {
    identity: Arc<Identity>,
    me: NodeId,
    rng: ChaCha12Rng,
    name: String,
    max_links: usize,
    /// This node's attachments are numbered from here.
    next_counter: u64,
    tree: TreeId,
    epoch: u32,
    /// Nodes in the tree, as the parent told; the root counts itself.
    told_size: u32,
    neighbours: BTreeMap<LinkId, Neighbour>,
    parent: Option<LinkId>,
    table: RoutingTable,
    /// Number of the next routing change told to the parent.
    routes_out: u32,
    next_request: u32,
    lock: Lock,
    announced: Option<TreeInfo>,
    pages: TokenBucket,
    discovery: Discovery,
    actions: VecDeque<TreeAction>,
    counters: TreeCounters,
}

impl TreeManager {
    /// A free node. `boot` grows with every start of the program, so that newer attachments count more.
    pub fn new(identity: Arc<Identity>, boot: u32, name: String, max_links: u8, seed: [u8; 32], now: Instant) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let me = identity.node_id();
        let tree = TreeId(rng.next_u64());
        let mut manager = Self {
            identity,
            me,
            rng,
            name,
            max_links: usize::from(max_links.clamp(1, 8)),
            next_counter: u64::from(boot) << 32,
            tree,
            epoch: 0,
            told_size: 1,
            neighbours: BTreeMap::new(),
            parent: None,
            table: RoutingTable::new(me),
            routes_out: 0,
            next_request: 0,
            lock: Lock::Idle,
            announced: None,
            pages: TokenBucket::new(PAGES_RATE, PAGES_BURST, now),
            discovery: Discovery::default(),
            actions: VecDeque::new(),
            counters: TreeCounters::default(),
        };
        manager.refresh(now);
        manager
    }

    // ------------------------------------------------------------ what others may know

    /// What is to be done next.
    pub fn poll_action(&mut self) -> Option<TreeAction> {
        self.actions.pop_front()
    }

    /// This node's role.
    pub fn role(&self) -> Role {
        match (self.parent, self.table.is_empty()) {
            (Some(_), _) => Role::Tree,
            (None, true) => Role::Free,
            (None, false) => Role::Root,
        }
    }

    /// The tree this node belongs to.
    pub fn tree(&self) -> TreeId {
        self.tree
    }

    /// Nodes in the tree, as far as this node knows.
    pub fn size(&self) -> u32 {
        match self.parent {
            Some(_) => self.told_size.max(self.table.len() as u32 + 2),
            None => self.table.len() as u32 + 1,
        }
    }

    /// The nodes below.
    pub fn table(&self) -> &RoutingTable {
        &self.table
    }

    /// The link to the parent, and who that is.
    pub fn parent(&self) -> Option<(LinkId, NodeId)> {
        let link = self.parent?;
        Some((link, self.neighbours.get(&link)?.node?))
    }

    /// The links to children, and who they are.
    pub fn children(&self) -> impl Iterator<Item = (LinkId, NodeId)> + '_ {
        self.neighbours.iter().filter(|(_, n)| n.relation == Relation::Child).filter_map(|(&l, n)| Some((l, n.node?)))
    }

    /// The links that carry the tree.
    pub fn tree_links(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.neighbours
            .iter()
            .filter(|(_, n)| matches!(n.relation, Relation::Parent | Relation::Child))
            .map(|(&l, _)| l)
    }

    /// What the neighbour on a link is to this node.
    pub fn relation(&self, link: LinkId) -> Option<Relation> {
        self.neighbours.get(&link).map(|neighbour| neighbour.relation)
    }

    /// The link on which to send a packet for `node`: down if it is below, else up.
    pub fn next_hop(&self, node: NodeId) -> Option<LinkId> {
        match self.table.route(node) {
            Some((child, _)) => self.child_link(child),
            None => self.parent,
        }
    }

    fn child_link(&self, child: NodeId) -> Option<LinkId> {
        self.children().find(|&(_, node)| node == child).map(|(link, _)| link)
    }

    /// Whether a packet from `source` may come from that neighbour: up from its own branch, down from elsewhere.
    pub fn is_plausible_source(&self, link: LinkId, source: NodeId) -> bool {
        let Some(neighbour) = self.neighbours.get(&link) else { return false };
        let Some(node) = neighbour.node else { return false };
        match neighbour.relation {
            Relation::Child => source == node || self.table.is_below(source, node),
            Relation::Parent => source != self.me && !self.table.contains(source),
            Relation::Contact | Relation::Opening => false,
        }
    }

    /// Refused routing changes.
    pub fn counters(&self) -> TreeCounters {
        self.counters
    }

    fn info(&self) -> TreeInfo {
        TreeInfo {
            tree: self.tree,
            epoch: self.epoch,
            size: self.size(),
            role: self.role(),
            free_slots: self.free_slots() as u8,
        }
    }

    fn free_slots(&self) -> usize {
        self.max_links.saturating_sub(self.neighbours.len())
    }

    // ------------------------------------------------------------ links come and go

    /// The radio has opened a link.
    pub fn link_opened(&mut self, now: Instant, link: LinkId, peer: PeerAddr, dialler: bool) {
        self.discovery.dial_ended(peer);
        if self.neighbours.len() >= self.max_links {
            self.actions.push_back(TreeAction::Close(link, CloseReason::Refused));
        }
        self.neighbours.insert(
            link,
            Neighbour {
                peer,
                dialler,
                node: None,
                relation: Relation::Opening,
                info: None,
                deadline: now + CONTACT_TIMEOUT,
                retry_at: None,
                consent: None,
                routes_in: 0,
                messages: TokenBucket::new(NEIGHBOUR_RATE, NEIGHBOUR_BURST, now),
                routes: TokenBucket::new(ROUTES_RATE, ROUTES_BURST, now),
            },
        );
        self.refresh(now);
    }

    /// A dial came to nothing.
    pub fn open_failed(&mut self, now: Instant, peer: PeerAddr) {
        self.discovery.dial_ended(peer);
        self.discovery.back_off(now, peer, &mut self.rng);
        self.refresh(now);
    }

    /// The node on a link has proven its id.
    pub fn neighbour_up(&mut self, link: LinkId, node: NodeId) {
        if node == self.me {
            self.actions.push_back(TreeAction::Close(link, CloseReason::Redundant));
            return;
        }
        if let Some((other, keep)) = self.twin(link, node) {
            let loser = if keep { link } else { other };
            self.actions.push_back(TreeAction::Close(loser, CloseReason::Redundant));
            if keep {
                return;
            }
        }
        let info = self.info();
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        neighbour.node = Some(node);
        neighbour.relation = Relation::Contact;
        self.actions.push_back(TreeAction::Send(link, info.into()));
    }

    /// Another link to the same node, and whether it is the one to keep: a link of the tree always; else the one that
    /// the lower id dialled, so that both sides choose the same (fix 9); else the newer.
    fn twin(&self, link: LinkId, node: NodeId) -> Option<(LinkId, bool)> {
        let new = self.neighbours.get(&link)?;
        let (&other, old) = self.neighbours.iter().find(|&(&l, n)| l != link && n.node == Some(node))?;
        let low_dials = |neighbour: &Neighbour| neighbour.dialler == (self.me < node);
        let keep = match old.relation {
            Relation::Parent | Relation::Child => true,
            Relation::Contact | Relation::Opening => low_dials(old) && !low_dials(new),
        };
        Some((other, keep))
    }

    /// A link is gone.
    pub fn link_closed(&mut self, now: Instant, link: LinkId) {
        let Some(neighbour) = self.neighbours.remove(&link) else { return };
        let turning = matches!(self.lock, Lock::Transferring { link: at, .. } if at == link);
        self.lock.link_closed(link);
        match neighbour.relation {
            Relation::Opening | Relation::Contact => {
                if neighbour.dialler {
                    self.discovery.back_off(now, neighbour.peer, &mut self.rng);
                }
            }
            Relation::Parent => self.head_what_is_below(now),
            Relation::Child => {
                if let Some(node) = neighbour.node {
                    self.branch_lost(now, node);
                }
                if turning {
                    // The child may be the root of the old tree already.
                    self.head_what_is_below(now);
                }
            }
        }
        self.refresh(now);
    }

    /// Without a parent this node heads what is below it, under a new id, so that nobody takes it for the old tree
    /// (fix 3).
    fn head_what_is_below(&mut self, now: Instant) {
        self.parent = None;
        self.tree = TreeId(self.rng.next_u64());
        self.epoch = 0;
        self.discovery.listen_hard(now);
        self.tree_changed(now);
    }

    fn branch_lost(&mut self, now: Instant, child: NodeId) {
        if self.table.remove(child, child) > 0 {
            self.tell_parent_lost(vec![child]);
        }
        self.discovery.listen_hard(now);
        self.changed(now);
    }

    /// Follows every change of tree: tell all, since contacts may now be of the same tree.
    fn tree_changed(&mut self, now: Instant) {
        self.announce(true);
        self.actions.push_back(TreeAction::Changed);
        let contacts: Vec<LinkId> =
            self.neighbours.iter().filter(|(_, n)| n.relation == Relation::Contact).map(|(&link, _)| link).collect();
        for link in contacts {
            self.consider_contact(now, link);
        }
        self.refresh(now);
    }

    fn changed(&mut self, now: Instant) {
        self.announce(false);
        self.actions.push_back(TreeAction::Changed);
        self.refresh(now);
    }

    /// Tells children and contacts of the tree; its size only when that has changed by a quarter, so that forming a
    /// tree of n nodes does not cost n messages to each.
    fn announce(&mut self, always: bool) {
        let info = self.info();
        let news = self.announced.is_none_or(|told| {
            let (old, new) = (told.size, info.size);
            told.tree != info.tree || told.epoch != info.epoch || new.abs_diff(old) >= old.div_ceil(4).max(1)
        });
        if !news && !always {
            return;
        }
        self.announced = Some(info);
        for (&link, neighbour) in &self.neighbours {
            if matches!(neighbour.relation, Relation::Child | Relation::Contact) {
                self.actions.push_back(TreeAction::Send(link, info.into()));
            }
        }
    }

    // ------------------------------------------------------------ messages

    /// A message of a neighbour, protected by its link.
    pub fn handle_message(&mut self, now: Instant, link: LinkId, message: Message) {
        let Some(neighbour) = self.neighbours.get(&link) else { return };
        let (relation, Some(node)) = (neighbour.relation, neighbour.node) else { return };
        // What others have to be told of: whoever is refused here asks again after a while. Besides, a parent that
        // asks for all routes again and again wants work done for nothing.
        let costly = matches!(
            message,
            Message::AttachRequest(_)
                | Message::RootQuery(_)
                | Message::TreeFound(_)
                | Message::TreeMerge(_)
                | Message::TreeMergeReply(_)
                | Message::RoutingResync(_)
        );
        if costly && !self.may_send_more(now, link) {
            if matches!(message, Message::RoutingResync(_)) {
                self.actions.push_back(TreeAction::Close(link, CloseReason::ProtocolError));
            }
            return;
        }
        match (relation, message) {
            (_, Message::TreeInfo(info)) => self.handle_tree_info(now, link, info),
            (Relation::Contact, Message::AttachRequest(request)) => {
                self.handle_attach_request(now, link, node, request)
            }
            (_, Message::AttachReply(reply)) => self.handle_attach_reply(now, link, reply),
            (Relation::Child, Message::RoutingConnect(routes)) => self.handle_connect(now, link, node, routes),
            (Relation::Child, Message::RoutingDisconnect(routes)) => self.handle_disconnect(now, link, node, routes),
            (Relation::Parent, Message::RoutingResync(RoutingResync {})) => self.tell_parent_all(),
            (Relation::Child, Message::RootQuery(query)) => self.handle_root_query(now, node, query),
            (Relation::Child, Message::TreeFound(found)) => self.handle_tree_found(now, node, found),
            (Relation::Child, Message::TreeMerge(merge)) => self.handle_tree_merge(node, merge),
            (Relation::Parent, Message::TreeMergeReply(reply)) => self.handle_merge_reply(now, reply),
            (Relation::Parent, Message::RootTransfer(transfer)) => self.handle_root_transfer(now, link, node, transfer),
            (Relation::Child, Message::RootTransferReply(_)) => self.handle_transfer_reply(now, link, node),
            // Late messages of an edge that has just been turned round are harmless.
            _ => self.counters.misplaced += 1,
        }
    }

    /// Whether a neighbour keeps to the rate of messages that make others work.
    fn may_send_more(&mut self, now: Instant, link: LinkId) -> bool {
        let granted = self.neighbours.get_mut(&link).is_some_and(|neighbour| neighbour.messages.take(now));
        self.counters.too_fast += u64::from(!granted);
        granted
    }

    fn handle_tree_info(&mut self, now: Instant, link: LinkId, info: TreeInfo) {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return };
        neighbour.info = Some(info);
        if matches!(neighbour.relation, Relation::Child | Relation::Opening) {
            return;
        }
        if self.may_send_more(now, link) {
            self.heed_tree_info(now, link);
        } else if let Some(neighbour) = self.neighbours.get_mut(&link) {
            // Only the last of them counts.
            neighbour.retry_at.get_or_insert(now + TREE_NEWS_DELAY);
        }
    }

    fn heed_tree_info(&mut self, now: Instant, link: LinkId) {
        let Some(neighbour) = self.neighbours.get(&link) else { return };
        match (neighbour.relation, neighbour.info) {
            (Relation::Parent, Some(info)) => {
                let other_tree = info.tree != self.tree;
                (self.tree, self.epoch, self.told_size) = (info.tree, info.epoch, info.size);
                if other_tree {
                    self.tree_changed(now);
                } else {
                    self.announce(false);
                    self.refresh(now);
                }
            }
            (Relation::Contact, _) => self.consider_contact(now, link),
            _ => {}
        }
    }

    // ------------------------------------------------------------ settings and time

    /// The user has renamed the device or changed its limit of links. A lower limit closes no link.
    pub fn configure(&mut self, now: Instant, name: &str, max_links: u8) {
        self.max_links = usize::from(max_links.clamp(1, 8));
        if name != self.name {
            self.name = name.to_owned();
            if let Some((_, parent)) = self.parent() {
                let renamed = self.attach_to(parent);
                self.tell_parent(vec![renamed]);
            }
        }
        self.refresh(now);
    }

    /// Something is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire_lock(now);
        let mut overdue = Vec::new();
        let mut retry = Vec::new();
        for (&link, neighbour) in &mut self.neighbours {
            let passing = matches!(neighbour.relation, Relation::Opening | Relation::Contact);
            if passing && now >= neighbour.deadline {
                neighbour.deadline = now + CONTACT_TIMEOUT;
                overdue.push(link);
            } else if neighbour.retry_at.is_some_and(|at| now >= at) {
                neighbour.retry_at = None;
                retry.push(link);
            }
        }
        for link in overdue {
            self.actions.push_back(TreeAction::Close(link, CloseReason::Refused));
        }
        for link in retry {
            self.heed_tree_info(now, link);
        }
        self.refresh(now);
    }

    /// When something is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.neighbours
            .values()
            .flat_map(|n| {
                let passing = matches!(n.relation, Relation::Opening | Relation::Contact);
                [passing.then_some(n.deadline), n.retry_at]
            })
            .flatten()
            .chain(self.lock.until())
            .chain(self.discovery.poll_timeout())
            .min()
    }

    fn jitter(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(from_ms + self.rng.next_u64() % (to_ms - from_ms).max(1))
    }
}
