//! What a node tells about itself, with the field names of the command line's JSON.

use std::collections::{BTreeMap, BTreeSet};

use bbh_library::StoredEntry;
use bbh_proto::api::{DownloadState, DownloadStatus, NetworkStatus};
use bbh_types::{ContentId, FileKind, FileRecord, Md5Hash, NodeId, Priority, Tags, TreeId};
use bbh_wire::Role;
use bbh_wire::message::Device;
use serde::{Serialize, Serializer};

/// Most different contents kept of one search, and most sources of one content.
pub(crate) const MAX_HITS: usize = 20_000;
const MAX_SOURCES: usize = 64;
const MAX_NAMES: usize = 16;

/// An identifier as text.
fn text<T: std::fmt::Display, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

fn optional_text<T: std::fmt::Display, S: Serializer>(id: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => serializer.collect_str(id),
        None => serializer.serialize_none(),
    }
}

fn texts<T: std::fmt::Display, S: Serializer>(ids: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ids.iter().map(ToString::to_string))
}

fn tag_map(tags: &Tags) -> BTreeMap<String, String> {
    tags.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// `bbh status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// This node.
    #[serde(serialize_with = "text")]
    pub node_id: NodeId,
    /// Its name.
    pub name: String,
    /// Eight words by which people compare keys.
    pub fingerprint: String,
    /// `free`, `tree`, `coordinator` or `root`.
    pub role: &'static str,
    /// Its tree, unless it is free.
    #[serde(serialize_with = "optional_text")]
    pub tree_id: Option<TreeId>,
    /// Its parent.
    #[serde(serialize_with = "optional_text")]
    pub parent: Option<NodeId>,
    /// Its children.
    #[serde(serialize_with = "texts")]
    pub children: Vec<NodeId>,
    /// Nodes of the tree as far as known, without itself, counted from its routing table.
    pub known_nodes: usize,
    /// Links that carry the tree.
    pub links: usize,
    /// Traffic went out in the last second.
    pub sending: bool,
    /// Traffic came in in the last second.
    pub receiving: bool,
    /// The program's version.
    pub version: &'static str,
}

impl Status {
    pub(crate) fn new(network: NetworkStatus, name: String, fingerprint: String) -> Self {
        Self {
            node_id: network.node,
            name,
            fingerprint,
            role: match network.role {
                Role::Free => "free",
                Role::Tree => "tree",
                Role::Coordinator => "coordinator",
                Role::Root => "root",
            },
            tree_id: network.tree,
            parent: network.parent,
            children: network.children,
            known_nodes: network.known_nodes,
            links: network.links,
            sending: network.sending,
            receiving: network.receiving,
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// One of `bbh devices`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceView {
    /// The node.
    #[serde(serialize_with = "text")]
    pub node_id: NodeId,
    /// Its name.
    pub name: String,
    /// Links to it.
    pub hops: u8,
    /// The neighbour through which it is reached.
    #[serde(serialize_with = "text")]
    pub via: NodeId,
    /// Whether it is a neighbour.
    pub direct: bool,
}

impl DeviceView {
    pub(crate) fn new((device, via): (Device, NodeId)) -> Self {
        let direct = device.hops == 1;
        Self { node_id: device.node, name: device.name.into_inner(), hops: device.hops, via, direct }
    }
}

/// One of `bbh share` and `bbh shared`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SharedFile {
    /// BLAKE3 of its bytes.
    #[serde(serialize_with = "text")]
    pub content_id: ContentId,
    /// MD5 of its bytes.
    #[serde(serialize_with = "text")]
    pub md5: Md5Hash,
    /// File name.
    pub name: String,
    /// Absolute path.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Kind, by name.
    pub kind: FileKind,
    /// Tags found in it.
    pub tags: BTreeMap<String, String>,
    /// Preference in the upload queue.
    pub priority: Priority,
}

impl SharedFile {
    pub(crate) fn new(entry: &StoredEntry) -> Self {
        Self {
            content_id: entry.record.content_id,
            md5: entry.record.md5,
            name: entry.record.name.to_string(),
            path: entry.path.to_string_lossy().into_owned(),
            size: entry.record.size,
            kind: entry.record.kind,
            tags: tag_map(&entry.record.tags),
            priority: entry.priority,
        }
    }
}

/// What `bbh share` or a rescan did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct ShareReport {
    /// The files that are now shared by it.
    pub files: Vec<SharedFile>,
    /// What is not shared, and why: a path and a reason each.
    pub problems: Vec<String>,
}

/// A content found by a search, with all who have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SearchHit {
    /// BLAKE3 of its bytes.
    #[serde(serialize_with = "text")]
    pub content_id: ContentId,
    /// MD5 of its bytes, as a source says.
    #[serde(serialize_with = "text")]
    pub md5: Md5Hash,
    /// What its sources call it, sorted.
    pub names: BTreeSet<String>,
    /// Bytes, as a source says.
    pub size: u64,
    /// Kind, by name.
    pub kind: FileKind,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Who has it.
    pub sources: Vec<HitSource>,
}

