use std::time::Duration;

use bbh_proto::link::handshake::{Handshake, Purpose};
use bbh_proto::messaging::session::{MAX_HALF_OPEN, SessionError, Sessions};
use bbh_types::{BoundedBytes, NodeId};
use bbh_wire::message::{SessionFinish, SessionHandshake, SessionInit, SessionReply, SessionUnknown};
use bbh_wire::{Destination, Lane, Message, Packet, Protection};
use proptest::prelude::*;
use rand_chacha::ChaCha12Rng;
use rand_core::SeedableRng;

use crate::world::{FINISH, INIT, UNKNOWN, World, clear, identity, kind, lower_and_higher, node};

const SECOND: Duration = Duration::from_secs(1);

fn established() -> World {
    let mut world = World::new([1, 2]);
    world.send(1, 2, b"hello");
    world.run(SECOND);
    world.send(2, 1, b"hello");
    world.run(SECOND);
    world.seen.clear();
    world.arrived.clear();
    world
}

fn record(receiver: u32, sender: u32, noise: Vec<u8>) -> SessionHandshake {
    SessionHandshake { receiver, sender, noise: BoundedBytes::new(noise).unwrap() }
}

fn message_of(packet: &Packet) -> Message {
    Message::decode(&packet.payload[1..]).unwrap().unwrap()
}

#[test]
fn a_replayed_packet_is_refused() {
    let mut world = established();
    world.send(1, 2, b"once");
    let packet = world.collect().pop_front().unwrap();
    world.deliver(&packet).unwrap();
    assert!(matches!(world.deliver(&packet), Err(SessionError::Open(_))));
    assert_eq!(world.messages_at(2), [b"once"]);
}

#[test]
fn a_packet_changed_by_a_relay_in_more_than_hop_limit_and_congestion_mark_is_refused() {
    let mut world = established();
    world.send(1, 2, b"genuine");
    let packet = world.collect().pop_front().unwrap();
    let changes: [fn(&mut Packet); 6] = [
        |packet| packet.sequence += 1,
        |packet| packet.lane = Lane::Bulk,
        |packet| packet.source = node(3),
        |packet| packet.payload[0] ^= 1,
        |packet| *packet.payload.last_mut().unwrap() ^= 1,
        |packet| packet.payload.truncate(3),
    ];
    for change in changes {
        let mut changed = packet.clone();
        change(&mut changed);
        assert!(world.deliver(&changed).is_err());
    }
    let mut relayed = packet;
    relayed.hop_limit = 3;
    relayed.congested = true;
    world.deliver(&relayed).unwrap();
    assert_eq!(world.messages_at(2), [b"genuine"]);
}

#[test]
fn a_flood_of_forged_session_unknown_does_no_more_than_renew_the_session_now_and_then() {
    let mut world = established();
    world.send(1, 2, b"a");
    let index = world.collect().pop_front().unwrap().payload[..4].try_into().map(u32::from_be_bytes).unwrap();
    for millisecond in 0..5000_u64 {
        let forged = clear(node(2), node(1), SessionUnknown { session: index });
        let guessed = clear(node(2), node(1), SessionUnknown { session: index ^ 77 });
        let _ = world.deliver(&forged);
        assert_eq!(world.deliver(&guessed), Err(SessionError::Unexpected));
        if millisecond % 100 == 0 {
            // The answer to a forger's handshake never comes, since nothing was lost but time.
            world.run_filtered(Duration::ZERO, |packet| kind(packet) != INIT);
            world.send(1, 2, &millisecond.to_be_bytes());
            world.send(2, 1, &millisecond.to_be_bytes());
        }
        world.run_filtered(Duration::from_millis(1), |packet| kind(packet) != INIT);
    }
    assert_eq!(world.messages_at(2).len(), 50);
    assert_eq!(world.messages_at(1).len(), 50);
    assert!(world.sent(INIT) <= 5, "{} handshakes", world.sent(INIT));
    assert!(world.failed.is_empty());
    // When the handshakes do get through, there is one a second at most.
    world.seen.clear();
    for _ in 0..500 {
        let current = world.seen.iter().rev().find(|packet| packet.source == node(1) && kind(packet).is_none());
        let index = current.map_or(index, |packet| u32::from_be_bytes(packet.payload[..4].try_into().unwrap()));
        let _ = world.deliver(&clear(node(2), node(1), SessionUnknown { session: index }));
        world.send(1, 2, b"x");
        world.run(Duration::from_millis(10));
    }
    assert!(world.sent(INIT) <= 6, "{} handshakes", world.sent(INIT));
    assert_eq!(world.messages_at(2).len(), 550);
}

