//! The figures of the model.

use std::time::Duration;

use bbh_types::radio::ScanDuty;

/// Longest beacon in bytes: what a Bluetooth 5 extended advertisement carries.
pub const MAX_BEACON: usize = 254;

/// Largest magnitude of a coordinate, in metres.
pub const MAX_COORDINATE: f64 = 1e9;

/// Largest range of a radio, in metres.
pub const MAX_RANGE: f64 = 1e7;

/// The figures of the model; [`Config::default`] is Bluetooth LE with the 2M PHY.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Metres a radio reaches unless it joins with a range of its own; over 0, at most [`MAX_RANGE`].
    pub range: f64,
    /// Payload bytes per second of a radio, shared by all its links and both directions, unless it joins with a
    /// rate of its own; at least 1. Default 176,000: L2CAP payload over LE 2M.
    pub rate: u64,
    /// Probability that one attempt at a transmission, or one beacon, is lost: 0 to 0.95.
    pub loss: f64,
    /// Time between the end of a transmission's airtime and its arrival. Default 7.5 ms, half a connection interval.
    pub latency: Duration,
    /// Share of a radio's airtime taken by scanning at full duty: 0 to 0.9, default 0.1.
    pub scan_share_full: f64,
    /// The same at low duty, default 0.01.
    pub scan_share_low: f64,
    /// An advertiser is heard at full duty after a time drawn evenly up to this. Default 1.28 s: Bluetooth 1.2's
    /// interlaced inquiry finds 99 % within that.
    pub inquiry_full: Duration,
    /// The same at low duty, default ten times longer.
    pub inquiry_low: Duration,
    /// How often all unchanged beacons in range are reported again at full duty, default 10 s.
    pub repeat_full: Duration,
    /// The same at low duty, default 60 s.
    pub repeat_low: Duration,
    /// Shortest time to set up a connection, default 50 ms.
    pub setup_min: Duration,
    /// Longest time to set up a connection, default 200 ms.
    pub setup_max: Duration,
    /// Time after which a connection that can't be set up has failed, default 3 s.
    pub connect_timeout: Duration,
    /// Time after which a silent link closes, default 5 s.
    pub supervision: Duration,
    /// Most links of one radio; connections beyond fail. Default 16.
    pub max_links: usize,
    /// How often each radio's address changes, the first time at a random moment within it; open links go on. Default
    /// never; phones do it every 15 minutes or so.
    pub address_rotation: Option<Duration>,
    /// How late a real-time caller may hand over the next transmission of a running stream and still have it start
    /// at the moment the previous one ended. Zero (the default) in virtual time, where nobody is late; a hub on a
    /// busy machine, whose timers are a millisecond coarse, would otherwise never reach the rate. It never lets a
    /// radio do two things at once.
    pub catch_up: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            range: 10.0,
            rate: 176_000,
            loss: 0.0,
            latency: Duration::from_micros(7_500),
            scan_share_full: 0.1,
            scan_share_low: 0.01,
            inquiry_full: Duration::from_millis(1_280),
            inquiry_low: Duration::from_millis(12_800),
            repeat_full: Duration::from_secs(10),
            repeat_low: Duration::from_secs(60),
            setup_min: Duration::from_millis(50),
            setup_max: Duration::from_millis(200),
            connect_timeout: Duration::from_secs(3),
            supervision: Duration::from_secs(5),
            max_links: 16,
            address_rotation: None,
            catch_up: Duration::ZERO,
        }
    }
}

/// A figure that the model can't work with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{figure} must be {bounds}")]
pub struct ConfigError {
    figure: &'static str,
    bounds: &'static str,
}

impl Config {
    /// Checks every figure.
    ///
    /// # Errors
    /// The first figure out of its bounds, and the bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |ok: bool, figure, bounds| if ok { Ok(()) } else { Err(ConfigError { figure, bounds }) };
        // Longer times would only bring sums near the end of the clock.
        let time = |d: Duration| d <= Duration::from_secs(86_400);
        let wait = |d: Duration| d >= Duration::from_micros(1) && time(d);
        check(valid_range(self.range), "the range", "over 0 and at most 10,000,000 metres")?;
        check(self.rate >= 1, "the rate", "at least 1 byte per second")?;
        check((0.0..=0.95).contains(&self.loss), "the loss", "a probability from 0 to 0.95")?;
        check(time(self.latency), "the latency", "at most a day")?;
        for share in [self.scan_share_full, self.scan_share_low] {
            check((0.0..=0.9).contains(&share), "the scan's share of airtime", "from 0 to 0.9")?;
        }
        for inquiry in [self.inquiry_full, self.inquiry_low] {
            check(wait(inquiry), "the time of an inquiry", "from 1 microsecond to a day")?;
        }
        for repeat in [self.repeat_full, self.repeat_low] {
            let at_least = Duration::from_millis(1);
            check(repeat >= at_least && time(repeat), "the time between repeats", "from 1 millisecond to a day")?;
        }
        check(self.setup_min <= self.setup_max, "the longest setup time", "at least the shortest")?;
        check(time(self.setup_max), "the longest setup time", "at most a day")?;
        check(wait(self.connect_timeout), "the connection timeout", "from 1 microsecond to a day")?;
        check(wait(self.supervision), "the supervision timeout", "from 1 microsecond to a day")?;
        check(self.address_rotation.is_none_or(wait), "the time between addresses", "from 1 microsecond to a day")?;
        check(self.max_links >= 1, "the number of links", "at least 1")?;
        check(time(self.catch_up), "the catch-up time", "at most a day")
    }

    /// The share of airtime that scanning takes.
    pub(crate) fn scan_share(&self, duty: ScanDuty) -> f64 {
        match duty {
            ScanDuty::Off => 0.0,
            ScanDuty::Low => self.scan_share_low,
            ScanDuty::Full => self.scan_share_full,
        }
    }
}

/// Whether a radio can have this range.
pub(crate) fn valid_range(metres: f64) -> bool {
    metres > 0.0 && metres <= MAX_RANGE
}
