//! What the log consists of, and what of it lies on a disk.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleet_core::NodeId;
use fleet_replication::command::Command;
use fleet_store::StateChunk;

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

/// A copy of a group's state, as it travels: everything that applying the log up to `place` made.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Snapshot {
    pub(crate) place: Place,
    pub(crate) members: Members,
    pub(crate) chunks: Vec<StateChunk>,
}

/// What a log begins with once its first entries are gone.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Base {
    /// The last entry that is gone.
    pub(crate) purged: Place,
    /// Who belonged to the group by then.
    pub(crate) members: Members,
    /// The state on the disk, which no entry that is gone must be applied to any more.
    pub(crate) state: Arc<Snapshot>,
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
    /// The log begins here; what came before is gone.
    Base(Base),
}

/// What a disk holds of a group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remains {
    pub(crate) vote: Vote,
    pub(crate) base: Base,
    pub(crate) log: Vec<Entry>,
}

impl Remains {
    /// What `records` come to.
    pub(crate) fn of(records: &[DiskRecord]) -> Self {
        let mut remains = Self::default();
        for record in records {
            match record {
                DiskRecord::Boot(_) | DiskRecord::Own(_) => {}
                DiskRecord::Vote(later) => remains.vote = *later,
                DiskRecord::Entries(entries) => remains.log.extend(entries.iter().cloned()),
                DiskRecord::Truncate(from) => remains.log.retain(|entry| entry.place.1 < *from),
                DiskRecord::Base(base) => {
                    remains.log.retain(|entry| entry.place.1 > base.purged.1);
                    remains.base = base.clone();
                }
            }
        }
        remains
    }

    /// Where the log ends.
    pub(crate) fn last(&self) -> Place {
        self.log.last().map_or(self.base.purged, |entry| entry.place)
    }
}
