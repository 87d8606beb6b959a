//! One link, from the handshake to the last frame.

use std::collections::VecDeque;
use std::time::Duration;

use bbh_types::radio::{LinkId, LinkLimits, PeerAddr};
use bbh_types::{Instant, NodeId};
use bbh_wire::frame::{Body, CloseReason, Flow, FrameDecoder, FrameError, OVERHEAD, PREFIX, TAG};
use bbh_wire::{Lane, Packet};
use rand_chacha::ChaCha12Rng;

use super::cipher::{Opener, Sealer};
use super::credit::CreditLedger;
use super::handshake::{Established, Handshake, HandshakeError, Purpose};
use super::outbox::{EnqueueError, Outbox, bulk_flow};
use crate::identity::Identity;

/// How often the leading side of a link asks for a sign of life.
pub const HEARTBEAT_PERIOD: Duration = Duration::from_millis(1800);
/// How long a link may be silent before it counts as dead (design §6).
pub const LINK_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a closing link waits for its last frames to be taken.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// After so much silence the side that does not lead asks too: both ends may think that the other leads.
const FOLLOWER_PATIENCE: Duration = Duration::from_millis(2400);

/// Why a link can't be used any more. It has to be closed, after what [`Link::poll_transmit`] still gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The handshake took too long.
    #[error("the other device did not complete the handshake within 5 s")]
    HandshakeTimeout,
    /// Nothing was heard for [`LINK_TIMEOUT`].
    #[error("the other device has been silent for 3 s")]
    TimedOut,
    /// A frame announces more bytes than the link allows.
    #[error(transparent)]
    TooLarge(#[from] FrameError),
    /// A frame is shorter than its authentication tag.
    #[error("a frame of {length} bytes is cut off")]
    Truncated {
        /// Its length in bytes.
        length: usize,
    },
    /// A frame is forged or damaged, or was replayed, left out or reordered: frames carry no number on the wire but
    /// are opened with the number expected next, so that all of these look the same.
    #[error("a frame is not authentic, or not the one that comes next")]
    NotAuthentic,
    /// An authentic frame makes no sense.
    #[error("the other device sent a frame that makes no sense")]
    MalformedBody,
}

/// What came in on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkInput {
    /// The handshake is over: from now on packets go both ways.
    Up {
        /// The neighbour's proven id.
        remote: NodeId,
        /// The neighbour's Ed25519 key.
        key: [u8; 32],
    },
    /// A packet, and its length on the wire in bytes. For one in lane bulk whose destination is another node, either
    /// [`Link::enqueue`] on another link has to be called, with this link as `from`, or [`Link::grant_credit`] here.
    Packet(Packet, usize),
    /// The neighbour closes the link.
    Closed(CloseReason),
}

/// What has passed over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCounters {
    /// Frames received and authentic, handshake included.
    pub frames_in: u64,
    /// Frames handed out.
    pub frames_out: u64,
    /// Bytes received, lengths and tags included.
    pub bytes_in: u64,
    /// Bytes handed out.
    pub bytes_out: u64,
    /// Packets received.
    pub packets_in: u64,
    /// Packets handed out.
    pub packets_out: u64,
    /// Packets received and dropped: malformed, or beyond the credit given.
    pub dropped_in: u64,
    /// Packets not taken, or dropped when the link closed or failed.
    pub dropped_out: u64,
}

struct Channel {
    sealer: Sealer,
    opener: Opener,
    remote: NodeId,
    remote_key: [u8; 32],
    version: u8,
    outbox: Outbox,
}

enum Stage {
    Handshake {
        handshake: Option<Box<Handshake>>,
        deadline: Instant,
        /// Takes no packets, but answers for those that were offered.
        early: Box<Outbox>,
    },
    Up(Box<Channel>),
}

struct Closing {
    reason: CloseReason,
    deadline: Instant,
    sent: bool,
}

/// One neighbour's link, without IO: bytes in by [`Link::handle_data`], bytes out by [`Link::poll_transmit`].
pub struct Link {
    decoder: FrameDecoder,
    state: State,
}

