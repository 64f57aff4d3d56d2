//! The repository's own rules as tests: crate edges, sizes, docs.
