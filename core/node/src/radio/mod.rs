//! The radios of a node, several at a time, behind one set of link numbers.

pub mod tcp;

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};

use bbh_types::radio::{LinkId, PeerAddr, RadioCommand, RadioEvent};
use tokio::sync::mpsc;

use crate::air::AirRadio;

/// Most devices whose addresses are remembered; the one heard of first is forgotten first. Only a node with several
/// radios needs to remember any.
const MAX_PEERS: usize = 4096;

/// What carries out the protocol's commands: Bluetooth, the simulated air, TCP.
///
/// None of these calls waits. The contract is that of [`bbh_types::radio`].
pub trait Radio: Send {
    /// Carries out a command.
    fn command(&mut self, command: RadioCommand);

    /// Sends a frame; nothing happens if the link is gone.
    fn send(&mut self, link: LinkId, bytes: Vec<u8>);

    /// Moves the radio to a place in the plane, in metres; false if it has no place.
    fn move_to(&mut self, _x: f64, _y: f64) -> bool {
        false
    }
}

/// A radio and its events.
pub struct RadioPort {
    /// Takes commands.
    pub radio: Box<dyn Radio>,
    /// Tells what happens. Its end means that the radio is gone for good.
    pub events: mpsc::Receiver<RadioEvent>,
}

impl std::fmt::Debug for RadioPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RadioPort").finish_non_exhaustive()
    }
}

/// All radios of a node. Links and devices get numbers of the set's own, since each radio counts for itself.
pub(crate) struct RadioSet {
    ports: Vec<Port>,
    /// Whose turn it is to be asked for events first.
    turn: usize,
    numbers: Numbers,
    /// What the set itself has to say: refusals of commands that no radio can carry out.
    own_events: VecDeque<RadioEvent>,
}

struct Port {
    radio: Box<dyn Radio>,
    events: mpsc::Receiver<RadioEvent>,
    on: bool,
    /// Its event channel has ended.
    ended: bool,
}

impl RadioSet {
    pub(crate) fn new(ports: Vec<RadioPort>) -> Self {
        let port = |RadioPort { radio, events }| Port { radio, events, on: true, ended: false };
        Self {
            ports: ports.into_iter().map(port).collect(),
            turn: 0,
            numbers: Numbers::default(),
            own_events: VecDeque::new(),
        }
    }

    /// Carries out a command by the radio it concerns, or by all.
    pub(crate) fn command(&mut self, command: RadioCommand) {
        match command {
            RadioCommand::Advertise(_) | RadioCommand::Scan(_) => {
                for port in &mut self.ports {
                    port.radio.command(command.clone());
                }
            }
            RadioCommand::Connect(peer) => match self.numbers.peers.get(&peer) {
                Some((index, local)) => self.ports[*index].radio.command(RadioCommand::Connect(*local)),
                None => self.own_events.push_back(RadioEvent::OpenFailed { peer }),
            },
            RadioCommand::Close(link) => {
                if let Some((index, local)) = self.numbers.links.get(&link) {
                    self.ports[*index].radio.command(RadioCommand::Close(*local));
                }
            }
        }
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, link: LinkId, bytes: Vec<u8>) {
        if let Some((index, local)) = self.numbers.links.get(&link) {
            self.ports[*index].radio.send(*local, bytes);
        }
    }

    /// Moves every radio that has a place; false if none has.
    pub(crate) fn move_to(&mut self, x: f64, y: f64) -> bool {
        let moved = self.ports.iter_mut().filter_map(|port| port.radio.move_to(x, y).then_some(()));
        moved.count() > 0
    }

    /// Whether no link is open.
    pub(crate) fn is_silent(&self) -> bool {
        self.numbers.links.is_empty()
    }

