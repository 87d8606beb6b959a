//! How the commands reach the running node (docs/adr/0006-control-channel.md).
//!
//! The node listens on a loopback TCP port of its own and writes the port and a random token into
//! `control.json` in its data folder, readable by its user only. A client connects, sends one line of JSON,
//! `{"token": …, "command": …, "args": …}`, and reads lines: any number of items, notes and progress, then `"done"` or
//! an error. Closing the connection cancels the command.

pub mod client;
pub mod file;
pub mod server;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use bbh_types::{ContentId, FileKind, NodeId, SearchMode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::failure::Failure;

/// Longest line in either direction, in bytes, its end included.
pub const MAX_LINE: usize = 1 << 20;

/// What can be asked of the running node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", content = "args", rename_all = "snake_case")]
pub enum Command {
    /// One item: the node's place in the network.
    Status,
    /// Items: the other nodes of the tree.
    Devices,
    /// One item: the round trip.
    Ping {
        /// To whom.
        #[serde(with = "as_text")]
        node: NodeId,
    },
    /// No items.
    Move {
        /// Metres.
        x: f64,
        /// Metres.
        y: f64,
    },
    /// One item: all settings.
    Settings,
    /// No items.
    Set {
        /// Which.
        key: String,
        /// New value, as typed.
        value: String,
    },
    /// No items; the connection is closed when the process ends.
    Stop,
    /// Items: the files now shared; notes: what could not be.
    Share {
        /// Absolute.
        paths: Vec<PathBuf>,
    },
    /// No items.
    Unshare {
        /// An absolute path or a content id.
        what: Shared,
    },
    /// Items: shared files.
    Shared,
    /// Items: the files that are new or changed; notes: what can't be read.
    Rescan,
    /// Items: files found; one that comes again, with more sources, replaces the earlier of its content id.
    Search {
        /// At least one.
        words: Vec<String>,
        /// `None`: as set.
        mode: Option<SearchMode>,
        /// Seconds; `None`: as set.
        timeout: Option<f64>,
        /// Only these.
        kind: Option<FileKind>,
        /// Bytes.
        min_size: Option<u64>,
        /// Bytes.
        max_size: Option<u64>,
    },
    /// Items: the download as it stands, again and again if it is waited for.
    Download {
        /// Which.
        #[serde(with = "as_text")]
        content: ContentId,
        /// Where to; absolute.
        to: Option<PathBuf>,
        /// Do not start it.
        queue: bool,
        /// Go on until it is complete, has failed or is gone.
        wait: bool,
    },
    /// Items: downloads.
    Downloads,
    /// One item: the download.
    Start(Content),
    /// One item: the download.
    Pause(Content),
    /// One item: the download.
    Resume(Content),
    /// No items.
    Cancel(Content),
}

/// Which download.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// Its id.
    #[serde(with = "as_text")]
    pub content: ContentId,
}

/// What is to be shared no longer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shared {
    /// A file or folder; absolute.
    Path(PathBuf),
    /// Whatever has this content.
    Content(#[serde(with = "as_text")] ContentId),
}

/// One line from the node.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// A part of the answer, in the form that `--json` prints.
    Item(Box<RawValue>),
    /// Something a person should know, for standard error.
    Note(String),
    /// How far it is, for a terminal.
    Progress {
        /// Bytes.
        done: u64,
        /// Bytes.
        total: u64,
    },
    /// The end, and all is well.
    Done,
    /// The end, and something is not.
    Error {
        /// It was asked for wrongly (exit code 2), not just failed (1).
        usage: bool,
        /// Why.
        message: String,
    },
}

impl From<Failure> for Response {
    fn from(failure: Failure) -> Self {
        Self::Error { usage: matches!(failure, Failure::Usage(_)), message: failure.to_string() }
    }
}

/// Ids as people see them.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<T: Display, S: Serializer>(id: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
