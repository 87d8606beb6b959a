//! Packets: what travels from node to node. The header is written by hand, since relays read it for every packet.

use bbh_types::NodeId;

use crate::MAX_VERSION;

/// Most destinations of one packet.
pub const MAX_DESTINATIONS: usize = 64;
/// Hop limit of a packet as its source sends it: well above the depth of a tree of 10,000 nodes.
pub const INITIAL_HOP_LIMIT: u8 = 64;
/// Bytes of an Ed25519 public key and signature, in front of a signed packet's payload.
pub const SIGNATURE_BLOCK: usize = 32 + 64;
/// Bytes in front of and behind a session-encrypted payload: session index and tag.
pub const SESSION_BLOCK: usize = 4 + 16;

/// Reads `N` bytes off the front.
pub(crate) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

/// Which queue a packet waits in; strictly first to last (design §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Trees, routes, sessions, heartbeats.
    Control = 0,
    /// Messages of people.
    Chat = 1,
    /// Searches, their replies, inquiries.
    Search = 2,
    /// File data.
    Bulk = 3,
}

impl Lane {
    /// All lanes, first to last.
    pub const ALL: [Self; 4] = [Self::Control, Self::Chat, Self::Search, Self::Bulk];

    pub(crate) const fn bits(self) -> u8 {
        self as u8
    }

    pub(crate) const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::Control),
            1 => Some(Self::Chat),
            2 => Some(Self::Search),
            3 => Some(Self::Bulk),
            _ => None,
        }
    }
}

/// How a packet's payload is protected beyond the links it crosses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// By the link alone: from one neighbour to the other, never forwarded.
    Link,
    /// By the end-to-end session of source and destination; the sequence is the nonce.
    Session,
    /// Readable by all, signed by the source; the sequence tells copies apart.
    Signed,
    /// Not at all: session handshakes, and advice that nobody has to believe.
    Clear,
}

/// Where a packet goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// One node.
    One(NodeId),
    /// 1 to 64 nodes; split on the way, one copy per edge.
    List(Vec<NodeId>),
    /// Every node of the tree.
    Broadcast,
}

/// A packet that makes no sense. The packet is dropped, not the link: honest relays forward such things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// It ends before its header does.
    #[error("packet too short")]
    TooShort,
    /// A version this program does not speak.
    #[error("packet of version {0}, which this program does not know")]
    UnknownVersion(u8),
    /// Bits or counts that mean nothing.
    #[error("malformed packet header")]
    Malformed,
}

/// A packet, its payload as it stands on the wire.
///
/// Layout: `version u8, flags u8, hop limit u8, source [16], destination (one: [16]; list: count u8, [16] each;
/// broadcast: none), sequence u64`, all big-endian, then the payload to the end. Flags: bits 0-1 lane, 2-3
/// destination form, 4-5 protection, 6 congestion mark, 7 zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Which queue.
    pub lane: Lane,
    /// How the payload is protected.
    pub protection: Protection,
    /// Set by a relay whose queue for this flow is filling up.
    pub congested: bool,
    /// Links it may still cross.
    pub hop_limit: u8,
    /// Who made it.
    pub source: NodeId,
    /// For whom.
    pub destination: Destination,
    /// Nonce (session), or number of a signed packet at its source.
    pub sequence: u64,
    /// What is in it, by `protection`.
    pub payload: Vec<u8>,
}

impl Packet {
    /// Length on the wire.
    pub fn encoded_len(&self) -> usize {
        self.header_len() + self.payload.len()
    }

    fn header_len(&self) -> usize {
        let destination = match &self.destination {
            Destination::One(_) => 16,
            Destination::List(nodes) => 1 + 16 * nodes.len(),
            Destination::Broadcast => 0,
        };
        3 + 16 + destination + 8
    }

    /// Header bytes of a packet to one node.
    pub const UNICAST_HEADER: usize = 3 + 16 + 16 + 8;

