//! What the node's answers hold, as far as people are shown it. Everything may be absent, so that a client and a
//! node of different versions understand each other; `--json` passes the node's own words on.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::failure::Failure;

/// Reads an item.
///
/// # Errors
/// If it is something else.
pub fn read<T: DeserializeOwned>(item: &RawValue) -> Result<T, Failure> {
    serde_json::from_str(item.get())
        .map_err(|error| Failure::failed(format!("the node's answer makes no sense ({error})")))
}

/// Of `status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub node_id: String,
    pub name: Option<String>,
    pub fingerprint: Option<String>,
    pub role: String,
    pub tree_id: Option<String>,
    pub parent: Option<String>,
    pub children: Vec<String>,
    pub known_nodes: u64,
    pub links: u64,
    pub sending: bool,
    pub receiving: bool,
    pub version: String,
}

/// Of `devices`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Device {
    pub node_id: String,
    pub name: Option<String>,
    pub hops: Option<u64>,
    pub via: Option<String>,
    pub direct: bool,
}

/// Of `ping`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Ping {
    pub time: f64,
}

/// Of `share` and `shared`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SharedFile {
    pub content_id: String,
    pub name: String,
    pub path: Option<String>,
    pub size: u64,
    pub kind: String,
    pub tags: BTreeMap<String, String>,
}

/// Of `search`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Found {
    pub content_id: String,
    pub names: Vec<String>,
    pub size: u64,
    pub kind: String,
    pub tags: BTreeMap<String, String>,
    pub sources: Vec<Source>,
}

/// Of `downloads` and `download`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Download {
    pub content_id: String,
    pub name: Option<String>,
    pub path: Option<String>,
    pub size: Option<u64>,
    pub verified: u64,
    pub state: String,
    pub rate: u64,
    pub error: Option<String>,
    pub sources: Vec<Source>,
}

/// Of a search result or a download.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Source {
    pub node_id: String,
    pub queue_position: Option<u64>,
    pub hops: Option<u64>,
}
