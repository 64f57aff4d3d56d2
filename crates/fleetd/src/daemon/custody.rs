//! Keeps the key of the site's authority with the site's voters: on the leader, sealed for who was promoted, taken from who
//! votes no more. Looked at after each admission too: of two machines, the second may be all that is left a moment later.
//! Level-triggered, so a crash anywhere in between is mended by whoever leads next.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_core::{Error, NodeId};
use fleet_replication::command::{ADMIT_VERSION, Action};
use fleet_store::StateReader;
use fleet_store::record::NodeStanding;
use fleet_store::state::{jobs, members};

use crate::site::{Site, read_failed};
use crate::trust::custody::{Custody, decide};
use crate::trust::keeper::{TrustKeeper, dropped_row, sealed_for, sealed_row, sealing_key_row, sealing_keys};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long it waits after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Looks after the key for as long as the node runs.
pub(super) async fn run(site: Site, trust: TrustKeeper) {
    let mut looked_at = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(term) = site.group().serving_term() else { continue };
        // All that is looked at. Who votes is told apart from what is applied, and may come later.
        let now_at = Some((term, site.group().applied_index(), site.group().status().borrow().voters()));
        if looked_at == now_at {
            continue;
        }
        match look(&site, &trust).await {
            Ok(()) => looked_at = now_at,
            Err(error) => {
                tracing::warn!(
                    error = fleet_core::error::chain(&error),
                    "the key of the site's authority is not with all voters"
                );
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// Looks once and does what is missing.
pub(crate) async fn look(site: &Site, trust: &TrustKeeper) -> Result<(), Error> {
    let state = site.reader()?;
    if jobs::site(&state).map_err(read_failed)?.gate < ADMIT_VERSION {
        return Ok(());
    }
    let own = site.group().node();
    let mut custody = read(&state, site.group().status().borrow().voters())?;
    let own_key = trust.public_key();
    let mut rows = Vec::new();
    if custody.keys.get(&own) != Some(&own_key) {
        // The founder, and who joined before such rows were known.
        rows.push(sealing_key_row(own, &own_key));
        custody.keys.insert(own, own_key);
    }
    let change = decide(&custody);
    if !change.seal.is_empty() {
        let authority = trust.authority(&state)?;
        for (node, key) in &change.seal {
            tracing::info!(%node, "the key of the site's authority is sealed for a voter");
            rows.push(sealed_row(&authority, *node, key)?);
        }
    }
    for node in change.drop {
        tracing::info!(%node, "the key of the site's authority is taken from a node that votes no more");
        rows.push(dropped_row(&state, node)?);
    }
    if !rows.is_empty() {
        site.propose(Action::PutTrust { rows }).await?;
    }
    Ok(())
}

fn read(state: &StateReader, voters: BTreeSet<NodeId>) -> Result<Custody, Error> {
    let nodes = members::nodes(state).map_err(read_failed)?;
    let (removed, there): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node.standing == NodeStanding::Removed);
    let removed = removed.into_iter().map(|node| node.id).collect();
    let there = there.into_iter().map(|node| node.id).collect();
    Ok(Custody { holders: holders(voters, &there), sealed: sealed_for(state)?, keys: sealing_keys(state)?, removed })
}

/// Who is to have the key: who votes; in a site of two nodes, which has one voter, the other one too. Its copy is all there
/// is to recover the site from when the voter is lost, and without the key it could never admit or renew again.
fn holders(mut voters: BTreeSet<NodeId>, nodes: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    if nodes.len() == 2 {
        voters.extend(nodes);
    }
    voters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_nodes_both_have_the_key_and_of_more_only_voters() {
        let nodes = |count: u8| (1..=count).map(|byte| NodeId::from_bytes([byte; 16])).collect::<BTreeSet<_>>();
        assert_eq!(holders(nodes(1), &nodes(1)), nodes(1));
        assert_eq!(holders(nodes(1), &nodes(2)), nodes(2));
        assert_eq!(holders(nodes(1), &nodes(3)), nodes(1), "the others vote soon, or never");
        assert_eq!(holders(nodes(3), &nodes(5)), nodes(3));
        assert_eq!(holders(nodes(3), &nodes(2)), nodes(3), "a removed voter that keeps its seat");
    }
}