    /// Takes up to about `limit` events from the radios in turn, so that a busy one does not silence the others.
    pub(crate) fn poll_events(&mut self, cx: &mut Context<'_>, events: &mut Vec<RadioEvent>, limit: usize) -> Poll<()> {
        events.extend(self.own_events.drain(..));
        let count = self.ports.len();
        let first = self.turn;
        let mut batch = Vec::new();
        for index in (0..count).map(|offset| (first + offset) % count) {
            if events.len() >= limit {
                break;
            }
            let port = &mut self.ports[index];
            if port.ended {
                continue;
            }
            match port.events.poll_recv_many(cx, &mut batch, limit - events.len()) {
                Poll::Ready(0) => {
                    tracing::warn!(radio = index, "a radio has ended");
                    port.ended = true;
                    self.switched(index, false, events);
                }
                Poll::Ready(_) => {
                    for event in batch.drain(..) {
                        match event {
                            RadioEvent::State { on } => self.switched(index, on, events),
                            event => events.extend(self.numbers.renumber(index, event)),
                        }
                    }
                }
                Poll::Pending => {}
            }
        }
        if count > 0 {
            self.turn = (first + 1) % count;
        }
        if events.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// A radio went on or off. Off closes its links, but not those of the others: for the protocol, which knows
    /// of one radio, that one is off when all are.
    fn switched(&mut self, index: usize, on: bool, events: &mut Vec<RadioEvent>) {
        let before = self.ports.iter().any(|port| port.on);
        self.ports[index].on = on;
        if !on {
            events.extend(self.numbers.close_all(index));
        }
        let after = self.ports.iter().any(|port| port.on);
        if before != after {
            events.push(RadioEvent::State { on: after });
        }
    }
}

/// The set's numbers for what each radio has numbered for itself.
#[derive(Default)]
struct Numbers {
    next_link: u64,
    links: BTreeMap<LinkId, (usize, LinkId)>,
    link_of: BTreeMap<(usize, LinkId), LinkId>,
    next_peer: u64,
    peers: BTreeMap<PeerAddr, (usize, PeerAddr)>,
    peer_of: BTreeMap<(usize, PeerAddr), PeerAddr>,
    peers_by_age: VecDeque<PeerAddr>,
}

impl Numbers {
    fn peer(&mut self, radio: usize, local: PeerAddr) -> PeerAddr {
        if let Some(peer) = self.peer_of.get(&(radio, local)) {
            return *peer;
        }
        if self.peers_by_age.len() >= MAX_PEERS
            && let Some(oldest) = self.peers_by_age.pop_front()
            && let Some(key) = self.peers.remove(&oldest)
        {
            self.peer_of.remove(&key);
        }
        let peer = PeerAddr(self.next_peer);
        self.next_peer += 1;
        self.peers.insert(peer, (radio, local));
        self.peer_of.insert((radio, local), peer);
        self.peers_by_age.push_back(peer);
        peer
    }

    fn close(&mut self, radio: usize, local: LinkId) -> Option<RadioEvent> {
        let link = self.link_of.remove(&(radio, local))?;
        self.links.remove(&link);
        Some(RadioEvent::Closed { link })
    }

    fn close_all(&mut self, radio: usize) -> Vec<RadioEvent> {
        let locals: Vec<LinkId> =
            self.links.values().filter(|(index, _)| *index == radio).map(|(_, local)| *local).collect();
        locals.into_iter().filter_map(|local| self.close(radio, local)).collect()
    }

    /// The event in the set's numbers; `None` for one of a link that is unknown or closed.
    fn renumber(&mut self, radio: usize, event: RadioEvent) -> Option<RadioEvent> {
        Some(match event {
            RadioEvent::Discovered { peer, beacon } => RadioEvent::Discovered { peer: self.peer(radio, peer), beacon },
            RadioEvent::Opened { link: local, peer, dialler, limits } => {
                let link = LinkId(self.next_link);
                self.next_link += 1;
                self.links.insert(link, (radio, local));
                self.link_of.insert((radio, local), link);
                RadioEvent::Opened { link, peer: self.peer(radio, peer), dialler, limits }
            }
            RadioEvent::OpenFailed { peer } => RadioEvent::OpenFailed { peer: self.peer(radio, peer) },
            RadioEvent::Data { link, bytes } => RadioEvent::Data { link: *self.link_of.get(&(radio, link))?, bytes },
            RadioEvent::Sent { link, count } => RadioEvent::Sent { link: *self.link_of.get(&(radio, link))?, count },
            RadioEvent::Closed { link } => self.close(radio, link)?,
            RadioEvent::State { on } => RadioEvent::State { on },
        })
    }
}

impl Radio for AirRadio {
    fn command(&mut self, command: RadioCommand) {
        Self::command(self, command);
    }

    fn send(&mut self, link: LinkId, bytes: Vec<u8>) {
        Self::send(self, link, bytes);
    }

    fn move_to(&mut self, x: f64, y: f64) -> bool {
        Self::move_to(self, x, y);
        true
    }
}

#[cfg(test)]
mod tests;
