//! What the site's state says is void: the certificates of removed nodes, by holder and by serial number.

use fleet_api::Subject;
use fleet_api::revocation::Revocation;
use fleet_core::Error;
use fleet_store::StateReader;
use fleet_store::record::{NodeRecord, NodeStanding, TrustKind};

use crate::trust::keeper::rows_of;

/// All of it, however much that is. `nodes` are those of the same state.
///
/// # Errors
/// If the store failed.
pub fn read(state: &StateReader, nodes: &[NodeRecord]) -> Result<Vec<Revocation>, Error> {
    let removed = nodes.iter().filter(|node| node.standing == NodeStanding::Removed);
    let holders = removed.map(|node| Revocation::Subject(Subject::Node(node.id)));
    let serials = rows_of(state, TrustKind::Revoked)?.into_iter().map(|(serial, _)| Revocation::Serial(serial));
    Ok(holders.chain(serials).collect())
}
