//! Messages: what packets carry. Each kind has a number that never changes its meaning; a number that this program
//! does not know is skipped.
//!
//! The kinds of the 2005 report (section 9.4, class BBHNachricht) keep their order; docs/glossary.md maps the names.

use bbh_types::{BoundedBytes, BoundedString, BoundedVec, ContentId, FileRecord, NodeId, Query, TreeId};
use serde::{Deserialize, Serialize};

use crate::beacon::Role;
use crate::codec::{self, CodecError};
use crate::{Lane, MAX_MESSAGE};

/// Longest name of a device, in bytes of UTF-8.
pub const MAX_DEVICE_NAME: usize = 48;
/// Most files in one page of a search reply.
pub const MAX_RESULTS_PER_PAGE: usize = 64;
/// Most attachments in one [`RoutingConnect`].
pub const MAX_ATTACHMENTS: usize = 256;
/// Most devices in one page of a [`RootReply`].
pub const MAX_DEVICES_PER_PAGE: usize = 256;
/// Most ranges in one order.
pub const MAX_RANGES: usize = 64;
/// Largest slice of verified data in one [`UploadData`]: 64 KiB of file bytes and the hashes that prove them.
pub const MAX_SLICE: usize = 72 * 1024;

/// An Ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature([u8; 32], [u8; 32]);

impl Signature {
    /// From its 64 bytes.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let (r, s) = bytes.split_at(32);
        Self(r.try_into().expect("half of 64"), s.try_into().expect("half of 64"))
    }

    /// Its 64 bytes.
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..].copy_from_slice(&self.1);
        bytes
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signature")
    }
}

// ---------------------------------------------------------------- files

/// "Who has files like these?" To all nodes of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchRequest {
    /// Number of the search at its source.
    pub search: u32,
    /// What is looked for.
    pub query: Query,
}

/// Files that match. Several pages may come; without a match none does (report 11.1.16).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchReply {
    /// The search that is answered.
    pub search: u32,
    /// This page's number, from 0.
    pub page: u16,
    /// Whether it is the last.
    pub last: bool,
    /// Place in the replier's upload queue that an order would get now, from 1; `None` if a slot is free.
    pub queue_position: Option<u16>,
    /// The files.
    pub files: BoundedVec<FileRecord, MAX_RESULTS_PER_PAGE>,
}

/// "Who has this content?" To all nodes of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadInquiry {
    /// Number of the inquiry at its source.
    pub inquiry: u32,
    /// The content.
    pub content: ContentId,
}

/// What a node can offer of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Offer {
    /// It has it all.
    Available {
        /// Size in bytes, to be proven by the last chunk.
        size: u64,
        /// Place in the queue an order would get, from 1; `None` if a slot is free.
        queue_position: Option<u16>,
    },
    /// It has it, but its queue is full.
    Full,
    /// It does not have it (any more).
    Absent,
}

/// Answer to a [`DownloadInquiry`]; nodes without the content stay silent unless asked alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadReply {
    /// The inquiry that is answered.
    pub inquiry: u32,
    /// The content.
    pub content: ContentId,
    /// What can be had.
    pub offer: Offer,
}

/// "Send me these ranges." Sent again with the same transfer number it replaces the ranges not yet sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadOrder {
    /// Number of the transfer, chosen by the downloader, unique among its transfers.
    pub transfer: u32,
    /// The content.
    pub content: ContentId,
    /// Half-open byte ranges, sent in this order; aligned to chunk groups but for the file's end.
    pub ranges: BoundedVec<(u64, u64), MAX_RANGES>,
    /// Bytes of [`UploadData`] slices that may be sent in all since the transfer's start: the receiver's window.
    pub granted: u64,
}

/// Why a transfer ends before its ranges are through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelReason {
    /// The user wants it so, or it is complete from elsewhere.
    Stopped,
    /// The content is not here (any more), or the file has changed.
    Absent,
    /// The order makes no sense for this content.
    BadOrder,
    /// The queue is full.
    Full,
    /// The disk failed.
    Failed,
}

/// Ends a transfer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadCancel {
    /// The transfer, as its downloader numbers it.
    pub transfer: u32,
    /// Direction: true if the downloader cancels, false if the uploader does.
    pub by_downloader: bool,
    /// Why.
    pub reason: CancelReason,
}

/// Answer to an order: data will follow now, or after a wait in the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadStart {
    /// The transfer.
    pub transfer: u32,
    /// Size of the whole file in bytes.
    pub size: u64,
    /// `None` if the data comes now, else the place in the queue, from 1.
    pub queue_position: Option<u16>,
}

/// One proven piece of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadData {
    /// The transfer.
    pub transfer: u32,
    /// First byte of the piece.
    pub start: u64,
    /// One past its last byte.
    pub end: u64,
    /// Hashes and bytes, as `bbh-bao` encodes the range.
    pub slice: BoundedBytes<MAX_SLICE>,
}

/// The receiver has verified pieces and grants more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadAck {
    /// The transfer.
    pub transfer: u32,
    /// Bytes of slices received in all since the transfer's start.
    pub received: u64,
    /// Bytes of slices that may be sent in all.
    pub granted: u64,
}