/// All but the decoder, whose buffer holds the frame being handled.
struct State {
    id: LinkId,
    peer: PeerAddr,
    dialler: bool,
    limits: LinkLimits,
    own: NodeId,
    stage: Stage,
    handshake_out: VecDeque<Vec<u8>>,
    inputs: VecDeque<LinkInput>,
    ledger: CreditLedger,
    in_flight: usize,
    last_heard: Instant,
    /// When this side last asked for a sign of life.
    last_asked: Instant,
    leads: bool,
    ask: bool,
    answer: bool,
    closing: Option<Closing>,
    remote_closed: bool,
    failed: Option<LinkError>,
    counters: LinkCounters,
}

impl Link {
    /// A link that the radio has just opened; `dialler` begins the handshake and leads the heartbeat at first.
    pub fn new(
        id: LinkId,
        peer: PeerAddr,
        dialler: bool,
        limits: LinkLimits,
        identity: &Identity,
        rng: &mut ChaCha12Rng,
        now: Instant,
    ) -> Self {
        let own = identity.node_id();
        let max_frame = u32::try_from(limits.max_frame).unwrap_or(u32::MAX);
        let mut handshake = Handshake::new(Purpose::Link, dialler, identity.noise(), max_frame, rng);
        let mut handshake_out = VecDeque::new();
        if dialler {
            let first = handshake.write().expect("the dialler has the first turn");
            handshake_out.push_back(clear_frame(&first));
        }
        let stage = Stage::Handshake {
            handshake: Some(Box::new(handshake)),
            deadline: now + HANDSHAKE_TIMEOUT,
            early: Box::new(Outbox::new(own, limits.max_frame)),
        };
        Self {
            decoder: FrameDecoder::new(limits.max_frame),
            state: State {
                id,
                peer,
                dialler,
                limits,
                own,
                stage,
                handshake_out,
                inputs: VecDeque::new(),
                ledger: CreditLedger::default(),
                in_flight: 0,
                last_heard: now,
                last_asked: now,
                leads: dialler,
                ask: false,
                answer: false,
                closing: None,
                remote_closed: false,
                failed: None,
                counters: LinkCounters::default(),
            },
        }
    }

    /// Bytes from the radio, cut anywhere. What came of them is given by [`Link::poll_input`], also after an error.
    ///
    /// # Errors
    /// [`LinkError`], again and again once the link has failed.
    pub fn handle_data(&mut self, now: Instant, bytes: &[u8]) -> Result<(), LinkError> {
        let state = &mut self.state;
        state.check()?;
        if state.remote_closed {
            return Ok(());
        }
        state.counters.bytes_in += bytes.len() as u64;
        if !bytes.is_empty() {
            state.last_heard = now;
        }
        self.decoder.push(bytes);
        loop {
            let result = match self.decoder.next_frame() {
                Ok(Some(frame)) => state.handle_frame(now, frame),
                Ok(None) => return Ok(()),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = result {
                return Err(state.fail(error));
            }
            if state.remote_closed {
                return Ok(());
            }
        }
    }

    /// What came in, in order.
    pub fn poll_input(&mut self) -> Option<LinkInput> {
        self.state.inputs.pop_front()
    }

    /// Puts a packet into its lane's queue. `from` is the link on which it was received, `None` for an own packet.
    ///
    /// # Errors
    /// [`EnqueueError`]; the packet is dropped and counted. The link has to be closed after
    /// [`EnqueueError::TooSlow`]. Credit for a relayed packet is reported by [`Link::poll_credit_return`] either way.
    pub fn enqueue(&mut self, packet: &Packet, from: Option<LinkId>) -> Result<(), EnqueueError> {
        let usable = self.is_up();
        match &mut self.state.stage {
            Stage::Up(channel) if usable => channel.outbox.enqueue(packet, from),
            Stage::Up(channel) => channel.outbox.refuse(packet, from),
            Stage::Handshake { early, .. } => early.refuse(packet, from),
        }
    }

    /// The next frame for the radio, while fewer than the link's limit are in flight. What is most urgent is chosen
    /// and encrypted only now, so that control packets wait behind the frames in flight at most.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        let state = &mut self.state;
        if state.in_flight >= state.limits.max_in_flight {
            return None;
        }
        let frame = state.next_frame(now)?;
        state.in_flight += 1;
        state.counters.frames_out += 1;
        state.counters.bytes_out += frame.len() as u64;
        Some(frame)
    }

