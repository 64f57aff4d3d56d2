//! For whom the key of the site's authority is sealed: those that are to hold it, and nobody else. Pure.
//!
//! Invariant: nothing is taken from a node that could not be given it back, unless the node was removed.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::NodeId;

use crate::trust::sealing::PUBLIC_KEY_BYTES;

/// What the state says of the key's custody.
#[derive(Clone, Debug, Default)]
pub struct Custody {
    /// Who is to hold it: above all who votes, by any of the configurations in force.
    pub holders: BTreeSet<NodeId>,
    /// For whom the key is sealed.
    pub sealed: BTreeSet<NodeId>,
    /// What secrets for a node are sealed to, as far as known.
    pub keys: BTreeMap<NodeId, [u8; PUBLIC_KEY_BYTES]>,
    /// Who was removed from the fleet.
    pub removed: BTreeSet<NodeId>,
}

/// What is to be done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Seal the key for these.
    pub seal: Vec<(NodeId, [u8; PUBLIC_KEY_BYTES])>,
    /// Take what is sealed for these out of the state.
    pub drop: Vec<NodeId>,
}

impl Change {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.seal.is_empty() && self.drop.is_empty()
    }
}

/// What makes the custody right.
pub fn decide(custody: &Custody) -> Change {
    // A removed node keeps its seat until another takes it: that is no reason to hand it the key once more.
    let is_missing = |holder: &&NodeId| !custody.sealed.contains(holder) && !custody.removed.contains(holder);
    let missing = custody.holders.iter().filter(is_missing);
    let seal = missing.filter_map(|holder| Some((*holder, *custody.keys.get(holder)?))).collect();
    let is_to_drop = |node: &&NodeId| {
        let can_be_sealed_again = custody.keys.contains_key(node);
        !custody.holders.contains(node) && (can_be_sealed_again || custody.removed.contains(node))
    };
    Change { seal, drop: custody.sealed.iter().filter(is_to_drop).copied().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 16])
    }

    fn set(bytes: &[u8]) -> BTreeSet<NodeId> {
        bytes.iter().copied().map(node).collect()
    }

    #[test]
    fn the_key_follows_the_votes() {
        let keys = [1, 2, 3, 4].map(|byte| (node(byte), [byte; 32]));
        let custody =
            Custody { holders: set(&[1, 2, 9]), sealed: set(&[1, 3, 5, 6]), keys: keys.into(), removed: set(&[6]) };
        let change = decide(&custody);
        assert_eq!(change.seal, [(node(2), [2; 32])], "9 votes, but nobody knows what to seal to");
        assert_eq!(change.drop, [node(3), node(6)], "5 could not be given it back");
        let done = Custody { sealed: set(&[1, 2, 5]), ..custody };
        assert!(decide(&done).is_empty());
        let removed = Custody { sealed: set(&[1]), removed: set(&[2, 6]), ..done };
        assert!(decide(&removed).is_empty(), "2 still has its seat");
    }
}
