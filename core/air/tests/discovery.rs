//! Who is heard, when, and how often.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::time::Duration;

use bbh_air::{AirError, Config, Place};
use bbh_types::Instant;
use bbh_types::radio::{RadioCommand, RadioEvent, ScanDuty};
use common::World;

fn is_discovery(event: &RadioEvent) -> bool {
    matches!(event, RadioEvent::Discovered { .. })
}

/// How long it took in each of 400 pairs until the first was heard by the second.
fn delays(duty: ScanDuty, loss: f64) -> Vec<f64> {
    let mut world = World::new(Config { loss, ..Config::default() }, 9);
    let pairs: Vec<_> = (0..400).map(|i| i as f64 * 100.0).map(|x| (world.join(x, 0.0), world.join(x, 9.0))).collect();
    for (a, b) in &pairs {
        world.advertise(*a, b"hello");
        world.scan(*b, duty);
    }
    world.run(Duration::from_secs(59));
    let first = |b| world.when(b, is_discovery)[0].since(Instant::ZERO).as_secs_f64();
    pairs.iter().map(|(_, b)| first(*b)).collect()
}

fn mean(of: &[f64]) -> f64 {
    of.iter().sum::<f64>() / of.len() as f64
}

#[test]
fn discovery_takes_an_inquiry() {
    let full = delays(ScanDuty::Full, 0.0);
    assert!(full.iter().all(|d| *d > 0.0 && *d <= 1.2801));
    assert!((0.58..0.70).contains(&mean(&full)), "{}", mean(&full));
    assert!(full.iter().any(|d| *d < 0.1) && full.iter().any(|d| *d > 1.18), "spread over the whole time");
}

#[test]
fn low_duty_takes_ten_times_as_long_and_lost_beacons_take_another_draw() {
    let low = delays(ScanDuty::Low, 0.0);
    assert!(low.iter().all(|d| *d <= 12.801));
    assert!((5.8..7.0).contains(&mean(&low)), "{}", mean(&low));
    // Half of the beacons lost: two draws on average.
    let lossy = delays(ScanDuty::Full, 0.5);
    assert!((1.1..1.5).contains(&mean(&lossy)), "{}", mean(&lossy));
}

#[test]
fn only_who_scans_hears_only_who_advertises_and_is_in_range() {
    let mut world = World::new(Config::default(), 1);
    let (advertiser, scanner) = (world.join(0.0, 0.0), world.join(10.0, 0.0));
    let (mute, deaf, far) = (world.join(1.0, 0.0), world.join(2.0, 0.0), world.join(10.1, 0.0));
    world.advertise(advertiser, b"hello");
    for id in [advertiser, scanner, mute, far] {
        world.scan(id, ScanDuty::Full);
    }
    world.run(Duration::from_secs(2));
    let heard: Vec<_> = world.log.iter().map(|(_, id, event)| (*id, event.clone())).collect();
    let event = RadioEvent::Discovered { peer: world.address(advertiser), beacon: b"hello".to_vec() };
    assert_eq!(heard.len(), 2);
    assert!(heard.contains(&(scanner, event.clone())) && heard.contains(&(mute, event)));
    assert!(world.when(deaf, is_discovery).is_empty() && world.when(far, is_discovery).is_empty());
}

#[test]
fn an_unchanged_beacon_is_repeated_rarely_and_all_at_once() {
    let mut world = World::new(Config::default(), 1);
    let scanner = world.join(0.0, 0.0);
    for i in 0..20 {
        let id = world.join(f64::from(i) / 4.0, 1.0);
        world.advertise(id, b"hello");
    }
    world.scan(scanner, ScanDuty::Low);
    world.run(Duration::from_secs(13));
    let heard = world.when(scanner, is_discovery).len();
    assert_eq!(heard, 20);
    // Ten minutes: the moments at which the node is woken, not the beacons, are what counts.
    world.log.clear();
    world.run(Duration::from_secs(600));
    let mut moments = world.when(scanner, is_discovery);
    assert!(moments.len() >= 9 * 20, "{}", moments.len());
    moments.dedup();
    assert!(moments.len() <= 10, "{}", moments.len());
}

#[test]
fn at_full_duty_a_beacon_is_repeated_every_ten_seconds() {
    let mut world = World::new(Config::default(), 1);
    let (a, b) = (world.join(0.0, 0.0), world.join(1.0, 0.0));
    world.advertise(a, b"hello");
    world.scan(b, ScanDuty::Full);
    world.run(Duration::from_secs(101));
    let times = world.when(b, is_discovery);
    assert_eq!(times.len(), 11);
    assert!(times.windows(2).all(|w| w[1].since(w[0]) <= Duration::from_secs(10)));
}

#[test]
fn a_changed_beacon_is_heard_after_another_inquiry() {
    let mut world = World::new(Config::default(), 1);
    let (a, b) = (world.join(0.0, 0.0), world.join(1.0, 0.0));
    world.advertise(a, b"one");
    world.scan(b, ScanDuty::Full);
    world.run(Duration::from_millis(1_300));
    world.advertise(a, b"one");
    world.run(Duration::from_millis(1_300));
    assert_eq!(world.when(b, is_discovery).len(), 1, "the same beacon is no news");
    let changed = world.now;
    world.advertise(a, b"two");
    world.run(Duration::from_millis(1_300));
    let (at, _, event) = world.log.last().unwrap();
    assert!(*at > changed);
    assert_eq!(*event, RadioEvent::Discovered { peer: world.address(a), beacon: b"two".to_vec() });
    assert_eq!(world.when(b, is_discovery).len(), 2);
    world.command(a, RadioCommand::Advertise(None));
    world.run(Duration::from_secs(60));
    assert_eq!(world.when(b, is_discovery).len(), 2, "silent when it stops");
}

