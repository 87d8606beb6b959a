//! A link, with a stranger at its other end.

use std::time::Duration;

use bbh_proto::link::cipher::Sealer;
use bbh_proto::link::handshake::{Handshake, Purpose};
use bbh_proto::link::{Link, LinkError, LinkInput};
use bbh_types::Instant;
use bbh_types::radio::{LinkId, LinkLimits, PeerAddr};
use bbh_wire::frame::{Flow, PREFIX};
use bbh_wire::{Destination, Lane, Packet, Protection};
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use crate::input::{Input, identity};

const START: Instant = Instant::from_micros(10_000_000);

/// A mode and `chunk u8`: bytes arrive in pieces of `chunk` + 1. The rest is, by the mode modulo 6:
///
/// | mode | |
/// |---|---|
/// | 0, 1 | the stream itself, to a link that was dialled or dials |
/// | 2 | the stream behind a genuine handshake |
/// | 3 | decrypted frames, `length u16`, bytes, each properly sealed behind a genuine handshake |
/// | 4 | changes of a genuine stream behind a genuine handshake: nothing but its beginning is delivered |
/// | 5 | changes of a genuine handshake: it comes to nothing |
///
/// A change is `place u16, bits u8`.
pub fn link(data: &[u8]) {
    let mut input = Input(data);
    let (mode, chunk) = (input.u8() % 6, usize::from(input.u8()) + 1);
    match mode {
        0 | 1 => {
            let mut end = End::new(1, mode == 1);
            end.receive(input.0, chunk);
            assert!(!end.link.is_up() && end.packets.is_empty(), "nobody guesses a handshake");
        }
        2 => {
            let mut end = introduced().0;
            end.receive(input.0, chunk);
            assert!(end.packets.is_empty(), "nobody guesses a key");
        }
        3 => {
            let (mut end, mut sealer) = introduced();
            while !input.is_empty() && end.error.is_none() {
                let mut frame = input.string().to_vec();
                let tag = sealer.seal(&[], &mut frame);
                frame.extend_from_slice(&tag);
                end.receive(&framed(&frame), chunk);
                assert!(
                    matches!(
                        end.error,
                        None | Some(LinkError::MalformedBody | LinkError::TooLarge(_) | LinkError::TimedOut)
                    ),
                    "{:?}",
                    end.error
                );
                end.wait(input.0.first().copied().unwrap_or(0));
            }
        }
        4 => changed_stream(input, chunk),
        _ => changed_handshake(input, chunk),
    }
}

/// One end of a link, and what came of it.
struct End {
    link: Link,
    now: Instant,
    up: bool,
    packets: Vec<Packet>,
    sent: Vec<u8>,
    error: Option<LinkError>,
    closed: bool,
}

impl End {
    fn new(number: u8, dialler: bool) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(number.into());
        let (id, peer) = (LinkId(1), PeerAddr(1));
        let link = Link::new(id, peer, dialler, LinkLimits::BLUETOOTH, identity(number), &mut rng, START);
        Self { link, now: START, up: false, packets: Vec::new(), sent: Vec::new(), error: None, closed: false }
    }

    fn receive(&mut self, stream: &[u8], chunk: usize) {
        for piece in stream.chunks(chunk) {
            let outcome = self.link.handle_data(self.now, piece);
            if let Some(error) = self.error {
                assert_eq!(outcome, Err(error), "an error stays");
            }
            self.error = outcome.err();
            while let Some(input) = self.link.poll_input() {
                assert!(!self.closed, "nothing comes after the farewell");
                match input {
                    LinkInput::Up { .. } => assert!(!std::mem::replace(&mut self.up, true), "up twice"),
                    LinkInput::Packet(packet, length) => {
                        assert!(self.up && length == packet.encoded_len());
                        if let (Lane::Bulk, &Destination::One(destination)) = (packet.lane, &packet.destination)
                            && destination != identity(1).node_id()
                        {
                            let flow = Flow { source: packet.source, destination, lane: Lane::Bulk };
                            self.link.grant_credit(self.now, flow, length as u32);
                        }
                        self.packets.push(packet);
                    }
                    LinkInput::Closed(_) => self.closed = true,
                }
            }
            assert!(self.error.is_none() || !self.link.is_up());
            self.drain();
        }
    }

    /// What the link sends; no more than a few frames are due to anything that came.
    fn drain(&mut self) {
        for _ in 0..100 {
            let Some(bytes) = self.link.poll_transmit(self.now) else { return };
            assert!(bytes.len() <= LinkLimits::BLUETOOTH.max_frame);
            self.sent.extend(bytes);
            self.link.handle_sent(1);
        }
        panic!("an endless stream of frames");
    }

    /// All that it has sent since the last time.
    fn take_sent(&mut self) -> Vec<u8> {
        self.drain();
        std::mem::take(&mut self.sent)
    }

    fn wait(&mut self, tenths: u8) {
        self.now += Duration::from_millis(100) * u32::from(tenths % 32);
        if self.error.is_some() || self.link.poll_timeout().is_none_or(|at| at > self.now) {
            return;
        }
        if self.link.handle_timeout(self.now).is_err() {
            self.link.abandon();
        }
        self.drain();
        assert!(self.link.poll_timeout().is_none_or(|at| at > self.now), "a timer that stands still");
    }
}