    /// The radio has taken that many frames off this side's hands.
    pub fn handle_sent(&mut self, count: usize) {
        self.state.in_flight = self.state.in_flight.saturating_sub(count);
    }

    /// Relayed bulk bytes that were sent or dropped here: the link they came from, flow and bytes. To be handed to
    /// [`Link::grant_credit`] of that link.
    pub fn poll_credit_return(&mut self) -> Option<(LinkId, Flow, u32)> {
        match &mut self.state.stage {
            Stage::Up(channel) => channel.outbox.poll_passed_on(),
            Stage::Handshake { early, .. } => early.poll_passed_on(),
        }
    }

    /// Bulk bytes received on this link have been passed on or dropped: the neighbour may send as many more.
    pub fn grant_credit(&mut self, now: Instant, flow: Flow, bytes: u32) {
        self.state.ledger.grant(now, flow, bytes);
    }

    /// Bytes of bulk packets of a flow that [`Link::enqueue`] would take now.
    pub fn bulk_room(&self, flow: Flow) -> usize {
        match &self.state.stage {
            Stage::Up(channel) if self.is_up() => channel.outbox.bulk_room(flow),
            _ => 0,
        }
    }

    /// Does what is due: asks for a sign of life, or notices that there is none.
    ///
    /// # Errors
    /// [`LinkError::HandshakeTimeout`], [`LinkError::TimedOut`], or the error of before.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), LinkError> {
        let state = &mut self.state;
        state.check()?;
        if let Some(closing) = &mut state.closing
            && closing.deadline <= now
        {
            closing.sent = true;
        }
        match &state.stage {
            Stage::Handshake { deadline, .. } if *deadline <= now => {
                return Err(state.fail(LinkError::HandshakeTimeout));
            }
            Stage::Handshake { .. } => return Ok(()),
            Stage::Up(_) => {}
        }
        if state.remote_closed {
            return Ok(());
        }
        if state.last_heard + LINK_TIMEOUT <= now {
            return Err(state.fail(LinkError::TimedOut));
        }
        if state.next_ask() <= now {
            state.ask = true;
            state.last_asked = now;
        }
        Ok(())
    }

    /// When [`Link::handle_timeout`] has something to do, or [`Link::poll_transmit`] something new.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let state = &self.state;
        if state.failed.is_some() || state.remote_closed {
            return None;
        }
        let stage = match &state.stage {
            Stage::Handshake { deadline, .. } => *deadline,
            Stage::Up(_) => state.next_ask().min(state.last_heard + LINK_TIMEOUT),
        };
        let closing = state.closing.as_ref().filter(|closing| !closing.sent).map(|closing| closing.deadline);
        // While the radio is full, credit that is due has to wait for it, and the next `handle_sent` asks anyway.
        let room = state.in_flight < state.limits.max_in_flight;
        let owed = state.ledger.poll_timeout().filter(|_| room);
        [Some(stage), closing, owed].into_iter().flatten().min()
    }

    /// Whether this side leads the heartbeat. The parent's side of a tree's edge should, so that one wake-up serves
    /// all its links; the dialler does until told otherwise.
    pub fn beat_leader(&mut self, leads: bool) {
        self.state.leads = leads;
    }

    /// Closes the link: what waits in lane control goes first, then the reason; the rest is dropped.
    pub fn close(&mut self, now: Instant, reason: CloseReason) {
        let state = &mut self.state;
        if state.closing.is_some() {
            return;
        }
        let mut sent = state.failed.is_some() || state.remote_closed;
        match &mut state.stage {
            Stage::Up(channel) => channel.outbox.clear(!sent),
            Stage::Handshake { .. } => sent = true,
        }
        state.closing = Some(Closing { reason, deadline: now + CLOSE_TIMEOUT, sent });
    }

    /// Whether [`Link::close`] has been called.
    pub const fn is_closing(&self) -> bool {
        self.state.closing.is_some()
    }

    /// Whether the radio should close the link now, after the frames it was handed.
    pub fn should_close(&self) -> bool {
        let state = &self.state;
        let closed = state.remote_closed || state.failed.is_some();
        closed && state.handshake_out.is_empty() || state.closing.as_ref().is_some_and(|closing| closing.sent)
    }

    /// The radio has closed the link, or it is being given up: drops what waits, so that
    /// [`Link::poll_credit_return`] tells all that is owed to other links.
    pub fn abandon(&mut self) {
        if let Stage::Up(channel) = &mut self.state.stage {
            channel.outbox.clear(false);
        }
        self.state.remote_closed = true;
    }

    /// The radio's number of the link.
    pub const fn id(&self) -> LinkId {
        self.state.id
    }

    /// The other end as the radio names it.
    pub const fn peer(&self) -> PeerAddr {
        self.state.peer
    }

    /// Whether this side has opened the link.
    pub const fn is_dialler(&self) -> bool {
        self.state.dialler
    }

    /// The neighbour's proven id, once the handshake is over.
    pub fn remote(&self) -> Option<NodeId> {
        self.state.channel().map(|channel| channel.remote)
    }

    /// The neighbour's Ed25519 key, once the handshake is over.
    pub fn remote_key(&self) -> Option<&[u8; 32]> {
        self.state.channel().map(|channel| &channel.remote_key)
    }

    /// The protocol version spoken, once the handshake is over.
    pub fn version(&self) -> Option<u8> {
        self.state.channel().map(|channel| channel.version)
    }

    /// Whether packets may be sent: the handshake is over, and the link neither failed nor closing.
    pub fn is_up(&self) -> bool {
        let state = &self.state;
        let over = state.failed.is_some() || state.remote_closed || state.closing.is_some();
        matches!(state.stage, Stage::Up(_)) && !over
    }

    /// Largest packet the link can carry, in bytes, once the handshake is over.
    pub fn max_packet(&self) -> Option<usize> {
        self.state.channel().map(|channel| channel.outbox.max_packet())
    }

    /// Whether the radio holds no frame of this link.
    pub const fn is_idle_in_flight(&self) -> bool {
        self.state.in_flight == 0
    }

    /// Whether no packet waits in the queues.
    pub fn is_drained(&self) -> bool {
        self.state.channel().is_none_or(|channel| channel.outbox.is_empty())
    }

    /// What has passed.
    pub fn counters(&self) -> LinkCounters {
        let dropped_out = match &self.state.stage {
            Stage::Up(channel) => channel.outbox.dropped(),
            Stage::Handshake { early, .. } => early.dropped(),
        };
        LinkCounters { dropped_out, ..self.state.counters }
    }
}

