//! Frames: how a link's byte stream is cut.
//!
//! `length: u32 big-endian`, then that many bytes: a Noise handshake message, or later a Noise transport
//! message whose plaintext is one [`Body`]. (The report's length packet, section 6.3, done in place.)

use bbh_types::NodeId;

use crate::packet::{Lane, take};

/// Bytes of the length prefix.
pub const PREFIX: usize = 4;
/// Bytes of the authentication tag at the end of each frame after the handshake.
pub const TAG: usize = 16;
/// What a frame costs beyond the packet in it: prefix, kind byte and tag.
pub const OVERHEAD: usize = PREFIX + 1 + TAG;

/// A frame that can't be taken; the link has to be closed, since its stream can't be cut any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The prefix announces more than the link allows.
    #[error("a frame of {length} bytes exceeds the link's limit of {limit}")]
    TooLarge {
        /// Announced.
        length: u64,
        /// Allowed, prefix included.
        limit: usize,
    },
}

/// Collects a link's bytes and cuts them into frames, without copying a frame that is whole.
#[derive(Debug)]
pub struct FrameDecoder {
    buffer: Vec<u8>,
    start: usize,
    max_frame: usize,
}

impl FrameDecoder {
    /// A decoder that accepts frames of up to `max_frame` bytes, prefix included.
    pub fn new(max_frame: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, max_frame }
    }

    /// Appends bytes as they arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > self.max_frame {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame's content, to be decrypted in place, or `None` until more has arrived.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] as soon as the prefix is known, before anything is kept for it.
    pub fn next_frame(&mut self) -> Result<Option<&mut [u8]>, FrameError> {
        let waiting = &self.buffer[self.start..];
        let Some(prefix) = waiting.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix);
        if u64::from(length) + PREFIX as u64 > self.max_frame as u64 {
            return Err(FrameError::TooLarge { length: u64::from(length), limit: self.max_frame });
        }
        let length = length as usize;
        if waiting.len() < PREFIX + length {
            return Ok(None);
        }
        let from = self.start + PREFIX;
        self.start = from + length;
        Ok(Some(&mut self.buffer[from..from + length]))
    }

    /// Bytes that wait for the rest of their frame.
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.start
    }
}

/// What a transport frame carries, after decryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body<'a> {
    /// One packet, still encoded.
    Packet(&'a [u8]),
    /// "I am here": the application's own heartbeat. `answer` asks for one in return at once.
    Beat {
        /// Whether an answer is wanted.
        answer: bool,
    },
    /// The receiver has passed on that many bytes of a flow, so that as many more may come (hop-by-hop credit).
    Credit {
        /// Which flow.
        flow: Flow,
        /// How many bytes of packets.
        bytes: u32,
    },
    /// The sender closes the link, and why.
    Close(CloseReason),
    /// A kind of a newer version: to be skipped.
    Unknown(u8),
}

/// What shares one queue at a relay (design §7): source, destination and lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// Where the packets come from.
    pub source: NodeId,
    /// Where they go.
    pub destination: NodeId,
    /// Their lane.
    pub lane: Lane,
}

/// Why a link is closed, told to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The node stops.
    Stopping,
    /// Both are in the same tree already, or linked already.
    Redundant,
    /// No slot is free, or the trees can't be merged now.
    Refused,
    /// The other side broke the protocol.
    ProtocolError,
    /// Something of a newer version.
    Other(u8),
}

impl CloseReason {
    const fn code(self) -> u8 {
        match self {
            Self::Stopping => 0,
            Self::Redundant => 1,
            Self::Refused => 2,
            Self::ProtocolError => 3,
            Self::Other(code) => code,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Stopping,
            1 => Self::Redundant,
            2 => Self::Refused,
            3 => Self::ProtocolError,
            other => Self::Other(other),
        }
    }
}

/// The plaintext of a frame is not one of the known bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed frame body")]
pub struct MalformedBody;

/// First byte of a frame that carries a packet.
pub const KIND_PACKET: u8 = 1;
const KIND_BEAT: u8 = 2;
const KIND_CREDIT: u8 = 3;
const KIND_CLOSE: u8 = 4;

