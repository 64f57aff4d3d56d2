//! When a node may be taken out of the fleet: only while the group keeps a quorum without it.
//!
//! Removals go one at a time through a lock of the leader, so that each sees those before it in the applied state.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_core::{Error, ErrorKind, NodeId};
use fleet_membership::Membership;
use fleet_replication::autopilot::has_quorum_without;

use crate::site::Site;

/// When to try again while the group gives another seat away: that takes a round or two.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Refuses the removal of `node`, called `name`, if too few voters would be left to give its seat away. To be asked and
/// carried out under [`Site::removing`].
pub(super) fn check(site: &Site, membership: &Membership, node: NodeId, name: &str) -> Result<(), Error> {
    let view = membership.current_view();
    let own = site.group().node();
    let live: BTreeSet<NodeId> =
        site.nodes()?.iter().map(|record| record.id).filter(|id| *id == own || view.is_active(*id)).collect();
    let status = site.group().status().borrow().clone();
    if has_quorum_without(&status.voter_sets, &live, node) {
        return Ok(());
    }
    let is_changing = status.voter_sets.len() > 1 || status.voters().iter().any(|voter| !has_record(site, *voter));
    if is_changing {
        let message = format!("remove node {name}: the group still gives away the vote of another node");
        return Err(Error::new(ErrorKind::Unavailable, message).with_retry_after(RETRY_AFTER));
    }
    let message = format!("remove node {name}: too few voters are alive to go on without it");
    Err(Error::new(ErrorKind::FailedPrecondition, message)
        .with_next_step("Start the voters that are down (`fleetctl node list`), or remove those first."))
}

/// Whether `node` belongs to the site and was not removed.
fn has_record(site: &Site, node: NodeId) -> bool {
    site.nodes().is_ok_and(|nodes| nodes.iter().any(|record| record.id == node))
}