impl State {
    fn channel(&self) -> Option<&Channel> {
        match &self.stage {
            Stage::Up(channel) => Some(channel),
            Stage::Handshake { .. } => None,
        }
    }

    fn check(&self) -> Result<(), LinkError> {
        self.failed.map_or(Ok(()), Err)
    }

    fn fail(&mut self, error: LinkError) -> LinkError {
        if let Stage::Up(channel) = &mut self.stage {
            channel.outbox.clear(false);
        }
        self.failed = Some(error);
        error
    }

    /// The next moment at which this side asks for a sign of life. The leader's moments are the same for all its
    /// links: multiples of the period, shifted by an amount of the node's own, so that not all nodes speak at once.
    fn next_ask(&self) -> Instant {
        if !self.leads {
            return self.last_heard.max(self.last_asked) + FOLLOWER_PATIENCE;
        }
        let period = HEARTBEAT_PERIOD.as_micros() as u64;
        let [a, b, c, d, ..] = *self.own.as_bytes();
        let shift = u64::from(u32::from_be_bytes([a, b, c, d])) % period;
        let passed = (self.last_asked.as_micros() + period - shift) / period;
        Instant::from_micros(passed.saturating_mul(period).saturating_add(shift))
    }

    fn handle_frame(&mut self, now: Instant, frame: &mut [u8]) -> Result<(), LinkError> {
        match &mut self.stage {
            Stage::Handshake { handshake, .. } => {
                let Some(under_way) = handshake else {
                    return Err(HandshakeError::Malformed.into());
                };
                match under_way.read(frame) {
                    Err(error @ HandshakeError::VersionMismatch { .. }) if !self.dialler => {
                        self.handshake_out.push_back(clear_frame(&under_way.refusal()));
                        return Err(error.into());
                    }
                    result => result?,
                }
                if under_way.is_my_turn() {
                    self.handshake_out.push_back(clear_frame(&under_way.write()?));
                }
                if under_way.is_complete() {
                    let established = handshake.take().and_then(|handshake| handshake.finish());
                    self.come_up(now, established.ok_or(HandshakeError::Malformed)?);
                }
                self.counters.frames_in += 1;
                Ok(())
            }
            Stage::Up(channel) => {
                if frame.len() < TAG {
                    return Err(LinkError::Truncated { length: frame.len() });
                }
                let body = channel.opener.open(frame).map_err(|_| LinkError::NotAuthentic)?;
                self.counters.frames_in += 1;
                match Body::decode(body).map_err(|_| LinkError::MalformedBody)? {
                    Body::Packet(bytes) => self.handle_packet(bytes),
                    Body::Beat { answer } => self.answer |= answer,
                    Body::Credit { flow, bytes } => channel.outbox.add_credit(flow, bytes),
                    Body::Close(reason) => {
                        channel.outbox.clear(false);
                        self.remote_closed = true;
                        self.inputs.push_back(LinkInput::Closed(reason));
                    }
                    Body::Unknown(_) => {}
                }
                Ok(())
            }
        }
    }

