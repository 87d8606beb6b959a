//! Why a command did not succeed, and with which exit code it says so.

use std::fmt;
use std::path::PathBuf;

/// The three ways in which a command fails; each has the exit code that scripts rely on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The operation failed: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// It was asked for wrongly: exit code 2, as for what the option parser refuses.
    #[error("{0}")]
    Usage(String),
    /// There is no node to ask: exit code 3.
    #[error("no node is running in {}: {reason}. Start one with: bbh run --data {}", data.display(), data.display())]
    NotRunning {
        /// The data folder.
        data: PathBuf,
        /// How that was noticed.
        reason: String,
    },
}

impl Failure {
    /// A failed operation, for any reason that can be shown.
    pub fn failed(reason: impl fmt::Display) -> Self {
        Self::Failed(reason.to_string())
    }

    /// A wrong usage, for any reason that can be shown.
    pub fn usage(reason: impl fmt::Display) -> Self {
        Self::Usage(reason.to_string())
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotRunning { .. } => 3,
        }
    }
}
