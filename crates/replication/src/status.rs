//! What a group looks like from this node.

use std::collections::BTreeSet;

use fleet_core::NodeId;

/// What this node is in the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It follows the log without a vote.
    #[default]
    Learner,
    /// It votes and follows.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It leads. Whether it also serves is another question.
    Leader,
    /// The group failed or was shut down here.
    Stopped,
}

/// The group as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What this node is.
    pub role: Role,
    /// The term.
    pub term: u64,
    /// Who leads, as far as this node knows: a hint.
    pub leader: Option<NodeId>,
    /// The term in which this node leads *and* serves: its own first entry is applied and a quorum follows it.
    pub serving_term: Option<u64>,
    /// The epoch.
    pub epoch: u64,
    /// The later epoch that made this group void, if one was heard of: stop and export.
    pub superseded_by: Option<u64>,
    /// The voters; two sets while a change is under way, the newer last.
    pub voter_sets: Vec<BTreeSet<NodeId>>,
    /// The members without a vote.
    pub learners: BTreeSet<NodeId>,
    /// Index of the last entry that is applied here.
    pub last_applied: Option<u64>,
    /// On a leader: whether a quorum followed it within a group lease.
    pub is_followed: bool,
}

impl Status {
    /// Everyone who votes.
    pub fn voters(&self) -> BTreeSet<NodeId> {
        self.voter_sets.iter().flatten().copied().collect()
    }

    /// Whether this node failed or was shut down.
    pub fn is_stopped(&self) -> bool {
        self.role == Role::Stopped
    }
}
