//! When a voter should ask for an election: a pure, level-triggered decision.
//!
//! Gossip leads, the log guards: gossip only decides in which order voters try. Rules (`reference`: the design, §5): only a
//! voter that does not lead and heard no leader for longer than the group lease; the later, the lower its rank in a
//! rendezvous hash over the voters that gossip holds alive, the silent leader left out; in voter order where gossip is
//! blind; and only after a quorum of voters said that they would follow. None of this can break safety: it gates liveness.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_core::timing::Timing;
use fleet_core::{BootInstant, Digest, GroupId, NodeId};

use crate::consensus::LogId;
use crate::wire::PollAnswer;

/// How often the time of an election in vain is doubled for the next: with five voters the first one then waits 1.6 s.
const DOUBLINGS_MAX: u32 = 3;

/// The terms that this process saw.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The one at its beginning.
    pub first: u64,
    newest: u64,
    /// When it first saw the newest.
    pub since: BootInstant,
}

impl Terms {
    /// Begins at `now` with `term`.
    pub fn begin(term: u64, now: BootInstant) -> Self {
        Self { first: term, newest: term, since: now }
    }

    /// Sees `term` at `now`.
    pub fn see(&mut self, term: u64, now: BootInstant) {
        if term > self.newest {
            (self.newest, self.since) = (term, now);
        }
    }
}

/// What a voter knows when it looks.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// The group.
    pub group: GroupId,
    /// This voter.
    pub node: NodeId,
    /// Its term.
    pub term: u64,
    /// Whether it leads.
    pub leads: bool,
    /// The voters; two sets while a joint configuration is under way.
    pub voters: Vec<BTreeSet<NodeId>>,
    /// The nodes that gossip holds alive; `None` where gossip is blind.
    pub alive: Option<BTreeSet<NodeId>>,
    /// The leader heard last, and when.
    pub heard: Option<(NodeId, BootInstant)>,
    /// When its process began.
    pub started_at: BootInstant,
    /// When this voter last asked for an election.
    pub tried_at: Option<BootInstant>,
    /// When this voter first knew of `term`.
    pub term_since: BootInstant,
    /// The term of the leader heard last, or that of this process's beginning: elections since then were in vain.
    pub term_of_leader: u64,
    /// The time.
    pub now: BootInstant,
}

/// Whether it is this voter's turn to ask the others.
pub fn should_poll(outlook: &Outlook, timing: &Timing) -> bool {
    let all: BTreeSet<NodeId> = outlook.voters.iter().flatten().copied().collect();
    if outlook.leads || !all.contains(&outlook.node) {
        return false;
    }
    let rank_step = timing.rank_step(all.len());
    // An election under way gets the time of two ranks before it is overtaken.
    if outlook.tried_at.is_some_and(|at| outlook.now.saturating_since(at) < rank_step * 2) {
        return false;
    }
    if all.len() == 1 {
        // Nobody else can lead, so nobody's lease is in the way.
        return true;
    }
    let since = outlook.heard.map_or(outlook.started_at, |(_, at)| at.max(outlook.started_at));
    let silence = outlook.now.saturating_since(since);
    silence > timing.group_lease + rank_step * rank(outlook, &all) && is_round_over(outlook, rank_step, &all)
}

/// Whether the election of somebody else had its time. Each that was in vain doubles the time of the next, up to a bound:
/// where a vote takes longer than a step, voters would else overtake each other for ever.
fn is_round_over(outlook: &Outlook, rank_step: Duration, all: &BTreeSet<NodeId>) -> bool {
    let in_vain = outlook.term.saturating_sub(outlook.term_of_leader);
    if in_vain == 0 {
        return true;
    }
    let doublings = u32::try_from(in_vain - 1).unwrap_or(u32::MAX).min(DOUBLINGS_MAX);
    let round = rank_step * (2 + rank(outlook, all)) * (1 << doublings);
    outlook.now.saturating_since(outlook.term_since) >= round
}

/// How many voters should try before this one.
fn rank(outlook: &Outlook, all: &BTreeSet<NodeId>) -> u32 {
    let silent_leader = outlook.heard.map(|(leader, _)| leader);
    let place = |order: Vec<NodeId>| {
        let before = order.iter().take_while(|voter| **voter != outlook.node).count();
        u32::try_from(before).unwrap_or(u32::MAX)
    };
    let candidates: BTreeSet<NodeId> =
        all.iter().copied().filter(|voter| *voter == outlook.node || Some(*voter) != silent_leader).collect();
    let alive: BTreeSet<NodeId> = match &outlook.alive {
        Some(alive) => {
            candidates.iter().copied().filter(|voter| *voter == outlook.node || alive.contains(voter)).collect()
        }
        None => BTreeSet::new(),
    };
    // If gossip were right about fewer than a majority, no election could succeed: it is blind then.
    if outlook.voters.iter().any(|set| set.intersection(&alive).count() <= set.len() / 2) {
        return place(candidates.into_iter().collect());
    }
    let mut order: Vec<NodeId> = alive.into_iter().collect();
    order.sort_by_key(|voter| weight(outlook.group, outlook.term, *voter));
    place(order)
}

/// The place of `voter` in the order of `term`: the same on every node, another one in each term.
fn weight(group: GroupId, term: u64, voter: NodeId) -> Digest {
    let mut content = Vec::with_capacity(40);
    content.extend_from_slice(group.as_bytes());
    content.extend_from_slice(&term.to_be_bytes());
    content.extend_from_slice(voter.as_bytes());
    Digest::of(&content)
}

/// Whether what the other voters answered makes an election worth its disturbance. `own_last_log` is this voter's own.
pub fn should_elect(
    outlook: &Outlook,
    own_last_log: Option<LogId>,
    answers: &BTreeMap<NodeId, PollAnswer>,
    lease: Duration,
) -> bool {
    let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    let would_follow = |voter: &NodeId| {
        *voter == outlook.node
            || answers
                .get(voter)
                .is_some_and(|answer| !answer.leads && answer.silence_ms >= lease_ms && answer.last_log <= own_last_log)
    };
    let anyone_leads = answers.values().any(|answer| answer.leads);
    !anyone_leads
        && outlook.voters.iter().all(|set| set.iter().filter(|voter| would_follow(voter)).count() > set.len() / 2)
}

#[cfg(test)]
#[path = "watchdog_tests.rs"]
mod tests;
