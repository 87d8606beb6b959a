//! End-to-end sessions: every packet to one node is sealed for that node alone (design §4).
//!
//! A session is a Noise XX handshake carried by three packets that anybody can read, and then ChaCha20-Poly1305 with
//! explicit nonces, so that packets may be lost and reordered. Each end chooses a random number for the session, its
//! index, which the other puts in front of what it sends. The handshake proves the other end's id.
//!
//! - What is sent before there is a session waits for it. The first message is repeated after 1 s and 2 s; 4 s later
//!   the node counts as unreachable.
//! - When both ends begin at once, the handshake begun by the lower id is answered, the other is not.
//! - A lost third message shows when a packet for a session arrives that waits for it: the second is repeated then,
//!   and that packet is lost.
//! - An end that has lost a session says [`SessionUnknown`]. Anybody can say that, so it leads to a new handshake, not
//!   more than one a second, while the old session serves on.
//! - A session is replaced after an hour or 2^40 packets, when the next message is sent.

mod rate;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bbh_types::{BoundedBytes, Instant, NodeId};
use bbh_wire::message::{SessionFinish, SessionHandshake, SessionInit, SessionReply, SessionUnknown};
use bbh_wire::packet::{INITIAL_HOP_LIMIT, SESSION_BLOCK};
use bbh_wire::{Destination, Lane, MAX_MESSAGE, Message, Packet, Protection, fragment, frame};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use self::rate::RateLimiter;
use crate::identity::{Identity, NoiseKey};
use crate::link::cipher::{OpenError, Sealer, SessionReceiver, TAG_LEN};
use crate::link::handshake::{Established, Handshake, HandshakeError, MIN_MAX_FRAME, Purpose};

/// Largest payload of a packet under a session, in bytes, so that every link can carry the packet.
pub const MAX_PAYLOAD: usize = MIN_MAX_FRAME as usize - frame::OVERHEAD - Packet::UNICAST_HEADER - SESSION_BLOCK;
/// Most nodes with sessions; the one used least recently gives way.
pub const MAX_SESSIONS: usize = 256;
/// Most handshakes begun by others that are under way; the oldest gives way.
pub const MAX_HALF_OPEN: usize = 64;
/// Most of them of one node.
const MAX_HALF_OPEN_PER_SOURCE: usize = 4;
/// Most nodes without a session for which messages wait.
pub const MAX_WAITING: usize = 64;
/// As long as no more bytes wait for a node, one more message is taken.
pub const WAITING_LIMIT: usize = 96 * 1024;
/// Age at which a session is replaced.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Packets after which a session is replaced.
const SESSION_PACKETS: u64 = 1 << 40;
/// How long a replaced session still takes packets, counted from the last one.
const GRACE: Duration = Duration::from_secs(30);
/// Time to wait for an answer to the first, second and third first message.
const RETRY: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// How long a handshake begun by another may take: as long as the other tries.
const HALF_OPEN_TIMEOUT: Duration = Duration::from_secs(7);
/// Shortest time between two repetitions of the same message, and between two handshakes by [`SessionUnknown`].
const REPEAT_INTERVAL: Duration = Duration::from_millis(500);
const RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// Why a message was not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// A node has no session with itself.
    #[error("a message to this very node")]
    ToSelf,
    /// The message is larger than [`MAX_MESSAGE`].
    #[error("a message of {0} bytes exceeds the limit of {MAX_MESSAGE}")]
    TooLarge(usize),
    /// Messages for [`MAX_WAITING`] other nodes wait for their sessions.
    #[error("too many nodes have not answered yet")]
    TooManyWaiting,
    /// [`WAITING_LIMIT`] bytes wait for this node's session.
    #[error("too much waits for the node to answer")]
    QueueFull,
}

/// Why a packet or handshake message was dropped. None of these concerns the sender: strangers can cause all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Not a packet for a session of this node.
    #[error("not a packet for a session of this node")]
    NotForSession,
    /// No such session; the source is told so.
    #[error("no such session")]
    Unknown,
    /// Replayed, too late, or not authentic.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The node that shook hands is another one than the packet's source.
    #[error("{proven} claims to be {claimed}")]
    Impostor {
        /// The packet's source.
        claimed: NodeId,
        /// Who it is.
        proven: NodeId,
    },
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// A handshake message that nothing here waits for.
    #[error("a handshake message that was not expected")]
    Unexpected,
    /// Too many handshakes at the moment.
    #[error("too many handshakes")]
    TooMany,
}

