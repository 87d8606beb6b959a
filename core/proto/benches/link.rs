//! How fast one link is: packets of 4 KiB and 64 KiB from one end to the other in memory, and each half of the cipher.
//!
//! `end_to_end` is all that one packet costs both ends together: encoding, queueing, sealing, cutting the stream,
//! opening and decoding. A real end does one half of it.

use bbh_proto::Identity;
use bbh_proto::link::cipher::{Opener, Sealer};
use bbh_proto::link::{Link, LinkInput};
use bbh_types::Instant;
use bbh_types::radio::{LinkId, LinkLimits, PeerAddr};
use bbh_wire::frame::OVERHEAD;
use bbh_wire::{Destination, Lane, Packet, Protection};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

const NOW: Instant = Instant::ZERO;

fn pair(limits: LinkLimits) -> (Link, Link) {
    let mut rng = ChaCha12Rng::seed_from_u64(1);
    let mut link = |number: u8, dialler| {
        let identity = Identity::from_seed([number; 32]);
        Link::new(LinkId(1), PeerAddr(1), dialler, limits, &identity, &mut rng, NOW)
    };
    let (mut a, mut b) = (link(1, true), link(2, false));
    for _ in 0..3 {
        pass(&mut a, &mut b);
        pass(&mut b, &mut a);
    }
    assert!(a.is_up() && b.is_up());
    (a, b)
}

fn pass(from: &mut Link, to: &mut Link) {
    if let Some(frame) = from.poll_transmit(NOW) {
        from.handle_sent(1);
        to.handle_data(NOW, &frame).expect("the ends belong together");
    }
}

fn end_to_end(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("link");
    for limits in [LinkLimits::BLUETOOTH, LinkLimits::TCP] {
        let (mut a, mut b) = pair(limits);
        while b.poll_input().is_some() {}
        let header = Packet::UNICAST_HEADER;
        let packet = Packet {
            lane: Lane::Bulk,
            protection: Protection::Link,
            congested: false,
            hop_limit: 1,
            source: Identity::from_seed([1; 32]).node_id(),
            destination: Destination::One(Identity::from_seed([2; 32]).node_id()),
            sequence: 0,
            payload: vec![7; limits.max_frame - OVERHEAD - header],
        };
        group.throughput(Throughput::Bytes(limits.max_frame as u64));
        group.bench_function(format!("end_to_end/{}", limits.max_frame), |bencher| {
            bencher.iter(|| {
                a.enqueue(&packet, None).expect("the queue is empty");
                pass(&mut a, &mut b);
                assert!(matches!(b.poll_input(), Some(LinkInput::Packet(..))));
            });
        });
    }
    group.finish();
}

fn cipher(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cipher");
    for length in [4096, 65_536] {
        group.throughput(Throughput::Bytes(length as u64));
        let mut sealer = Sealer::new(&[1; 32]);
        let mut buffer = vec![7; length];
        group.bench_function(format!("seal/{length}"), |bencher| bencher.iter(|| sealer.seal(&[], &mut buffer)));
        let mut sealer = Sealer::new(&[1; 32]);
        let mut opener = Opener::new(&[1; 32]);
        let mut frame = Vec::with_capacity(length + 16);
        group.bench_function(format!("seal_and_open/{length}"), |bencher| {
            bencher.iter(|| {
                frame.clear();
                frame.extend_from_slice(&buffer);
                let tag = sealer.seal(&[], &mut frame);
                frame.extend_from_slice(&tag);
                opener.open(&mut frame).expect("it was just sealed").len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, end_to_end, cipher);
criterion_main!(benches);
