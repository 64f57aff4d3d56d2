//! The actors of one node and the pure decisions beside them: sessions and leases, placement, executions, the handle
//! that the daemon talks to.
//!
//! Absent on purpose: any transport, configuration file or environment (the daemon implements [`ports`]), and any
//! actor reference in the public interface.

pub mod link;
pub mod links;
pub mod ports;
pub mod session;
