//! How a node learns that it was removed from the fleet, and stops: from the site's state, if the entry still reached it,
//! else from the others, who refuse its certificate as revoked.
//!
//! Invariant: what others say counts only if all who can be reached say so twice in a row; a node that is merely cut off
//! runs on.

use std::time::Duration;

use fleet_api::tls::is_revoked_here;
use fleet_core::{Error, ErrorKind, NodeId};
use fleet_store::record::NodeStanding;
use fleet_store::state::members;

use super::parts::Parts;
use crate::site::{Site, read_failed};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a node that sees nobody asks why.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// Most nodes asked at once.
const ASKED_MAX: usize = 8;
/// How often all have to say so.
const TIMES: u32 = 2;

/// Resolves once this node is known to be removed.
pub(super) async fn noticed(parts: &Parts) {
    let mut said = 0;
    let mut asked = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let is_removed = is_removed(&parts.site).unwrap_or(false);
        if !is_removed && parts.membership.current_view().active_peers().next().is_some() {
            said = 0;
            continue;
        }
        if !is_removed && asked.elapsed() >= ASK_EVERY {
            asked = tokio::time::Instant::now();
            said = if do_all_refuse(parts).await { said + 1 } else { 0 };
        }
        if is_removed || said >= TIMES {
            tracing::error!(node = %parts.identity.name, "this node was removed from the fleet and stops");
            return;
        }
    }
}

/// What the process ends with.
pub(super) fn expelled() -> Error {
    Error::new(ErrorKind::PermissionDenied, "run the node: it was removed from the fleet")
        .with_next_step("To use this machine again, join with an empty data directory and a new token.")
}

/// Whether this node's own copy of the state says so.
pub(super) fn is_removed(site: &Site) -> Result<bool, Error> {
    let record = members::node(&site.reader()?, site.group().node()).map_err(read_failed)?;
    Ok(record.is_some_and(|record| record.standing == NodeStanding::Removed))
}

async fn do_all_refuse(parts: &Parts) -> bool {
    let Ok(nodes) = parts.site.nodes() else { return false };
    let others = nodes.into_iter().filter(|node| node.id != parts.identity.node_id).take(ASKED_MAX);
    let asked = others.map(|node| async move {
        let address = parts.site.peers().address(node.id).unwrap_or(node.profile.address);
        let dialled = parts.site.peers().dialer().greet(&address, node.id).await;
        (node.id, dialled.map_err(|error| is_revoked_here(&error)))
    });
    all_refuse(&futures_util::future::join_all(asked).await)
}

/// Whether somebody refused us as revoked, and nobody took us. Who could not be reached says nothing.
fn all_refuse(answers: &[(NodeId, Result<(), bool>)]) -> bool {
    answers.iter().any(|(_, answer)| *answer == Err(true)) && answers.iter().all(|(_, answer)| answer.is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_that_nobody_contradicts_counts() {
        let answers = |answers: &[Result<(), bool>]| {
            all_refuse(&answers.iter().map(|answer| (NodeId::generate(), *answer)).collect::<Vec<_>>())
        };
        assert!(!answers(&[]), "there is nobody");
        assert!(!answers(&[Err(false), Err(false)]), "nobody can be reached");
        assert!(answers(&[Err(false), Err(true)]));
        assert!(!answers(&[Err(true), Ok(())]), "one of them still takes us");
    }
}
