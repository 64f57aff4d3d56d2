//! `fleetd demo`: three real nodes, a workflow, its node killed with SIGKILL in the middle, the job finishing elsewhere.
//! `fleetd dev`: nodes that stay up.
//!
//! The demo believes nobody: how often a step ran is what its own HTTP recorder counted by `Idempotency-Key`.

mod dev;
mod processes;
mod recorder;
mod report;
mod story;

pub use dev::run_dev;
pub use story::run_demo;
