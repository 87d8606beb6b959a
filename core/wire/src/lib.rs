//! The wire: frames, packets, messages, limits and the one codec.
