//! The scheduler: on every node, at work while its node leads the site.
//!
//! It gives queued jobs to robots, keeps their sessions, takes jobs from robots that are lost, stops what is to be stopped
//! and fires due timers. What it decides by are [`crate::session::LeaderSessions`], [`crate::placement`] and
//! [`crate::queue`]; the truth is the applied state, and everything it does is a proposal that the state machine checks.

pub(crate) mod actor;
mod assignment;
mod forgetting;
mod leading;
mod seats;
mod server;
mod work;

pub use actor::SchedulerObservation;
pub use leading::Leading;
pub use seats::{Seats, WorkOrder};
pub use server::LinkServer;
