use std::time::Duration;

use bbh_proto::Identity;
use bbh_proto::messaging::session::{MAX_PAYLOAD, MAX_SESSIONS, MAX_WAITING, SESSION_LIFETIME, SendError, Sessions};
use bbh_types::NodeId;
use bbh_wire::fragment::Reassembly;
use bbh_wire::{Lane, MAX_MESSAGE, Protection, frame};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

use crate::world::{FINISH, INIT, REPLY, UNKNOWN, World, identity, kind, lower_and_higher, node};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn messages_pass_both_ways_in_order_and_large_ones_in_packets_that_every_link_carries() {
    let mut world = World::new([1, 2]);
    let large: Vec<u8> = (0..MAX_MESSAGE).map(|n| (n / 7) as u8).collect();
    world.send(1, 2, b"first");
    world.send(1, 2, &large);
    world.run(SECOND);
    world.send(2, 1, b"back");
    world.run(SECOND);
    assert_eq!(world.messages_at(2), [b"first", &large[..]]);
    assert_eq!(world.messages_at(1), [b"back"]);
    assert_eq!((world.sent(INIT), world.sent(REPLY), world.sent(FINISH)), (1, 1, 1));
    let largest = world.seen.iter().map(|packet| packet.encoded_len()).max().unwrap();
    assert_eq!(largest + frame::OVERHEAD, 4096);
    assert_eq!(world.sessions(1).peer_key(node(2)), Some(&identity(2).public_key()));
    assert_eq!(world.sessions(1).poll_timeout(), None, "an idle session needs no timer");
}

#[test]
fn a_relay_reads_no_plaintext_and_sees_only_the_header() {
    let mut world = World::new([1, 2]);
    let secret = b"the brewery opens at nine".repeat(20);
    world.send(1, 2, &secret);
    world.run(SECOND);
    assert_eq!(world.messages_at(2), [&secret[..]]);
    for packet in &world.seen {
        let plain = secret.windows(12).any(|part| packet.payload.windows(12).any(|seen| seen == part));
        assert!(!plain);
    }
}

#[test]
fn when_both_begin_at_once_one_session_serves_both() {
    let (lower, higher) = lower_and_higher();
    let mut world = World::new([1, 2]);
    world.send(lower, higher, b"from the lower");
    world.send(higher, lower, b"from the higher");
    world.run(SECOND * 20);
    assert_eq!(world.messages_at(higher), [b"from the lower"]);
    assert_eq!(world.messages_at(lower), [b"from the higher"]);
    assert_eq!((world.sent(INIT), world.sent(REPLY), world.sent(FINISH)), (2, 1, 1));
    let reply = world.seen.iter().find(|packet| kind(packet) == REPLY).unwrap();
    assert_eq!(reply.source, node(higher), "the lower id's handshake is the one that is answered");
    assert_eq!(world.sessions(1).counts(), (1, 0));
    assert_eq!(world.sessions(2).counts(), (1, 0));
}

#[test]
fn each_handshake_message_may_be_lost() {
    for lost in [INIT, REPLY, FINISH] {
        for simultaneous in [false, true] {
            let mut world = World::new([1, 2]);
            world.send(1, 2, b"one");
            if simultaneous {
                world.send(2, 1, b"two");
            }
            let mut left = 1;
            world.run_filtered(SECOND * 10, |packet| {
                let lose = kind(packet) == lost && left > 0;
                left -= usize::from(lose);
                !lose
            });
            assert_eq!(left, 0);
            // What was sent right behind a lost third message is lost with it; what comes later is not.
            for (from, to) in [(1, 2), (2, 1)] {
                world.send(from, to, b"later");
                world.run(SECOND);
                assert_eq!(world.messages_at(to).last(), Some(&&b"later"[..]), "lost {lost:?}, {simultaneous}");
            }
            if lost != FINISH {
                assert_eq!(world.messages_at(2)[0], b"one");
            }
            assert!(world.failed.is_empty());
        }
    }
}

#[test]
fn any_loss_and_order_of_packets_ends_with_both_able_to_talk() {
    for seed in 0..100 {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut world = World::new([1, 2]);
        world.send(1, 2, b"one");
        if rng.next_u32() % 2 == 0 {
            world.send(2, 1, b"two");
        }
        for _ in 0..12 {
            let mut packets: Vec<_> = world.collect().into();
            while !packets.is_empty() {
                let packet = packets.swap_remove(rng.next_u32() as usize % packets.len());
                match rng.next_u32() % 8 {
                    0 => {}
                    1 => {
                        let _ = world.deliver(&packet);
                        let _ = world.deliver(&packet);
                    }
                    _ => {
                        let _ = world.deliver(&packet);
                    }
                }
                packets.extend(world.collect());
            }
            world.run_filtered(SECOND / 2, |_| false);
        }
        world.run(SECOND * 10);
        for (from, to) in [(1, 2), (2, 1), (1, 2), (2, 1)] {
            world.send(from, to, b"after");
            world.run(SECOND * 2);
        }
        assert_eq!(world.messages_at(1).last(), Some(&&b"after"[..]), "seed {seed}");
        assert_eq!(world.messages_at(2).last(), Some(&&b"after"[..]), "seed {seed}");
    }
}

#[test]
fn a_node_that_does_not_answer_fails_after_three_tries_and_can_be_tried_again() {
    let mut world = World::new([1]);
    world.send(1, 2, b"anybody there?");
    world.run(SECOND * 7 - Duration::from_micros(1));
    assert_eq!(world.sent(INIT), 3);
    assert!(world.failed.is_empty());
    world.run(SECOND);
    assert_eq!(world.failed, [(node(1), node(2))]);
    assert_eq!(world.sessions(1).poll_timeout(), None);
    world.restart(2);
    world.send(1, 2, b"now?");
    world.run(SECOND);
    assert_eq!(world.messages_at(2), [b"now?"]);
}

