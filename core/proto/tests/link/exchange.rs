use bbh_proto::link::{CLOSE_TIMEOUT, CloseReason, EnqueueError, LinkInput};
use bbh_types::radio::{LinkId, LinkLimits};
use bbh_wire::frame::OVERHEAD;
use bbh_wire::{Destination, Lane, Protection};

use crate::pair::{Pair, node, packet, packets};

#[test]
fn packets_of_all_lanes_arrive_however_the_bytes_are_cut() {
    for chunk in [1, 7, 1000, usize::MAX] {
        let mut pair = Pair::unconnected(LinkLimits::BLUETOOTH, chunk);
        pair.pump();
        let mut sent = Vec::new();
        for (number, lane) in Lane::ALL.into_iter().cycle().take(12).enumerate() {
            let there = packet(lane, node(1), node(2), number as u64, 60 + 300 * number);
            let back = packet(lane, node(2), node(1), number as u64, 3000);
            pair.a.enqueue(&there, None).unwrap();
            pair.b.enqueue(&back, None).unwrap();
            sent.push(there);
        }
        pair.pump();
        sent.sort_by_key(|packet| packet.lane);
        assert_eq!(packets(&mut pair.b), sent, "in pieces of {chunk}");
        assert_eq!(packets(&mut pair.a).len(), 12);
        assert_eq!(pair.a.counters().bytes_out, pair.b.counters().bytes_in);
        assert_eq!(pair.a.counters().frames_out, pair.b.counters().frames_in);
        assert!(pair.a.is_drained() && pair.a.is_idle_in_flight());
    }
}

#[test]
fn control_overtakes_all_but_the_two_frames_in_flight() {
    use Lane::{Bulk, Chat, Control, Search};
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    for number in 0..8 {
        pair.a.enqueue(&packet(Bulk, node(1), node(2), number, 4000), None).unwrap();
    }
    let mut stream: Vec<_> = std::iter::from_fn(|| pair.a.poll_transmit(pair.now)).collect();
    assert_eq!(stream.len(), 2, "no more may be in flight");
    for lane in [Search, Chat, Control] {
        pair.a.enqueue(&packet(lane, node(1), node(2), 0, 100), None).unwrap();
    }
    pair.a.handle_sent(2);
    while let Some(frame) = pair.a.poll_transmit(pair.now) {
        pair.a.handle_sent(1);
        stream.push(frame);
    }
    pair.b.handle_data(pair.now, &stream.concat()).unwrap();
    let lanes: Vec<_> = packets(&mut pair.b).iter().map(|packet| packet.lane).collect();
    assert_eq!(lanes[..6], [Bulk, Bulk, Control, Chat, Search, Bulk]);
    assert_eq!(lanes.len(), 11);
}

#[test]
fn the_largest_packet_passes_and_a_larger_one_is_refused() {
    let mut pair = Pair::new(LinkLimits::TCP);
    let limit = LinkLimits::TCP.max_frame - OVERHEAD;
    assert_eq!(pair.a.max_packet(), Some(limit));
    pair.a.enqueue(&packet(Lane::Search, node(1), node(2), 1, limit), None).unwrap();
    let refused = pair.a.enqueue(&packet(Lane::Search, node(1), node(2), 1, limit + 1), None);
    assert_eq!(refused, Err(EnqueueError::TooLarge { length: limit + 1, limit }));
    pair.pump();
    assert_eq!(packets(&mut pair.b).len(), 1);
}

#[test]
fn frames_are_no_larger_than_the_smaller_end_takes() {
    let mut pair = Pair::unconnected(LinkLimits::TCP, usize::MAX);
    pair.b = crate::pair::link(2, 2, false, LinkLimits::BLUETOOTH, pair.now);
    pair.pump();
    assert_eq!(pair.a.max_packet(), Some(4096 - OVERHEAD));
}