    fn come_up(&mut self, now: Instant, established: Established) {
        let remote_max = usize::try_from(established.remote_max_frame).unwrap_or(usize::MAX);
        let (remote, remote_key) = (established.remote, established.remote_key);
        self.stage = Stage::Up(Box::new(Channel {
            sealer: Sealer::new(&established.send),
            opener: Opener::new(&established.receive),
            remote,
            remote_key,
            version: established.version,
            outbox: Outbox::new(remote, self.limits.max_frame.min(remote_max)),
        }));
        self.last_asked = now;
        self.inputs.push_back(LinkInput::Up { remote, key: remote_key });
    }

    fn handle_packet(&mut self, bytes: &[u8]) {
        let admitted = Packet::decode(bytes).ok().filter(|packet| match bulk_flow(packet) {
            Some(flow) if flow.destination != self.own => {
                self.ledger.receive(flow, bytes.len(), self.limits.max_frame.saturating_sub(OVERHEAD))
            }
            Some(_) => true,
            None => packet.lane != Lane::Bulk,
        });
        match admitted {
            Some(packet) => {
                self.counters.packets_in += 1;
                self.inputs.push_back(LinkInput::Packet(packet, bytes.len()));
            }
            None => self.counters.dropped_in += 1,
        }
    }

    fn next_frame(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(frame) = self.handshake_out.pop_front() {
            return Some(frame);
        }
        if self.failed.is_some() || self.remote_closed {
            return None;
        }
        let Stage::Up(channel) = &mut self.stage else {
            return None;
        };
        let sealer = &mut channel.sealer;
        // One frame can be both the answer and the question: any frame is a sign of life.
        if self.answer || self.ask {
            let answer = std::mem::take(&mut self.ask);
            self.answer = false;
            return Some(seal_body(sealer, &Body::Beat { answer }));
        }
        if let Some((flow, bytes)) = self.ledger.poll(now) {
            return Some(seal_body(sealer, &Body::Credit { flow, bytes }));
        }
        let packet = match &mut self.closing {
            None => channel.outbox.pop(),
            Some(closing) if closing.sent => return None,
            Some(closing) => match channel.outbox.pop_control() {
                Some(packet) => Some(packet),
                None => {
                    closing.sent = true;
                    return Some(seal_body(sealer, &Body::Close(closing.reason)));
                }
            },
        };
        self.counters.packets_out += u64::from(packet.is_some());
        packet.map(|frame| seal(sealer, frame))
    }
}

/// A handshake message with its length in front.
fn clear_frame(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(PREFIX + message.len());
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

fn seal_body(sealer: &mut Sealer, body: &Body<'_>) -> Vec<u8> {
    let mut frame = Vec::with_capacity(64 + TAG);
    frame.extend_from_slice(&[0; PREFIX]);
    body.encode(&mut frame);
    seal(sealer, frame)
}

/// Encrypts a frame's plaintext where it stands, behind the place for the prefix.
fn seal(sealer: &mut Sealer, mut frame: Vec<u8>) -> Vec<u8> {
    let tag = sealer.seal(&[], &mut frame[PREFIX..]);
    frame.extend_from_slice(&tag);
    let length = (frame.len() - PREFIX) as u32;
    frame[..PREFIX].copy_from_slice(&length.to_be_bytes());
    frame
}
