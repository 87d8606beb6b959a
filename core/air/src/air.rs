//! The machine: radios, what comes in, what goes out, and the clock.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bbh_types::Instant;
use bbh_types::radio::{LinkId, PeerAddr, RadioCommand, RadioEvent, ScanDuty};

use crate::chance::Chance;
use crate::config::{Config, ConfigError, MAX_BEACON, MAX_COORDINATE, valid_range};
use crate::discovery::Heard;
use crate::grid::{Grid, Spot};
use crate::links::{Dialling, Head, Link};
use crate::schedule::{Happening, Schedule};

/// A radio of this air, numbered in the order of joining; numbers are not used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RadioId(pub u64);

/// Where a radio joins and what it can do.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Place {
    /// Metres east, magnitude at most [`MAX_COORDINATE`].
    pub x: f64,
    /// Metres north, magnitude at most [`MAX_COORDINATE`].
    pub y: f64,
    /// Range in metres, if not [`Config::range`].
    pub range: Option<f64>,
    /// Payload bytes per second, if not [`Config::rate`].
    pub rate: Option<u64>,
    /// Metres its beacons carry, if not as far as its links: over 0, at most [`crate::MAX_RANGE`]. Makes visibility
    /// asymmetric; links need both ranges all the same.
    pub voice: Option<f64>,
    /// It may not scan (a phone whose platform forbids that in the background): it is asked to in vain.
    pub deaf: bool,
}

impl Place {
    /// At this position, with the range and the rate of the configuration.
    pub fn at(x: f64, y: f64) -> Self {
        Self { x, y, ..Self::default() }
    }
}

/// An input that the model can't follow; nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AirError {
    /// No radio with this number, or it has left.
    #[error("there is no such radio: it never joined or has left")]
    NoSuchRadio,
    /// A position that is not a place.
    #[error("the position must be finite and within 1,000,000,000 metres of the origin")]
    BadPosition,
    /// A range that is no range.
    #[error("the range must be over 0 and at most 10,000,000 metres")]
    BadRange,
    /// A rate that is no rate.
    #[error("the rate must be at least 1 byte per second")]
    BadRate,
    /// The beacon is over [`MAX_BEACON`].
    #[error("the beacon has {0} bytes; at most 254 fit")]
    BeaconTooLong(usize),
}

/// Why a transmission was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The link is closed, closing, or not this radio's. A caller that has not yet seen
    /// [`RadioEvent::Closed`] may well run into it.
    #[error("the link is not open on this radio")]
    NotOpen,
    /// Two transmissions are waiting already: wait for [`RadioEvent::Sent`].
    #[error("{0} transmissions are waiting already: wait until one is reported as sent")]
    TooManyInFlight(usize),
    /// Larger than the link's largest frame.
    #[error("a transmission of {got} bytes; at most {max} fit")]
    TooLong {
        /// Its size.
        got: usize,
        /// The link's limit.
        max: usize,
    },
    /// Nothing to send.
    #[error("a transmission of no bytes")]
    Empty,
}

/// One radio.
pub(crate) struct Radio {
    pub(crate) spot: Spot,
    pub(crate) rate: u64,
    pub(crate) address: PeerAddr,
    pub(crate) beacon: Option<Vec<u8>>,
    pub(crate) duty: ScanDuty,
    /// It may not scan.
    pub(crate) deaf: bool,
    /// The advertisers in range while this radio scans.
    pub(crate) heard: BTreeMap<RadioId, Heard>,
    /// Marks the [`Happening::Repeat`] that counts.
    pub(crate) repeat: Option<u64>,
    pub(crate) dialling: Option<Dialling>,
    pub(crate) links: BTreeSet<u64>,
    /// When the current transmission, and the scanning it owes, will be over.
    pub(crate) free_at: u64,
    /// The [`Happening::Free`] that counts.
    pub(crate) wake_at: Option<u64>,
    /// The queues' heads that wait for this radio, longest first.
    pub(crate) heads: BTreeSet<Head>,
}

/// Radios in a plane. See the [crate's description](crate).
///
/// Time must not run backwards: an earlier `now` counts as the latest one seen. After any input drain
/// [`Air::poll_event`]; call [`Air::handle_timeout`] when [`Air::poll_timeout`] says so.
pub struct Air {
    pub(crate) config: Config,
    pub(crate) chance: Chance,
    pub(crate) grid: Grid,
    pub(crate) radios: BTreeMap<RadioId, Radio>,
    pub(crate) addresses: BTreeMap<PeerAddr, RadioId>,
    pub(crate) links: BTreeMap<u64, Link>,
    pub(crate) schedule: Schedule,
    pub(crate) out: VecDeque<(RadioId, RadioEvent)>,
    /// Radios that may start something: looked at once everything else at this moment is done.
    pub(crate) freed: BTreeSet<RadioId>,
    /// The latest moment seen, in nanoseconds.
    clock: u64,
    last_radio: u64,
    pub(crate) last_link: u64,
    pub(crate) last_ticket: u64,
    last_token: u64,
}

