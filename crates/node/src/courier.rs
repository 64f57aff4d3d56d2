//! The courier: on every node, at work while its node leads the site. It carries jobs, their results, recalls and cancels
//! between this site and the others, for as long as it takes.
//!
//! Everything it says is read from the applied state, everything it hears becomes a proposal: it may be lost at any moment.
//! A letter takes all that waits for a site, up to a bound, so a thousand jobs cost a few round trips, and two are under way
//! while there is more than one holds. Nothing ticks: it wakes when the outbox or the reports change, when a link comes, and
//! when a rest is over. Decisions are in [`pace`] (when), [`walk`] and [`letter`] (what), [`look`] (which queued jobs go)
//! and [`incoming`] (parts of blobs).

pub(crate) mod actor;
mod exchange;
mod incoming;
mod letter;
mod look;
mod pace;
mod server;
mod walk;
mod wire;

pub use exchange::Post;
pub use letter::Composed;
pub use look::{Look, Looked, begin_moves};
pub use pace::{Exchanged, Pace};
pub use server::CourierServer;
pub use walk::Walk;
