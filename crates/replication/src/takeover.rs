//! When a new leader may touch what an earlier one gave out: the latest moment at which an earlier leader may have been
//! confirmed, as reported by a majority of the voters, this node always among them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::{BootInstant, NodeId};
use tokio::task::JoinSet;

use crate::contact::Reign;
use crate::error::Error;
use crate::member::Member;
use crate::network::exchange;
use crate::wire::{Request, Response};

/// The latest of `reports` if they come from a majority of every set of `voters`.
pub fn latest(voters: &[BTreeSet<NodeId>], reports: &BTreeMap<NodeId, BootInstant>) -> Option<BootInstant> {
    let enough =
        voters.iter().all(|set| set.iter().filter(|voter| reports.contains_key(voter)).count() > set.len() / 2);
    enough.then(|| reports.values().max().copied()).flatten()
}

/// Asks the voters once. A voter that does not follow this leader yet refuses, so the caller asks again.
pub(crate) async fn ask(member: &Arc<Member>, voters: &[BTreeSet<NodeId>], term: u64) -> Result<BootInstant, Error> {
    let operation = "ask when an earlier leader was last heard";
    let reign = Reign { term, node: member.node, run: member.run };
    let own = member.contact().take_over(reign).ok_or(Error::NotLeader { operation, leader: None })?;
    let mut reports = BTreeMap::from([(member.node, own)]);
    let deadline: Duration = member.timing.group_lease / 2;
    let others: BTreeSet<NodeId> = voters.iter().flatten().copied().filter(|voter| *voter != member.node).collect();
    let mut calls = JoinSet::new();
    for voter in others {
        let member = Arc::clone(member);
        calls.spawn(async move { (voter, exchange(&member, voter, Request::Takeover { term }, deadline).await) });
    }
    loop {
        if let Some(at) = latest(voters, &reports) {
            return Ok(at);
        }
        match calls.join_next().await {
            Some(Ok((voter, Ok(Response::Takeover(answer))))) => {
                // The answer was under way for a while, so the moment lies at or before this.
                let now = member.clock.boot_now();
                let at = now.0.saturating_sub(Duration::from_micros(answer.ago_us));
                reports.insert(voter, BootInstant(at));
            }
            Some(_) => {}
            None => return Err(Error::NoQuorum { operation }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_of_every_set_must_have_answered() {
        let node = |byte| NodeId::from_bytes([byte; 16]);
        let at = |seconds| BootInstant(Duration::from_secs(seconds));
        let sets = [BTreeSet::from([1, 2, 3].map(node)), BTreeSet::from([1, 4, 5].map(node))];
        let mut reports = BTreeMap::from([(node(1), at(5)), (node(2), at(7))]);
        assert_eq!(latest(&sets[..1], &reports), Some(at(7)));
        assert_eq!(latest(&sets, &reports), None);
        reports.insert(node(5), at(6));
        assert_eq!(latest(&sets, &reports), Some(at(7)));
    }
}
