//! What a radio client and the hub say to each other over TCP.
//!
//! Both directions are a sequence of messages. A message is a length and that many bytes; the first of them is the
//! message's type:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length n of what follows, 1 to 81,920 |
//! | 1 | type |
//! | n - 1 | body |
//!
//! All integers are unsigned and big-endian, `f64` is IEEE 754 binary64, big-endian; "rest" is what remains of the
//! message. A body that is longer or shorter than stated here is an error.
//!
//! From the client:
//!
//! | type | name | body |
//! |---|---|---|
//! | 0x01 | Join | version `u8` = 1; x `f64`; y `f64`: metres, finite, within ±10^9. The first message, within 10 s, and only once |
//! | 0x02 | Move | x `f64`; y `f64` |
//! | 0x03 | Advertise | beacon: rest, 0 to 254 bytes |
//! | 0x04 | StopAdvertising | nothing |
//! | 0x05 | Scan | duty `u8`: 0 off, 1 low, 2 full |
//! | 0x06 | Connect | peer `u64` |
//! | 0x07 | Close | link `u64` |
//! | 0x08 | Send | link `u64`; bytes: rest, 1 to the link's largest frame |
//!
//! From the hub:
//!
//! | type | name | body |
//! |---|---|---|
//! | 0x81 | Joined | version `u8` = 1. The answer to Join |
//! | 0x82 | Discovered | peer `u64`; beacon: rest |
//! | 0x83 | Opened | link `u64`; peer `u64`; dialler `u8`: 0 or 1; largest frame `u32`; most transmissions in flight `u32` |
//! | 0x84 | OpenFailed | peer `u64` |
//! | 0x85 | Data | link `u64`; bytes: rest |
//! | 0x86 | Sent | link `u64`; count `u32` |
//! | 0x87 | Closed | link `u64` |
//! | 0x88 | State | on `u8`: 0 or 1 |
//! | 0x89 | Error | text: rest, UTF-8. The hub closes the connection after it |
//!
//! What they mean is written at [`RadioCommand`] and [`RadioEvent`]. The hub drops a client that breaks a rule: a
//! malformed message, more transmissions in flight than the link takes, over 1,000 messages other than Send in a
//! second, or events not read. To the others a dropped client is a radio that has vanished. Send and Close for a link
//! that has closed are ignored, since they may cross its Closed.

use bbh_types::radio::{LinkId, LinkLimits, PeerAddr, RadioCommand, RadioEvent, ScanDuty};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The version of this protocol.
pub const VERSION: u8 = 1;

/// Largest message in bytes, its type included and its length not.
pub const MAX_MESSAGE: usize = 80 * 1024;

/// What a client says.
#[derive(Debug, Clone, PartialEq)]
pub enum ToHub {
    /// The radio appears.
    Join {
        /// Metres east.
        x: f64,
        /// Metres north.
        y: f64,
    },
    /// The radio is carried elsewhere.
    Move {
        /// Metres east.
        x: f64,
        /// Metres north.
        y: f64,
    },
    /// The radio is told something.
    Command(RadioCommand),
    /// One transmission.
    Send {
        /// Over this link.
        link: LinkId,
        /// Its bytes.
        bytes: Vec<u8>,
    },
}

/// What the hub says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromHub {
    /// The radio is there.
    Joined,
    /// Something happened to the radio.
    Event(RadioEvent),
    /// The client did something wrong; the connection ends here.
    Error(String),
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The length is 0 or over [`MAX_MESSAGE`].
    #[error("a message of {0} bytes; it must have 1 to 81,920")]
    Length(u32),
    /// No message has this type.
    #[error("no message has the type {0:#04x}")]
    Type(u8),
    /// The other side speaks another version.
    #[error("version {0} of the air protocol; this is version 1: use the same release on both sides")]
    Version(u8),
    /// The body is too short, too long, or has a value that means nothing.
    #[error("the body of a {0} message is malformed")]
    Body(&'static str),
    /// The connection broke, maybe in the middle of a message.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
}

