//! What goes into a [`crate::Node`] and what comes out of it.

use std::time::Duration;

use bbh_types::radio::{LinkId, RadioCommand};
use bbh_types::{ByteRanges, ContentId, FileRecord, NodeId, Query, TreeId};
use bbh_wire::Role;
use bbh_wire::message::Device;

/// What the user may change while the node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The device's name, at most [`bbh_wire::message::MAX_DEVICE_NAME`] bytes; longer ones are cut.
    pub name: String,
    /// Links the radio may hold, the parent's included: 1 to 8 (design §6; 4 by default).
    pub max_links: u8,
    /// How long replies to a search are waited for (report 3.3.6).
    pub search_timeout: Duration,
    /// How often a download without a source asks again (report 3.3.6).
    pub inquiry_interval: Duration,
    /// Uploads that may run at the same time.
    pub upload_slots: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: String::new(),
            max_links: 4,
            search_timeout: Duration::from_secs(10),
            inquiry_interval: Duration::from_secs(10),
            upload_slots: 3,
        }
    }
}

/// What the user, or a program for him, asks of the node.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Look for files. Answered by [`Event::SearchHits`] and in the end [`Event::SearchDone`].
    Search {
        /// The asker's number for it.
        search: u32,
        /// What to look for.
        query: Query,
        /// How long to wait for replies; `None` for the setting's.
        timeout: Option<Duration>,
    },
    /// Stop waiting for replies.
    CancelSearch {
        /// Which search.
        search: u32,
    },
    /// Put a content on the download list.
    Download {
        /// The content.
        content: ContentId,
        /// Its name, if known from a search.
        name: Option<String>,
        /// Its size in bytes, if known from a search; believed only once the last chunk has proven it.
        size: Option<u64>,
        /// Only put it on the list; [`Command::Start`] starts it.
        queue_only: bool,
    },
    /// Start a download that is on the list, or ask again for sources of one that failed or waits.
    Start(ContentId),
    /// Stop fetching, keep what is there.
    Pause(ContentId),
    /// Go on after a pause or a failure.
    Resume(ContentId),
    /// Take it off the list and delete its temporary file.
    Cancel(ContentId),
    /// At start: a download as it was when the process ended.
    Restore(DownloadRecord),
    /// List the other nodes of the tree. Answered by [`Event::Devices`].
    ListDevices {
        /// Comes back in the answer.
        token: u64,
    },
    /// Measure the way to a node. Answered by [`Event::Pong`].
    Ping {
        /// To whom.
        node: NodeId,
        /// Comes back in the answer.
        token: u64,
    },
    /// Change the settings.
    Configure(Settings),
    /// Say goodbye to all neighbours: each link closes once what waits in its lane control has gone out.
    Stop,
}

/// Bytes for a link, at most as many transmissions at a time as its limits allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where.
    pub link: LinkId,
    /// One frame.
    pub bytes: Vec<u8>,
}

/// What the node wants done outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// By the radio.
    Radio(RadioCommand),
    /// By the library of shared files.
    Library(LibraryRequest),
    /// By the disk.
    Storage(StorageRequest),
}

/// Asked of the library of shared files.
#[derive(Debug, Clone, PartialEq)]
pub enum LibraryRequest {
    /// Which files match? Answered by [`LibraryAnswer::Found`].
    Search {
        /// Comes back.
        token: u64,
        /// The query.
        query: Query,
        /// Most files wanted.
        limit: usize,
    },
    /// Is this content here? Answered by [`LibraryAnswer::Held`].
    Lookup {
        /// Comes back.
        token: u64,
        /// The content.
        content: ContentId,
    },
    /// Read and encode a verified slice. Answered by [`LibraryAnswer::Slice`].
    ReadSlice {
        /// Comes back.
        token: u64,
        /// The content.
        content: ContentId,
        /// First byte, aligned to a chunk group.
        start: u64,
        /// One past the last byte; at most 64 KiB beyond `start`.
        end: u64,
    },
}

/// Answers of the library.
#[derive(Debug, Clone, PartialEq)]
pub enum LibraryAnswer {
    /// To [`LibraryRequest::Search`].
    Found {
        /// The request's.
        token: u64,
        /// What matches.
        files: Vec<FileRecord>,
    },
    /// To [`LibraryRequest::Lookup`].
    Held {
        /// The request's.
        token: u64,
        /// The file, if it is here.
        file: Option<FileRecord>,
    },
    /// To [`LibraryRequest::ReadSlice`].
    Slice {
        /// The request's.
        token: u64,
        /// The slice as `bbh-bao` encodes it, or why not: the file was changed, removed, can't be read.
        result: Result<Vec<u8>, String>,
    },
}

