//! bbh, the desktop peer.

fn main() {}