/// A message of either direction.
pub trait Message: Sized {
    /// Appends the message, with its length, to `out`.
    fn encode(&self, out: &mut Vec<u8>);

    /// Reads a message from its type and body.
    ///
    /// # Errors
    /// [`ProtocolError`] for anything but exactly one message.
    fn decode(message: &[u8]) -> Result<Self, ProtocolError>;
}

/// Reads the next message. `buffer` is reused between calls. Not to be cancelled half way. `None`: the other side has
/// closed the connection between two messages.
///
/// # Errors
/// [`ProtocolError`]; the connection is of no more use. The length is checked before anything is allocated.
pub async fn read<M: Message>(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Result<Option<M>, ProtocolError> {
    let mut length = [0; 4];
    if from.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..]).await?;
    let length = u32::from_be_bytes(length);
    let size = usize::try_from(length).ok().filter(|n| (1..=MAX_MESSAGE).contains(n));
    buffer.resize(size.ok_or(ProtocolError::Length(length))?, 0);
    from.read_exact(buffer).await?;
    M::decode(buffer).map(Some)
}

impl Message for ToHub {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Join { x, y } => write(out, 0x01, &[&[VERSION], &x.to_be_bytes(), &y.to_be_bytes()]),
            Self::Move { x, y } => write(out, 0x02, &[&x.to_be_bytes(), &y.to_be_bytes()]),
            Self::Command(RadioCommand::Advertise(Some(beacon))) => write(out, 0x03, &[beacon]),
            Self::Command(RadioCommand::Advertise(None)) => write(out, 0x04, &[]),
            Self::Command(RadioCommand::Scan(duty)) => {
                let duty = match duty {
                    ScanDuty::Off => 0,
                    ScanDuty::Low => 1,
                    ScanDuty::Full => 2,
                };
                write(out, 0x05, &[&[duty]]);
            }
            Self::Command(RadioCommand::Connect(peer)) => write(out, 0x06, &[&peer.0.to_be_bytes()]),
            Self::Command(RadioCommand::Close(link)) => write(out, 0x07, &[&link.0.to_be_bytes()]),
            Self::Send { link, bytes } => write(out, 0x08, &[&link.0.to_be_bytes(), bytes]),
        }
    }

    fn decode(message: &[u8]) -> Result<Self, ProtocolError> {
        let (kind, body) = message.split_first().ok_or(ProtocolError::Length(0))?;
        let decode = |name, read: fn(&mut Body<'_>) -> Option<Self>| Body(body).whole(read, name);
        match kind {
            0x01 => {
                // Another version's Join may be longer: tell what matters.
                if let Some(version) = body.first().filter(|v| **v != VERSION) {
                    return Err(ProtocolError::Version(*version));
                }
                decode("Join", |b| {
                    b.u8()?;
                    Some(Self::Join { x: b.f64()?, y: b.f64()? })
                })
            }
            0x02 => decode("Move", |b| Some(Self::Move { x: b.f64()?, y: b.f64()? })),
            0x03 => decode("Advertise", |b| Some(Self::Command(RadioCommand::Advertise(Some(b.rest()))))),
            0x04 => decode("StopAdvertising", |_| Some(Self::Command(RadioCommand::Advertise(None)))),
            0x05 => decode("Scan", |b| {
                let duty = match b.u8()? {
                    0 => ScanDuty::Off,
                    1 => ScanDuty::Low,
                    2 => ScanDuty::Full,
                    _ => return None,
                };
                Some(Self::Command(RadioCommand::Scan(duty)))
            }),
            0x06 => decode("Connect", |b| Some(Self::Command(RadioCommand::Connect(b.peer()?)))),
            0x07 => decode("Close", |b| Some(Self::Command(RadioCommand::Close(b.link()?)))),
            0x08 => decode("Send", |b| Some(Self::Send { link: b.link()?, bytes: b.rest() })),
            other => Err(ProtocolError::Type(*other)),
        }
    }
}

