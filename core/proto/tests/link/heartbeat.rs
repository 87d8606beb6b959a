use std::time::Duration;

use bbh_proto::link::{HANDSHAKE_TIMEOUT, HEARTBEAT_PERIOD, LINK_TIMEOUT, Link, LinkError};
use bbh_types::Instant;
use bbh_types::radio::LinkLimits;
use bbh_wire::Lane;

use crate::pair::{Pair, link, node, packet, packets};

/// Runs both ends by their own timers until `until`; returns how often a timer of the first end had to wake it.
fn run(pair: &mut Pair, until: Instant) -> Result<u64, LinkError> {
    let mut wakes = 0;
    loop {
        let (a, b) = (pair.a.poll_timeout().unwrap(), pair.b.poll_timeout().unwrap());
        if a.min(b) > until {
            pair.now = until;
            return Ok(wakes);
        }
        pair.now = a.min(b);
        if a <= b {
            wakes += 1;
            pair.a.handle_timeout(pair.now)?;
        } else {
            pair.b.handle_timeout(pair.now)?;
        }
        pair.pump();
    }
}

#[test]
fn an_idle_link_stays_alive_for_minutes() {
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    let minutes = Duration::from_secs(600);
    let end = pair.now + minutes;
    let wakes = run(&mut pair, end).unwrap();
    let periods = (minutes.as_micros() / HEARTBEAT_PERIOD.as_micros()) as u64;
    assert!(wakes <= periods + 1, "{wakes} wake-ups in {periods} periods");
    assert!(pair.a.is_up() && pair.b.is_up());
    pair.a.enqueue(&packet(Lane::Chat, node(1), node(2), 1, 100), None).unwrap();
    pair.pump();
    assert_eq!(packets(&mut pair.b).len(), 1);
}

#[test]
fn a_link_stays_alive_when_both_or_none_of_its_ends_lead() {
    for leads in [true, false] {
        let mut pair = Pair::new(LinkLimits::BLUETOOTH);
        pair.a.beat_leader(leads);
        pair.b.beat_leader(leads);
        let end = pair.now + Duration::from_secs(60);
        run(&mut pair, end).unwrap();
        assert!(pair.a.is_up() && pair.b.is_up(), "leads: {leads}");
    }
}

#[test]
fn silence_is_noticed_after_three_seconds_by_both_ends() {
    let mut pair = Pair::new(LinkLimits::BLUETOOTH);
    for link in [&mut pair.a, &mut pair.b] {
        let error = loop {
            let now = link.poll_timeout().unwrap();
            match link.handle_timeout(now) {
                Ok(()) => assert!(now.since(pair.now) < LINK_TIMEOUT),
                Err(error) => {
                    assert_eq!(now.since(pair.now), LINK_TIMEOUT);
                    break error;
                }
            }
        };
        assert_eq!(error, LinkError::TimedOut);
        assert_eq!(link.handle_data(pair.now, b"too late"), Err(LinkError::TimedOut));
        assert!(link.should_close() && link.poll_timeout().is_none() && link.poll_transmit(pair.now).is_none());
    }
}

#[test]
fn traffic_in_one_direction_only_keeps_the_link_alive() {
    for from_leader in [true, false] {
        let mut pair = Pair::new(LinkLimits::BLUETOOTH);
        for number in 0..300 {
            let next = pair.now + Duration::from_millis(100);
            run(&mut pair, next).unwrap();
            let (from, to) = if from_leader { (1, 2) } else { (2, 1) };
            let link = if from_leader { &mut pair.a } else { &mut pair.b };
            link.enqueue(&packet(Lane::Chat, node(from), node(to), number, 100), None).unwrap();
            pair.pump();
        }
        assert!(pair.a.is_up() && pair.b.is_up());
    }
}

#[test]
fn four_idle_links_of_a_leader_cost_one_wake_up_per_period() {
    let start = Instant::from_micros(5_000_000);
    let mut ends: Vec<(Link, Link)> = (0..4_u8)
        .map(|number| {
            // Opened at different times.
            let now = start + Duration::from_millis(330 * u64::from(number));
            let mut leader = link(u64::from(number), 1, true, LinkLimits::BLUETOOTH, now);
            let mut other = link(10 + u64::from(number), 2 + number, false, LinkLimits::BLUETOOTH, now);
            exchange(&mut leader, &mut other, now);
            (leader, other)
        })
        .collect();
    let begin = start + Duration::from_secs(2);
    let end = begin + HEARTBEAT_PERIOD * 100;
    let mut wakes = 0;
    loop {
        let now = ends.iter().filter_map(|(leader, _)| leader.poll_timeout()).min().unwrap();
        if now > end {
            break;
        }
        wakes += u64::from(now > begin);
        for (leader, other) in &mut ends {
            leader.handle_timeout(now).unwrap();
            other.handle_timeout(now).unwrap();
            exchange(leader, other, now);
        }
    }
    assert!((95..=100).contains(&wakes), "{wakes} wake-ups in 100 periods");
    assert!(ends.iter().all(|(leader, other)| leader.is_up() && other.is_up()));
}

fn exchange(a: &mut Link, b: &mut Link, now: Instant) {
    loop {
        let (there, back) = (a.poll_transmit(now), b.poll_transmit(now));
        if there.is_none() && back.is_none() {
            return;
        }
        a.handle_sent(usize::from(there.is_some()));
        b.handle_sent(usize::from(back.is_some()));
        b.handle_data(now, &there.unwrap_or_default()).unwrap();
        a.handle_data(now, &back.unwrap_or_default()).unwrap();
    }
}

#[test]
fn a_handshake_that_goes_nowhere_ends_after_five_seconds() {
    let mut pair = Pair::unconnected(LinkLimits::BLUETOOTH, usize::MAX);
    for link in [&mut pair.a, &mut pair.b] {
        let deadline = link.poll_timeout().unwrap();
        assert_eq!(deadline.since(pair.now), HANDSHAKE_TIMEOUT);
        assert_eq!(link.handle_timeout(deadline), Err(LinkError::HandshakeTimeout));
    }
}
