//! The actors of one node and the pure decisions beside them: sessions and leases, placement, executions, the handle
//! that the daemon talks to.
//!
//! Absent on purpose: any transport, configuration file or environment (the daemon implements [`ports`]), and any
//! actor reference in the public interface.

pub mod catalog;
mod courier;
mod error;
pub mod execution;
mod group;
mod handle;
pub mod link;
pub mod links;
pub mod placement;
pub mod ports;
pub mod queue;
mod robot;
pub mod routing;
mod scheduler;
pub mod session;
pub mod site_link;
mod supervisor;
mod tasks;
mod watch;

pub use courier::{Composed, CourierServer, Exchanged, Look, Looked, Pace, Post, Walk, begin_moves};
pub use error::Error;
pub use group::SiteGroup;
pub use handle::{JobAction, JobRequest, Node, NodeConfig, NodeObservation, NodePorts};
pub use robot::RobotObservation;
pub use scheduler::{Leading, LinkServer, SchedulerObservation, Seats, WorkOrder};
pub use watch::JobChanges;
