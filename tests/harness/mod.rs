//! What the suites on real processes share: nodes as child processes, an outside recorder, a history and its judge.
//!
//! Nothing here links the daemon: nodes are the built binary, spoken to over their own protocol.

pub mod cluster;
pub mod history;
pub mod recorder;
pub mod wait;
pub mod workflows;
