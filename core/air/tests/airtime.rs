//! How fast bytes get through, and who waits for whom.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use bbh_air::{Air, Config, Place, RadioId, SendError};
use bbh_types::Instant;
use bbh_types::radio::{LinkId, RadioCommand, RadioEvent, ScanDuty};
use common::{World, pattern};

const SECONDS: u64 = 60;
const PLENTY: usize = usize::MAX;

/// What arrived during a minute as a share of the rate.
fn share_of_rate(bytes: usize) -> f64 {
    bytes as f64 / (SECONDS * 176_000) as f64
}

#[track_caller]
fn assert_close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 0.02, "{got:.3} instead of {expected:.3}");
}

/// The throughput over a chain of radios, each in range of its neighbours only, as a share of the rate.
fn chain(hops: usize, size: usize, loss: f64, duty: ScanDuty) -> f64 {
    let mut world = World::new(Config { loss, ..Config::default() }, 1);
    let radios: Vec<_> = (0..=hops).map(|i| world.join(i as f64 * 8.0, 0.0)).collect();
    let links: Vec<_> = radios.windows(2).map(|pair| world.link(pair[0], pair[1])).collect();
    for (i, pair) in links.windows(2).enumerate() {
        world.relay(radios[i + 1], pair[0].1, pair[1].0);
    }
    for radio in &radios {
        world.scan(*radio, duty);
    }
    world.stream(radios[0], links[0].0, PLENTY, size);
    world.run(Duration::from_secs(SECONDS));
    share_of_rate(world.received(radios[hops], links[hops - 1].1).len())
}

#[test]
fn one_hop_has_the_whole_rate() {
    assert_close(chain(1, 4096, 0.0, ScanDuty::Off), 1.0);
    assert_close(chain(1, 100, 0.0, ScanDuty::Off), 1.0);
}

#[test]
fn scanning_takes_its_share() {
    assert_close(chain(1, 4096, 0.0, ScanDuty::Full), 0.9);
    assert_close(chain(1, 4096, 0.0, ScanDuty::Low), 0.99);
}

#[test]
fn a_relay_passes_on_half() {
    assert_close(chain(2, 4096, 0.0, ScanDuty::Off), 0.5);
    assert_close(chain(2, 4096, 0.0, ScanDuty::Full), 0.45);
}

#[test]
fn loss_costs_airtime() {
    assert_close(chain(1, 4096, 0.3, ScanDuty::Off), 0.7);
}

#[test]
fn a_long_chain_passes_on_nearly_half() {
    for hops in [3, 5, 10, 20] {
        let share = chain(hops, 4096, 0.0, ScanDuty::Low);
        assert!(share > 0.47, "{hops} hops: {share:.3}");
    }
}

#[test]
fn two_links_share_a_radio_and_so_do_two_directions() {
    let mut world = World::new(Config::default(), 1);
    let (a, b, c) = (world.join(0.0, 0.0), world.join(8.0, 0.0), world.join(-8.0, 0.0));
    let (ab, ba) = world.link(a, b);
    let (ac, ca) = world.link(a, c);
    world.stream(a, ab, PLENTY, 4096);
    world.stream(a, ac, PLENTY, 4096);
    world.stream(b, ba, PLENTY, 4096);
    world.run(Duration::from_secs(SECONDS));
    for got in [world.received(b, ba), world.received(c, ca), world.received(a, ab)] {
        assert_close(share_of_rate(got.len()), 1.0 / 3.0);
    }
}

#[test]
fn a_link_whose_end_is_busy_does_not_hold_up_the_others() {
    // b is busy with a slow radio for 4 s at a time; a's link to c must not wait for b.
    let mut world = World::new(Config::default(), 1);
    let (a, b, c) = (world.join(0.0, 0.0), world.join(8.0, 0.0), world.join(-8.0, 0.0));
    let slow = world.air.join(world.now, Place { rate: Some(1_000), ..Place::at(16.0, 0.0) }).unwrap();
    let (ab, ba) = world.link(a, b);
    let (ac, ca) = world.link(a, c);
    let (bs, _) = world.link(b, slow);
    world.stream(b, bs, PLENTY, 4096);
    world.stream(a, ab, PLENTY, 4096);
    world.stream(a, ac, PLENTY, 4096);
    world.run(Duration::from_secs(SECONDS));
    assert!(!world.received(b, ba).is_empty());
    let share = share_of_rate(world.received(c, ca).len());
    assert!(share > 0.95, "{share:.3}");
}

#[test]
fn a_link_whose_two_ends_are_never_free_together_is_not_starved() {
    // a and b each have a neighbour that keeps them busy with transmissions that overlap: a and c in one rhythm, b
    // and d in another.
    let mut world = World::new(Config::default(), 1);
    let (a, b) = (world.join(0.0, 0.0), world.join(8.0, 0.0));
    let (c, d) = (world.join(-8.0, 0.0), world.join(16.0, 0.0));
    let (ab, ba) = world.link(a, b);
    let (ac, ca) = world.link(a, c);
    let (_, db) = world.link(b, d);
    world.stream(c, ca, PLENTY, 4096);
    world.stream(a, ac, PLENTY, 4096);
    world.run(Duration::from_millis(7));
    world.stream(d, db, PLENTY, 3000);
    world.stream(a, ab, PLENTY, 100);
    world.run(Duration::from_secs(SECONDS));
    let turns = world.received(b, ba).len() / 100;
    assert!(turns > 10 * SECONDS as usize, "a turn in every round of some 50 ms: {turns}");
}