impl<'a> Body<'a> {
    /// Reads a decrypted frame.
    ///
    /// # Errors
    /// [`MalformedBody`] if it is empty or a known kind has the wrong length.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, MalformedBody> {
        let (&kind, mut rest) = bytes.split_first().ok_or(MalformedBody)?;
        let body = match kind {
            KIND_PACKET => return Ok(Self::Packet(rest)),
            KIND_BEAT => {
                let [flags] = take(&mut rest).ok_or(MalformedBody)?;
                Self::Beat { answer: flags & 1 != 0 }
            }
            KIND_CREDIT => {
                let source = NodeId::from_bytes(take(&mut rest).ok_or(MalformedBody)?);
                let destination = NodeId::from_bytes(take(&mut rest).ok_or(MalformedBody)?);
                let [lane] = take(&mut rest).ok_or(MalformedBody)?;
                let lane = Lane::from_bits(lane).ok_or(MalformedBody)?;
                let bytes = u32::from_be_bytes(take(&mut rest).ok_or(MalformedBody)?);
                Self::Credit { flow: Flow { source, destination, lane }, bytes }
            }
            KIND_CLOSE => {
                let [code] = take(&mut rest).ok_or(MalformedBody)?;
                Self::Close(CloseReason::from_code(code))
            }
            unknown => return Ok(Self::Unknown(unknown)),
        };
        if rest.is_empty() { Ok(body) } else { Err(MalformedBody) }
    }

    /// Appends the plaintext of this body.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Packet(packet) => {
                out.push(KIND_PACKET);
                out.extend_from_slice(packet);
            }
            Self::Beat { answer } => out.extend_from_slice(&[KIND_BEAT, u8::from(*answer)]),
            Self::Credit { flow, bytes } => {
                out.push(KIND_CREDIT);
                out.extend_from_slice(flow.source.as_bytes());
                out.extend_from_slice(flow.destination.as_bytes());
                out.push(flow.lane.bits());
                out.extend_from_slice(&bytes.to_be_bytes());
            }
            Self::Close(reason) => out.extend_from_slice(&[KIND_CLOSE, reason.code()]),
            Self::Unknown(kind) => out.push(*kind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_the_same_however_the_bytes_arrive() {
        let mut stream = Vec::new();
        for length in [0_usize, 1, 5, 100] {
            stream.extend_from_slice(&(length as u32).to_be_bytes());
            stream.extend(vec![length as u8; length]);
        }
        for step in [1, 2, 3, 7, 50, 1000] {
            let mut decoder = FrameDecoder::new(104);
            let mut seen = Vec::new();
            for piece in stream.chunks(step) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame.len());
                }
            }
            assert_eq!(seen, [0, 1, 5, 100], "in steps of {step}");
            assert_eq!(decoder.buffered(), 0);
        }
    }

    #[test]
    fn a_frame_of_4_gib_is_refused_by_its_prefix_alone() {
        let mut decoder = FrameDecoder::new(4096);
        decoder.push(&u32::MAX.to_be_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLarge { length: u64::from(u32::MAX), limit: 4096 }));
    }

    #[test]
    fn bodies_survive_the_way_and_unknown_kinds_are_told_apart_from_broken_ones() {
        let flow =
            Flow { source: NodeId::from_bytes([1; 16]), destination: NodeId::from_bytes([2; 16]), lane: Lane::Bulk };
        for body in [
            Body::Packet(b"abc"),
            Body::Beat { answer: true },
            Body::Credit { flow, bytes: 70_000 },
            Body::Close(CloseReason::Refused),
        ] {
            let mut bytes = Vec::new();
            body.encode(&mut bytes);
            assert_eq!(Body::decode(&bytes), Ok(body));
        }
        assert_eq!(Body::decode(&[200, 1, 2]), Ok(Body::Unknown(200)));
        assert_eq!(Body::decode(&[]), Err(MalformedBody));
        assert_eq!(Body::decode(&[KIND_BEAT]), Err(MalformedBody));
        assert_eq!(Body::decode(&[KIND_CLOSE, 0, 0]), Err(MalformedBody));
    }
}