// ---------------------------------------------------------------- tree and routes

/// What a node says of its tree to a neighbour: first on every new link, then whenever it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeInfo {
    /// The tree.
    pub tree: TreeId,
    /// Counts the changes of its root.
    pub epoch: u32,
    /// Its number of nodes, as far as the sender knows.
    pub size: u32,
    /// The sender's role.
    pub role: Role,
    /// Links the sender would still take.
    pub free_slots: u8,
}

/// "I am this parent's child", signed by the node that attaches, so that no relay can invent descendants (design §4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Ed25519 key of the node that attaches; its id follows from it.
    pub key: [u8; 32],
    /// The node it attaches to.
    pub parent: NodeId,
    /// Grows with every attachment of this node, over restarts too: the newer one counts.
    pub counter: u64,
    /// The device's name, for people.
    pub name: BoundedString<MAX_DEVICE_NAME>,
    /// Over [`Attachment::signed_bytes`].
    pub signature: Signature,
}

impl Attachment {
    /// The node that attaches.
    pub fn node(&self) -> NodeId {
        NodeId::of_key(&self.key)
    }

    /// What is signed.
    pub fn signed_bytes(parent: NodeId, counter: u64, name: &str) -> Vec<u8> {
        let mut bytes = b"BBH attachment 1".to_vec();
        bytes.extend_from_slice(parent.as_bytes());
        bytes.extend_from_slice(&counter.to_be_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes
    }
}

/// "Take me as your child, with my tree of that size."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// The asker's own attachment to the node asked.
    pub attachment: Attachment,
    /// Nodes in the asker's tree, itself included; more than one needs the consent of the other root.
    pub size: u32,
}

/// Why a node does not take a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttachVerdict {
    /// Welcome.
    Accepted,
    /// All links are in use.
    Full,
    /// Another merge is under way: try again later.
    Busy,
    /// Both are in the same tree.
    SameTree,
    /// The request is not valid.
    Invalid,
}

/// Answer to an [`AttachRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachReply {
    /// The answer.
    pub verdict: AttachVerdict,
    /// The tree of the one who answers, which becomes the asker's.
    pub info: TreeInfo,
}

/// "These nodes are below me." From child to parent; parents before their children.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingConnect {
    /// Counts this link's routing changes, from 0.
    pub sequence: u32,
    /// The nodes.
    pub attachments: BoundedVec<Attachment, MAX_ATTACHMENTS>,
}

/// "These nodes, and all below them, are no longer below me."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingDisconnect {
    /// Counts this link's routing changes, together with [`RoutingConnect`].
    pub sequence: u32,
    /// The nodes; what was below them goes too.
    pub nodes: BoundedVec<NodeId, MAX_ATTACHMENTS>,
}

/// "A routing change of yours is missing: send me all you have." From parent to child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingResync {}

/// "Which nodes do you know?" Handed from parent to parent up to the root; each answers the origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootQuery {
    /// Number of the query at its origin.
    pub query: u32,
    /// Who wants to know.
    pub origin: NodeId,
    /// Links between the origin and the receiver.
    pub hops: u8,
}

/// A node of the tree, as an ancestor knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: BoundedString<MAX_DEVICE_NAME>,
    /// Links between the one who tells and the node.
    pub hops: u8,
}

/// One page of an ancestor's answer to a [`RootQuery`]: itself and what is below it, the origin's own branch left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootReply {
    /// The query that is answered.
    pub query: u32,
    /// Links between the origin and the one who answers.
    pub hops: u8,
    /// Whether the one who answers is the root.
    pub root: bool,
    /// Whether this is its last page.
    pub last: bool,
    /// The nodes.
    pub devices: BoundedVec<Device, MAX_DEVICES_PER_PAGE>,
}

/// "I have met another tree: let me lead ours into it." From the node that met it up to the root (report 10.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeFound {
    /// The node that has the link to the other tree.
    pub contact: NodeId,
    /// The other tree.
    pub other: TreeId,
}

/// "You are the root now": moves the root one link towards the contact. From a root to its child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootTransfer {
    /// The node that has the link to the other tree.
    pub contact: NodeId,
    /// The other tree.
    pub other: TreeId,
    /// The old root's attachment to the new one.
    pub attachment: Attachment,
    /// Milliseconds left of the merge lock.
    pub lock_ms: u32,
}

/// The child has become the root; the old root is its child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootTransferReply {}

/// "May a tree attach here?" From the node asked to attach up to its root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeMerge {
    /// The node that was asked and has the link.
    pub contact: NodeId,
    /// The root that wants to attach.
    pub attacher: NodeId,
    /// Distinguishes the requests of this contact.
    pub request: u32,
}

/// The root's answer to a [`TreeMerge`], handed down to the contact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeMergeReply {
    /// The node that asked.
    pub contact: NodeId,
    /// Which request.
    pub request: u32,
    /// The answer.
    pub verdict: AttachVerdict,
}

// ---------------------------------------------------------------- sessions and advice

