//! The courier: on every node, at work while its node leads the site. It carries jobs, their results, recalls and cancels
//! between this site and the others, for as long as it takes.
//!
//! Everything it says is read from the applied state, everything it hears becomes a proposal: it may be lost at any moment.
//! For each other site one letter is under way at a time; a letter takes all that waits, up to a bound, so a thousand jobs
//! cost a few round trips. Decisions are in [`pace`] (when), [`letter`] (what), [`look`] (which queued jobs go) and
//! [`incoming`] (parts of blobs).

pub(crate) mod actor;
mod exchange;
mod incoming;
mod letter;
mod look;
mod pace;
mod server;
mod wire;

pub use exchange::Post;
pub use look::{Look, Looked, begin_moves};
pub use pace::{Exchanged, Pace};
pub use server::CourierServer;