struct Session {
    peer: NodeId,
    peer_key: [u8; 32],
    remote_index: u32,
    sealer: Sealer,
    receiver: SessionReceiver,
    since: Instant,
    last_used: Instant,
    /// The third handshake message, until a packet proves that it has arrived, and when it was sent last.
    finish: Option<(Message, Instant)>,
}

/// A handshake that this node has begun.
struct Outgoing {
    /// With this node's index; `None` while the next one has not begun.
    attempt: Option<(u32, Handshake, Message)>,
    tries: usize,
    next_try: Instant,
}

/// A handshake that another node has begun.
struct HalfOpen {
    source: NodeId,
    remote_index: u32,
    handshake: Handshake,
    init: BoundedBytes<512>,
    reply: Message,
    since: Instant,
    replied: Instant,
    /// Whether the second message has to be repeated as soon as it may be.
    repeat: bool,
}

#[derive(Default)]
struct Peer {
    /// Index of the session by which this node sends.
    current: Option<u32>,
    /// Index of the one before.
    previous: Option<u32>,
    outgoing: Option<Outgoing>,
    waiting: VecDeque<(Lane, Vec<u8>)>,
    waiting_bytes: usize,
    renewed: Option<Instant>,
}

impl Peer {
    fn is_idle(&self) -> bool {
        self.current.is_none() && self.previous.is_none() && self.outgoing.is_none()
    }
}

/// All sessions of a node.
pub struct Sessions {
    node: NodeId,
    key: NoiseKey,
    rng: ChaCha12Rng,
    peers: BTreeMap<NodeId, Peer>,
    sessions: BTreeMap<u32, Session>,
    half_open: BTreeMap<u32, HalfOpen>,
    packets: VecDeque<Packet>,
    failed: VecDeque<NodeId>,
    inits: RateLimiter,
    advice: RateLimiter,
    next_message: u32,
    next_sequence: u64,
    next_timeout: Option<Instant>,
}

impl Sessions {
    /// Without any session yet.
    pub fn new(identity: &Identity, rng: &mut ChaCha12Rng) -> Self {
        let second = Duration::from_secs(1);
        Self {
            node: identity.node_id(),
            key: identity.noise().clone(),
            rng: ChaCha12Rng::from_rng(rng),
            peers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            half_open: BTreeMap::new(),
            packets: VecDeque::new(),
            failed: VecDeque::new(),
            inits: RateLimiter::new(second, 4, second / 128, 128),
            advice: RateLimiter::new(second, 1, second / 64, 64),
            next_message: 0,
            next_sequence: 0,
            next_timeout: None,
        }
    }

    /// Sends an encoded message to a node in that lane: now if there is a session, else as soon as there is one.
    ///
    /// # Errors
    /// [`SendError`]; the message is dropped.
    pub fn send(&mut self, now: Instant, to: NodeId, encoded: &[u8], lane: Lane) -> Result<(), SendError> {
        if to == self.node {
            return Err(SendError::ToSelf);
        }
        if encoded.len() > MAX_MESSAGE {
            return Err(SendError::TooLarge(encoded.len()));
        }
        if let Some(index) = self.peers.get(&to).and_then(|peer| peer.current) {
            self.seal(now, index, encoded, lane);
            if let Some(session) = self.sessions.get(&index)
                && (now.since(session.since) >= SESSION_LIFETIME || session.sealer.nonce() >= SESSION_PACKETS)
            {
                self.renew(now, to);
            }
            return Ok(());
        }
        if !self.peers.contains_key(&to)
            && self.peers.values().filter(|peer| peer.current.is_none()).count() >= MAX_WAITING
        {
            return Err(SendError::TooManyWaiting);
        }
        let peer = self.peers.entry(to).or_default();
        if peer.waiting_bytes > WAITING_LIMIT {
            return Err(SendError::QueueFull);
        }
        peer.waiting_bytes += encoded.len();
        peer.waiting.push_back((lane, encoded.to_vec()));
        if peer.outgoing.is_none() {
            if self.half_open.values().any(|half_open| half_open.source == to) {
                // The other end has begun: its third message may be on the way.
                peer.outgoing = Some(Outgoing { attempt: None, tries: 0, next_try: now + RETRY[0] });
            } else {
                self.begin(now, to, 0);
            }
            self.reschedule();
        }
        Ok(())
    }

