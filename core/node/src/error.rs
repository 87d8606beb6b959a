//! What can go wrong at the start and when something is asked of a node.

use std::io;
use std::path::PathBuf;

use bbh_library::LibraryError;
use bbh_store::StoreError;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process runs a node in this folder.
    #[error("a node runs already in the data folder '{}': stop it first, or choose another folder", .0.display())]
    InUse(PathBuf),
    /// The data folder's store can't be used.
    #[error(transparent)]
    Store(StoreError),
    /// The library can't be used.
    #[error(transparent)]
    Library(LibraryError),
    /// A folder can't be made.
    #[error("the folder '{}' can't be used: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address to listen at can't be used.
    #[error("can't listen at {address}: {source}; choose another address or port")]
    Listen {
        /// As given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The simulated radio can't be joined.
    #[error("can't join the air at {hub}: {reason}; is 'bbh air' running there?")]
    Air {
        /// As given.
        hub: String,
        /// Why.
        reason: String,
    },
    /// A setting given at the start makes no sense.
    #[error(transparent)]
    Option(#[from] NodeError),
    /// The system gives no thread, no runtime or no random numbers.
    #[error("the system refuses what a node needs: {0}")]
    System(#[from] io::Error),
}

/// Why a node does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// It was asked for wrongly.
    #[error("{0}")]
    Usage(String),
    /// It could not be done.
    #[error("{0}")]
    Failed(String),
    /// The node has ended.
    #[error("the node has stopped")]
    Stopped,
}

impl NodeError {
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }
}
