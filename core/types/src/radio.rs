//! What passes between the protocol and a radio: Bluetooth on phones, `bbh air` or TCP on desktops.
//!
//! The radio never sees what the bytes mean. Its contract:
//! - It answers every [`RadioCommand::Connect`] with [`RadioEvent::Opened`] or [`RadioEvent::OpenFailed`].
//! - It delivers the bytes of an open link in order and whole, or closes the link.
//! - It reports each transmission it was handed with [`RadioEvent::Sent`] once it can take another.

use serde::{Deserialize, Serialize};

/// A device as the radio names it for this session: a handle, not an identity, and it may change with
/// every rotation of a Bluetooth address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PeerAddr(pub u64);

/// One open channel, numbered by the radio; numbers are not used twice in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LinkId(pub u64);

/// How much of its time a radio listens for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum ScanDuty {
    /// Not at all.
    #[default]
    Off,
    /// About a tenth of the time.
    Low,
    /// All the time that links leave.
    Full,
}

/// What the protocol asks of the radio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RadioCommand {
    /// Show this beacon to whoever scans, or none.
    Advertise(Option<Vec<u8>>),
    /// Listen for others' beacons.
    Scan(ScanDuty),
    /// Open a link. One at a time.
    Connect(PeerAddr),
    /// Close a link, after what was handed over has gone.
    Close(LinkId),
}

/// What the radio tells the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RadioEvent {
    /// A beacon was heard. Repeated at the radio's discretion, at least when the beacon changes.
    Discovered {
        /// Whose.
        peer: PeerAddr,
        /// Its bytes.
        beacon: Vec<u8>,
    },
    /// A link is open.
    Opened {
        /// Its number.
        link: LinkId,
        /// The other end.
        peer: PeerAddr,
        /// True if this side asked for it.
        dialler: bool,
        /// What it can carry.
        limits: LinkLimits,
    },
    /// A [`RadioCommand::Connect`] came to nothing.
    OpenFailed {
        /// To whom.
        peer: PeerAddr,
    },
    /// Bytes arrived.
    Data {
        /// Where.
        link: LinkId,
        /// The bytes, cut anywhere.
        bytes: Vec<u8>,
    },
    /// That many transmissions have left this side's hands, so that as many more may be handed over.
    Sent {
        /// Where.
        link: LinkId,
        /// How many transmissions.
        count: usize,
    },
    /// A link is gone, whoever closed it.
    Closed {
        /// Which.
        link: LinkId,
    },
    /// The radio was switched on or off; off closes all links.
    State {
        /// On.
        on: bool,
    },
}

/// What a link can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkLimits {
    /// Largest frame in bytes, length and tag included: [`LinkLimits::BLUETOOTH`] or [`LinkLimits::TCP`].
    pub max_frame: usize,
    /// How many transmissions may wait inside the radio (design §7: two).
    pub max_in_flight: usize,
}

impl LinkLimits {
    /// L2CAP: 4 KiB frames, so that control traffic never waits long behind one (design §5).
    pub const BLUETOOTH: Self = Self { max_frame: 4096, max_in_flight: 2 };
    /// TCP: the largest Noise message and its length.
    pub const TCP: Self = Self { max_frame: 65_539, max_in_flight: 8 };
}