    /// The next packet to be routed.
    pub fn poll_packet(&mut self) -> Option<Packet> {
        self.packets.pop_front()
    }

    /// The next node that has not answered; the messages that waited for it are dropped.
    pub fn poll_failed(&mut self) -> Option<NodeId> {
        self.failed.pop_front()
    }

    /// Opens a packet under a session. The result is one payload, to be put together by
    /// [`fragment::Reassembly`]; `None` if the packet came before the end of its handshake, which it has speeded up.
    ///
    /// # Errors
    /// [`SessionError`]; the packet has to be dropped.
    pub fn handle_packet(&mut self, now: Instant, packet: &Packet) -> Result<Option<Vec<u8>>, SessionError> {
        if packet.protection != Protection::Session || packet.destination != Destination::One(self.node) {
            return Err(SessionError::NotForSession);
        }
        let (index, sealed) = packet.payload.split_first_chunk::<4>().ok_or(SessionError::NotForSession)?;
        let index = u32::from_be_bytes(*index);
        if let Some(session) = self.sessions.get_mut(&index)
            && session.peer == packet.source
        {
            let mut sealed = sealed.to_vec();
            let length = session.receiver.open(packet.sequence, &packet.associated_data(), &mut sealed)?.len();
            sealed.truncate(length);
            session.last_used = now;
            session.finish = None;
            return Ok(Some(sealed));
        }
        if let Some(half_open) = self.half_open.get_mut(&index)
            && half_open.source == packet.source
        {
            half_open.repeat = true;
            self.repeat_replies(now);
            self.reschedule();
            return Ok(None);
        }
        if self.advice.admit(now, packet.source) {
            self.emit(packet.source, &SessionUnknown { session: index }.into());
        }
        Err(SessionError::Unknown)
    }

    /// Takes a message of a session handshake, or [`SessionUnknown`], from a packet that says to be from `source`.
    ///
    /// # Errors
    /// [`SessionError`]; whatever it is, established sessions go on.
    pub fn handle_handshake(&mut self, now: Instant, source: NodeId, message: Message) -> Result<(), SessionError> {
        if source == self.node {
            return Err(SessionError::Unexpected);
        }
        let result = match message {
            Message::SessionInit(SessionInit(init)) => self.handle_init(now, source, init),
            Message::SessionReply(SessionReply(reply)) => self.handle_reply(now, source, &reply),
            Message::SessionFinish(SessionFinish(finish)) => self.handle_finish(now, source, &finish),
            Message::SessionUnknown(SessionUnknown { session }) => self.handle_unknown(now, source, session),
            _ => Err(SessionError::Unexpected),
        };
        self.reschedule();
        result
    }

