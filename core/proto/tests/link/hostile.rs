use bbh_proto::link::cipher::Sealer;
use bbh_proto::link::handshake::{Handshake, Purpose, Versions};
use bbh_proto::link::outbox::FLOW_CREDIT;
use bbh_proto::link::{EnqueueError, HandshakeError, LinkError, LinkInput};
use bbh_types::radio::{LinkId, LinkLimits};
use bbh_wire::Lane;
use bbh_wire::frame::{Body, FrameError, KIND_PACKET, PREFIX};
use proptest::prelude::*;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use crate::pair::{Pair, Puppet, framed, identity, link, node, packet, packets};

fn chat(number: u64) -> bbh_wire::Packet {
    packet(Lane::Chat, node(1), node(2), number, 100)
}

#[test]
fn a_frame_under_another_key_is_not_authentic() {
    let mut puppet = Puppet::new();
    puppet.sealer = Sealer::new(&[3; 32]);
    assert_eq!(puppet.say(&[KIND_PACKET]), Err(LinkError::NotAuthentic));
    assert!(!puppet.link.is_up() && puppet.link.should_close());
}

#[test]
fn a_replayed_frame_is_not_authentic_and_nothing_of_it_is_delivered() {
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    pair.a.enqueue(&chat(1), None).unwrap();
    let frame = pair.a.poll_transmit(pair.now).unwrap();
    pair.b.handle_data(pair.now, &frame).unwrap();
    assert_eq!(pair.b.handle_data(pair.now, &frame), Err(LinkError::NotAuthentic));
    assert_eq!(packets(&mut pair.b).len(), 1);
}

#[test]
fn a_frame_left_out_shows_at_the_next_one() {
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    pair.a.enqueue(&chat(1), None).unwrap();
    pair.a.enqueue(&chat(2), None).unwrap();
    pair.a.poll_transmit(pair.now).unwrap();
    let second = pair.a.poll_transmit(pair.now).unwrap();
    assert_eq!(pair.b.handle_data(pair.now, &second), Err(LinkError::NotAuthentic));
}

#[test]
fn a_stream_that_lacks_bytes_is_refused_and_what_came_before_is_kept() {
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    let mut stream = Vec::new();
    for number in 1..=3 {
        pair.a.enqueue(&chat(number), None).unwrap();
        stream.push(pair.a.poll_transmit(pair.now).unwrap());
        pair.a.handle_sent(1);
    }
    let whole = stream.concat();
    let cut = [&whole[..stream[0].len() + 30], &whole[stream[0].len() + 40..]].concat();
    assert_eq!(pair.b.handle_data(pair.now, &cut), Err(LinkError::NotAuthentic));
    assert_eq!(packets(&mut pair.b), [chat(1)]);
}

#[test]
fn a_frame_shorter_than_its_tag_is_truncated() {
    let mut puppet = Puppet::new();
    let result = puppet.link.handle_data(puppet.now, &framed(&[0; 15]));
    assert_eq!(result, Err(LinkError::Truncated { length: 15 }));
}

#[test]
fn a_length_of_4_gib_is_refused_before_and_after_the_handshake() {
    let too_large = LinkError::TooLarge(FrameError::TooLarge {
        length: u64::from(u32::MAX),
        limit: LinkLimits::BLUETOOTH.max_frame,
    });
    let mut puppet = Puppet::new();
    assert_eq!(puppet.link.handle_data(puppet.now, &[0xff; 4]), Err(too_large));
    let mut fresh = link(1, 1, false, LinkLimits::BLUETOOTH, puppet.now);
    assert_eq!(fresh.handle_data(puppet.now, &[0xff; 4]), Err(too_large));
    // The error stays, whatever follows.
    assert_eq!(fresh.handle_data(puppet.now, &[0; 4]), Err(too_large));
}

#[test]
fn a_malformed_packet_in_a_good_frame_is_dropped_and_the_link_stays() {
    let mut puppet = Puppet::new();
    puppet.say(&[KIND_PACKET, 1, 0xff, 3]).unwrap();
    puppet.say(&[KIND_PACKET]).unwrap();
    assert_eq!(puppet.link.counters().dropped_in, 2);
    let mut body = vec![KIND_PACKET];
    packet(Lane::Chat, node(9), node(1), 1, 100).encode(&mut body);
    puppet.say(&body).unwrap();
    assert_eq!(packets(&mut puppet.link).len(), 1);
}

#[test]
fn a_frame_body_of_a_newer_version_is_skipped_and_a_malformed_one_is_an_error() {
    let mut puppet = Puppet::new();
    puppet.say(&[200, 1, 2, 3]).unwrap();
    assert!(puppet.link.is_up());
    assert_eq!(puppet.say(&[2]), Err(LinkError::MalformedBody));
}

