//! The two rings of gossip on one socket: the nodes of a site among themselves, and a few nodes of each site with those of
//! the others. A byte of the sealed header tells them apart, and is bound to the key.
//!
//! Each site has keys of its own for the first, so that no packet of one site is ever opened at another, whatever address
//! it was sent to.

use std::collections::BTreeSet;

use fleet_core::{Digest, NodeId};

use crate::profile::Profile;

/// Most nodes of one site that gossip with other sites.
pub const WAN_NODES_MAX: usize = 3;

/// One of the two rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ring {
    /// The nodes of one site.
    Lan,
    /// A few nodes of every site.
    Wan,
}

impl Ring {
    /// The byte in the header.
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::Lan => 0,
            Self::Wan => 1,
        }
    }

    /// The ring with this byte.
    pub(crate) const fn of_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Lan),
            1 => Some(Self::Wan),
            _ => None,
        }
    }

    pub(crate) const fn profile(self) -> Profile {
        match self {
            Self::Lan => Profile::Lan,
            Self::Wan => Profile::Wan,
        }
    }
}

/// Which nodes of a site gossip with other sites: its leader, then its living voters in an order of their own that all
/// nodes compute alike, at most [`WAN_NODES_MAX`].
pub fn wan_nodes(leader: Option<NodeId>, voters: &BTreeSet<NodeId>, is_active: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
    let mut living: Vec<_> = voters.iter().copied().filter(|node| is_active(*node) || Some(*node) == leader).collect();
    living.sort_by_key(|node| (Some(*node) != leader, Digest::of(node.as_bytes())));
    living.truncate(WAN_NODES_MAX);
    living
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(numbers: impl IntoIterator<Item = u8>) -> BTreeSet<NodeId> {
        numbers.into_iter().map(|number| NodeId::from_bytes([number; 16])).collect()
    }

    #[test]
    fn at_most_three_voters_gossip_with_other_sites_the_leader_among_them() {
        for count in 0..=5 {
            let voters = nodes(0..count);
            let chosen = wan_nodes(None, &voters, |_| true);
            assert_eq!(chosen.len(), usize::from(count).min(3));
            for leader in &voters {
                assert!(wan_nodes(Some(*leader), &voters, |_| true).contains(leader));
            }
        }
        let voters = nodes(0..3);
        let sorted = |leader| wan_nodes(leader, &voters, |_| true).into_iter().collect::<BTreeSet<_>>();
        assert_eq!(sorted(None), sorted(voters.first().copied()), "with three voters a new leader changes nothing");
    }

    #[test]
    fn a_dead_voter_is_replaced_and_the_others_stay() {
        let voters = nodes(0..5);
        let before = wan_nodes(None, &voters, |_| true);
        let after = wan_nodes(None, &voters, |node| node != before[1]);
        assert_eq!((after.len(), after.contains(&before[1])), (3, false));
        assert!(after.contains(&before[0]) && after.contains(&before[2]));
    }
}
