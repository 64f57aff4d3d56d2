//! When a node may be taken out of the fleet: only while the group keeps a quorum without it.
//!
//! Removals go one at a time through a lock of the leader, so that each sees those before it in the applied state.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_core::{Error, ErrorKind, NodeId};
use fleet_replication::autopilot::has_quorum_without;

use crate::site::Site;

/// When to try again while the group gives another seat away: that takes a round or two.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Refuses to take `node` out, for `operation`, if too few voters would be left to give its seat away. To be asked and
/// carried out under [`Site::removing`].
///
/// Those that are to stay are asked themselves, as gossip may be wrong about them either way.
pub(super) async fn check(site: &Site, node: NodeId, operation: &str) -> Result<(), Error> {
    let status = site.group().status().borrow().clone();
    if !status.voters().contains(&node) {
        return Ok(());
    }
    let answered = site.group().survey().await.answered;
    let members: BTreeSet<NodeId> = site.nodes()?.iter().map(|record| record.id).collect();
    let live: BTreeSet<NodeId> = answered.intersection(&members).copied().collect();
    if has_quorum_without(&status.voter_sets, &live, node) {
        return Ok(());
    }
    if status.voter_sets.len() > 1 || !status.voters().is_subset(&members) {
        let message = format!("{operation}: the group still gives away the vote of another node");
        return Err(Error::new(ErrorKind::Unavailable, message).with_retry_after(RETRY_AFTER));
    }
    let message = format!("{operation}: too few voters answer to go on without the node that is removed by it");
    Err(Error::new(ErrorKind::FailedPrecondition, message)
        .with_next_step("Start the voters that are down (`fleetctl node list`), or remove those first."))
}
