//! Persistence: settings, the shared-file index and the state of downloads.