#[test]
fn a_flood_of_first_messages_from_ten_thousand_sources_is_bounded() {
    let mut world = established();
    let mut rng = ChaCha12Rng::seed_from_u64(5);
    let init = Handshake::new(Purpose::Session, true, identity(9).noise(), 4096, &mut rng).write().unwrap();
    let mut answered = 0;
    for number in 0..10_000_u32 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        let packet = clear(NodeId::from_bytes(id), node(1), SessionInit(record(0, number, init.clone())));
        answered += usize::from(world.deliver(&packet).is_ok());
        assert!(world.sessions(1).counts().1 <= MAX_HALF_OPEN);
        if number % 100 == 0 {
            world.now += Duration::from_millis(10);
        }
    }
    assert!(answered <= 128 + 128 + 1, "{answered} answered in a second");
    assert!(world.collect().len() <= answered);
    // Who has a session goes on, and after the flood others are heard again.
    world.send(1, 2, b"still here");
    world.run(SECOND * 2);
    assert_eq!(world.messages_at(2), [b"still here"]);
    world.restart(3);
    world.send(3, 1, b"new here");
    world.run(SECOND);
    assert_eq!(world.messages_at(1), [b"new here"]);
    world.run(SECOND * 10);
    assert_eq!(world.sessions(1).counts(), (2, 0));
}

#[test]
fn packets_for_unknown_sessions_are_answered_once_a_second_per_source() {
    let mut world = World::new([1]);
    let packet = Packet {
        lane: Lane::Chat,
        protection: Protection::Session,
        congested: false,
        hop_limit: 9,
        source: node(2),
        destination: Destination::One(node(1)),
        sequence: 7,
        payload: vec![5; 60],
    };
    for _ in 0..3000 {
        assert_eq!(world.deliver(&packet), Err(SessionError::Unknown));
        world.now += Duration::from_millis(1);
    }
    world.collect();
    assert!((3..=4).contains(&world.sent(UNKNOWN)), "{}", world.sent(UNKNOWN));
}

/// Node 9 shakes hands under the id of node 2.
#[test]
fn an_impostor_who_begins_is_refused() {
    let mut world = World::new([1]);
    let mut rng = ChaCha12Rng::seed_from_u64(9);
    let mut handshake = Handshake::new(Purpose::Session, true, identity(9).noise(), 4096, &mut rng);
    let init = SessionInit(record(0, 7, handshake.write().unwrap()));
    world.deliver(&clear(node(2), node(1), init)).unwrap();
    let Message::SessionReply(SessionReply(reply)) = message_of(&world.collect().pop_front().unwrap()) else {
        panic!("an answer was expected");
    };
    handshake.read(&reply.noise).unwrap();
    let finish = SessionFinish(record(reply.sender, 7, handshake.write().unwrap()));
    let result = world.deliver(&clear(node(2), node(1), finish));
    assert_eq!(result, Err(SessionError::Impostor { claimed: node(2), proven: node(9) }));
    assert_eq!(world.sessions(1).counts(), (0, 0));
    assert!(!world.sessions(1).is_established(node(2)));
}

