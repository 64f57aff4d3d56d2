//! The members of the fleet as this node sees them, as an immutable value: what it was is compared with what it is to
//! learn what changed.
//!
//! A view is a hint. It may be late and it may be wrong (a node reported down may be alive), so nothing irreversible is
//! decided on it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use fleet_core::{NodeId, SiteName};

use crate::metadata::{Metadata, MetadataVersion};

/// How a member appears to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It answers and takes no new work.
    Draining,
    /// It did not answer somebody lately and has not yet contradicted.
    Suspect,
    /// It does not answer.
    Down,
    /// It said goodbye.
    Left,
}

impl MemberState {
    /// Whether the member is counted as part of the fleet right now.
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Alive | Self::Draining | Self::Suspect)
    }

    /// The word for it, in every output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Draining => "draining",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
        }
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub node: NodeId,
    /// Where its gossip packets go.
    pub address: SocketAddr,
    /// Which life of it is seen.
    pub incarnation: u64,
    /// How it appears.
    pub state: MemberState,
    /// Version of `metadata`; the default if there is none.
    pub metadata_version: MetadataVersion,
    /// What it says about itself, once heard.
    pub metadata: Option<Arc<Metadata>>,
}

/// What differs between two views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The member was not in the earlier view.
    Added(Member),
    /// The member differs.
    Changed {
        /// As it was.
        before: Member,
        /// As it is.
        after: Member,
    },
    /// The member is forgotten.
    Removed(Member),
}

/// All members, this node included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    own_node: NodeId,
    revision: u64,
    members: BTreeMap<NodeId, Member>,
}

impl View {
    /// The view of `own_node` that holds `members`; `revision` grows with every view of one process.
    pub fn new(own_node: NodeId, revision: u64, members: BTreeMap<NodeId, Member>) -> Self {
        Self { own_node, revision, members }
    }

    /// The same members under the next revision.
    #[must_use]
    pub(crate) fn with_next_revision(mut self) -> Self {
        self.revision += 1;
        self
    }

    /// The node whose view it is.
    pub fn own_node(&self) -> NodeId {
        self.own_node
    }

    /// Which view of this process it is: later ones have greater numbers.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The member with this id.
    pub fn get(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// All members in the order of their ids, this node included.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// The members that count as part of the fleet now, this node included.
    pub fn active(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.state.is_active())
    }

    /// The active members other than this node.
    pub fn active_peers(&self) -> impl Iterator<Item = &Member> {
        let own_node = self.own_node;
        self.active().filter(move |member| member.node != own_node)
    }

    /// The active members that said they belong to `site`.
    pub fn active_in<'a>(&'a self, site: &'a SiteName) -> impl Iterator<Item = &'a Member> {
        self.active().filter(move |member| member.metadata.as_ref().is_some_and(|metadata| metadata.site == *site))
    }

    /// Whether this node counts `node` as part of the fleet now.
    pub fn is_active(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|member| member.state.is_active())
    }

    /// What became different since `earlier`, in the order of the ids.
    pub fn changes_since(&self, earlier: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (node, after) in &self.members {
            match earlier.members.get(node) {
                None => changes.push(Change::Added(after.clone())),
                Some(before) if before != after => {
                    changes.push(Change::Changed { before: before.clone(), after: after.clone() });
                }
                Some(_) => {}
            }
        }
        let removed = earlier.members.values().filter(|member| !self.members.contains_key(&member.node));
        changes.extend(removed.cloned().map(Change::Removed));
        changes
    }
}

/// Writes a change of state to the log; changes of metadata are too many for it.
pub(crate) fn log(change: &Change) {
    match change {
        Change::Added(member) => {
            tracing::info!(node = %member.node, address = %member.address, state = member.state.as_str(), "member added");
        }
        Change::Changed { before, after } if before.state != after.state => {
            let (from, state) = (before.state.as_str(), after.state.as_str());
            tracing::info!(node = %after.node, address = %after.address, from, state, "member changed");
        }
        Change::Changed { .. } => {}
        Change::Removed(member) => tracing::info!(node = %member.node, "member forgotten"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(number: u8, state: MemberState) -> Member {
        Member {
            node: NodeId::from_bytes([number; 16]),
            address: SocketAddr::from(([127, 0, 0, 1], u16::from(number))),
            incarnation: 1 << 32,
            state,
            metadata_version: MetadataVersion::default(),
            metadata: None,
        }
    }

    fn view(members: &[Member]) -> View {
        let members = members.iter().map(|member| (member.node, member.clone())).collect();
        View::new(NodeId::from_bytes([1; 16]), 1, members)
    }

    #[test]
    fn differences_name_every_member_that_differs_and_no_other() {
        let before =
            view(&[member(1, MemberState::Alive), member(2, MemberState::Alive), member(3, MemberState::Down)]);
        let after =
            view(&[member(1, MemberState::Alive), member(2, MemberState::Suspect), member(4, MemberState::Alive)]);
        assert_eq!(
            after.changes_since(&before),
            [
                Change::Changed { before: member(2, MemberState::Alive), after: member(2, MemberState::Suspect) },
                Change::Added(member(4, MemberState::Alive)),
                Change::Removed(member(3, MemberState::Down)),
            ]
        );
        assert_eq!(after.changes_since(&after), []);
    }

    #[test]
    fn suspects_count_as_active_and_this_node_is_no_peer() {
        let view = view(&[
            member(1, MemberState::Alive),
            member(2, MemberState::Suspect),
            member(3, MemberState::Left),
            member(4, MemberState::Draining),
        ]);
        let peers: Vec<_> = view.active_peers().map(|member| member.address.port()).collect();
        assert_eq!(peers, [2, 4]);
        assert_eq!(view.active().count(), 3);
        assert!(!view.is_active(NodeId::from_bytes([3; 16])));
    }
}
