//! Two ends of a link without a radio between them, and a peer that can say anything.

use std::sync::OnceLock;

use bbh_proto::Identity;
use bbh_proto::link::cipher::{Opener, Sealer};
use bbh_proto::link::handshake::{Handshake, Purpose};
use bbh_proto::link::{Link, LinkError, LinkInput};
use bbh_types::radio::{LinkId, LinkLimits, PeerAddr};
use bbh_types::{Instant, NodeId};
use bbh_wire::frame::PREFIX;
use bbh_wire::{Destination, Lane, Packet, Protection};
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

pub fn identity(number: u8) -> Identity {
    Identity::from_seed([number; 32])
}

pub fn node(number: u8) -> NodeId {
    static NODES: OnceLock<Vec<NodeId>> = OnceLock::new();
    NODES.get_or_init(|| (0..=u8::MAX).map(|number| identity(number).node_id()).collect())[usize::from(number)]
}

pub fn link(id: u64, own: u8, dialler: bool, limits: LinkLimits, now: Instant) -> Link {
    let mut rng = ChaCha12Rng::seed_from_u64(id);
    Link::new(LinkId(id), PeerAddr(id), dialler, limits, &identity(own), &mut rng, now)
}

pub fn packet(lane: Lane, source: NodeId, destination: NodeId, sequence: u64, length: usize) -> Packet {
    Packet {
        lane,
        protection: Protection::Session,
        congested: false,
        hop_limit: 64,
        source,
        destination: Destination::One(destination),
        sequence,
        payload: vec![sequence as u8; length - Packet::UNICAST_HEADER],
    }
}

/// Node 1, which dials, and node 2.
pub struct Pair {
    pub a: Link,
    pub b: Link,
    pub now: Instant,
    pub chunk: usize,
}

impl Pair {
    /// With the handshake done.
    pub fn new(limits: LinkLimits) -> Self {
        let mut pair = Self::unconnected(limits, usize::MAX);
        pair.pump();
        assert_eq!(pair.a.poll_input(), Some(LinkInput::Up { remote: node(2), key: identity(2).public_key() }));
        assert_eq!(pair.b.poll_input(), Some(LinkInput::Up { remote: node(1), key: identity(1).public_key() }));
        pair
    }

    pub fn unconnected(limits: LinkLimits, chunk: usize) -> Self {
        let now = Instant::from_micros(10_000_000);
        Self { a: link(1, 1, true, limits, now), b: link(2, 2, false, limits, now), now, chunk }
    }

    /// Lets both ends send until neither has anything more to say.
    pub fn pump(&mut self) {
        self.try_pump().unwrap();
    }

    pub fn try_pump(&mut self) -> Result<(), LinkError> {
        loop {
            let mut quiet = true;
            for forth in [true, false] {
                let (from, to) = if forth { (&mut self.a, &mut self.b) } else { (&mut self.b, &mut self.a) };
                // One at a time, so that neither end runs ahead of the other.
                if let Some(bytes) = from.poll_transmit(self.now) {
                    quiet = false;
                    from.handle_sent(1);
                    for piece in bytes.chunks(self.chunk) {
                        to.handle_data(self.now, piece)?;
                    }
                }
            }
            if quiet {
                return Ok(());
            }
        }
    }
}

pub fn packets(link: &mut Link) -> Vec<Packet> {
    std::iter::from_fn(|| link.poll_input())
        .filter_map(|input| match input {
            LinkInput::Packet(packet, length) => {
                assert_eq!(length, packet.encoded_len());
                Some(packet)
            }
            _ => None,
        })
        .collect()
}

/// The other end of a link, node 9, in the test's own hands.
pub struct Puppet {
    pub link: Link,
    pub sealer: Sealer,
    pub opener: Opener,
    pub now: Instant,
}

impl Puppet {
    pub fn new() -> Self {
        let now = Instant::from_micros(10_000_000);
        let mut link = link(1, 1, false, LinkLimits::BLUETOOTH, now);
        let mut rng = ChaCha12Rng::seed_from_u64(9);
        let mut handshake = Handshake::new(Purpose::Link, true, identity(9).noise(), 4096, &mut rng);
        link.handle_data(now, &framed(&handshake.write().unwrap())).unwrap();
        handshake.read(&link.poll_transmit(now).unwrap()[PREFIX..]).unwrap();
        link.handle_sent(1);
        link.handle_data(now, &framed(&handshake.write().unwrap())).unwrap();
        let keys = handshake.finish().unwrap();
        assert!(matches!(link.poll_input(), Some(LinkInput::Up { remote, .. }) if remote == node(9)));
        Self { link, sealer: Sealer::new(&keys.send), opener: Opener::new(&keys.receive), now }
    }

    /// A frame with this plaintext.
    pub fn seal(&mut self, body: &[u8]) -> Vec<u8> {
        let mut frame = body.to_vec();
        let tag = self.sealer.seal(&[], &mut frame);
        frame.extend_from_slice(&tag);
        framed(&frame)
    }

    pub fn say(&mut self, body: &[u8]) -> Result<(), LinkError> {
        let frame = self.seal(body);
        self.link.handle_data(self.now, &frame)
    }

    /// The plaintexts of what the link sends.
    pub fn heard(&mut self) -> Vec<Vec<u8>> {
        let mut heard = Vec::new();
        while let Some(mut frame) = self.link.poll_transmit(self.now) {
            self.link.handle_sent(1);
            heard.push(self.opener.open(&mut frame[PREFIX..]).unwrap().to_vec());
        }
        heard
    }
}

pub fn framed(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32).to_be_bytes()[..], content].concat()
}
