//! What every other crate of Fleet may name: identifiers, fences, sessions, time, error kinds, limits and the invariants.
//!
//! It is a foundation, not a drawer: types of one domain live with that domain.
//! Absent on purpose: any I/O besides reading the clock, any async runtime, any codec beyond serde derives.

pub mod error;
pub mod fence;
pub mod id;
pub mod invariant;
pub mod limits;
mod platform;
pub mod session;
pub mod time;
pub mod timing;

pub use error::{Error, ErrorKind};
pub use fence::Fence;
pub use id::{Digest, FleetId, GroupId, JobId, NodeId, SiteName};
pub use session::SessionId;
pub use time::{BootInstant, Clock, SystemClock, Timestamp};
