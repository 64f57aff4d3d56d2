//! Asking other nodes in turn, whoever can be reached: for what a node needs even when it hears no leader.

use std::collections::{BTreeSet, VecDeque};
use std::future::Future;
use std::time::Duration;

use fleet_core::{Error, ErrorKind, NodeId};
use fleet_membership::View;
use fleet_store::record::NodeRecord;

/// How long one node may take to answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Most nodes asked in one go.
pub(super) const ASKED_MAX: usize = 32;

/// The nodes to ask, best first: who is heard to lead, who others say leads by the latest term, the living, the rest.
pub(super) fn candidates(own: NodeId, heard: Option<NodeId>, view: &View, nodes: &[NodeRecord]) -> Vec<NodeId> {
    let claims = view.members().filter_map(|member| member.metadata.as_ref()?.group.as_ref());
    let mut claimed: Vec<(u64, NodeId)> = claims.filter_map(|group| Some((group.term, group.leader?))).collect();
    claimed.sort_unstable_by(|left, right| right.cmp(left));
    let alive = view.active_peers().map(|member| member.node);
    let rest = view.members().map(|member| member.node).chain(nodes.iter().map(|node| node.id));
    let mut seen = BTreeSet::from([own]);
    let ordered = heard.into_iter().chain(claimed.into_iter().map(|(_, leader)| leader)).chain(alive).chain(rest);
    ordered.filter(|node| seen.insert(*node)).collect()
}

/// The first answer that one of `queue` gives to `ask`. Who says that another leads has that one asked next; `node_at` knows
/// who answers at an address.
///
/// # Errors
/// The last one's, or `Unavailable` if there is nobody to ask.
pub(super) async fn ask_in_turn<T, Answer>(
    queue: Vec<NodeId>,
    node_at: impl Fn(&str) -> Option<NodeId>,
    mut ask: impl FnMut(NodeId) -> Answer,
) -> Result<T, Error>
where
    Answer: Future<Output = Result<T, Error>>,
{
    let mut queue = VecDeque::from(queue);
    let mut asked = BTreeSet::new();
    let mut last = Error::new(ErrorKind::Unavailable, "ask another node: none is known");
    while let Some(node) = queue.pop_front().filter(|_| asked.len() < ASKED_MAX) {
        if !asked.insert(node) {
            continue;
        }
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, ask(node)).await;
        let silent = || Error::new(ErrorKind::DeadlineExceeded, format!("ask node {node}: no answer in time"));
        match answer.unwrap_or_else(|_| Err(silent())) {
            Ok(answer) => return Ok(answer),
            Err(error) => {
                tracing::debug!(%node, %error, "a node that was asked did not help");
                if let Some(leader) = error.leader_hint.as_deref().and_then(&node_at) {
                    queue.push_front(leader);
                }
                last = error;
            }
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 16])
    }

    #[tokio::test(start_paused = true)]
    async fn the_silent_are_passed_over_and_hints_followed() {
        let asked = RefCell::new(Vec::new());
        let answer = ask_in_turn(
            vec![node(1), node(2), node(3)],
            |address| (address == "c:7000").then_some(node(4)),
            |asked_now| {
                asked.borrow_mut().push(asked_now);
                async move {
                    match asked_now {
                        who if who == node(1) => std::future::pending().await,
                        who if who == node(2) => {
                            Err(Error::new(ErrorKind::NotLeader, "not here").with_leader_hint("c:7000"))
                        }
                        who if who == node(4) => Ok("certificate"),
                        _ => Err(Error::new(ErrorKind::Unavailable, "nobody")),
                    }
                }
            },
        );
        assert_eq!(answer.await.unwrap(), "certificate");
        assert_eq!(*asked.borrow(), [node(1), node(2), node(4)]);
    }

    #[tokio::test]
    async fn a_circle_of_hints_ends() {
        let circle = |address: &str| Some(if address == "a" { node(1) } else { node(2) });
        let answer: Result<(), Error> = ask_in_turn(vec![node(1), node(2)], circle, |asked| async move {
            let hint = if asked == node(1) { "b" } else { "a" };
            Err(Error::new(ErrorKind::NotLeader, "not here").with_leader_hint(hint))
        })
        .await;
        assert_eq!(answer.unwrap_err().kind, ErrorKind::NotLeader);
        let nobody: Result<(), Error> = ask_in_turn(Vec::new(), |_| None, |_| async { Ok(()) }).await;
        assert_eq!(nobody.unwrap_err().kind, ErrorKind::Unavailable);
    }
}