/// A message of the end-to-end Noise handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionHandshake {
    /// The receiver's index of this session, 0 in the first message.
    pub receiver: u32,
    /// The sender's index of this session, to be put into packets that come back.
    pub sender: u32,
    /// The Noise message.
    pub noise: BoundedBytes<512>,
}

/// "I know no such session (any more): shake hands again." Advice: it may be forged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionUnknown {
    /// The index that was not known.
    pub session: u32,
}

/// "There is no way to that node." From where a packet got stuck to its source. Advice: it may be forged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreachable {
    /// Where the packet was to go.
    pub destination: NodeId,
}

/// Wants to be answered by a [`Pong`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// Comes back unchanged.
    pub token: u64,
}

/// Answers a [`Ping`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// The ping's.
    pub token: u64,
}

macro_rules! messages {
    ($($(#[$doc:meta])* $number:literal $lane:ident $variant:ident($record:ty),)*) => {
        /// Any message.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Message {
            $($(#[$doc])* $variant($record),)*
        }

        impl Message {
            /// All kinds this program knows: number and name.
            pub const KINDS: &[(u8, &str)] = &[$(($number, stringify!($variant)),)*];

            /// The number of its kind.
            pub fn kind(&self) -> u8 {
                match self { $(Self::$variant(_) => $number,)* }
            }

            /// The lane it travels in.
            pub fn lane(&self) -> Lane {
                match self { $(Self::$variant(_) => Lane::$lane,)* }
            }

            /// The kind's number and the record. Of all kinds only a [`SearchReply`] can exceed [`MAX_MESSAGE`], if it is
            /// full of long names: whoever makes one watches its length.
            pub fn encode(&self) -> Vec<u8> {
                let mut out = vec![self.kind()];
                match self { $(Self::$variant(record) => out.extend(codec::encode(record)),)* }
                out
            }

            /// Reads a message; `None` if its kind is of a newer version.
            ///
            /// # Errors
            /// [`CodecError`] if it is empty, malformed, or larger than [`MAX_MESSAGE`].
            pub fn decode(bytes: &[u8]) -> Result<Option<Self>, CodecError> {
                if bytes.len() > MAX_MESSAGE {
                    return Err(CodecError::TooLarge { length: bytes.len(), limit: MAX_MESSAGE });
                }
                let Some((&kind, body)) = bytes.split_first() else {
                    return Err(CodecError::Malformed("empty message".into()));
                };
                Ok(Some(match kind {
                    $($number => Self::$variant(codec::decode(body, MAX_MESSAGE)?),)*
                    _ => return Ok(None),
                }))
            }
        }

        $(impl From<$record> for Message {
            fn from(record: $record) -> Self {
                Self::$variant(record)
            }
        })*
    };
}

/// A session handshake's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInit(pub SessionHandshake);
/// A session handshake's second message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReply(pub SessionHandshake);
/// A session handshake's third message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionFinish(pub SessionHandshake);

messages! {
    /// Search by words.
    1 Search SearchRequest(SearchRequest),
    /// Files that match.
    2 Search SearchReply(SearchReply),
    /// Who has a content?
    3 Search DownloadInquiry(DownloadInquiry),
    /// What can be had.
    4 Search DownloadReply(DownloadReply),
    /// Send me ranges.
    5 Search DownloadOrder(DownloadOrder),
    /// A transfer ends.
    6 Search DownloadCancel(DownloadCancel),
    /// A transfer begins or waits.
    7 Search UploadStart(UploadStart),
    /// A proven piece.
    8 Bulk UploadData(UploadData),
    /// Received, and more granted.
    9 Search UploadAck(UploadAck),
    /// The sender's tree.
    16 Control TreeInfo(TreeInfo),
    /// Wants to be a child.
    17 Control AttachRequest(AttachRequest),
    /// May be a child, or not.
    18 Control AttachReply(AttachReply),
    /// Nodes below.
    19 Control RoutingConnect(RoutingConnect),
    /// Nodes no longer below.
    20 Control RoutingDisconnect(RoutingDisconnect),
    /// Send all routes again.
    21 Control RoutingResync(RoutingResync),
    /// Which nodes are there?
    22 Control RootQuery(RootQuery),
    /// These nodes are there.
    23 Control RootReply(RootReply),
    /// Another tree is near.
    24 Control TreeFound(TreeFound),
    /// May a tree attach here?
    25 Control TreeMerge(TreeMerge),
    /// It may, or not.
    26 Control TreeMergeReply(TreeMergeReply),
    /// You are the root now.
    27 Control RootTransfer(RootTransfer),
    /// I am the root now.
    28 Control RootTransferReply(RootTransferReply),
    /// Noise XX, first message.
    48 Control SessionInit(SessionInit),
    /// Noise XX, second message.
    49 Control SessionReply(SessionReply),
    /// Noise XX, third message.
    50 Control SessionFinish(SessionFinish),
    /// No such session.
    51 Control SessionUnknown(SessionUnknown),
    /// No way there.
    52 Control Unreachable(Unreachable),
    /// Are you there?
    53 Control Ping(Ping),
    /// I am.
    54 Control Pong(Pong),
}