impl Message for FromHub {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Joined => write(out, 0x81, &[&[VERSION]]),
            Self::Event(RadioEvent::Discovered { peer, beacon }) => {
                write(out, 0x82, &[&peer.0.to_be_bytes(), beacon]);
            }
            Self::Event(RadioEvent::Opened { link, peer, dialler, limits }) => {
                let dialler = [u8::from(*dialler)];
                let (frame, flight) = (narrow(limits.max_frame), narrow(limits.max_in_flight));
                write(out, 0x83, &[&link.0.to_be_bytes(), &peer.0.to_be_bytes(), &dialler, &frame, &flight]);
            }
            Self::Event(RadioEvent::OpenFailed { peer }) => write(out, 0x84, &[&peer.0.to_be_bytes()]),
            Self::Event(RadioEvent::Data { link, bytes }) => write(out, 0x85, &[&link.0.to_be_bytes(), bytes]),
            Self::Event(RadioEvent::Sent { link, count }) => {
                write(out, 0x86, &[&link.0.to_be_bytes(), &narrow(*count)]);
            }
            Self::Event(RadioEvent::Closed { link }) => write(out, 0x87, &[&link.0.to_be_bytes()]),
            Self::Event(RadioEvent::State { on }) => write(out, 0x88, &[&[u8::from(*on)]]),
            Self::Error(text) => write(out, 0x89, &[text.as_bytes()]),
        }
    }

    fn decode(message: &[u8]) -> Result<Self, ProtocolError> {
        let (kind, body) = message.split_first().ok_or(ProtocolError::Length(0))?;
        let event = |name, read: fn(&mut Body<'_>) -> Option<RadioEvent>| Body(body).whole(read, name).map(Self::Event);
        match kind {
            0x81 => match body {
                [VERSION] => Ok(Self::Joined),
                [version, ..] => Err(ProtocolError::Version(*version)),
                [] => Err(ProtocolError::Body("Joined")),
            },
            0x82 => event("Discovered", |b| Some(RadioEvent::Discovered { peer: b.peer()?, beacon: b.rest() })),
            0x83 => event("Opened", |b| {
                Some(RadioEvent::Opened {
                    link: b.link()?,
                    peer: b.peer()?,
                    dialler: b.flag()?,
                    limits: LinkLimits { max_frame: b.size()?, max_in_flight: b.size()? },
                })
            }),
            0x84 => event("OpenFailed", |b| Some(RadioEvent::OpenFailed { peer: b.peer()? })),
            0x85 => event("Data", |b| Some(RadioEvent::Data { link: b.link()?, bytes: b.rest() })),
            0x86 => event("Sent", |b| Some(RadioEvent::Sent { link: b.link()?, count: b.size()? })),
            0x87 => event("Closed", |b| Some(RadioEvent::Closed { link: b.link()? })),
            0x88 => event("State", |b| Some(RadioEvent::State { on: b.flag()? })),
            0x89 => Ok(Self::Error(String::from_utf8_lossy(body).into_owned())),
            other => Err(ProtocolError::Type(*other)),
        }
    }
}

/// Appends a message: length, type and the parts of the body.
fn write(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let size = 1 + parts.iter().map(|p| p.len()).sum::<usize>();
    out.extend_from_slice(&narrow(size));
    out.push(kind);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// A size as it is written; sizes here are far below the limit.
fn narrow(size: usize) -> [u8; 4] {
    u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes()
}

/// What is left of a body.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    /// Reads all of the body, and no less.
    fn whole<T>(mut self, read: fn(&mut Self) -> Option<T>, name: &'static str) -> Result<T, ProtocolError> {
        read(&mut self).filter(|_| self.0.is_empty()).ok_or(ProtocolError::Body(name))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_vec()
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn size(&mut self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.take()?)).ok()
    }

    fn f64(&mut self) -> Option<f64> {
        self.take().map(f64::from_be_bytes)
    }

    fn peer(&mut self) -> Option<PeerAddr> {
        self.take().map(u64::from_be_bytes).map(PeerAddr)
    }

    fn link(&mut self) -> Option<LinkId> {
        self.take().map(u64::from_be_bytes).map(LinkId)
    }
}
