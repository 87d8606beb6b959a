//! The whole model: the same inputs, many radios, any inputs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use bbh_air::{Air, Config, Place, RadioId};
use bbh_types::Instant;
use bbh_types::radio::{LinkId, PeerAddr, RadioCommand, RadioEvent, ScanDuty};
use common::World;
use proptest::prelude::*;

/// A busy minute; everything that happened.
fn story(seed: u64) -> Vec<common::Seen> {
    let mut world = World::new(Config { loss: 0.2, ..Config::default() }, seed);
    let radios: Vec<_> = (0..30).map(|i| world.join(f64::from(i % 6) * 4.0, f64::from(i / 6) * 4.0)).collect();
    for id in &radios {
        world.advertise(*id, &id.0.to_be_bytes());
        world.scan(*id, ScanDuty::Full);
    }
    for pair in radios.chunks(2) {
        let (link, _) = world.link(pair[0], pair[1]);
        world.stream(pair[0], link, 200_000, 3_000);
    }
    for (i, id) in radios.iter().enumerate().step_by(5) {
        world.air.move_to(world.now, *id, 100.0 - i as f64, 0.0).unwrap();
        world.run(Duration::from_secs(6));
    }
    world.air.leave(world.now, radios[7]);
    world.run(Duration::from_secs(10));
    world.log
}

#[test]
fn the_same_seed_and_inputs_give_the_same_outputs() {
    let first = story(42);
    assert!(first.len() > 1_000);
    assert!(first == story(42));
    assert!(first != story(43));
}

#[test]
fn two_thousand_radios_meet_link_and_talk() {
    // About 30 in range of each. Work that grew with the square of their number would take minutes here.
    let mut world = World::new(Config::default(), 1);
    let radios: Vec<_> = (0..2_000u32).map(|i| world.join(f64::from(i % 50) * 3.2, f64::from(i / 50) * 3.2)).collect();
    for id in &radios {
        world.advertise(*id, &id.0.to_be_bytes());
        world.scan(*id, ScanDuty::Full);
    }
    world.run(Duration::from_secs(2));
    let expected: usize = radios.iter().map(|id| world.air.in_range(*id).len()).sum();
    assert_eq!(world.log.len(), expected, "each hears each in range once");
    let pairs: Vec<_> = radios.chunks(2).map(|p| (p[0], p[1])).collect();
    for (a, b) in &pairs {
        let peer = world.address(*b);
        world.command(*a, RadioCommand::Connect(peer));
    }
    world.log.clear();
    world.run(Duration::from_millis(200));
    let opened: Vec<_> = world
        .log
        .iter()
        .filter_map(|(_, id, event)| match event {
            RadioEvent::Opened { link, dialler: true, .. } => Some((*id, *link)),
            _ => None,
        })
        .collect();
    assert_eq!(opened.len(), pairs.len());
    for (id, link) in opened {
        world.stream(id, link, 40_000, 4_096);
    }
    world.run(Duration::from_secs(1));
    assert!(world.received.len() == pairs.len() && world.received.values().all(|r| r.len() == 40_000));
}

#[derive(Debug, Clone)]
enum Input {
    Join(i16, i16),
    Leave(usize),
    Move(usize, i16, i16),
    Advertise(usize, Option<u8>),
    Scan(usize, u8),
    Connect(usize, usize),
    ConnectNobody(usize, u64),
    Close(usize, usize),
    CloseAny(usize, u64),
    Send(usize, usize, u16),
    Wait(u32),
    Backwards(u32),
}

fn input() -> impl Strategy<Value = Input> {
    let place = -20i16..20;
    prop_oneof![
        2 => (place.clone(), place.clone()).prop_map(|(x, y)| Input::Join(x, y)),
        1 => any::<usize>().prop_map(Input::Leave),
        3 => (any::<usize>(), place.clone(), place).prop_map(|(i, x, y)| Input::Move(i, x, y)),
        2 => (any::<usize>(), any::<Option<u8>>()).prop_map(|(i, b)| Input::Advertise(i, b)),
        2 => (any::<usize>(), 0..3u8).prop_map(|(i, d)| Input::Scan(i, d)),
        6 => (any::<usize>(), any::<usize>()).prop_map(|(i, j)| Input::Connect(i, j)),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(i, p)| Input::ConnectNobody(i, p)),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(i, l)| Input::Close(i, l)),
        1 => (any::<usize>(), any::<u64>()).prop_map(|(i, l)| Input::CloseAny(i, l)),
        16 => (any::<usize>(), any::<usize>(), 0..4_200u16).prop_map(|(i, l, n)| Input::Send(i, l, n)),
        8 => (0..400_000u32).prop_map(Input::Wait),
        1 => any::<u32>().prop_map(Input::Backwards),
    ]
}

