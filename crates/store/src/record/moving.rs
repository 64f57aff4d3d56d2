//! Moves of jobs between sites: what the source keeps of a job that went, what the target keeps of one that came, and
//! what both keep of the other site.
//!
//! A move is named by its source group and its [`Serial`], for ever; a job's generation counts its moves. The source
//! numbers moves and the target reports, each per pair of groups and each by a serial that is never used twice.

use std::fmt;

use fleet_core::{GroupId, JobId, SiteName, Timestamp};
use serde::{Deserialize, Serialize};

use super::content::Content;
use super::job::JobState;

/// A place in the order of what one group sends another. The epoch comes first, so that a recovered group, which may have
/// forgotten its last numbers, uses none twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Serial {
    /// Epoch of the group that gave it.
    pub epoch: u64,
    /// Number for this receiver, from 1; it goes on through epochs.
    pub number: u64,
}

impl Serial {
    /// The one that a group of `epoch` gives after this one.
    #[must_use]
    pub fn next(self, epoch: u64) -> Self {
        Self { epoch: epoch.max(self.epoch), number: self.number + 1 }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

/// Another site by the group that agrees on its log, and its name for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PeerSite {
    /// The group.
    pub group: GroupId,
    /// The site's name.
    pub site: SiteName,
}

/// What a group keeps of another one that jobs went to or came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The other site's name.
    pub site: SiteName,
    /// The last move that was numbered for it.
    pub moved: Serial,
    /// The last report that was numbered for it.
    pub reported: Serial,
    /// Its watermark: it has settled every move to here before this one, and asks for none of them again.
    pub passed: Serial,
    /// Reports of it that were refused because the job has moved on since.
    pub reports_refused: u64,
}

impl Peer {
    /// Nothing went to `site` or came from it yet.
    pub fn new(site: SiteName) -> Self {
        let serial = Serial::default();
        Self { site, moved: serial, reported: serial, passed: serial, reports_refused: 0 }
    }
}

/// What an operator wants of a job that went to another site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MoveWish {
    /// It comes back, if the other site has not accepted it yet.
    Recall,
    /// It ends, wherever it is.
    Cancel,
}

/// A job that left this group, or is about to. The row lasts from `transferring` until the job is forgotten, or back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Where it goes or went.
    pub to: PeerSite,
    /// The move's place among those from this group to that one.
    pub number: Serial,
    /// The job's generation from this move on.
    pub generation: u32,
    /// When it was to move.
    pub since: Timestamp,
    /// What an operator wants of it.
    pub wish: Option<MoveWish>,
    /// How it stands there; `None` until the other site has accepted it.
    pub mirror: Option<Mirror>,
}

/// What a group keeps of a job that lives at another site, for `job get` and `job list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Its place in the order of submission at this group.
    pub number: u64,
    /// Its priority.
    pub priority: u8,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// How it stood when it was last heard of.
    pub standing: Standing,
    /// The last report that was heard of it.
    pub heard: Option<Serial>,
    /// When this group heard of its end, by the clock of this site.
    pub ended_here: Option<Timestamp>,
}

/// How a job stands, as one site tells another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its state there.
    pub state: JobState,
    /// Why, in words; empty if there is nothing to say.
    pub reason: String,
    /// Name of the node that has or last had it; empty if none had.
    pub node: String,
    /// How often it was assigned.
    pub attempt: u32,
    /// When it first ran.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

impl Standing {
    /// A job that was accepted and of which nothing was heard since.
    pub fn queued() -> Self {
        let (reason, node) = (String::new(), String::new());
        Self { state: JobState::Queued, reason, node, attempt: 0, started_at: None, ended_at: None }
    }
}

/// What the target of a move decided, once and for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The job is the target's now.
    Accepted,
    /// The target can never run it, for this reason.
    Declined(String),
    /// The source asked for it back before it was accepted.
    Recalled,
    /// The target has another job of this id.
    Conflict,
}

/// A decided move at its target: the row by which a repeat is known. It goes when the source's watermark has passed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// What was decided.
    pub verdict: Verdict,
    /// When.
    pub at: Timestamp,
}

/// Where a job came from; one row for each group that is told how it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The move it came by.
    pub number: Serial,
    /// Its generation by that move.
    pub generation: u32,
    /// The report that the origin has not acknowledged yet.
    pub pending: Option<Serial>,
}

/// A row of the outbox that names its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outgoing {
    /// The job.
    pub job: JobId,
}

/// The error of a job whose id another job has at `site`.
pub fn conflict(site: &SiteName) -> Result<Content, crate::Error> {
    super::journal::standard_error("Job exists", format!("site {site} has another job of this id"))
}
