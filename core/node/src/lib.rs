//! The tokio shell around the protocol: sockets, timers, disk and radios.
