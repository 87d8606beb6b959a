//! Shared files: hashing, tags, keywords and the search index.
//!
//! [`Library`] holds everything. It blocks and uses threads of its own for hashing; an asynchronous shell calls it
//! from threads that may block. What is to survive a restart goes through an [`IndexStore`].
//!
//! - Sharing walks through folders, hashes each file in one pass (BLAKE3 tree and MD5), reads its tags.
//!   What cannot be shared is reported ([`Problem`]) and stops nothing else.
//! - A file is identified by its resolved path; several files with the same content are one result of a search.
//! - [`Library::read_slice`] gives parts of shared files as verifiable slices.
//! - [`safe_file_name`] and [`free_path`] are for names that come from others.

mod hash;
mod index;
mod library;
mod names;
mod outboards;
mod persist;
mod report;
mod scan;
mod serve;
mod tags;
mod text;
mod walk;

pub use library::{Library, LibraryConfig, LibraryError};
pub use names::{MAX_SAFE_NAME_BYTES, create_free, free_path, safe_file_name};
pub use persist::{IndexStore, MemoryStore, Shares, Stamp, StoreError, StoredEntry, path_from_bytes, path_to_bytes};
pub use report::{Job, Problem, Progress, Reason, ScanReport};
pub use serve::{MAX_SLICE_BYTES, ReadError};