    /// Appends the packet as it goes on the wire.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len());
        self.encode_header(out, self.hop_limit, self.congested);
        out.extend_from_slice(&self.payload);
    }

    fn encode_header(&self, out: &mut Vec<u8>, hop_limit: u8, congested: bool) {
        let form = match self.destination {
            Destination::One(_) => 0,
            Destination::List(_) => 1,
            Destination::Broadcast => 2,
        };
        let protection = match self.protection {
            Protection::Link => 0,
            Protection::Session => 1,
            Protection::Signed => 2,
            Protection::Clear => 3,
        };
        let flags = self.lane.bits() | form << 2 | protection << 4 | u8::from(congested) << 6;
        out.extend_from_slice(&[MAX_VERSION, flags, hop_limit]);
        out.extend_from_slice(self.source.as_bytes());
        match &self.destination {
            Destination::One(node) => out.extend_from_slice(node.as_bytes()),
            Destination::List(nodes) => {
                debug_assert!(nodes.len() <= MAX_DESTINATIONS);
                out.push(nodes.len() as u8);
                for node in nodes {
                    out.extend_from_slice(node.as_bytes());
                }
            }
            Destination::Broadcast => {}
        }
        out.extend_from_slice(&self.sequence.to_be_bytes());
    }

    /// What a session authenticates beside the payload: all of the header that no relay may change.
    pub fn associated_data(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.header_len());
        self.encode_header(&mut bytes, 0, false);
        bytes
    }

    /// What the source of a signed packet signs: header and payload, without what relays change. The list of
    /// destinations is left out, since relays split it.
    pub fn signed_bytes(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = b"BBH signed packet 1".to_vec();
        bytes.push(self.lane.bits());
        bytes.push(u8::from(matches!(self.destination, Destination::Broadcast)));
        bytes.extend_from_slice(self.source.as_bytes());
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// [`PacketError`]; nothing is allocated before the header has been checked.
    pub fn decode(bytes: &[u8]) -> Result<Self, PacketError> {
        let mut rest = bytes;
        let [version] = take(&mut rest).ok_or(PacketError::TooShort)?;
        if version != MAX_VERSION {
            return Err(PacketError::UnknownVersion(version));
        }
        let [flags, hop_limit] = take(&mut rest).ok_or(PacketError::TooShort)?;
        if flags & 0x80 != 0 {
            return Err(PacketError::Malformed);
        }
        let lane = Lane::from_bits(flags & 3).ok_or(PacketError::Malformed)?;
        let protection = match flags >> 4 & 3 {
            0 => Protection::Link,
            1 => Protection::Session,
            2 => Protection::Signed,
            _ => Protection::Clear,
        };
        let source = NodeId::from_bytes(take(&mut rest).ok_or(PacketError::TooShort)?);
        let destination = match flags >> 2 & 3 {
            0 => Destination::One(NodeId::from_bytes(take(&mut rest).ok_or(PacketError::TooShort)?)),
            1 => {
                let [count] = take(&mut rest).ok_or(PacketError::TooShort)?;
                let count = usize::from(count);
                if count == 0 || count > MAX_DESTINATIONS {
                    return Err(PacketError::Malformed);
                }
                if rest.len() < count * NodeId::LEN {
                    return Err(PacketError::TooShort);
                }
                let mut nodes = Vec::with_capacity(count);
                for _ in 0..count {
                    nodes.push(NodeId::from_bytes(take(&mut rest).ok_or(PacketError::TooShort)?));
                }
                Destination::List(nodes)
            }
            2 => Destination::Broadcast,
            _ => return Err(PacketError::Malformed),
        };
        let sequence = u64::from_be_bytes(take(&mut rest).ok_or(PacketError::TooShort)?);
        let one = matches!(destination, Destination::One(_));
        let fits = match protection {
            Protection::Link | Protection::Session | Protection::Clear => one,
            Protection::Signed => !one && rest.len() >= SIGNATURE_BLOCK,
        };
        if !fits {
            return Err(PacketError::Malformed);
        }
        Ok(Self {
            lane,
            protection,
            congested: flags & 0x40 != 0,
            hop_limit,
            source,
            destination,
            sequence,
            payload: rest.to_vec(),
        })
    }
}