/// What a direction of a link carried, kept by whoever sent.
#[derive(Default)]
struct Direction {
    sent: Vec<u8>,
    arrived: Vec<u8>,
    in_flight: usize,
    closed: bool,
}

#[derive(Default)]
struct Checker {
    radios: Vec<RadioId>,
    /// Open links of a radio, in the order of opening.
    open: BTreeMap<RadioId, Vec<LinkId>>,
    directions: BTreeMap<(RadioId, LinkId), Direction>,
    /// The other end of each end.
    other: BTreeMap<(RadioId, LinkId), (RadioId, LinkId)>,
    connecting: BTreeMap<RadioId, usize>,
    half_open: Option<(RadioId, LinkId)>,
    counter: u8,
}

impl Checker {
    fn seen(&mut self, id: RadioId, event: RadioEvent) {
        assert!(self.radios.contains(&id), "an event for a radio that has left");
        match event {
            RadioEvent::Opened { link, dialler, .. } => {
                self.open.entry(id).or_default().push(link);
                self.directions.insert((id, link), Direction::default());
                if dialler {
                    *self.connecting.get_mut(&id).unwrap() -= 1;
                    self.half_open = Some((id, link));
                } else {
                    let other = self.half_open.take().expect("the dialler's end comes first");
                    self.other.insert((id, link), other);
                    self.other.insert(other, (id, link));
                }
            }
            RadioEvent::OpenFailed { .. } => *self.connecting.get_mut(&id).unwrap() -= 1,
            RadioEvent::Data { link, bytes } => {
                assert!(!self.directions[&(id, link)].closed, "bytes after the end");
                let from = self.directions.get_mut(&self.other[&(id, link)]).unwrap();
                from.arrived.extend_from_slice(&bytes);
                assert!(from.sent.starts_with(&from.arrived), "in order and whole");
            }
            RadioEvent::Sent { link, count } => {
                let direction = self.directions.get_mut(&(id, link)).unwrap();
                assert!(!direction.closed && direction.in_flight >= count);
                direction.in_flight -= count;
            }
            RadioEvent::Closed { link } => {
                let direction = self.directions.get_mut(&(id, link)).unwrap();
                assert!(!std::mem::replace(&mut direction.closed, true), "closed once");
                self.open.get_mut(&id).unwrap().retain(|l| *l != link);
            }
            RadioEvent::Discovered { .. } | RadioEvent::State { .. } => {}
        }
    }

    fn radio(&self, index: usize) -> Option<RadioId> {
        (!self.radios.is_empty()).then(|| self.radios[index % self.radios.len()])
    }

    fn link(&self, id: RadioId, index: usize) -> Option<LinkId> {
        let open = self.open.get(&id).filter(|o| !o.is_empty())?;
        Some(open[index % open.len()])
    }

