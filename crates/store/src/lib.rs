//! What a node remembers: one redb file, written by one thread, with group commit.

pub mod record;