/// Asked of the disk, for the temporary file of a download.
#[derive(Debug, Clone, PartialEq)]
pub enum StorageRequest {
    /// Make the temporary file and see that the disk has room. Answered by [`StorageAnswer::Reserved`].
    Reserve {
        /// The download.
        content: ContentId,
        /// Size in bytes.
        size: u64,
    },
    /// Write verified bytes. Answered by [`StorageAnswer::Written`].
    Write {
        /// The download.
        content: ContentId,
        /// Where.
        start: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Make what was written durable first, then this record (ADR 0005). Answered by [`StorageAnswer::Saved`].
    Save(DownloadRecord),
    /// All is there: move the file to its place under a safe name and share it. Answered by
    /// [`StorageAnswer::Finished`].
    Finish {
        /// The download.
        content: ContentId,
    },
    /// Remove the temporary file and the record. Not answered.
    Discard {
        /// The download.
        content: ContentId,
    },
}

/// Answers of the disk.
#[derive(Debug, Clone, PartialEq)]
pub enum StorageAnswer {
    /// To [`StorageRequest::Reserve`].
    Reserved {
        /// The download.
        content: ContentId,
        /// Or why not: no room, no permission. Told to the user as it stands.
        result: Result<(), String>,
    },
    /// To [`StorageRequest::Write`].
    Written {
        /// The download.
        content: ContentId,
        /// First byte.
        start: u64,
        /// One past the last.
        end: u64,
        /// Or why not.
        result: Result<(), String>,
    },
    /// To [`StorageRequest::Save`].
    Saved {
        /// The download.
        content: ContentId,
        /// Or why not.
        result: Result<(), String>,
    },
    /// To [`StorageRequest::Finish`].
    Finished {
        /// The download.
        content: ContentId,
        /// Where the file is now, or why it can't be put there.
        result: Result<String, String>,
    },
}

/// A download as it is kept over restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadRecord {
    /// The content.
    pub content: ContentId,
    /// Its name as told by a search, not yet made safe; empty if unknown.
    pub name: String,
    /// Its size, once proven by the last chunk.
    pub size: Option<u64>,
    /// Bytes whose hashes were right and that are durable on disk.
    pub verified: ByteRanges,
    /// What the user wants of it.
    pub intent: Intent,
    /// Where the finished file is.
    pub path: Option<String>,
}

/// What the user wants of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// On the list, not started.
    Queued,
    /// Get it.
    Active,
    /// Not now.
    Paused,
    /// It is here.
    Complete,
}

/// Where a download stands; the words of the command line (shared with the phones).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownloadState {
    /// On the list, not started.
    Queued,
    /// Asking for sources.
    Searching,
    /// In a source's queue, or for a source to come back.
    Waiting,
    /// Bytes arrive.
    Active,
    /// Stopped by the user.
    Paused,
    /// All bytes verified and in place.
    Complete,
    /// Ended by an error that the user has to know.
    Failed,
}

/// One source of a download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    /// The node.
    pub node: NodeId,
    /// Whether bytes arrive from it.
    pub active: bool,
    /// Bytes verified from it.
    pub verified: u64,
    /// Its queue's place for us.
    pub queue_position: Option<u16>,
    /// Links to it.
    pub hops: Option<u8>,
}

/// A download as the user sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct DownloadStatus {
    /// The content.
    pub content: ContentId,
    /// Name, empty if unknown.
    pub name: String,
    /// Where the finished file is.
    pub path: Option<String>,
    /// Size, if known.
    pub size: Option<u64>,
    /// Bytes verified.
    pub verified: u64,
    /// Where it stands.
    pub state: DownloadState,
    /// Bytes per second over the last seconds.
    pub rate: u64,
    /// Why it failed or waits.
    pub error: Option<String>,
    /// Whence.
    pub sources: Vec<SourceStatus>,
}

/// Where the node stands in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkStatus {
    /// This node.
    pub node: NodeId,
    /// Its role.
    pub role: Role,
    /// Its tree; `None` while it is free.
    pub tree: Option<TreeId>,
    /// Nodes in the tree as far as known, this one included.
    pub tree_size: u32,
    /// Its parent.
    pub parent: Option<NodeId>,
    /// Its children.
    pub children: Vec<NodeId>,
    /// Nodes in its routing table and its neighbours.
    pub known_nodes: usize,
    /// Links that carry the tree.
    pub links: usize,
    /// Traffic went out in the last second, relayed traffic too.
    pub sending: bool,
    /// Traffic came in in the last second, relayed traffic too.
    pub receiving: bool,
}

/// What the user or a program should learn.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Role, parent, children or tree changed.
    NetworkChanged,
    /// A page of files found.
    SearchHits {
        /// The search.
        search: u32,
        /// Who has them.
        source: NodeId,
        /// Links to it.
        hops: u8,
        /// Place in its queue, from 1; `None` if a slot is free.
        queue_position: Option<u16>,
        /// The files.
        files: Vec<FileRecord>,
    },
    /// A search's time is over.
    SearchDone {
        /// The search.
        search: u32,
    },
    /// A download's state, sources or progress changed; [`crate::Node::downloads`] tells.
    DownloadChanged(ContentId),
    /// Answer to [`Command::ListDevices`].
    Devices {
        /// The command's.
        token: u64,
        /// All other nodes, `hops` counted from here, and the neighbour through which each is reached.
        devices: Vec<(Device, NodeId)>,
    },
    /// Answer to [`Command::Ping`].
    Pong {
        /// The command's.
        token: u64,
        /// Time there and back; `None` if there is no way or no answer came within 10 s.
        time: Option<Duration>,
    },
}
