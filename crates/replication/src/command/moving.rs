//! Commands about jobs that move between sites. New kinds are added at the end.
//!
//! Those of the source are checked against its outbox, those of the target against the moves it has decided: each may
//! come late, twice, and in any order.

use fleet_core::{GroupId, JobId, Timestamp};
use fleet_store::record::{Ending, PeerSite, Serial, Standing, Verdict};
use serde::{Deserialize, Serialize};

use super::{Action, Submission};

/// What a command about a move asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moving {
    /// Accepts a job for another site: it is under way there at once.
    SubmitTo {
        /// The job.
        submission: Box<Submission>,
        /// Where it goes.
        to: PeerSite,
        /// Why there; empty if it was asked for.
        because: String,
    },
    /// Sends a queued job that nobody held yet to another site.
    Begin {
        /// The job.
        job: JobId,
        /// Its generation before, so that a late repeat moves nothing.
        generation: u32,
        /// Where it goes.
        to: PeerSite,
        /// Why there.
        because: String,
    },
    /// At the source: what the target answered to a move.
    Settle {
        /// The target.
        target: GroupId,
        /// The move.
        number: Serial,
        /// The answer.
        verdict: Verdict,
    },
    /// At the source: asks for a job back that is under way.
    Recall {
        /// The job.
        job: JobId,
        /// Its generation by the move that is meant.
        generation: u32,
    },
    /// At the source: gives the site up where a job went, and queues the job here. It may run there too.
    Abandon {
        /// The job.
        job: JobId,
        /// Its generation by the move that is meant.
        generation: u32,
    },
    /// At the source: how a job stands that went to another site.
    Report(Box<Report>),
    /// At the target: takes a job over.
    Accept(Box<Arriving>),
    /// At the target: decides a move otherwise, unless it is decided.
    Decide {
        /// The source.
        source: PeerSite,
        /// The move.
        number: Serial,
        /// The decision: anything but to accept.
        verdict: Verdict,
    },
    /// At the target: forgets decided moves that the source has settled, at most a bounded number.
    Pass {
        /// The source.
        source: PeerSite,
        /// Its watermark.
        watermark: Serial,
    },
    /// At the target: stops a job that came from the source, as its operator wishes.
    StopArrived {
        /// The source.
        source: GroupId,
        /// The move.
        number: Serial,
        /// The job.
        job: JobId,
    },
    /// At the source: the target has committed that these jobs stop.
    Obeyed {
        /// The target.
        target: GroupId,
        /// The moves by which the jobs went.
        numbers: Vec<Serial>,
    },
    /// At the target: the source has committed these reports.
    Acknowledge {
        /// The source.
        source: GroupId,
        /// The reports.
        reports: Vec<Serial>,
    },
}

impl From<Moving> for Action {
    fn from(moving: Moving) -> Self {
        Self::Moving(moving)
    }
}

/// A job that comes from another site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arriving {
    /// Where it comes from.
    pub source: PeerSite,
    /// The move.
    pub number: Serial,
    /// The job's generation by this move.
    pub generation: u32,
    /// When the job was submitted.
    pub created_at: Timestamp,
    /// What was asked for.
    pub submission: Submission,
}

/// How a job stands that came from another site, told to that site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who tells.
    pub from: GroupId,
    /// The report's number.
    pub serial: Serial,
    /// The job.
    pub job: JobId,
    /// The move by which it came there.
    pub number: Serial,
    /// The job's generation there.
    pub generation: u32,
    /// How it stands.
    pub standing: Standing,
    /// What it left, if it ended with an output or an error.
    pub ending: Option<Ending>,
}
