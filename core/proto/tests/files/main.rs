//! Searching, downloading and uploading between several [`bbh_proto::files::FileManagers`] in virtual time.

#![expect(clippy::unwrap_used, reason = "helpers are part of the tests")]

mod download;
mod hostile;
mod search;
mod upload;
mod world;