#[test]
fn coming_into_range_counts_anew() {
    let mut world = World::new(Config::default(), 1);
    let (a, b) = (world.join(0.0, 0.0), world.join(50.0, 0.0));
    world.advertise(a, b"hello");
    world.scan(b, ScanDuty::Full);
    world.run(Duration::from_secs(5));
    assert!(world.log.is_empty());
    for round in 1..=5 {
        world.air.move_to(world.now, a, 45.0, 0.0).unwrap();
        world.run(Duration::from_millis(1_300));
        assert_eq!(world.when(b, is_discovery).len(), round);
        world.air.move_to(world.now, a, 0.0, 0.0).unwrap();
        world.run(Duration::from_millis(1_300));
    }
}

#[test]
fn raising_the_duty_starts_a_new_inquiry_and_lowering_it_does_not() {
    let mut world = World::new(Config::default(), 1);
    let (a, b) = (world.join(0.0, 0.0), world.join(1.0, 0.0));
    world.advertise(a, b"hello");
    world.scan(b, ScanDuty::Full);
    world.run(Duration::from_millis(1_300));
    world.scan(b, ScanDuty::Low);
    world.run(Duration::from_secs(25));
    assert_eq!(world.when(b, is_discovery).len(), 1);
    world.scan(b, ScanDuty::Full);
    world.run(Duration::from_millis(1_300));
    assert_eq!(world.when(b, is_discovery).len(), 2);
    world.scan(b, ScanDuty::Off);
    world.run(Duration::from_secs(100));
    assert_eq!(world.when(b, is_discovery).len(), 2);
}

#[test]
fn a_beacon_that_does_not_fit_is_refused() {
    let mut world = World::new(Config::default(), 1);
    let a = world.join(0.0, 0.0);
    let refused = world.air.command(world.now, a, RadioCommand::Advertise(Some(vec![0; 255])));
    assert_eq!(refused, Err(AirError::BeaconTooLong(255)));
    world.advertise(a, &[0; 254]);
}

#[test]
fn a_loud_radio_is_seen_by_one_that_it_does_not_see_and_cannot_be_dialled_from_there() {
    let mut world = World::new(Config::default(), 1);
    let loud = world.air.join(world.now, Place { voice: Some(30.0), ..Place::at(0.0, 0.0) }).unwrap();
    let quiet = world.join(20.0, 0.0);
    for id in [loud, quiet] {
        world.advertise(id, b"hello");
        world.scan(id, ScanDuty::Full);
    }
    world.run(Duration::from_secs(2));
    assert_eq!((world.when(quiet, is_discovery).len(), world.when(loud, is_discovery).len()), (1, 0));
    assert!(world.air.could_meet(quiet).is_empty());
    let peer = world.address(loud);
    world.command(quiet, RadioCommand::Connect(peer));
    world.run(Duration::from_secs(4));
    assert_eq!(world.when(quiet, |event| matches!(event, RadioEvent::OpenFailed { .. })).len(), 1);
    world.air.move_to(world.now, quiet, 8.0, 0.0).unwrap();
    world.run(Duration::from_secs(2));
    assert_eq!(world.when(loud, is_discovery).len(), 1, "near enough now");
    assert_eq!(world.air.could_meet(quiet), [loud]);
    world.link(quiet, loud);
}

#[test]
fn a_radio_that_may_not_scan_is_found_by_others_and_finds_none() {
    let mut world = World::new(Config::default(), 1);
    let mut join = |x: f64, deaf| world.air.join(Instant::ZERO, Place { deaf, ..Place::at(x, 0.0) }).unwrap();
    let (one, other, phone) = (join(0.0, true), join(5.0, true), join(9.0, false));
    for id in [one, other, phone] {
        world.advertise(id, b"hello");
        world.scan(id, ScanDuty::Full);
    }
    world.run(Duration::from_secs(2));
    assert!(world.when(one, is_discovery).is_empty() && world.when(other, is_discovery).is_empty());
    assert_eq!(world.when(phone, is_discovery).len(), 2);
    assert_eq!(world.air.could_meet(one), [phone], "two that may not scan never meet");
}

#[test]
fn an_address_that_changes_is_heard_anew_ends_no_link_and_cannot_be_dialled_any_more() {
    let config = Config { address_rotation: Some(Duration::from_secs(60)), ..Config::default() };
    let mut world = World::new(config, 1);
    let (a, b) = (world.join(0.0, 0.0), world.join(5.0, 0.0));
    let (from, to) = world.link(a, b);
    world.scan(a, ScanDuty::Full);
    world.run(Duration::from_secs(2));
    let old = world.address(b);
    while world.address(b) == old {
        assert!(world.now.since(Instant::ZERO) < Duration::from_secs(70), "no new address within a minute");
        world.run(Duration::from_secs(1));
    }
    world.run(Duration::from_secs(2));
    let new = world.address(b);
    let heard =
        |peer| world.when(a, |event| matches!(event, RadioEvent::Discovered { peer: p, .. } if *p == peer)).len();
    assert!(heard(new) > 0);
    world.stream(a, from, 1_000, 500);
    world.command(a, RadioCommand::Connect(old));
    world.run(Duration::from_secs(4));
    assert_eq!(world.received(b, to), common::pattern(1_000));
    assert_eq!(world.when(a, |event| matches!(event, RadioEvent::OpenFailed { .. })).len(), 1);
    assert_eq!(world.closed(a, from), None);
}
