//! How links begin, fall silent, go on and end.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use bbh_air::{Air, AirError, Config, Place};
use bbh_types::Instant;
use bbh_types::radio::{LinkLimits, PeerAddr, RadioCommand, RadioEvent, ScanDuty};
use common::{World, pattern};

const SUPERVISION: Duration = Duration::from_secs(5);

fn two(config: Config) -> (World, bbh_air::RadioId, bbh_air::RadioId) {
    let mut world = World::new(config, 3);
    let (a, b) = (world.join(0.0, 0.0), world.join(5.0, 0.0));
    (world, a, b)
}

#[test]
fn both_ends_learn_of_a_link_with_numbers_of_their_own() {
    let (mut world, a, b) = two(Config::default());
    world.advertise(b, b"here");
    let (to_a, to_b) = (world.address(a), world.address(b));
    world.command(a, RadioCommand::Connect(to_b));
    world.run(Duration::from_millis(50));
    assert!(world.log.is_empty(), "it takes at least 50 ms");
    world.run(Duration::from_millis(150));
    let limits = LinkLimits::BLUETOOTH;
    let [(_, first, RadioEvent::Opened { link, peer, dialler, limits: l }), (_, second, other)] = &world.log[..] else {
        panic!("{:?}", world.log)
    };
    assert_eq!((*first, *peer, *dialler, *l), (a, to_b, true, limits));
    let RadioEvent::Opened { link: other, peer, dialler, .. } = other else { panic!("{other:?}") };
    assert_eq!((*second, *peer, *dialler), (b, to_a, false));
    assert_ne!(link, other);
}

#[test]
fn a_connection_to_nobody_fails_after_three_seconds() {
    let (mut world, a, b) = two(Config::default());
    let far = world.join(100.0, 0.0);
    world.advertise(far, b"here");
    // In range but mute; out of range; unknown; oneself.
    for peer in [world.address(b), world.address(far), PeerAddr(1), world.address(a)] {
        let start = world.now;
        world.log.clear();
        world.command(a, RadioCommand::Connect(peer));
        world.run(Duration::from_secs(10));
        assert_eq!(world.log, [(start + Duration::from_secs(3), a, RadioEvent::OpenFailed { peer })]);
    }
}

#[test]
fn a_target_that_leaves_while_the_connection_is_set_up_makes_it_fail() {
    let (mut world, a, b) = two(Config::default());
    world.advertise(b, b"here");
    let peer = world.address(b);
    world.command(a, RadioCommand::Connect(peer));
    world.air.leave(world.now, b);
    world.run(Duration::from_secs(4));
    assert_eq!(world.log, [(Instant::from_micros(3_000_000), a, RadioEvent::OpenFailed { peer })]);
}

#[test]
fn a_second_connection_while_one_is_set_up_fails_at_once_and_the_first_goes_on() {
    let (mut world, a, b) = two(Config::default());
    world.advertise(b, b"here");
    let peer = world.address(b);
    world.command(a, RadioCommand::Connect(peer));
    world.command(a, RadioCommand::Connect(PeerAddr(9)));
    world.run(Duration::from_secs(4));
    let of_a: Vec<_> = world.log.iter().filter(|(_, id, _)| *id == a).map(|(_, _, e)| e).collect();
    assert_eq!(*of_a[0], RadioEvent::OpenFailed { peer: PeerAddr(9) });
    assert!(matches!(of_a[1], RadioEvent::Opened { dialler: true, .. }));
    assert_eq!(of_a.len(), 2);
}

#[test]
fn a_radio_has_only_so_many_links() {
    let (mut world, a, b) = two(Config { max_links: 2, ..Config::default() });
    let c = world.join(1.0, 0.0);
    world.link(a, b);
    world.link(c, b);
    let peer = world.address(b);
    world.command(a, RadioCommand::Connect(peer));
    world.run(Duration::from_secs(4));
    assert_eq!(world.log.last().unwrap().2, RadioEvent::OpenFailed { peer });
}

#[test]
fn a_clean_close_delivers_what_was_queued_and_tells_both() {
    let (mut world, a, b) = two(Config::default());
    let (ab, ba) = world.link(a, b);
    world.stream(a, ab, 8_192, 4096);
    world.command(a, RadioCommand::Close(ab));
    assert!(world.air.send(world.now, a, ab, vec![1]).is_err());
    world.run(Duration::from_secs(1));
    assert!(world.received(b, ba) == pattern(8_192));
    let (at_a, at_b) = (world.closed(a, ab).unwrap(), world.closed(b, ba).unwrap());
    assert_eq!(at_b.since(at_a), Duration::from_micros(7_500));
    assert!(matches!(world.log.last().unwrap().2, RadioEvent::Closed { .. }));
    // Closing again, or a link of somebody else, is harmless.
    world.command(a, RadioCommand::Close(ab));
    world.command(b, RadioCommand::Close(ab));
    let events = world.log.len();
    world.run(Duration::from_secs(10));
    assert_eq!(world.log.len(), events);
}

