//! What came of a command.

use fleet_core::{Fence, JobId, NodeId};
use fleet_store::record::{JobState, Payload, SiteRecord, Verdict};
use serde::{Deserialize, Serialize};

use super::Refusal;

/// What came of a command. The same command on the same state has the same outcome on every node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// Nothing was left to do: it is a repeat, or the thing is so already.
    Unchanged,
    /// The job is accepted.
    Submitted {
        /// The job.
        job: JobId,
        /// Whether this command made it, not an earlier one with the same content.
        created: bool,
    },
    /// The job is assigned.
    Assigned {
        /// The job.
        job: JobId,
        /// The right to act for it.
        fence: Fence,
    },
    /// The records are in the journal, by this command or an earlier one.
    Recorded {
        /// Records in the journal now.
        length: u32,
        /// The job's state now.
        state: JobState,
    },
    /// The job's course was changed, or is so already.
    Changed {
        /// The job's state now.
        state: JobState,
    },
    /// Timers fired.
    Fired {
        /// How many jobs they queued.
        jobs: u32,
        /// Whether more are due.
        more: bool,
    },
    /// The joiner is admitted.
    Redeemed {
        /// The node that was admitted with this key.
        node: NodeId,
        /// What the first redeeming with this key stored.
        answer: Payload,
    },
    /// It was refused and changed nothing.
    Refused(Refusal),
    /// What was long over is forgotten.
    Forgotten {
        /// How many jobs are gone.
        jobs: u32,
        /// Whether there are more.
        more: bool,
    },
    /// The site is recorded, by this command or an earlier one of the same founder.
    SiteFounded(Box<SiteRecord>),
    /// The move is decided so, by this command or an earlier one.
    Decided(Verdict),
    /// The report tells of a job that has moved on since; it was counted.
    ReportStale,
}

impl Outcome {
    /// This outcome, or the refusal as an error.
    pub fn accepted(self) -> Result<Self, Refusal> {
        match self {
            Self::Refused(refusal) => Err(refusal),
            accepted => Ok(accepted),
        }
    }
}