/// Node 9 answers in the place of node 2; the next try reaches node 2.
#[test]
fn an_impostor_who_answers_gets_nothing_and_the_genuine_node_is_reached_by_the_next_try() {
    let mut world = World::new([1, 2]);
    world.send(1, 2, b"for two only");
    let Message::SessionInit(SessionInit(init)) = message_of(&world.collect().pop_front().unwrap()) else {
        panic!("a first message was expected");
    };
    let mut rng = ChaCha12Rng::seed_from_u64(9);
    let mut handshake = Handshake::new(Purpose::Session, false, identity(9).noise(), 4096, &mut rng);
    handshake.read(&init.noise).unwrap();
    let reply = SessionReply(record(init.sender, 7, handshake.write().unwrap()));
    let result = world.deliver(&clear(node(2), node(1), reply));
    assert_eq!(result, Err(SessionError::Impostor { claimed: node(2), proven: node(9) }));
    assert!(world.collect().is_empty(), "an impostor must not even get a third message");
    world.run(SECOND * 2);
    assert_eq!(world.messages_at(2), [b"for two only"]);
}

#[test]
fn a_forged_first_message_does_not_stop_a_handshake_under_way() {
    let (lower, higher) = lower_and_higher();
    let mut world = World::new([lower, higher]);
    world.send(higher, lower, b"through");
    let genuine = world.collect();
    let mut rng = ChaCha12Rng::seed_from_u64(9);
    let forged = Handshake::new(Purpose::Session, true, identity(9).noise(), 4096, &mut rng).write().unwrap();
    world.deliver(&clear(node(lower), node(higher), SessionInit(record(0, 3, forged)))).unwrap();
    for packet in &genuine {
        world.deliver(packet).unwrap();
    }
    world.run(SECOND / 2);
    assert_eq!(world.messages_at(lower), [b"through"]);
}

#[test]
fn handshake_messages_out_of_the_blue_change_nothing() {
    let mut world = established();
    let noise = vec![3; 197];
    for message in [
        Message::from(SessionReply(record(1, 2, noise.clone()))),
        SessionFinish(record(1, 2, noise.clone())).into(),
        SessionInit(record(0, 2, vec![1; 10])).into(),
        SessionUnknown { session: 9 }.into(),
    ] {
        assert!(world.deliver(&clear(node(2), node(1), message)).is_err());
    }
    assert_eq!(world.sessions(1).counts(), (1, 0));
    assert_eq!(world.sent(FINISH), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn arbitrary_packets_never_panic(
        packets in prop::collection::vec(
            (0_usize..4, any::<u64>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)),
            20,
        ),
    ) {
        let mut world = established();
        world.send(2, 1, b"x");
        let genuine = world.collect().pop_front().unwrap();
        for (protection, sequence, indexed, payload) in packets {
            let mut packet = genuine.clone();
            packet.protection =
                [Protection::Link, Protection::Session, Protection::Signed, Protection::Clear][protection];
            packet.sequence = sequence;
            let index = if indexed { &genuine.payload[..4] } else { &[] };
            packet.payload = [index, &payload].concat();
            let now = world.now;
            prop_assert!(world.sessions(1).handle_packet(now, &packet).is_err());
        }
        world.deliver(&genuine).unwrap();
    }

    #[test]
    fn arbitrary_handshake_messages_never_panic(
        kind in 0_u8..4,
        receiver: u32,
        sender: u32,
        noise in prop::collection::vec(any::<u8>(), 0..512),
    ) {
        let mut sessions = Sessions::new(&identity(1), &mut ChaCha12Rng::seed_from_u64(1));
        let now = bbh_types::Instant::ZERO;
        sessions.send(now, node(2), b"x", Lane::Chat).unwrap();
        let record = record(receiver, sender, noise);
        let message = match kind {
            0 => SessionInit(record).into(),
            1 => SessionReply(record).into(),
            2 => SessionFinish(record).into(),
            _ => Message::from(SessionUnknown { session: receiver }),
        };
        let _ = sessions.handle_handshake(now, node(2), message);
        sessions.handle_timeout(now + SECOND);
    }
}
