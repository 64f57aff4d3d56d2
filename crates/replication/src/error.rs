//! What can go wrong with a group, and what callers can act on.

use std::time::Duration;

use fleet_core::{ErrorKind, NodeId};

/// A failed operation of a group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This node does not lead, or does not serve yet.
    #[error("{operation}: this node does not lead the group")]
    NotLeader {
        /// What was tried.
        operation: &'static str,
        /// Who leads, as far as this node knows.
        leader: Option<NodeId>,
    },
    /// The deadline passed; the command may or may not be committed.
    #[error("propose a command: its outcome is unknown")]
    OutcomeUnknown,
    /// The deadline passed; nothing was changed.
    #[error("{operation}: the deadline passed")]
    Deadline {
        /// What was tried.
        operation: &'static str,
    },
    /// Too much waits already.
    #[error("{operation}: the queue {queue} is full")]
    QueueFull {
        /// What was tried.
        operation: &'static str,
        /// The queue's name.
        queue: &'static str,
    },
    /// The command does not fit into an entry.
    #[error("propose a command: its {bytes} bytes are more than an entry holds")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The group was shut down or failed; open it again.
    #[error("{operation}: the group is stopped")]
    Stopped {
        /// What was tried.
        operation: &'static str,
    },
    /// No majority answered.
    #[error("{operation}: no majority of the voters answered")]
    NoQuorum {
        /// What was tried.
        operation: &'static str,
    },
    /// The membership cannot be changed so, or not now.
    #[error("change the group's membership: {problem}")]
    Membership {
        /// Why.
        problem: String,
    },
    /// The durations do not leave a robot its lease when a leader dies.
    #[error(
        "open the group: with {voters} voters the group lease, watchdog tick, rank steps, {work:?} of work and two robot \
         heartbeats are {blink:?}, not less than the robot lease less its margin, {lease:?}"
    )]
    Timing {
        /// So many voters.
        voters: usize,
        /// What is allowed for work.
        work: Duration,
        /// How long a robot may go without an answer.
        blink: Duration,
        /// How long it may go on.
        lease: Duration,
    },
    /// The group's gate does not allow commands of this version yet.
    #[error(
        "propose a command: it is of version {version}, and not every member is known to understand more than {gate}"
    )]
    Gate {
        /// Its version.
        version: u32,
        /// The newest that may be proposed.
        gate: u32,
    },
    /// What is asked for cannot be.
    #[error("{0}")]
    Refused(&'static str),
    /// The store failed.
    #[error("{operation}")]
    Store {
        /// What was tried.
        operation: &'static str,
        /// The store's error.
        source: fleet_store::Error,
    },
    /// The consensus failed; open the group again.
    #[error("{operation}: the consensus failed: {problem}")]
    Consensus {
        /// What was tried.
        operation: &'static str,
        /// What it said.
        problem: String,
    },
}

impl Error {
    /// What the caller can act on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotLeader { .. } => ErrorKind::NotLeader,
            Self::OutcomeUnknown | Self::Deadline { .. } => ErrorKind::DeadlineExceeded,
            Self::QueueFull { .. } => ErrorKind::ResourceExhausted,
            Self::TooLarge { .. } => ErrorKind::InvalidInput,
            Self::Stopped { .. } | Self::NoQuorum { .. } | Self::Consensus { .. } => ErrorKind::Unavailable,
            Self::Membership { .. } | Self::Timing { .. } | Self::Gate { .. } | Self::Refused(_) => {
                ErrorKind::FailedPrecondition
            }
            Self::Store { source, .. } => source.kind(),
        }
    }

    /// Wraps a failure of the store met while doing `operation`.
    pub(crate) fn store(operation: &'static str) -> impl FnOnce(fleet_store::Error) -> Self {
        move |source| Self::Store { operation, source }
    }

    /// Wraps what the consensus said of its end.
    pub(crate) fn consensus(operation: &'static str, error: &dyn std::error::Error) -> Self {
        Self::Consensus { operation, problem: error.to_string() }
    }
}