impl Air {
    /// An air without radios.
    ///
    /// # Errors
    /// [`ConfigError`] for a figure out of its bounds.
    pub fn new(config: Config, rng_seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            chance: Chance::new(rng_seed, config.loss),
            grid: Grid::new(config.range),
            config,
            radios: BTreeMap::new(),
            addresses: BTreeMap::new(),
            links: BTreeMap::new(),
            schedule: Schedule::default(),
            out: VecDeque::new(),
            freed: BTreeSet::new(),
            clock: 0,
            last_radio: 0,
            last_link: 0,
            last_ticket: 0,
            last_token: 0,
        })
    }

    /// A radio appears, switched on, neither advertising nor scanning.
    ///
    /// # Errors
    /// [`AirError`] for a place that is none.
    pub fn join(&mut self, now: Instant, place: Place) -> Result<RadioId, AirError> {
        self.advance(now);
        check_position(place.x, place.y)?;
        let range = place.range.unwrap_or(self.config.range);
        if !valid_range(range) || place.voice.is_some_and(|voice| !valid_range(voice)) {
            return Err(AirError::BadRange);
        }
        let rate = place.rate.unwrap_or(self.config.rate);
        if rate == 0 {
            return Err(AirError::BadRate);
        }
        self.last_radio += 1;
        let id = RadioId(self.last_radio);
        let address = self.new_address(id);
        let spot = Spot { id, x: place.x, y: place.y, range, voice: place.voice };
        self.grid.insert(spot);
        let radio = Radio {
            spot,
            rate,
            address,
            beacon: None,
            duty: ScanDuty::Off,
            deaf: place.deaf,
            heard: BTreeMap::new(),
            repeat: None,
            dialling: None,
            links: BTreeSet::new(),
            free_at: 0,
            wake_at: None,
            heads: BTreeSet::new(),
        };
        self.radios.insert(id, radio);
        if let Some(interval) = self.config.address_rotation {
            let first = self.chance.between(Duration::ZERO, interval);
            self.schedule.push(self.clock.saturating_add(first), Happening::Rotate(id));
        }
        Ok(id)
    }

    /// Draws an address that nobody has, and gives it to this radio.
    pub(crate) fn new_address(&mut self, id: RadioId) -> PeerAddr {
        loop {
            let address = PeerAddr(self.chance.token());
            if let Entry::Vacant(vacant) = self.addresses.entry(address) {
                vacant.insert(id);
                return address;
            }
        }
    }

    /// A radio vanishes without a word, as when its process is killed: its links fall silent, and the others notice
    /// after the supervision timeout. Its own events are dropped.
    pub fn leave(&mut self, now: Instant, id: RadioId) {
        let t = self.advance(now);
        self.part(id);
        if let Some(radio) = self.radios.remove(&id) {
            self.grid.remove(&radio.spot);
            self.addresses.remove(&radio.address);
            for link in radio.links {
                self.end_vanished(link, id, t);
            }
            self.out.retain(|(to, _)| *to != id);
            self.start_waiting(t);
        }
    }

    /// A radio is carried elsewhere.
    ///
    /// # Errors
    /// [`AirError::BadPosition`], [`AirError::NoSuchRadio`].
    pub fn move_to(&mut self, now: Instant, id: RadioId, x: f64, y: f64) -> Result<(), AirError> {
        let t = self.advance(now);
        check_position(x, y)?;
        let radio = self.radios.get_mut(&id).ok_or(AirError::NoSuchRadio)?;
        let old = radio.spot;
        let new = Spot { x, y, ..old };
        radio.spot = new;
        let links: Vec<u64> = radio.links.iter().copied().collect();
        self.grid.remove(&old);
        self.grid.insert(new);
        self.moved(&old, &new, t);
        for link in links {
            self.range_changed(link, t);
        }
        self.start_waiting(t);
        Ok(())
    }

    /// A radio's owner wants something. A [`RadioCommand::Connect`] while another is under way fails at once with
    /// [`RadioEvent::OpenFailed`]; a [`RadioCommand::Close`] of a link that is not open does nothing.
    ///
    /// # Errors
    /// [`AirError::NoSuchRadio`], [`AirError::BeaconTooLong`].
    pub fn command(&mut self, now: Instant, id: RadioId, command: RadioCommand) -> Result<(), AirError> {
        let t = self.advance(now);
        if !self.radios.contains_key(&id) {
            return Err(AirError::NoSuchRadio);
        }
        match command {
            RadioCommand::Advertise(beacon) => {
                if let Some(long) = beacon.as_ref().map(Vec::len).filter(|len| *len > MAX_BEACON) {
                    return Err(AirError::BeaconTooLong(long));
                }
                self.advertise(id, beacon, t);
            }
            RadioCommand::Scan(duty) => self.scan(id, duty, t),
            RadioCommand::Connect(peer) => self.connect(id, peer, t),
            RadioCommand::Close(link) => self.close(id, link, t),
        }
        self.start_waiting(t);
        Ok(())
    }

    /// Hands over one transmission of 1 to `max_frame` bytes; [`RadioEvent::Sent`] tells when it has left.
    ///
    /// # Errors
    /// [`SendError`]; the transmission is dropped.
    pub fn send(&mut self, now: Instant, id: RadioId, link: LinkId, bytes: Vec<u8>) -> Result<(), SendError> {
        let t = self.advance(now);
        self.hand_over(id, link, bytes, t)
    }

    /// Does everything that is due, each thing at the moment it was due, however late the call.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// When [`Air::handle_timeout`] is due next; maybe in the past, then at once. `None`: nothing until an input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        // Rounded up, so that the nanosecond has come when the microsecond has.
        self.schedule.next_at().map(|at| Instant::from_micros(at.div_ceil(1_000)))
    }

    /// The next event, and whose it is.
    pub fn poll_event(&mut self) -> Option<(RadioId, RadioEvent)> {
        self.out.pop_front()
    }

    /// The address by which others see this radio.
    pub fn address(&self, id: RadioId) -> Option<PeerAddr> {
        self.radios.get(&id).map(|r| r.address)
    }

    /// Where this radio is, in metres.
    pub fn position(&self, id: RadioId) -> Option<(f64, f64)> {
        self.radios.get(&id).map(|r| (r.spot.x, r.spot.y))
    }

    /// How many radios there are.
    pub fn radios(&self) -> usize {
        self.radios.len()
    }

    /// The radios in range of this one, in the order of joining; none if it has left.
    pub fn in_range(&self, id: RadioId) -> Vec<RadioId> {
        let mut near = self.radios.get(&id).map(|r| self.grid.around(&r.spot)).unwrap_or_default();
        near.sort_unstable();
        near
    }

    /// The radios with which this one could come to hold a link, in the order of joining: in range of each other, and
    /// one of the two may scan and hears the other's beacons.
    pub fn could_meet(&self, id: RadioId) -> Vec<RadioId> {
        let Some(radio) = self.radios.get(&id) else { return Vec::new() };
        let finds = |a: &Radio, b: &Radio| !a.deaf && a.spot.hears_beacons_of(&b.spot);
        let mut near = self.in_range(id);
        near.retain(|other| self.radios.get(other).is_some_and(|other| finds(radio, other) || finds(other, radio)));
        near
    }

    /// Runs everything due and returns the current moment in nanoseconds.
    fn advance(&mut self, now: Instant) -> u64 {
        self.clock = self.clock.max(now.as_micros().saturating_mul(1_000));
        while let Some((at, happening)) = self.schedule.pop(self.clock) {
            self.happen(at, happening);
            // Only when all that ends at this moment has ended is it known who is free.
            if self.schedule.next_at() != Some(at) {
                self.start_waiting(at);
            }
        }
        self.clock
    }

    fn happen(&mut self, t: u64, happening: Happening) {
        match happening {
            Happening::Free(radio) => self.free(radio, t),
            Happening::Left { link, side } => self.left(link, side, t),
            Happening::Arrived { link, side } => self.arrived(link, side),
            Happening::Heard { scanner, advertiser, token } => self.hear(scanner, advertiser, token, t),
            Happening::Repeat { scanner, token } => self.repeat(scanner, token, t),
            Happening::SetUp { dialler, token } => self.set_up(dialler, token, t),
            Happening::SetUpFailed { dialler, token } => self.set_up_failed(dialler, token),
            Happening::Rotate(radio) => self.rotate(radio, t),
            Happening::Supervision { link, token } => self.supervision(link, token),
        }
    }

    pub(crate) fn emit(&mut self, to: RadioId, event: RadioEvent) {
        if self.radios.contains_key(&to) {
            self.out.push_back((to, event));
        }
    }

    /// A mark that no other scheduled thing carries.
    pub(crate) fn new_token(&mut self) -> u64 {
        self.last_token += 1;
        self.last_token
    }

    /// Whether both are there and hear each other.
    pub(crate) fn hear_each_other(&self, a: RadioId, b: RadioId) -> bool {
        match (self.radios.get(&a), self.radios.get(&b)) {
            (Some(a), Some(b)) => a.spot.hears(&b.spot),
            _ => false,
        }
    }
}

fn check_position(x: f64, y: f64) -> Result<(), AirError> {
    // Not a number is in no range.
    let ok = (-MAX_COORDINATE..=MAX_COORDINATE).contains(&x) && (-MAX_COORDINATE..=MAX_COORDINATE).contains(&y);
    if ok { Ok(()) } else { Err(AirError::BadPosition) }
}