    fn apply(&mut self, air: &mut Air, now: &mut Instant, input: Input) {
        let connect = |checker: &mut Self, air: &mut Air, now, id, peer| {
            *checker.connecting.entry(id).or_default() += 1;
            air.command(now, id, RadioCommand::Connect(peer)).unwrap();
        };
        match input {
            Input::Join(x, y) if self.radios.len() < 12 => {
                self.radios.push(air.join(*now, Place::at(x.into(), y.into())).unwrap());
            }
            Input::Join(..) => {}
            Input::Leave(i) => {
                if let Some(id) = self.radio(i) {
                    air.leave(*now, id);
                    self.radios.retain(|r| *r != id);
                    self.open.remove(&id);
                }
            }
            Input::Move(i, x, y) => {
                if let Some(id) = self.radio(i) {
                    air.move_to(*now, id, x.into(), y.into()).unwrap();
                }
            }
            Input::Advertise(i, beacon) => {
                if let Some(id) = self.radio(i) {
                    air.command(*now, id, RadioCommand::Advertise(beacon.map(|b| vec![b]))).unwrap();
                }
            }
            Input::Scan(i, duty) => {
                if let Some(id) = self.radio(i) {
                    let duty = [ScanDuty::Off, ScanDuty::Low, ScanDuty::Full][usize::from(duty)];
                    air.command(*now, id, RadioCommand::Scan(duty)).unwrap();
                }
            }
            Input::Connect(i, j) => {
                if let (Some(a), Some(b)) = (self.radio(i), self.radio(j)) {
                    air.command(*now, b, RadioCommand::Advertise(Some(vec![0]))).unwrap();
                    let peer = air.address(b).unwrap();
                    connect(self, air, *now, a, peer);
                }
            }
            Input::ConnectNobody(i, peer) => {
                if let Some(id) = self.radio(i) {
                    connect(self, air, *now, id, PeerAddr(peer));
                }
            }
            Input::Close(i, l) => {
                if let Some((id, link)) = self.radio(i).and_then(|id| Some((id, self.link(id, l)?))) {
                    air.command(*now, id, RadioCommand::Close(link)).unwrap();
                }
            }
            Input::CloseAny(i, l) => {
                if let Some(id) = self.radio(i) {
                    air.command(*now, id, RadioCommand::Close(LinkId(l % 64))).unwrap();
                }
            }
            Input::Send(i, l, n) => {
                if let Some((id, link)) = self.radio(i).and_then(|id| Some((id, self.link(id, l)?))) {
                    self.counter = self.counter.wrapping_add(1);
                    let bytes = vec![self.counter; usize::from(n)];
                    let taken = air.send(*now, id, link, bytes.clone()).is_ok();
                    let direction = self.directions.get_mut(&(id, link)).unwrap();
                    if taken {
                        direction.sent.extend(bytes);
                        direction.in_flight += 1;
                        assert!(direction.in_flight <= 2 && (1..=4096).contains(&n));
                    }
                }
            }
            Input::Wait(micros) => {
                let end = *now + Duration::from_micros(micros.into());
                while let Some(at) = air.poll_timeout().filter(|at| *at <= end) {
                    *now = (*now).max(at);
                    air.handle_timeout(*now);
                    self.drain(air);
                }
                *now = end;
            }
            Input::Backwards(micros) => {
                air.handle_timeout(Instant::from_micros(now.as_micros().saturating_sub(micros.into())));
            }
        }
        self.drain(air);
    }

    fn drain(&mut self, air: &mut Air) {
        while let Some((id, event)) = air.poll_event() {
            self.seen(id, event);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_comes_in_bytes_arrive_in_order_and_every_connect_is_answered(
        seed: u64,
        loss in 0.0..0.6f64,
        late in 0..2u8,
        inputs in prop::collection::vec(input(), 1..250),
    ) {
        let catch_up = Duration::from_millis(20) * u32::from(late);
        let mut air = Air::new(Config { loss, catch_up, ..Config::default() }, seed).unwrap();
        let mut now = Instant::ZERO;
        let mut checker = Checker::default();
        for (x, y) in [(0, 0), (6, 0), (0, 6), (-6, 0)] {
            checker.apply(&mut air, &mut now, Input::Join(x, y));
        }
        for input in inputs {
            checker.apply(&mut air, &mut now, input);
        }
        // A minute later everything has settled: what was sent over a link that is still open has arrived.
        for _ in 0..150 {
            checker.apply(&mut air, &mut now, Input::Wait(400_000));
        }
        for id in &checker.radios {
            prop_assert_eq!(checker.connecting.get(id).copied().unwrap_or(0), 0);
            for link in checker.open.get(id).into_iter().flatten() {
                let direction = &checker.directions[&(*id, *link)];
                prop_assert_eq!(direction.arrived.len(), direction.sent.len());
                prop_assert_eq!(direction.in_flight, 0);
            }
        }
    }
}
