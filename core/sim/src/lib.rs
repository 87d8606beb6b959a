//! A deterministic world that runs the real protocol in virtual time.
