//! Verified streaming: BLAKE3 hash trees with 16 KiB chunk groups, sans-IO.