#[test]
fn a_transmission_takes_its_airtime_and_the_latency_and_is_reported_when_it_has_left() {
    let mut world = World::new(Config { rate: 100_000, ..Config::default() }, 1);
    let (a, b) = (world.join(0.0, 0.0), world.join(1.0, 0.0));
    let (ab, _) = world.link(a, b);
    let start = world.now;
    world.air.send(start, a, ab, vec![1; 1_000]).unwrap();
    world.in_flight.insert((a, ab), 1);
    world.run(Duration::from_secs(1));
    assert_eq!(world.when(a, |e| matches!(e, RadioEvent::Sent { .. })), [start + Duration::from_millis(10)]);
    assert_eq!(world.when(b, |e| matches!(e, RadioEvent::Data { .. })), [start + Duration::from_micros(17_500)]);
}

#[test]
fn the_slower_radio_sets_the_pace() {
    let mut world = World::new(Config::default(), 1);
    let a = world.join(0.0, 0.0);
    let b = world.air.join(world.now, Place { rate: Some(17_600), ..Place::at(1.0, 0.0) }).unwrap();
    let (ab, ba) = world.link(a, b);
    world.stream(a, ab, PLENTY, 4096);
    world.run(Duration::from_secs(SECONDS));
    assert_close(share_of_rate(world.received(b, ba).len()), 0.1);
}

#[test]
fn loss_never_loses_or_reorders_bytes() {
    let mut world = World::new(Config { loss: 0.6, ..Config::default() }, 5);
    let (a, b) = (world.join(0.0, 0.0), world.join(1.0, 0.0));
    let (ab, ba) = world.link(a, b);
    world.stream(a, ab, 500_000, 777);
    world.stream(b, ba, 500_000, 1_999);
    world.run(Duration::from_secs(SECONDS));
    assert!(world.received(b, ba) == pattern(500_000));
    assert!(world.received(a, ab) == pattern(500_000));
}

#[test]
fn what_a_link_cannot_take_is_refused_and_the_link_goes_on() {
    let mut world = World::new(Config::default(), 1);
    let (a, b) = (world.join(0.0, 0.0), world.join(1.0, 0.0));
    let (ab, ba) = world.link(a, b);
    let now = world.now;
    let mut send = |id: RadioId, link: LinkId, len: usize| world.air.send(now, id, link, vec![7; len]);
    assert_eq!(send(a, ab, 0), Err(SendError::Empty));
    assert_eq!(send(a, ab, 4097), Err(SendError::TooLong { got: 4097, max: 4096 }));
    assert_eq!(send(a, ba, 1), Err(SendError::NotOpen), "the other end's number");
    assert_eq!(send(a, LinkId(u64::MAX), 1), Err(SendError::NotOpen));
    assert_eq!(send(a, ab, 10), Ok(()));
    assert_eq!(send(a, ab, 10), Ok(()));
    assert_eq!(send(a, ab, 10), Err(SendError::TooManyInFlight(2)));
    world.in_flight.insert((a, ab), 2);
    world.run(Duration::from_secs(1));
    assert_eq!(world.received(b, ba), [7; 20]);
}

#[test]
fn catching_up_makes_up_for_late_hand_overs_but_never_exceeds_the_rate() {
    // A caller that looks at the air only every 2 ms, while a transmission takes 1.024 ms.
    let throughput = |catch_up| {
        let config = Config { rate: 4_000_000, catch_up, ..Config::default() };
        let mut air = Air::new(config, 1).unwrap();
        let mut now = Instant::ZERO;
        let a = air.join(now, Place::at(0.0, 0.0)).unwrap();
        let b = air.join(now, Place::at(1.0, 0.0)).unwrap();
        air.command(now, b, RadioCommand::Advertise(Some(vec![1]))).unwrap();
        air.command(now, a, RadioCommand::Connect(air.address(b).unwrap())).unwrap();
        let (mut link, mut room, mut got) = (None, 2, 0);
        let mut seen = BTreeSet::new();
        while now < Instant::from_micros(5_200_000) {
            now += Duration::from_micros(2_300);
            air.handle_timeout(now);
            while let Some((id, event)) = air.poll_event() {
                match event {
                    RadioEvent::Opened { link: opened, dialler: true, .. } => link = Some(opened),
                    RadioEvent::Sent { .. } => room += 1,
                    RadioEvent::Data { bytes, .. } if id == b => got += bytes.len(),
                    _ => {}
                }
            }
            seen.insert(room);
            while let Some(link) = link.filter(|_| room > 0) {
                air.send(now, a, link, vec![0; 4096]).unwrap();
                room -= 1;
            }
        }
        got as f64 / 5.0 / 4_000_000.0
    };
    let (without, with) = (throughput(Duration::ZERO), throughput(Duration::from_millis(20)));
    assert!(without < 0.95, "the test must show a difference: {without:.3}");
    assert!(with > without && with <= 1.02, "{with:.3}");
}
