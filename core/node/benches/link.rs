//! Throughput of one link over loopback TCP: packets are framed and sealed at one end, cut, opened and decoded at the
//! other, each end on a thread of its own, as two neighbours do it (one AEAD layer, design §4). Prints its figures.
//!
//! `cargo bench -p bbh-node --bench link` moves 4 GiB; `-- 512` that many MiB.

#![allow(clippy::unwrap_used, reason = "a bench stops at the first failure")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant as Clock;

use bbh_proto::Identity;
use bbh_proto::link::{Link, LinkInput};
use bbh_types::radio::{LinkId, LinkLimits, PeerAddr};
use bbh_types::{Instant, NodeId};
use bbh_wire::{Destination, Lane, Packet, Protection};
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

const NOW: Instant = Instant::ZERO;

struct End {
    link: Link,
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl End {
    fn new(seed: u8, dialler: bool, socket: TcpStream) -> Self {
        let identity = Identity::from_seed([seed; 32]);
        let mut rng = ChaCha12Rng::seed_from_u64(u64::from(seed));
        let link = Link::new(LinkId(1), PeerAddr(1), dialler, LinkLimits::TCP, &identity, &mut rng, NOW);
        socket.set_nodelay(true).unwrap();
        Self { link, socket, buffer: vec![0; 256 * 1024] }
    }

    fn send(&mut self) {
        while let Some(frame) = self.link.poll_transmit(NOW) {
            self.socket.write_all(&frame).unwrap();
            self.link.handle_sent(1);
        }
    }

    fn receive(&mut self) {
        let length = self.socket.read(&mut self.buffer).unwrap();
        assert!(length > 0, "the other end is gone");
        self.link.handle_data(NOW, &self.buffer[..length]).unwrap();
    }

    fn shake_hands(&mut self) -> NodeId {
        loop {
            self.send();
            if let Some(remote) = self.link.remote() {
                return remote;
            }
            self.receive();
        }
    }
}

fn main() {
    let mib: usize = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(4096);
    for payload in [60 * 1024, 3900] {
        let total = mib * 1024 * 1024;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = std::thread::spawn(move || {
            let mut end = End::new(2, false, listener.accept().unwrap().0);
            end.shake_hands();
            let mut received = 0;
            let mut start = None;
            while received < total {
                end.receive();
                start.get_or_insert_with(Clock::now);
                while let Some(input) = end.link.poll_input() {
                    if let LinkInput::Packet(packet, _) = input {
                        received += packet.payload.len();
                    }
                }
            }
            received as f64 / start.unwrap().elapsed().as_secs_f64()
        });
        let mut end = End::new(1, true, TcpStream::connect(address).unwrap());
        let destination = end.shake_hands();
        let packet = Packet {
            lane: Lane::Bulk,
            protection: Protection::Link,
            congested: false,
            hop_limit: 64,
            source: Identity::from_seed([1; 32]).node_id(),
            destination: Destination::One(destination),
            sequence: 0,
            payload: vec![7; payload],
        };
        let mut sent = 0;
        while sent < total {
            end.link.enqueue(&packet, None).unwrap();
            sent += payload;
            end.send();
        }
        let rate = receiver.join().unwrap();
        println!("one link over loopback TCP, packets of {payload} bytes: {:.0} MB/s", rate / 1e6);
    }
}