#[test]
fn credit_for_what_was_never_sent_gives_no_right_to_send_more() {
    let mut puppet = Puppet::new();
    let bulk = packet(Lane::Bulk, node(1), node(7), 0, 4000);
    let flow = bbh_proto::link::outbox::bulk_flow(&bulk).unwrap();
    let mut credit = Vec::new();
    Body::Credit { flow, bytes: u32::MAX }.encode(&mut credit);
    puppet.say(&credit).unwrap();
    for _ in 0..32 {
        puppet.link.enqueue(&bulk, None).unwrap();
    }
    puppet.say(&credit).unwrap();
    assert_eq!(puppet.heard().len(), FLOW_CREDIT as usize / 4000);
}

#[test]
fn a_flood_of_questions_is_answered_once_per_frame_sent() {
    let mut puppet = Puppet::new();
    for _ in 0..1000 {
        puppet.say(&[2, 1]).unwrap();
    }
    assert_eq!(puppet.heard(), [[2, 0]]);
}

#[test]
fn ends_without_a_common_version_both_name_both_ranges() {
    let pair = Pair::unconnected(LinkLimits::BLUETOOTH, usize::MAX);
    let (mut answerer, now) = (pair.b, pair.now);
    let mut rng = ChaCha12Rng::seed_from_u64(3);
    let newer = Versions { min: 7, max: 9 };
    let mut dialler = Handshake::with_versions(Purpose::Link, true, identity(1).noise(), 4096, &mut rng, newer);
    let error = answerer.handle_data(now, &framed(&dialler.write().unwrap())).unwrap_err();
    let expected = HandshakeError::VersionMismatch { ours: Versions::OURS, theirs: newer };
    assert_eq!(error, LinkError::Handshake(expected));
    assert!(!answerer.should_close(), "the refusal has to go first");
    let refusal = answerer.poll_transmit(now).unwrap();
    assert!(answerer.should_close());
    let expected = HandshakeError::VersionMismatch { ours: newer, theirs: Versions::OURS };
    assert_eq!(dialler.read(&refusal[PREFIX..]), Err(expected));
}

#[test]
fn a_dialler_told_of_other_versions_says_so() {
    let mut pair = Pair::unconnected(LinkLimits::BLUETOOTH, usize::MAX);
    let error = pair.a.handle_data(pair.now, &framed(&[7, 9])).unwrap_err();
    let theirs = Versions { min: 7, max: 9 };
    assert_eq!(error, LinkError::Handshake(HandshakeError::VersionMismatch { ours: Versions::OURS, theirs }));
}

#[test]
fn a_packet_offered_before_the_link_is_up_is_refused_and_its_credit_returned() {
    let mut pair = Pair::unconnected(LinkLimits::BLUETOOTH, usize::MAX);
    let bulk = packet(Lane::Bulk, node(5), node(7), 0, 4000);
    assert_eq!(pair.a.enqueue(&bulk, Some(LinkId(8))), Err(EnqueueError::NotUp));
    assert!(matches!(pair.a.poll_credit_return(), Some((LinkId(8), _, 4000))));
    assert_eq!(pair.a.counters().dropped_out, 1);
}

#[test]
fn what_comes_after_the_other_end_has_closed_is_ignored() {
    let mut puppet = Puppet::new();
    puppet.say(&[4, 1]).unwrap();
    assert!(matches!(puppet.link.poll_input(), Some(LinkInput::Closed(_))));
    puppet.link.handle_data(puppet.now, &[0xff; 100]).unwrap();
    assert_eq!(puppet.link.poll_input(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn arbitrary_bytes_never_panic(
        dialler: bool,
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..12),
    ) {
        let pair = Pair::unconnected(LinkLimits::BLUETOOTH, usize::MAX);
        let mut link = if dialler { pair.a } else { pair.b };
        for piece in pieces {
            let _ = link.handle_data(pair.now, &piece);
            while link.poll_input().is_some() {}
            while link.poll_transmit(pair.now).is_some() {
                link.handle_sent(1);
            }
            let _ = link.poll_timeout();
        }
    }

    #[test]
    fn arbitrary_authentic_frames_never_panic(
        bodies in prop::collection::vec(prop::collection::vec(0_u8..8, 0..80), 0..20),
    ) {
        let mut puppet = Puppet::new();
        for body in bodies {
            if puppet.say(&body).is_err() {
                break;
            }
            let _ = puppet.heard();
            while puppet.link.poll_input().is_some() {}
        }
    }

    #[test]
    fn one_changed_bit_anywhere_is_an_error_or_waits_for_more(at in 0_usize..121, bit in 0_u32..8) {
        let mut pair = Pair::new(LinkLimits::BLUETOOTH);
        pair.a.enqueue(&chat(1), None).unwrap();
        let mut frame = pair.a.poll_transmit(pair.now).unwrap();
        prop_assert_eq!(frame.len(), 121);
        frame[at] ^= 1 << bit;
        let result = pair.b.handle_data(pair.now, &frame);
        prop_assert!(result.is_err() || at < PREFIX);
        prop_assert_eq!(pair.b.poll_input(), None);
    }
}
