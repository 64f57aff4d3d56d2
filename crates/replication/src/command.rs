//! What is proposed to a group: commands, what came of them, and why one was refused.
//!
//! A log entry carries a batch of commands. Each has an id of its own, carries the time and every random value it needs,
//! and is checked when it is applied, not before: it is safe to repeat and may come late. A refused command changes nothing.

mod action;
mod batch;
mod moving;
mod outcome;
mod refusal;

pub use action::{
    ADMIT_VERSION, Action, FIRST_VERSION, FORGET_VERSION, HOSTS_VERSION, LINKS_VERSION, Next, NodeAdmission, Records,
    Redeeming, ReleaseCause, SITES_VERSION, SUBMIT_ASSIGNED_VERSION, SiteFounding, SiteNote, SiteRemoval, SiteRenewal,
    Submission, TokenGrant, TrustEntry,
};
pub use batch::{Batch, BatchError};
pub use moving::{Arriving, Moving, Report};
pub use outcome::Outcome;
pub use refusal::Refusal;

use fleet_core::Timestamp;
use fleet_store::record::CommandId;
use serde::{Deserialize, Serialize};

/// Version of the set of commands that this program knows. A command of a higher version may be proposed only when the
/// group's gate has reached it.
pub const COMMAND_VERSION: u32 = LINKS_VERSION;

/// One change that is asked of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Names this command in every repeat of it.
    pub id: CommandId,
    /// The proposer's wall time, the only time that applying knows.
    pub at: Timestamp,
    /// What is asked.
    pub action: Action,
}
