//! The robot of a node: keeps its session with the leader, and runs what it is assigned in its slots.
//!
//! The decisions are those of [`crate::session::RobotSession`] and of each execution's course; this is their driver.

pub(crate) mod actor;
mod definitions;
mod jobs;
mod kept;
mod link;

pub use actor::RobotObservation;
