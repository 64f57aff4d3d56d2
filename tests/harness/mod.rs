//! What the suites on real processes share: nodes as child processes, an outside recorder, a history and its judge.
//!
//! Nothing here links the daemon: nodes are the built binary, spoken to over their own protocol.

#![allow(unreachable_pub, dead_code, reason = "each suite that includes this uses its own part of it")]

pub(crate) mod cluster;
pub(crate) mod history;
pub(crate) mod judge;
pub(crate) mod node;
pub(crate) mod processes;
pub(crate) mod raw;
pub(crate) mod recorder;
pub(crate) mod seed;
pub(crate) mod slow_link;
pub(crate) mod wait;
pub(crate) mod workflows;