/// A node that has a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HitSource {
    /// The node.
    #[serde(serialize_with = "text")]
    pub node_id: NodeId,
    /// 1 = next; `None` = a slot is free.
    pub queue_position: Option<u16>,
    /// Links to it.
    pub hops: u8,
}

impl SearchHit {
    pub(crate) fn new(file: &FileRecord) -> Self {
        Self {
            content_id: file.content_id,
            md5: file.md5,
            names: BTreeSet::new(),
            size: file.size,
            kind: file.kind,
            tags: tag_map(&file.tags),
            sources: Vec::new(),
        }
    }

    /// Adds what another answer says of the same content. A file that one node shares twice is one result.
    pub(crate) fn add(&mut self, file: &FileRecord, source: HitSource) {
        if self.names.len() < MAX_NAMES {
            self.names.insert(file.name.to_string());
        }
        for (key, value) in tag_map(&file.tags) {
            self.tags.entry(key).or_insert(value);
        }
        match self.sources.iter().position(|known| known.node_id == source.node_id) {
            Some(known) => self.sources[known] = source,
            None if self.sources.len() < MAX_SOURCES => self.sources.push(source),
            None => {}
        }
    }
}

/// One of `bbh downloads`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DownloadView {
    /// The content.
    #[serde(serialize_with = "text")]
    pub content_id: ContentId,
    /// Its name, if known.
    pub name: Option<String>,
    /// Where the finished file is.
    pub path: Option<String>,
    /// Bytes, if known.
    pub size: Option<u64>,
    /// Bytes whose hash has been checked.
    pub verified: u64,
    /// `queued`, `searching`, `waiting`, `active`, `paused`, `complete` or `failed`.
    pub state: &'static str,
    /// Bytes per second.
    pub rate: u64,
    /// Why it failed or waits.
    pub error: Option<String>,
    /// Whence.
    pub sources: Vec<DownloadSource>,
}

/// A source of a download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DownloadSource {
    /// The node.
    #[serde(serialize_with = "text")]
    pub node_id: NodeId,
    /// `active` if bytes arrive from it, else `queued` in its queue or `known`.
    pub state: &'static str,
    /// Bytes verified from it.
    pub verified: u64,
    /// Place in its queue.
    pub queue_position: Option<u16>,
    /// Links to it.
    pub hops: Option<u8>,
}

impl DownloadView {
    pub(crate) fn new(status: DownloadStatus) -> Self {
        let sources = status.sources.into_iter().map(|source| DownloadSource {
            node_id: source.node,
            state: match (source.active, source.queue_position) {
                (true, _) => "active",
                (false, Some(_)) => "queued",
                (false, None) => "known",
            },
            verified: source.verified,
            queue_position: source.queue_position,
            hops: source.hops,
        });
        Self {
            content_id: status.content,
            name: Some(status.name).filter(|name| !name.is_empty()),
            path: status.path,
            size: status.size,
            verified: status.verified,
            state: state_name(status.state),
            rate: status.rate,
            error: status.error,
            sources: sources.collect(),
        }
    }

    /// A content that was here all along, or is now at `path`.
    pub(crate) fn held(entry: &StoredEntry, path: String) -> Self {
        Self {
            content_id: entry.record.content_id,
            name: Some(entry.record.name.to_string()),
            path: Some(path),
            size: Some(entry.record.size),
            verified: entry.record.size,
            state: state_name(DownloadState::Complete),
            rate: 0,
            error: None,
            sources: Vec::new(),
        }
    }

    /// Whether it has come to its end, well or not.
    pub fn is_over(&self) -> bool {
        matches!(self.state, "complete" | "failed")
    }
}

fn state_name(state: DownloadState) -> &'static str {
    match state {
        DownloadState::Queued => "queued",
        DownloadState::Searching => "searching",
        DownloadState::Waiting => "waiting",
        DownloadState::Active => "active",
        DownloadState::Paused => "paused",
        DownloadState::Complete => "complete",
        DownloadState::Failed => "failed",
    }
}

/// A setting and its value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum SettingValue {
    /// Text: a name, a path, a word.
    Text(String),
    /// A count or a time in seconds.
    Number(f64),
    /// A whole number.
    Count(u64),
}

/// Something that happened, for whoever watches.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeEvent {
    /// Role, parent, children or tree changed.
    NetworkChanged,
    /// A download changed; `None` if it is off the list.
    DownloadChanged(ContentId, Option<Box<DownloadView>>),
    /// The settings changed.
    SettingsChanged,
    /// What is shared changed.
    SharesChanged,
    /// Something the user should read.
    Notice(String),
    /// The node has ended.
    Stopped,
}
