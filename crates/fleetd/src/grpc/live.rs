//! What other nodes say of themselves right now, where an actor link leads to them. Only fresher than gossip, never needed.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_core::NodeId;
use fleet_node::links::{Answer, Links, Request};
use futures_util::{StreamExt, stream};

/// How long a node may take. Past it, what gossip says is shown.
const PATIENCE: Duration = Duration::from_millis(300);
/// Nodes asked at once.
const ASKED_AT_ONCE_MAX: usize = 64;

/// Slots at work on `own` and on each node that a link leads to, as far as they answer.
pub(super) async fn slots_busy(links: &Links, own: NodeId) -> BTreeMap<NodeId, u32> {
    let nodes: Vec<NodeId> = links.linked().into_iter().chain([own]).collect();
    let asked = nodes.into_iter().map(|node| async move {
        match links.ask(node, Request::Status, PATIENCE).await {
            Ok(Answer::Status(status)) => Some((node, status.slots_busy)),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%node, %error, "a node's own numbers are not known");
                None
            }
        }
    });
    stream::iter(asked).buffer_unordered(ASKED_AT_ONCE_MAX).filter_map(std::future::ready).collect().await
}
