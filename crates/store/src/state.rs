//! The replicated state of a group, by question: where its rows lie (`tables`), and what may be asked of them.
//!
//! Everything here reads, from a write transaction or a reader alike; only the state machine writes. Every answer is
//! bounded by a limit or is one row.

pub mod index;
pub mod jobs;
pub mod listing;
pub mod members;
pub mod moves;
pub mod queue;
pub mod sites;
pub mod tables;
