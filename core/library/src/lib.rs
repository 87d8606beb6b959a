//! Shared files: hashing, tags, keywords and the search index.
