//! What a manager is: a part of the node that handles some kinds of messages (report 9.4: the managers below SkyNet).

use std::collections::VecDeque;

use bbh_types::{Instant, NodeId};
use bbh_wire::Message;
use rand_chacha::ChaCha12Rng;

use crate::api::{Command, Effect, Event, LibraryAnswer, Settings, StorageAnswer};

/// A message for a manager, opened and proven to be from `source`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Who sent it.
    pub source: NodeId,
    /// Links it has crossed, at least 1.
    pub hops: u8,
    /// Whether it went to all nodes, not only to this one.
    pub broadcast: bool,
    /// Whether a relay's queue for its flow was filling up.
    pub congested: bool,
    /// The message.
    pub message: Message,
}

/// What a manager may know of the network.
pub trait Mesh {
    /// Whether there is any neighbour in a tree.
    fn is_connected(&self) -> bool;
    /// Bytes of bulk messages for that node that may be handed over now without waiting in this node's own queue for
    /// long; 0 when the queue is full or there is no way to it at the moment.
    fn bulk_room(&self, to: NodeId) -> usize;
}

/// Something a manager wants sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outbound {
    /// To one node, end to end encrypted.
    To(NodeId, Message),
    /// To 1 to 64 nodes, signed, one copy per edge; whoever passes it on can read it.
    ToMany(Vec<NodeId>, Message),
    /// To all nodes of the tree, signed.
    Broadcast(Message),
}

/// A manager's hands and eyes during one call.
pub struct Context<'a> {
    /// The time.
    pub now: Instant,
    /// This node.
    pub node: NodeId,
    /// The user's settings.
    pub settings: &'a Settings,
    /// The network.
    pub mesh: &'a dyn Mesh,
    /// The node's seeded generator.
    pub rng: &'a mut ChaCha12Rng,
    /// Numbers for library requests; the answers come back to the manager that asked.
    pub next_token: &'a mut u64,
    /// Collects what is to be sent.
    pub outbound: &'a mut VecDeque<Outbound>,
    /// Collects effects.
    pub effects: &'a mut VecDeque<Effect>,
    /// Collects events.
    pub events: &'a mut VecDeque<Event>,
}

impl Context<'_> {
    /// Sends a message to one node, in its kind's lane, in order within the lane. It may be lost when a link or
    /// relay on the way is: whoever needs an answer asks again.
    pub fn send(&mut self, to: NodeId, message: impl Into<Message>) {
        self.outbound.push_back(Outbound::To(to, message.into()));
    }

    /// Sends a message to all nodes of the tree.
    pub fn broadcast(&mut self, message: impl Into<Message>) {
        self.outbound.push_back(Outbound::Broadcast(message.into()));
    }

    /// A fresh number for a library request.
    pub fn token(&mut self) -> u64 {
        *self.next_token += 1;
        *self.next_token
    }
}

/// A part of the node that handles some kinds of messages. Each hook is one mutation; what comes of it goes into the
/// [`Context`].
pub trait Manager {
    /// Numbers of the kinds it wants to get; no two managers share one.
    fn kinds(&self) -> &'static [u8];

    /// A message of one of its kinds.
    fn handle_message(&mut self, cx: &mut Context<'_>, received: Received);

    /// A user's command; managers ignore what is not theirs.
    fn handle_command(&mut self, cx: &mut Context<'_>, command: &Command);

    /// An answer to a library request; managers ignore tokens that are not theirs.
    fn handle_library(&mut self, _cx: &mut Context<'_>, _answer: &LibraryAnswer) {}

    /// An answer of the disk.
    fn handle_storage(&mut self, _cx: &mut Context<'_>, _answer: &StorageAnswer) {}

    /// A node can't be reached at the moment: a relay or the session said so. Advice, which may be wrong or forged.
    fn handle_unreachable(&mut self, _cx: &mut Context<'_>, _node: NodeId) {}

    /// Whether there is a neighbour in a tree has changed (see [`Mesh::is_connected`]), or the tree has become
    /// another one, so that nodes not reachable before may be now.
    fn handle_network_changed(&mut self, _cx: &mut Context<'_>) {}

    /// There may be room again for bulk messages to that node (see [`Mesh::bulk_room`]).
    fn handle_room(&mut self, _cx: &mut Context<'_>, _to: NodeId) {}

    /// The moment of [`Manager::poll_timeout`] has come, or another one.
    fn handle_timeout(&mut self, cx: &mut Context<'_>);

    /// When it wants to be called next.
    fn poll_timeout(&self) -> Option<Instant>;
}
