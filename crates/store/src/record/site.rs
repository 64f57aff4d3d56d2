//! The one row about the site itself: who it is, who leads, what is held, and the counts.

use fleet_core::{FleetId, GroupId, NodeId, SiteName, Timestamp};
use serde::{Deserialize, Serialize};

use super::job::JobState;

/// What a site is, set once by the first command of its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// The fleet it belongs to.
    pub fleet: FleetId,
    /// The site's name.
    pub site: SiteName,
    /// The group that agrees on its log.
    pub group: GroupId,
    /// The node that founded it; only this one may try again.
    pub founder: NodeId,
    /// Whether it is a development fleet, which admits without token.
    pub dev: bool,
}

/// Who leads, by its own first entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leadership {
    /// The leader.
    pub node: NodeId,
    /// The group's epoch when it began.
    pub epoch: u64,
    /// The term it leads.
    pub term: u64,
    /// When it began.
    pub since: Timestamp,
}

/// Nothing is dispatched until everyone named has reconciled, or the operator says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Nodes whose robots have not been heard yet, sorted.
    pub awaited: Vec<NodeId>,
    /// Since when.
    pub since: Timestamp,
}

/// Counts kept while applying, so that nobody ever has to count rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Kept jobs by state, at the state's number.
    pub jobs: [u64; JobState::ALL.len()],
    /// Jobs accepted ever.
    pub submitted: u64,
    /// Assignments ever.
    pub assigned: u64,
    /// Robots lost under a job, ever.
    pub lost: u64,
    /// Journal records ever.
    pub journaled: u64,
}

impl Counters {
    /// Kept jobs in `state`.
    pub fn jobs_in(&self, state: JobState) -> u64 {
        self.jobs[usize::from(state.number())]
    }

    /// Jobs that have not ended.
    pub fn unfinished(&self) -> u64 {
        JobState::ALL.into_iter().filter(|state| !state.is_ended()).map(|state| self.jobs_in(state)).sum()
    }
}

/// The row about the site itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// What it is; `None` before it was founded.
    pub founding: Option<Founding>,
    /// Who leads; `None` before the first leader.
    pub leadership: Option<Leadership>,
    /// Present while dispatch is held after a recovery.
    pub hold: Option<Hold>,
    /// Version of commands that every member understands.
    pub gate: u32,
    /// The latest time any command carried: time that the site cannot be before.
    pub latest: Timestamp,
    /// The counts.
    pub counters: Counters,
}
