//! Who of the voters answers, asked directly: whether the group can still work, whatever gossip says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::NodeId;
use tokio::task::JoinSet;

use crate::member::Member;
use crate::network::exchange;
use crate::status::{Role, Status};
use crate::wire::{Request, Response};

/// How long a voter may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// What came of asking every voter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// How many voters there are.
    pub voters: usize,
    /// Those that answered in this epoch, this node among them if it votes.
    pub answered: BTreeSet<NodeId>,
    /// Whether they are a majority, so that the group can work.
    pub is_majority: bool,
    /// Who leads, by its own word or because this node hears it.
    pub leader: Option<NodeId>,
    /// A later epoch that somebody told of.
    pub superseded_by: Option<u64>,
}

/// Asks all voters of `status` at once.
pub(crate) async fn ask(member: &Arc<Member>, status: &Status) -> Survey {
    let voters = status.voters();
    let mut answered: BTreeSet<NodeId> = voters.iter().copied().filter(|voter| *voter == member.node).collect();
    let leads = status.role == Role::Leader && status.leader == Some(member.node);
    let mut leader = status.leader.filter(|leader| *leader != member.node || leads);
    let mut calls = JoinSet::new();
    for voter in voters.iter().copied().filter(|voter| *voter != member.node) {
        let member = Arc::clone(member);
        calls.spawn(async move { (voter, exchange(&member, voter, Request::Poll, ANSWER_TIMEOUT).await) });
    }
    while let Some(call) = calls.join_next().await {
        if let Ok((voter, Ok(Response::Poll(answer)))) = call {
            answered.insert(voter);
            leader = leader.or(answer.leads.then_some(voter));
        }
    }
    let works = |set: &BTreeSet<NodeId>| set.intersection(&answered).count() > set.len() / 2;
    Survey {
        voters: voters.len(),
        is_majority: !status.voter_sets.is_empty() && status.voter_sets.iter().all(works),
        answered,
        leader,
        superseded_by: member.superseded_by(),
    }
}