#[test]
fn a_restarted_node_gets_a_new_session_by_the_next_message_to_it() {
    let mut world = World::new([1, 2]);
    world.send(1, 2, b"before");
    world.run(SECOND * 60);
    world.restart(2);
    world.send(1, 2, b"into the void");
    world.run(SECOND);
    assert_eq!(world.sent(UNKNOWN), 1);
    world.send(1, 2, b"after");
    world.send(2, 1, b"hello again");
    world.run(SECOND * 60);
    assert_eq!(world.messages_at(2), [&b"before"[..], b"after"]);
    assert_eq!(world.messages_at(1), [b"hello again"]);
    assert_eq!(world.sessions(1).counts(), (1, 0), "the old session is forgotten");
}

#[test]
fn a_restarted_node_that_speaks_first_is_heard() {
    let mut world = World::new([1, 2]);
    world.send(1, 2, b"before");
    world.run(SECOND);
    world.restart(1);
    world.send(1, 2, b"after");
    world.run(SECOND);
    world.send(2, 1, b"answer");
    world.run(SECOND);
    assert_eq!(world.messages_at(2), [&b"before"[..], b"after"]);
    assert_eq!(world.messages_at(1), [b"answer"]);
}

#[test]
fn a_session_is_replaced_in_the_background_after_an_hour() {
    let mut world = World::new([1, 2]);
    world.send(1, 2, b"a");
    world.run(SESSION_LIFETIME);
    world.send(1, 2, b"b");
    world.send(1, 2, b"c");
    world.run(SECOND);
    world.send(1, 2, b"d");
    world.send(2, 1, b"e");
    world.run(SECOND * 60);
    assert_eq!(world.messages_at(2), [b"a", b"b", b"c", b"d"]);
    assert_eq!(world.messages_at(1), [b"e"]);
    assert_eq!(world.sent(INIT), 2);
    let mut indices: Vec<_> = world.seen.iter().filter(|packet| packet.protection == Protection::Session).collect();
    indices.dedup_by_key(|packet| packet.payload[..4].to_vec());
    assert_eq!(indices.len(), 3, "one index before, two after");
    assert_eq!(world.sessions(1).counts(), (1, 0));
}

#[test]
fn reordered_packets_of_a_session_are_all_taken_once() {
    let mut world = World::new([1, 2]);
    world.send(1, 2, b"hello");
    world.run(SECOND);
    for number in 0..500_u16 {
        world.send(1, 2, &number.to_be_bytes());
    }
    let mut packets: Vec<_> = world.collect().into();
    packets.reverse();
    for packet in &packets {
        world.deliver(packet).unwrap();
        world.deliver(packet).unwrap_err();
    }
    assert_eq!(world.messages_at(2).len(), 501);
}

fn stranger(number: u32) -> NodeId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    NodeId::from_bytes(id)
}

#[test]
fn what_waits_for_a_session_is_bounded_by_nodes_and_bytes() {
    let mut world = World::new([1]);
    let now = world.now;
    let message = vec![0; 32 * 1024];
    let taken = (0..10).filter(|_| world.sessions(1).send(now, node(2), &message, Lane::Search).is_ok()).count();
    assert_eq!(taken, 4, "96 KiB and one more");
    let refused = world.sessions(1).send(now, node(2), &message, Lane::Search);
    assert_eq!(refused, Err(SendError::QueueFull));
    for number in 1..MAX_WAITING as u32 {
        world.sessions(1).send(now, stranger(number), b"hello", Lane::Search).unwrap();
    }
    let refused = world.sessions(1).send(now, stranger(9999), b"hello", Lane::Search);
    assert_eq!(refused, Err(SendError::TooManyWaiting));
    world.run(SECOND * 8);
    assert_eq!(world.failed.len(), MAX_WAITING);
    let now = world.now;
    world.sessions(1).send(now, stranger(9999), b"hello", Lane::Search).unwrap();
}

#[test]
fn what_can_never_be_sent_is_refused_at_once() {
    let mut world = World::new([1]);
    let now = world.now;
    assert_eq!(world.sessions(1).send(now, node(1), b"me", Lane::Chat), Err(SendError::ToSelf));
    let message = vec![0; MAX_MESSAGE + 1];
    let refused = world.sessions(1).send(now, node(2), &message, Lane::Chat);
    assert_eq!(refused, Err(SendError::TooLarge(MAX_MESSAGE + 1)));
    const { assert!(MAX_PAYLOAD > 4000) };
}

#[test]
fn the_session_used_least_recently_gives_way() {
    let mut world = World::new([0]);
    for number in 1..=255_u8 {
        world.restart(number);
        world.send(number, 0, b"hi");
        world.run(SECOND);
    }
    assert_eq!(world.sessions(0).counts().0, 255);
    // Node 1 is used again, so that node 2 is now the one used least recently.
    world.send(0, 1, b"still there?");
    world.run(SECOND);
    for number in 0..3 {
        let mut seed = [0; 32];
        seed[0] = 1 + number;
        let identity = Identity::from_seed(seed);
        let mut sessions = Sessions::new(&identity, &mut ChaCha12Rng::seed_from_u64(u64::from(number)));
        sessions.send(world.now, node(0), b"hi", Lane::Chat).unwrap();
        world.nodes.insert(identity.node_id(), (sessions, Reassembly::default()));
        world.run(SECOND);
    }
    assert_eq!(world.sessions(0).counts().0, MAX_SESSIONS);
    assert!(world.sessions(0).is_established(node(1)));
    assert!(!world.sessions(0).is_established(node(2)));
    assert!(world.sessions(0).is_established(node(4)));
}
