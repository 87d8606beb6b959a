//! A world of radios that runs in virtual time and keeps what it saw.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::time::Duration;

use bbh_air::{Air, Config, Place, RadioId};
use bbh_types::Instant;
use bbh_types::radio::{LinkId, PeerAddr, RadioCommand, RadioEvent, ScanDuty};

/// One thing that happened: when, to whom, what.
pub type Seen = (Instant, RadioId, RadioEvent);

/// A stream that is kept full: what is still to be handed over.
pub struct Stream {
    pub size: usize,
    pub left: usize,
    pub next: u8,
}

pub struct World {
    pub air: Air,
    pub now: Instant,
    pub log: Vec<Seen>,
    /// Sends as much as the link takes.
    pub streams: BTreeMap<(RadioId, LinkId), Stream>,
    /// What arrives on the first link is passed on over the second.
    pub relays: BTreeMap<(RadioId, LinkId), LinkId>,
    pub held: BTreeMap<(RadioId, LinkId), Vec<Vec<u8>>>,
    pub in_flight: BTreeMap<(RadioId, LinkId), usize>,
    pub received: BTreeMap<(RadioId, LinkId), Vec<u8>>,
}

impl World {
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            air: Air::new(config, seed).unwrap(),
            now: Instant::ZERO,
            log: Vec::new(),
            streams: BTreeMap::new(),
            relays: BTreeMap::new(),
            held: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            received: BTreeMap::new(),
        }
    }

    pub fn join(&mut self, x: f64, y: f64) -> RadioId {
        self.air.join(self.now, Place::at(x, y)).unwrap()
    }

    pub fn command(&mut self, id: RadioId, command: RadioCommand) {
        self.air.command(self.now, id, command).unwrap();
    }

    pub fn advertise(&mut self, id: RadioId, beacon: &[u8]) {
        self.command(id, RadioCommand::Advertise(Some(beacon.to_vec())));
    }

    pub fn scan(&mut self, id: RadioId, duty: ScanDuty) {
        self.command(id, RadioCommand::Scan(duty));
    }

    pub fn address(&self, id: RadioId) -> PeerAddr {
        self.air.address(id).unwrap()
    }

    /// Opens a link between the two and returns its number at either end.
    pub fn link(&mut self, a: RadioId, b: RadioId) -> (LinkId, LinkId) {
        self.advertise(b, b"here");
        let peer = self.address(b);
        self.command(a, RadioCommand::Connect(peer));
        let from = self.log.len();
        self.run(Duration::from_millis(200));
        let of = |id| {
            self.log[from..].iter().find_map(|(_, to, event)| match event {
                RadioEvent::Opened { link, .. } if *to == id => Some(*link),
                _ => None,
            })
        };
        (of(a).expect("the dialler's end is open"), of(b).expect("the other end is open"))
    }

    /// Sends `total` bytes over the link in transmissions of `size`, as fast as it goes.
    pub fn stream(&mut self, id: RadioId, link: LinkId, total: usize, size: usize) {
        self.streams.insert((id, link), Stream { size, left: total, next: 0 });
        self.fill(id, link);
    }

    /// Passes on what arrives.
    pub fn relay(&mut self, id: RadioId, from: LinkId, to: LinkId) {
        self.relays.insert((id, from), to);
    }

    fn fill(&mut self, id: RadioId, link: LinkId) {
        loop {
            let in_flight = self.in_flight.entry((id, link)).or_default();
            if *in_flight == 2 {
                return;
            }
            let bytes = if let Some(held) = self.held.get_mut(&(id, link)).filter(|h| !h.is_empty()) {
                held.remove(0)
            } else if let Some(stream) = self.streams.get_mut(&(id, link)).filter(|s| s.left > 0) {
                let size = stream.size.min(stream.left);
                stream.left -= size;
                let bytes = (0..size).map(|i| stream.next.wrapping_add(i as u8)).collect();
                stream.next = stream.next.wrapping_add(size as u8);
                bytes
            } else {
                return;
            };
            *in_flight += 1;
            self.air.send(self.now, id, link, bytes).unwrap();
        }
    }

    fn drain(&mut self) {
        while let Some((id, event)) = self.air.poll_event() {
            self.log.push((self.now, id, event.clone()));
            match event {
                RadioEvent::Sent { link, count } => {
                    *self.in_flight.entry((id, link)).or_default() -= count;
                    self.fill(id, link);
                }
                RadioEvent::Data { link, bytes } => {
                    self.received.entry((id, link)).or_default().extend_from_slice(&bytes);
                    if let Some(&to) = self.relays.get(&(id, link)) {
                        self.held.entry((id, to)).or_default().push(bytes);
                        self.fill(id, to);
                    }
                }
                _ => {}
            }
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.drain();
        while let Some(at) = self.air.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.air.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.air.handle_timeout(end);
        self.drain();
    }

    pub fn received(&self, id: RadioId, link: LinkId) -> &[u8] {
        self.received.get(&(id, link)).map_or(&[], Vec::as_slice)
    }

    /// When each event that `pick` wants happened.
    pub fn when(&self, id: RadioId, pick: impl Fn(&RadioEvent) -> bool) -> Vec<Instant> {
        self.log.iter().filter(|(_, to, event)| *to == id && pick(event)).map(|(at, ..)| *at).collect()
    }

    pub fn closed(&self, id: RadioId, closed: LinkId) -> Option<Instant> {
        self.when(id, |e| matches!(e, RadioEvent::Closed { link } if *link == closed)).first().copied()
    }
}

/// What a stream of that many bytes looks like.
pub fn pattern(total: usize) -> Vec<u8> {
    (0..total).map(|i| i as u8).collect()
}
