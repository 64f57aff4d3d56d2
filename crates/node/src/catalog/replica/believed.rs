//! Which numbers of others are believed: none that is further on than anybody can have come since. Counters only grow, so
//! that one message could otherwise use them up for ever.

use fleet_core::NodeId;
use fleet_store::record::CatalogKey;

use super::{Head, Kind, Replica};

/// How much further than what is known here a number may be: more writes than anybody makes while somebody is away.
const STEP_MAX: u64 = u32::MAX as u64;

/// Whether `number` may be true where `known` was.
pub(super) fn is_believable(number: u64, known: u64) -> bool {
    number <= known.saturating_add(STEP_MAX)
}

impl Replica {
    /// How many writes of `node` are known of here.
    pub(super) fn reached_by(&self, node: NodeId) -> u64 {
        let seen = self.facts.seen.get(&node).copied().unwrap_or_default();
        if node == self.node { seen.max(self.facts.written) } else { seen }
    }

    /// Whether the numbers of `head`, which came from elsewhere for `key`, may be true.
    pub(super) fn believes(&self, key: &CatalogKey, head: &Head) -> bool {
        let version = self.head(key).map_or(0, |here| here.stamp.version).max(self.facts.outlived);
        let is_said = match &head.kind {
            Kind::Acknowledgement(said) => {
                said.iter().all(|(node, number)| is_believable(*number, self.reached_by(*node)))
            }
            _ => true,
        };
        is_believable(head.number, self.reached_by(head.stamp.node))
            && is_believable(head.stamp.version, version)
            && is_said
    }
}
