//! Effects: what a task does that the outside can see. An HTTP client, child processes, and the guard that ends them.
//!
//! [`Effects`] runs one [`fleet_workflow::machine::effect::Effect`] at a time per call and answers with an outcome in
//! the language's terms. It decides nothing about jobs: when to run what, and what becomes of the answer, is its
//! caller's business.
//!
//! Invariants: no effect begins after its lease has run out; none goes on after it (a process is ended by its guard even
//! if this process is stopped or killed); every effect carries its key; what is read from outside is bounded.
//!
//! Absent on purpose: actors, the store, the network of the fleet, and any look at this process's environment.

mod context;
mod effects;
mod error;
pub mod guard;
mod http;
mod lease;
mod platform;
mod process;

pub use context::{EffectContext, EffectReport, Interruption};
pub use effects::{BaseEnvironment, Effects, Options};
pub use error::Error;
pub use lease::{Lease, LeaseKeeper};
