//! Robot sessions and leases: who may act for a job, decided by two pure machines that never read a clock.
//!
//! [`LeaderSessions`] is the leader's side, [`RobotSession`] the robot's. Every input carries the time read from the
//! caller's own lease clock. What they promise together: no two robots may act for the same job at the same time.
//!
//! Invariants:
//! - the robot counts its lease from when it *sent* the heartbeat that was answered, the leader from when it *received* it;
//! - a session that ran out on either clock never lives again;
//! - the leader answers only heartbeats received before a quorum began to confirm its leadership;
//! - a job is released only when its holder said so, when its node has a newer session than the assignment names, or
//!   when the session has run out on the leader's clock and the wait of a new leader is over;
//! - a job that may be finished cut off is released only when its holder said so or was absent past its bound
//!   (`session/absence.rs` has the argument), and is held on in the next session of the same boot.

mod absence;
mod leader;
mod robot;

use serde::{Deserialize, Serialize};

use fleet_core::{Fence, JobId, SessionId};

pub use absence::Finishing;
pub use leader::{Claim, LeaderCommand, LeaderSessions, ReleaseCause};
pub use robot::{EndKind, RobotCommand, RobotSession};

/// A term of a group's leader. Terms of a greater epoch are greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaderTerm {
    /// Epoch of the group, raised only by `site recover`.
    pub epoch: u64,
    /// Term of the group's log.
    pub term: u64,
}

/// A job held under a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pair {
    /// The job.
    pub job: JobId,
    /// The fence of the assignment it is held under.
    pub fence: Fence,
}

/// The part of a heartbeat that the lease depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Beat {
    /// The session it belongs to.
    pub session: SessionId,
    /// Counts the heartbeats of a boot; the answer names it.
    pub sequence: u64,
    /// The highest term this robot has seen.
    pub term_seen: LeaderTerm,
    /// What the robot holds.
    pub pairs: Vec<Pair>,
}

/// The leader's answer to a heartbeat, given only after a quorum confirmed its leadership since the heartbeat came.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BeatAnswer {
    /// The leader's term.
    pub term: LeaderTerm,
    /// The session it is for.
    pub session: SessionId,
    /// The heartbeat it answers.
    pub sequence: u64,
    /// What the leader found.
    pub verdict: Verdict,
}

/// What the leader says to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// The session is renewed.
    Renewed {
        /// The pairs of the heartbeat that are renewed; the others it listed must end.
        pairs: Vec<Pair>,
        /// Every assignment in this session with a lower fence is over unless the robot holds it.
        settled_before: Fence,
    },
    /// The session is dead: end what it held and open another.
    Dead,
}
