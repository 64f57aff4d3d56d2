//! What the log consists of, and what of it lies on a disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleet_core::NodeId;
use fleet_replication::command::Command;

use crate::own_journal::OwnRecord;

/// Where an entry stands: term and index; the first entry has index 1.
pub(crate) type Place = (u64, u64);

/// What an entry carries.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Payload {
    Blank,
    Commands(Arc<Vec<Command>>),
    Members(Members),
}

/// Who belongs to the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// The voters; two sets in a joint configuration.
    pub(crate) voters: Vec<BTreeSet<NodeId>>,
    pub(crate) learners: BTreeSet<NodeId>,
}

impl Members {
    pub(crate) fn all(&self) -> BTreeSet<NodeId> {
        self.voters.iter().flatten().chain(&self.learners).copied().collect()
    }

    pub(crate) fn votes(&self, node: NodeId) -> bool {
        self.voters.iter().any(|set| set.contains(&node))
    }

    /// Whether those for whom `agrees` holds are a majority of every set of voters.
    pub(crate) fn is_quorum(&self, agrees: impl Fn(NodeId) -> bool) -> bool {
        self.voters.iter().all(|set| set.iter().filter(|voter| agrees(**voter)).count() > set.len() / 2)
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) payload: Payload,
}

/// Whom this node follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vote {
    pub(crate) term: u64,
    pub(crate) node: Option<NodeId>,
    /// Whether a quorum made that node the leader.
    pub(crate) is_committed: bool,
}

/// What is written to the disk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DiskRecord {
    Boot(u64),
    Vote(Vote),
    Entries(Vec<Entry>),
    /// Entries from this index on are void.
    Truncate(u64),
    /// Of the robot, beside the group.
    Own(OwnRecord),
}
