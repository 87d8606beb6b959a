use bbh_proto::link::credit::{CREDIT_BATCH, CreditLedger};
use bbh_proto::link::outbox::{CONGESTION_MARK, FLOW_CREDIT, FLOW_LIMIT, MAX_FLOWS, bulk_flow};
use bbh_proto::link::{EnqueueError, Flow, Link};
use bbh_types::radio::{LinkId, LinkLimits};
use bbh_types::{Instant, NodeId};
use bbh_wire::{Lane, Packet};

use crate::pair::{Pair, link, node, packet, packets};

const SIZE: usize = 4000;

fn bulk(source: u8, destination: u8, number: u64, length: usize) -> Packet {
    packet(Lane::Bulk, node(source), node(destination), number, length)
}

fn flow(source: u8, destination: u8) -> Flow {
    bulk_flow(&bulk(source, destination, 0, SIZE)).unwrap()
}

#[test]
fn two_flows_get_equal_shares_whatever_the_size_of_their_packets() {
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    let (mut large, mut small) = (0_usize, 0_usize);
    for _ in 0..1000 {
        while pair.a.bulk_room(flow(3, 2)) >= SIZE {
            pair.a.enqueue(&bulk(3, 2, 0, SIZE), None).unwrap();
        }
        while pair.a.bulk_room(flow(4, 2)) >= 700 {
            pair.a.enqueue(&bulk(4, 2, 0, 700), None).unwrap();
        }
        let frame = pair.a.poll_transmit(pair.now).unwrap();
        pair.a.handle_sent(1);
        pair.b.handle_data(pair.now, &frame).unwrap();
        for packet in packets(&mut pair.b) {
            *(if packet.source == node(3) { &mut large } else { &mut small }) += packet.encoded_len();
        }
    }
    assert!(large > 500_000 && large.abs_diff(small) <= 2 * 4096, "{large} to {small}");
}

#[test]
fn credit_stops_a_flow_at_32_kib_and_nothing_is_lost() {
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    for number in 0..16 {
        pair.a.enqueue(&bulk(1, 7, number, SIZE), None).unwrap();
    }
    pair.pump();
    let mut arrived = packets(&mut pair.b);
    assert_eq!(arrived.len(), FLOW_CREDIT as usize / SIZE);
    // Other flows are not held up by this one.
    pair.a.enqueue(&bulk(1, 8, 0, SIZE), None).unwrap();
    pair.a.enqueue(&bulk(1, 2, 0, SIZE), None).unwrap();
    pair.pump();
    assert_eq!(packets(&mut pair.b).len(), 2);
    while arrived.len() < 16 {
        let before = arrived.len();
        for _ in 0..3 {
            pair.b.grant_credit(pair.now, flow(1, 7), SIZE as u32);
        }
        pair.pump();
        arrived.extend(packets(&mut pair.b));
        assert_eq!(arrived.len(), (before + 3).min(16));
    }
    assert!(arrived.iter().map(|packet| packet.sequence).eq(0..16));
}

#[test]
fn a_relay_holds_64_kib_of_a_flow_and_drops_what_is_beyond() {
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    let from = Some(LinkId(77));
    for number in 0..16 {
        pair.a.enqueue(&bulk(5, 7, number, SIZE), from).unwrap();
    }
    assert_eq!(pair.a.enqueue(&bulk(5, 7, 16, SIZE), from), Err(EnqueueError::FlowFull));
    assert_eq!(pair.a.poll_credit_return(), Some((LinkId(77), flow(5, 7), SIZE as u32)), "dropped is passed on too");
    assert_eq!(pair.a.poll_credit_return(), None);
    const { assert!(16 * SIZE <= FLOW_LIMIT && 17 * SIZE > FLOW_LIMIT) };
}

#[test]
fn what_a_flow_owes_at_its_end_is_settled_by_a_timer() {
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    pair.a.enqueue(&bulk(1, 7, 0, SIZE), None).unwrap();
    pair.pump();
    let sent_before = pair.b.counters().frames_out;
    pair.b.grant_credit(pair.now, flow(1, 7), SIZE as u32);
    pair.pump();
    assert_eq!(pair.b.counters().frames_out, sent_before, "too little to be worth a frame");
    pair.now = pair.b.poll_timeout().unwrap();
    pair.b.handle_timeout(pair.now).unwrap();
    pair.pump();
    assert_eq!(pair.b.counters().frames_out, sent_before + 1);
    // With all credit back, the whole of it can be used again.
    for number in 0..8 {
        pair.a.enqueue(&bulk(1, 7, number, SIZE), None).unwrap();
    }
    pair.pump();
    assert_eq!(packets(&mut pair.b).len(), 9);
}

#[test]
fn credit_goes_back_in_batches() {
    let mut ledger = CreditLedger::default();
    let now = Instant::ZERO;
    for _ in 0..8 {
        assert!(ledger.receive(flow(1, 7), SIZE, SIZE));
    }
    let mut frames = 0;
    for _ in 0..8 {
        ledger.grant(now, flow(1, 7), SIZE as u32);
        while let Some((_, bytes)) = ledger.poll(now) {
            assert!(bytes >= CREDIT_BATCH);
            frames += 1;
        }
    }
    assert_eq!(frames, 2);
}

