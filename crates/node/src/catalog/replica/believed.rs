//! Which numbers of others are believed. Counters only grow, so that one message could otherwise use them up, or many
//! together: so no counter is further on than one write a millisecond since 1970 would have brought it, by the clock of who
//! hears of it. It never gets to its end then, whatever is said, and who wrote honestly is never behind for long.
//!
//! A node whose clock is far behind would believe nothing then. It believes what is a little further on than what it knows.

use fleet_core::limits::CATALOG_CLOCK_AHEAD_MAX;
use fleet_core::{NodeId, Timestamp};
use fleet_store::CatalogChange;
use fleet_store::record::{CatalogFacts, CatalogKey, CatalogVector};

use super::{Head, Kind, Replica};

/// How much further than what is known here a number may be, whatever the clock shows: more writes than anybody makes while
/// somebody is away.
const STEP_MAX: u64 = 1 << 20;

/// Whether `number` may be true at `now` where `known` was.
pub(super) fn is_believable(number: u64, known: u64, now: Timestamp) -> bool {
    number <= known.saturating_add(STEP_MAX).max(now.saturating_add(CATALOG_CLOCK_AHEAD_MAX).0)
}

impl Replica {
    /// How many writes of `node` are known of here.
    pub(super) fn reached_by(&self, node: NodeId) -> u64 {
        let seen = self.facts.seen.get(&node).copied().unwrap_or_default();
        if node == self.node { seen.max(self.facts.written) } else { seen }
    }

    /// Whether the numbers of `head`, which came from elsewhere for `key`, may be true.
    pub(super) fn believes(&self, key: &CatalogKey, head: &Head, now: Timestamp) -> bool {
        let version = self.head(key).map_or(0, |here| here.stamp.version).max(self.facts.outlived);
        let is_said = match &head.kind {
            Kind::Acknowledgement(said) => {
                said.iter().all(|(node, number)| is_believable(*number, self.reached_by(*node), now))
            }
            _ => true,
        };
        is_believable(head.number, self.reached_by(head.stamp.node), now)
            && is_believable(head.stamp.version, version, now)
            && is_said
    }

    /// The change by which this node goes on from the number of its writes that another copy has seen, where that is higher
    /// than it knows of: its disk was put back to an earlier state. A number that was used already would be taken for seen,
    /// and what is written under it dropped.
    pub(in super::super) fn plan_learn(&self, seen: &CatalogVector, now: Timestamp) -> CatalogChange {
        let written = seen.get(&self.node).copied().unwrap_or_default();
        let is_news = written > self.facts.written && is_believable(written, self.facts.written, now);
        let facts = is_news.then(|| CatalogFacts { written, ..self.facts.clone() });
        CatalogChange { facts, ..CatalogChange::default() }
    }
}