#[test]
fn a_full_lane_drops_the_newest_and_a_full_control_lane_condemns_the_link() {
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    for number in 0..64 {
        pair.a.enqueue(&packet(Lane::Chat, node(1), node(2), number, 4000), None).unwrap();
    }
    pair.a.enqueue(&packet(Lane::Chat, node(1), node(2), 64, 4000), None).unwrap();
    let refused = pair.a.enqueue(&packet(Lane::Chat, node(1), node(2), 99, 4000), None);
    assert_eq!(refused, Err(EnqueueError::LaneFull));
    assert_eq!(pair.a.counters().dropped_out, 1);
    for number in 0..131 {
        pair.a.enqueue(&packet(Lane::Control, node(1), node(2), number, 4000), None).unwrap();
    }
    let refused = pair.a.enqueue(&packet(Lane::Control, node(1), node(2), 99, 4000), None);
    assert_eq!(refused, Err(EnqueueError::TooSlow));
    pair.pump();
    let sequences: Vec<_> = packets(&mut pair.b).iter().map(|packet| packet.sequence).collect();
    assert_eq!(sequences, (0..131).chain(0..65).collect::<Vec<_>>());
}

#[test]
fn relayed_control_packets_neither_condemn_the_link_nor_take_the_place_of_its_own() {
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    let relayed = |pair: &mut Pair, number| {
        pair.a.enqueue(&packet(Lane::Control, node(3), node(4), number, 4000), Some(LinkId(9)))
    };
    let taken = (0..1000).take_while(|&number| relayed(&mut pair, number).is_ok()).count();
    assert_eq!(taken, 65);
    assert_eq!(relayed(&mut pair, 99), Err(EnqueueError::LaneFull));
    for number in 0..65 {
        pair.a.enqueue(&packet(Lane::Control, node(1), node(2), number, 4000), None).unwrap();
    }
    assert!(pair.a.is_up());
}

#[test]
fn closing_sends_what_control_has_to_say_then_the_reason_and_nothing_else() {
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    pair.a.enqueue(&packet(Lane::Bulk, node(1), node(2), 1, 1000), None).unwrap();
    pair.a.enqueue(&packet(Lane::Control, node(1), node(2), 2, 1000), None).unwrap();
    pair.a.close(pair.now, CloseReason::Refused);
    assert!(pair.a.is_closing() && !pair.a.should_close() && !pair.a.is_up());
    let refused = pair.a.enqueue(&packet(Lane::Control, node(1), node(2), 3, 1000), None);
    assert_eq!(refused, Err(EnqueueError::NotUp));
    pair.pump();
    assert!(pair.a.should_close());
    assert!(matches!(pair.b.poll_input(), Some(LinkInput::Packet(packet, _)) if packet.sequence == 2));
    assert_eq!(pair.b.poll_input(), Some(LinkInput::Closed(CloseReason::Refused)));
    assert_eq!(pair.b.poll_input(), None);
    assert!(pair.b.should_close() && !pair.b.is_up());
}

#[test]
fn a_closing_link_whose_radio_takes_nothing_closes_all_the_same() {
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    pair.a.enqueue(&packet(Lane::Control, node(1), node(2), 2, 1000), None).unwrap();
    pair.a.close(pair.now, CloseReason::Stopping);
    let mut now = pair.now;
    while !pair.a.should_close() {
        now = pair.a.poll_timeout().unwrap();
        pair.a.handle_timeout(now).unwrap();
    }
    assert_eq!(now.since(pair.now), CLOSE_TIMEOUT);
}

#[test]
fn bulk_for_many_is_taken_by_neither_end() {
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    let mut packet = packet(Lane::Bulk, node(1), node(2), 1, 1000);
    packet.protection = Protection::Signed;
    packet.destination = Destination::Broadcast;
    assert_eq!(pair.a.enqueue(&packet, None), Err(EnqueueError::NotUnicast));
    let mut puppet = crate::pair::Puppet::new();
    let mut body = vec![bbh_wire::frame::KIND_PACKET];
    packet.encode(&mut body);
    puppet.say(&body).unwrap();
    assert_eq!(puppet.link.poll_input(), None);
    assert_eq!(puppet.link.counters().dropped_in, 1);
}