#[test]
fn who_sends_beyond_his_credit_by_more_than_a_frame_loses_the_packet_only() {
    let mut ledger = CreditLedger::default();
    let taken = (0..100).filter(|_| ledger.receive(flow(1, 7), SIZE, SIZE)).count();
    assert_eq!(taken, (FLOW_CREDIT as usize + SIZE) / SIZE);
    ledger.grant(Instant::ZERO, flow(1, 7), 2 * FLOW_CREDIT);
    assert_eq!(ledger.poll(Instant::ZERO), Some((flow(1, 7), (taken * SIZE) as u32)), "no more than was received");
    assert_eq!(ledger.flows(), 0);
}

#[test]
fn a_flood_of_flows_is_bounded_at_both_ends() {
    let invented = |number: u16| {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        NodeId::from_bytes(id)
    };
    let mut ledger = CreditLedger::default();
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    for number in 0..10_000 {
        let packet = packet(Lane::Bulk, invented(number), node(7), 0, SIZE);
        let taken = ledger.receive(bulk_flow(&packet).unwrap(), SIZE, SIZE);
        assert_eq!(taken, usize::from(number) < MAX_FLOWS);
        assert_eq!(pair.a.enqueue(&packet, None).is_ok(), usize::from(number) < MAX_FLOWS);
    }
    assert_eq!(ledger.flows(), MAX_FLOWS);
    assert_eq!(pair.a.bulk_room(flow(1, 7)), 0);
    // Control still passes.
    pair.a.enqueue(&packet(Lane::Control, node(1), node(2), 5, 100), None).unwrap();
    pair.pump();
    assert!(packets(&mut pair.b).iter().any(|packet| packet.lane == Lane::Control));
}

#[test]
fn a_relays_filling_queue_marks_its_packets_and_a_sources_own_does_not() {
    for (from, unmarked) in [(Some(LinkId(9)), CONGESTION_MARK / SIZE + 1), (None, 16)] {
        let mut pair = Pair::new(LinkLimits::BLUETOOTH);
        for number in 0..16 {
            pair.a.enqueue(&bulk(1, 2, number, SIZE), from).unwrap();
        }
        pair.pump();
        let marks: Vec<_> = packets(&mut pair.b).iter().map(|packet| packet.congested).collect();
        assert_eq!(marks, [vec![false; unmarked], vec![true; 16 - unmarked]].concat(), "from {from:?}");
    }
}

/// Node 1 sends to node 3 over node 2, whose second link is slower than its first.
#[test]
fn a_relay_with_a_slow_second_link_holds_at_most_64_kib_and_loses_nothing() {
    let mut first = Pair::new(LinkLimits::BLUETOOTH);
    let now = first.now;
    let mut out = link(3, 2, true, LinkLimits::BLUETOOTH, now);
    let mut end = link(4, 3, false, LinkLimits::BLUETOOTH, now);
    let exchange = |from: &mut Link, to: &mut Link| {
        let frame = from.poll_transmit(now);
        if let Some(frame) = &frame {
            from.handle_sent(1);
            to.handle_data(now, frame).unwrap();
        }
        frame.is_some()
    };
    while exchange(&mut out, &mut end) | exchange(&mut end, &mut out) {}
    let total = 200;
    let (mut next, mut arrived, mut held, mut most_held) = (0, Vec::new(), 0, 0);
    for round in 0.. {
        while next < total && first.a.bulk_room(flow(1, 3)) >= SIZE {
            first.a.enqueue(&bulk(1, 3, next, SIZE), None).unwrap();
            next += 1;
        }
        first.pump();
        for packet in packets(&mut first.b) {
            held += packet.encoded_len();
            out.enqueue(&packet, Some(LinkId(2))).unwrap();
        }
        most_held = most_held.max(held);
        if round % 3 == 0 {
            exchange(&mut out, &mut end);
            exchange(&mut end, &mut out);
        }
        while let Some((from, flow, bytes)) = out.poll_credit_return() {
            assert_eq!(from, LinkId(2));
            held -= bytes as usize;
            first.b.grant_credit(now, flow, bytes);
        }
        arrived.extend(packets(&mut end).iter().map(|packet| packet.sequence));
        if arrived.len() as u64 == total {
            break;
        }
        assert!(round < 5000, "stuck at {} of {total}", arrived.len());
    }
    assert!(arrived.into_iter().eq(0..total));
    assert!(most_held <= FLOW_CREDIT as usize && most_held <= FLOW_LIMIT, "{most_held}");
    assert_eq!(out.counters().dropped_out + first.b.counters().dropped_in, 0);
}

#[test]
fn a_link_that_goes_down_gives_back_the_credit_of_what_waited() {
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    for number in 0..3 {
        pair.a.enqueue(&bulk(5, 7, number, SIZE), Some(LinkId(77))).unwrap();
    }
    pair.a.abandon();
    assert!(pair.a.enqueue(&bulk(5, 7, 3, SIZE), Some(LinkId(77))).is_err());
    let returned: Vec<_> = std::iter::from_fn(|| pair.a.poll_credit_return()).collect();
    assert_eq!(returned, [(LinkId(77), flow(5, 7), SIZE as u32); 4]);
}