#[test]
fn out_of_range_a_link_is_silent_and_then_closes_on_both_sides() {
    let (mut world, a, b) = two(Config::default());
    let (ab, ba) = world.link(a, b);
    world.stream(a, ab, usize::MAX, 4096);
    world.run(Duration::from_secs(1));
    world.air.move_to(world.now, b, 30.0, 0.0).unwrap();
    let gone = world.now;
    world.run(Duration::from_millis(8));
    let events = world.log.len();
    world.run(SUPERVISION - Duration::from_millis(9));
    assert_eq!(world.log.len(), events, "silence");
    world.run(Duration::from_secs(1));
    assert_eq!(world.closed(a, ab), Some(gone + SUPERVISION));
    assert_eq!(world.closed(b, ba), Some(gone + SUPERVISION));
}

#[test]
fn back_in_range_in_time_a_link_goes_on_where_it_was() {
    let (mut world, a, b) = two(Config::default());
    let (ab, ba) = world.link(a, b);
    let total = 1_000_000;
    world.stream(a, ab, total, 4096);
    world.stream(b, ba, total, 1000);
    // In and out at moments that fall into transmissions, longer in total than the supervision timeout.
    for i in 0..20 {
        world.run(Duration::from_micros(310_007 + i * 1_003));
        world.air.move_to(world.now, b, 30.0, 0.0).unwrap();
        world.run(Duration::from_millis(900));
        world.air.move_to(world.now, b, 5.0, 0.0).unwrap();
    }
    world.run(Duration::from_secs(20));
    assert!(world.closed(a, ab).is_none() && world.closed(b, ba).is_none());
    assert!(world.received(b, ba) == pattern(total));
    assert!(world.received(a, ab) == pattern(total));
}

#[test]
fn when_a_radio_vanishes_its_neighbours_notice_after_the_supervision_timeout() {
    let (mut world, a, b) = two(Config::default());
    let c = world.join(-5.0, 0.0);
    let (ab, ba) = world.link(a, b);
    let (ac, ca) = world.link(a, c);
    world.stream(a, ac, usize::MAX, 4096);
    world.stream(b, ba, usize::MAX, 4096);
    world.run(Duration::from_secs(1));
    let (gone, events) = (world.now, world.when(a, |_| true).len());
    let before = world.received(c, ca).len();
    world.air.leave(world.now, b);
    world.run(Duration::from_secs(10));
    assert_eq!(world.closed(a, ab), Some(gone + SUPERVISION));
    assert!(world.when(a, |_| true).len() > events, "the other link goes on");
    let share = (world.received(c, ca).len() - before) as f64 / 1_760_000.0;
    assert!(share > 0.98, "and has the radio for itself: {share:.3}");
    assert!(world.when(b, |_| true).last() <= Some(&gone));
    assert!(world.received(a, ab).len() > 10_000);
}

#[test]
fn a_close_while_silent_reaches_the_other_when_they_meet_again() {
    let (mut world, a, b) = two(Config::default());
    let (ab, ba) = world.link(a, b);
    world.air.move_to(world.now, b, 30.0, 0.0).unwrap();
    world.command(a, RadioCommand::Close(ab));
    world.run(Duration::from_secs(1));
    assert!(world.closed(a, ab).is_some() && world.closed(b, ba).is_none());
    world.air.move_to(world.now, b, 5.0, 0.0).unwrap();
    world.run(Duration::from_millis(8));
    assert!(world.closed(b, ba).is_some());
}

#[test]
fn addresses_reveal_nothing_and_change_with_the_radio() {
    let (mut world, a, b) = two(Config::default());
    let (first, second) = (world.address(a), world.address(b));
    assert!(first.0 > 1 << 32 && second.0 > 1 << 32 && first != second);
    world.air.leave(world.now, a);
    let again = world.join(0.0, 0.0);
    assert!(world.address(again) != first && again != a && world.air.address(a).is_none());
}

#[test]
fn impossible_places_and_figures_are_refused() {
    let mut air = Air::new(Config::default(), 1).unwrap();
    let now = Instant::ZERO;
    for bad in [f64::NAN, f64::INFINITY, -1.1e9] {
        assert_eq!(air.join(now, Place::at(bad, 0.0)), Err(AirError::BadPosition));
        assert_eq!(air.join(now, Place::at(0.0, bad)), Err(AirError::BadPosition));
        assert_eq!(air.join(now, Place { range: Some(bad), ..Place::at(0.0, 0.0) }), Err(AirError::BadRange));
        assert!(Air::new(Config { range: bad, ..Config::default() }, 1).is_err());
        assert!(Air::new(Config { loss: bad, ..Config::default() }, 1).is_err());
        assert!(Air::new(Config { scan_share_full: bad, ..Config::default() }, 1).is_err());
    }
    assert!(Air::new(Config { loss: 1.0, ..Config::default() }, 1).is_err());
    assert!(Air::new(Config { rate: 0, ..Config::default() }, 1).is_err());
    assert_eq!(air.join(now, Place { rate: Some(0), ..Place::at(0.0, 0.0) }), Err(AirError::BadRate));
    let id = air.join(now, Place { range: Some(1e7), ..Place::at(1e9, -1e9) }).unwrap();
    assert_eq!(air.move_to(now, id, f64::NAN, 0.0), Err(AirError::BadPosition));
    assert_eq!(air.position(id), Some((1e9, -1e9)));
    air.leave(now, id);
    assert_eq!(air.move_to(now, id, 0.0, 0.0), Err(AirError::NoSuchRadio));
    assert_eq!(air.command(now, id, RadioCommand::Scan(ScanDuty::Full)), Err(AirError::NoSuchRadio));
}