    /// Repeats, gives up and forgets what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due: Vec<_> = self
            .peers
            .iter()
            .filter_map(|(&node, peer)| {
                let outgoing = peer.outgoing.as_ref().filter(|outgoing| outgoing.next_try <= now)?;
                Some((node, outgoing.tries))
            })
            .collect();
        for (node, tries) in due {
            if tries < RETRY.len() {
                self.begin(now, node, tries);
            } else {
                self.give_up(node);
            }
        }
        self.half_open.retain(|_, half_open| now.since(half_open.since) < HALF_OPEN_TIMEOUT);
        self.repeat_replies(now);
        for peer in self.peers.values_mut() {
            if let Some(index) = peer.previous
                && self.sessions.get(&index).is_none_or(|session| now.since(session.last_used) >= GRACE)
            {
                peer.previous = None;
                self.sessions.remove(&index);
            }
        }
        self.peers.retain(|_, peer| !peer.is_idle());
        self.reschedule();
    }

    /// When [`Sessions::handle_timeout`] has something to do.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.next_timeout
    }

    /// Whether there is a session with that node.
    pub fn is_established(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.current.is_some())
    }

    /// The proven Ed25519 key of a node with which there is a session.
    pub fn peer_key(&self, node: NodeId) -> Option<&[u8; 32]> {
        let index = self.peers.get(&node)?.current?;
        self.sessions.get(&index).map(|session| &session.peer_key)
    }

    /// Sessions kept, replaced ones included, and handshakes that others have begun.
    pub fn counts(&self) -> (usize, usize) {
        (self.sessions.len(), self.half_open.len())
    }

    fn handle_init(&mut self, now: Instant, source: NodeId, init: SessionHandshake) -> Result<(), SessionError> {
        let same = |half_open: &&mut HalfOpen| {
            half_open.source == source && half_open.remote_index == init.sender && half_open.init == init.noise
        };
        if let Some(half_open) = self.half_open.values_mut().find(same) {
            half_open.repeat = true;
            self.repeat_replies(now);
            return Ok(());
        }
        let begun = self
            .peers
            .get(&source)
            .is_some_and(|peer| peer.outgoing.as_ref().is_some_and(|outgoing| outgoing.attempt.is_some()));
        if begun && self.node < source {
            return Ok(());
        }
        if !self.inits.admit(now, source) {
            return Err(SessionError::TooMany);
        }
        let mut handshake = Handshake::new(Purpose::Session, false, &self.key, MIN_MAX_FRAME, &mut self.rng);
        if let Err(error) = handshake.read(&init.noise) {
            if matches!(error, HandshakeError::VersionMismatch { .. }) {
                let noise = bounded(&handshake.refusal());
                self.emit(source, &SessionReply(SessionHandshake { receiver: init.sender, sender: 0, noise }).into());
            }
            return Err(error.into());
        }
        let noise = bounded(&handshake.write()?);
        let index = self.free_index();
        let reply = SessionReply(SessionHandshake { receiver: init.sender, sender: index, noise }).into();
        self.emit(source, &reply);
        let of_source = self.half_open.values().filter(|half_open| half_open.source == source).count();
        if of_source >= MAX_HALF_OPEN_PER_SOURCE || self.half_open.len() >= MAX_HALF_OPEN {
            let oldest = self
                .half_open
                .iter()
                .filter(|(_, half_open)| of_source < MAX_HALF_OPEN_PER_SOURCE || half_open.source == source)
                .min_by_key(|(_, half_open)| half_open.since)
                .map(|(&index, _)| index);
            oldest.and_then(|index| self.half_open.remove(&index));
        }
        let half_open = HalfOpen {
            source,
            remote_index: init.sender,
            handshake,
            init: init.noise,
            reply,
            since: now,
            replied: now,
            repeat: false,
        };
        self.half_open.insert(index, half_open);
        Ok(())
    }

    fn repeat_replies(&mut self, now: Instant) {
        let mut due = Vec::new();
        for half_open in self.half_open.values_mut() {
            if half_open.repeat && now.since(half_open.replied) >= REPEAT_INTERVAL {
                half_open.repeat = false;
                half_open.replied = now;
                due.push((half_open.source, half_open.reply.clone()));
            }
        }
        for (source, reply) in due {
            self.emit(source, &reply);
        }
    }

    fn handle_reply(&mut self, now: Instant, source: NodeId, reply: &SessionHandshake) -> Result<(), SessionError> {
        if let Some(session) = self.sessions.get_mut(&reply.receiver)
            && session.peer == source
            && session.remote_index == reply.sender
            && let Some((finish, sent)) = &mut session.finish
        {
            if now.since(*sent) >= REPEAT_INTERVAL {
                *sent = now;
                let finish = finish.clone();
                self.emit(source, &finish);
            }
            return Ok(());
        }
        let outgoing = self.peers.get_mut(&source).and_then(|peer| peer.outgoing.as_mut());
        let outgoing = outgoing.ok_or(SessionError::Unexpected)?;
        let Some((index, mut handshake, init)) = outgoing.attempt.take_if(|(index, ..)| *index == reply.receiver)
        else {
            return Err(SessionError::Unexpected);
        };
        match handshake.read(&reply.noise) {
            Ok(()) => {}
            Err(error @ HandshakeError::Malformed) => {
                outgoing.attempt = Some((index, handshake, init));
                return Err(error.into());
            }
            Err(error) => {
                // The next try begins anew. Nothing here is proven, so that giving up at once would be a forger's gain.
                return Err(error.into());
            }
        }
        let noise = bounded(&handshake.write()?);
        let established = handshake.finish().ok_or(HandshakeError::Malformed)?;
        check_peer(source, &established)?;
        let finish = SessionFinish(SessionHandshake { receiver: reply.sender, sender: index, noise }).into();
        self.emit(source, &finish);
        self.establish(now, index, reply.sender, &established, Some((finish, now)));
        Ok(())
    }

    fn handle_finish(&mut self, now: Instant, source: NodeId, finish: &SessionHandshake) -> Result<(), SessionError> {
        let index = finish.receiver;
        let Some(half_open) = self.half_open.get_mut(&index).filter(|half_open| half_open.source == source) else {
            return Err(SessionError::Unexpected);
        };
        match half_open.handshake.read(&finish.noise) {
            Err(HandshakeError::Malformed) => Err(HandshakeError::Malformed.into()),
            result => {
                let half_open = self.half_open.remove(&index).ok_or(SessionError::Unexpected)?;
                result?;
                let established = half_open.handshake.finish().ok_or(HandshakeError::Malformed)?;
                check_peer(source, &established)?;
                self.establish(now, index, half_open.remote_index, &established, None);
                Ok(())
            }
        }
    }

    fn handle_unknown(&mut self, now: Instant, source: NodeId, session: u32) -> Result<(), SessionError> {
        let current = self.peers.get(&source).and_then(|peer| self.sessions.get(&peer.current?));
        if current.is_none_or(|current| current.remote_index != session) {
            return Err(SessionError::Unexpected);
        }
        self.renew(now, source);
        Ok(())
    }

    /// Begins a new handshake while the session serves on, unless one is or was just under way.
    fn renew(&mut self, now: Instant, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.outgoing.is_none()
            && peer.renewed.is_none_or(|renewed| now.since(renewed) >= RENEW_INTERVAL)
        {
            peer.renewed = Some(now);
            self.begin(now, node, 0);
            self.reschedule();
        }
    }

    /// Sends the first message, for the `tries + 1`st time.
    fn begin(&mut self, now: Instant, node: NodeId, tries: usize) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let attempt = match peer.outgoing.take().and_then(|outgoing| outgoing.attempt) {
            Some(attempt) => attempt,
            None => {
                let mut handshake = Handshake::new(Purpose::Session, true, &self.key, MIN_MAX_FRAME, &mut self.rng);
                let noise = bounded(&handshake.write().expect("the initiator has the first turn"));
                let index = self.free_index();
                let init = SessionInit(SessionHandshake { receiver: 0, sender: index, noise });
                (index, handshake, init.into())
            }
        };
        self.emit(node, &attempt.2);
        let outgoing = Outgoing { attempt: Some(attempt), tries: tries + 1, next_try: now + RETRY[tries] };
        self.peers.entry(node).or_default().outgoing = Some(outgoing);
    }

    fn give_up(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.outgoing = None;
        if peer.current.is_none() {
            peer.waiting.clear();
            peer.waiting_bytes = 0;
            self.failed.push_back(node);
        }
    }

    fn establish(
        &mut self,
        now: Instant,
        index: u32,
        remote_index: u32,
        established: &Established,
        finish: Option<(Message, Instant)>,
    ) {
        let node = established.remote;
        let session = Session {
            peer: node,
            peer_key: established.remote_key,
            remote_index,
            sealer: Sealer::new(&established.send),
            receiver: SessionReceiver::new(&established.receive),
            since: now,
            last_used: now,
            finish,
        };
        self.sessions.insert(index, session);
        let peer = self.peers.entry(node).or_default();
        peer.outgoing = None;
        if let Some(index) = peer.previous.take() {
            self.sessions.remove(&index);
        }
        peer.previous = peer.current.replace(index);
        if let Some(previous) = peer.previous.and_then(|index| self.sessions.get_mut(&index)) {
            previous.last_used = now;
        }
        peer.waiting_bytes = 0;
        let waiting = std::mem::take(&mut peer.waiting);
        for (lane, message) in waiting {
            self.seal(now, index, &message, lane);
        }
        self.evict(node);
    }

    fn evict(&mut self, newest: NodeId) {
        let used = |peer: &Peer| Some(self.sessions.get(&peer.current?)?.last_used);
        let others = || self.peers.iter().filter(|&(&node, _)| node != newest);
        let established = || others().filter_map(|(&node, peer)| Some((used(peer)?, node)));
        if established().count() < MAX_SESSIONS {
            return;
        }
        if let Some((_, node)) = established().min()
            && let Some(peer) = self.peers.remove(&node)
        {
            for index in peer.current.into_iter().chain(peer.previous) {
                self.sessions.remove(&index);
            }
        }
    }

    fn seal(&mut self, now: Instant, index: u32, encoded: &[u8], lane: Lane) {
        let Some(session) = self.sessions.get_mut(&index) else {
            return;
        };
        session.last_used = now;
        self.next_message = self.next_message.wrapping_add(1);
        for part in fragment::split(encoded, MAX_PAYLOAD, self.next_message) {
            let mut packet = Packet {
                lane,
                protection: Protection::Session,
                congested: false,
                hop_limit: INITIAL_HOP_LIMIT,
                source: self.node,
                destination: Destination::One(session.peer),
                sequence: session.sealer.nonce(),
                payload: Vec::with_capacity(4 + part.len() + TAG_LEN),
            };
            let associated = packet.associated_data();
            packet.payload.extend_from_slice(&session.remote_index.to_be_bytes());
            packet.payload.extend_from_slice(&part);
            let tag = session.sealer.seal(&associated, &mut packet.payload[4..]);
            packet.payload.extend_from_slice(&tag);
            self.packets.push_back(packet);
        }
    }

    /// Sends a message that anybody can read.
    fn emit(&mut self, to: NodeId, message: &Message) {
        let payloads = fragment::split(&message.encode(), MAX_PAYLOAD, 0);
        for payload in payloads {
            self.next_sequence += 1;
            self.packets.push_back(Packet {
                lane: message.lane(),
                protection: Protection::Clear,
                congested: false,
                hop_limit: INITIAL_HOP_LIMIT,
                source: self.node,
                destination: Destination::One(to),
                sequence: self.next_sequence,
                payload,
            });
        }
    }

    /// A random index that nothing here uses; 0 stands for none.
    fn free_index(&mut self) -> u32 {
        loop {
            let index = self.rng.next_u32();
            let begun = |peer: &Peer| {
                peer.outgoing.as_ref().and_then(|outgoing| outgoing.attempt.as_ref()).map(|(index, ..)| *index)
            };
            let used = self.sessions.contains_key(&index)
                || self.half_open.contains_key(&index)
                || self.peers.values().any(|peer| begun(peer) == Some(index));
            if index != 0 && !used {
                return index;
            }
        }
    }

    fn reschedule(&mut self) {
        let tries = self.peers.values().filter_map(|peer| peer.outgoing.as_ref()).map(|outgoing| outgoing.next_try);
        let half_open = self.half_open.values().map(|half_open| {
            let repeat = half_open.replied + REPEAT_INTERVAL;
            let end = half_open.since + HALF_OPEN_TIMEOUT;
            if half_open.repeat { repeat.min(end) } else { end }
        });
        let replaced = self
            .peers
            .values()
            .filter_map(|peer| self.sessions.get(&peer.previous?))
            .map(|session| session.last_used + GRACE);
        self.next_timeout = tries.chain(half_open).chain(replaced).min();
    }
}

fn check_peer(claimed: NodeId, established: &Established) -> Result<(), SessionError> {
    let proven = established.remote;
    if proven == claimed { Ok(()) } else { Err(SessionError::Impostor { claimed, proven }) }
}

fn bounded(noise: &[u8]) -> BoundedBytes<512> {
    BoundedBytes::new(noise.to_vec()).expect("handshake messages have at most 512 bytes")
}
