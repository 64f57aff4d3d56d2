//! When the group may be asked for commands of a newer version: once every member, learners too, runs a program that knows
//! them. Pure. A member that is down or not heard of counts as knowing only the first version, so a rolling upgrade opens
//! the gate after its last node, and no member ever meets an entry that it cannot read.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::NodeId;

use crate::command::FIRST_VERSION;

/// The version to raise the gate to, if it can be raised: `known` is what each living node says it can apply.
pub(crate) fn decide(gate: u32, members: &BTreeSet<NodeId>, known: &BTreeMap<NodeId, u32>) -> Option<u32> {
    let of_member = |member| known.get(member).copied().unwrap_or(FIRST_VERSION);
    members.iter().map(of_member).min().filter(|version| *version > gate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_opens_after_the_last_member_and_never_for_an_unknown_one() {
        let nodes: Vec<NodeId> = (0..3).map(|_| NodeId::generate()).collect();
        let members: BTreeSet<NodeId> = nodes.iter().copied().collect();
        let mut known: BTreeMap<NodeId, u32> = nodes.iter().map(|node| (*node, 3)).collect();
        assert_eq!(decide(1, &members, &known), Some(3));
        assert_eq!(decide(3, &members, &known), None, "it is open already");
        known.insert(nodes[1], 2);
        assert_eq!(decide(1, &members, &known), Some(2), "the oldest program decides");
        known.remove(&nodes[2]);
        assert_eq!(decide(1, &members, &known), None, "one member is down");
        assert_eq!(decide(1, &BTreeSet::new(), &known), None, "a group without members has no gate");
    }
}