fn framed(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32).to_be_bytes()[..], content].concat()
}

/// A link to a stranger with a genuine identity who has shaken hands, and what he seals with.
fn introduced() -> (End, Sealer) {
    let mut end = End::new(1, false);
    let mut rng = ChaCha12Rng::seed_from_u64(9);
    let mut handshake = Handshake::new(Purpose::Link, true, identity(2).noise(), 4096, &mut rng);
    let write = |handshake: &mut Handshake| framed(&handshake.write().expect("it is the stranger's turn"));
    end.link.handle_data(START, &write(&mut handshake)).expect("a genuine first message");
    let answer = end.link.poll_transmit(START).expect("an answer");
    end.link.handle_sent(1);
    handshake.read(&answer[PREFIX..]).expect("a genuine answer");
    end.link.handle_data(START, &write(&mut handshake)).expect("a genuine third message");
    let keys = handshake.finish().expect("the handshake is over");
    assert!(matches!(end.link.poll_input(), Some(LinkInput::Up { .. })));
    end.up = true;
    (end, Sealer::new(&keys.send))
}

#[derive(PartialEq, Eq)]
enum Change {
    None,
    /// The genuine bytes, and some behind them.
    Added,
    Damaged,
}

/// The bytes with the changes that the input says.
fn changed(mut bytes: Vec<u8>, input: &mut Input<'_>, most: usize) -> (Vec<u8>, Change) {
    let before = bytes.clone();
    for _ in 0..most {
        if input.is_empty() || bytes.is_empty() {
            break;
        }
        let (place, bits) = (usize::from(input.u16()) % bytes.len(), input.u8());
        if bits == 0xff {
            // As good as a change of one byte: a piece is left out, or comes again.
            let end = bytes.len().min(place + usize::from(input.u8()));
            if input.u8() & 1 == 0 {
                bytes.drain(place..end);
            } else {
                let again = bytes[place..end].to_vec();
                bytes.splice(place..place, again);
            }
        } else {
            bytes[place] ^= bits;
        }
    }
    let change = match bytes.strip_prefix(&before[..]) {
        Some([]) => Change::None,
        Some(_) => Change::Added,
        None => Change::Damaged,
    };
    (bytes, change)
}

fn changed_stream(mut input: Input<'_>, chunk: usize) {
    let (mut from, mut to) = (End::new(1, true), End::new(2, false));
    for _ in 0..2 {
        let bytes = from.take_sent();
        to.link.handle_data(START, &bytes).expect("a genuine handshake");
        let bytes = to.take_sent();
        from.link.handle_data(START, &bytes).expect("a genuine handshake");
    }
    assert!(from.link.is_up() && to.link.is_up());
    let sent: Vec<Packet> = (1..=5_u8)
        .map(|number| Packet {
            lane: Lane::Chat,
            protection: Protection::Session,
            congested: false,
            hop_limit: 64,
            source: identity(1).node_id(),
            destination: Destination::One(identity(2).node_id()),
            sequence: number.into(),
            payload: vec![number; usize::from(number) * 40],
        })
        .collect();
    for packet in &sent {
        from.link.enqueue(packet, None).expect("there is room");
    }
    let (stream, change) = changed(from.take_sent(), &mut input, 8);
    to.receive(&stream, chunk);
    assert!(to.packets.len() <= sent.len() && to.packets == sent[..to.packets.len()]);
    assert_eq!(to.packets.len() < sent.len(), change == Change::Damaged, "{:?}", to.error);
    assert!(to.error.is_none() || change != Change::None);
}

fn changed_handshake(mut input: Input<'_>, chunk: usize) {
    let (mut from, mut to) = (End::new(1, true), End::new(2, false));
    let which = input.u8() % 3;
    let mut change = Change::None;
    for message in 0..3 {
        let mut bytes = from.take_sent();
        if message == which {
            (bytes, change) = changed(bytes, &mut input, 4);
        }
        to.receive(&bytes, chunk);
        std::mem::swap(&mut from, &mut to);
    }
    match change {
        Change::None => assert!(from.link.is_up() && to.link.is_up()),
        // What comes too early is taken for the beginning of the next frame.
        Change::Added => {}
        Change::Damaged => assert!(!from.link.is_up() || !to.link.is_up()),
    }
}
