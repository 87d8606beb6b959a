//! A model of radios in a plane: who hears whom, when, and how fast.
//!
//! [`Air`] is a state machine without IO: radios join at a position, take the commands of
//! [`bbh_types::radio`] and answer with its events. The hub of `bbh air` runs it in real time, the simulator in
//! virtual time. The same configuration, seed and inputs give the same outputs.
//!
//! What is modelled:
//! - **Range.** Two radios hear each other while their distance is at most the smaller of their ranges.
//!   Beacons may carry farther or less far than links ([`Place::voice`]), and a radio may be unable to scan.
//! - **Airtime.** A transmission of n bytes occupies *both* its radios for n/rate (the smaller rate of the two), so
//!   a relay with two links passes on half of what it could send. One radio does one thing at a time. The heads of
//!   the links' queues take turns, the one that has waited longest first; see [`Config::rate`].
//! - **Loss** repeats a transmission at the link layer, which costs airtime, and drops beacons. It never loses or
//!   reorders bytes of an open link.
//! - **Latency** is added after the airtime; transmissions in that stage overlap, so it does not limit throughput.
//! - **Scanning** takes a share of the radio's airtime.
//! - **Discovery** takes as long as a Bluetooth inquiry, and known beacons are repeated in one batch now and then,
//!   so that idle nodes can sleep.
//! - **Addresses** may change now and then, as phones' do; links that are open go on.
//! - **Silence.** Out of range, or when the other radio has vanished, a link holds its bytes and closes after the
//!   supervision timeout; back in range before that, it goes on.
//!
//! What is not: interference between radios that share no link, obstacles, and the cost in airtime of setting up a
//! connection.

mod air;
mod chance;
mod config;
mod discovery;
mod grid;
mod links;
mod schedule;

pub use air::{Air, AirError, Place, RadioId, SendError};
pub use config::{Config, ConfigError, MAX_BEACON, MAX_COORDINATE, MAX_RANGE};
