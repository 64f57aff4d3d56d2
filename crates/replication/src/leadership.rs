//! From leading to serving: whoever finds itself leader, by election or by restart, first commits and applies an entry of
//! its own. And back: a leader that no quorum followed for a group lease serves nobody.

use std::sync::Arc;

use fleet_core::{BootInstant, NodeId};
use fleet_store::record::CommandId;
use openraft::{RaftMetrics, ServerState};
use tokio::sync::{mpsc, watch};

use crate::command::{Action, Batch, Command};
use crate::consensus::{EntryData, Raft, VoterId};
use crate::contact::Reign;
use crate::member::Member;
use crate::status::{Role, Status};

/// openraft's view of this node.
type Metrics = RaftMetrics<VoterId, openraft::EmptyNode>;

/// Keeps the status up to date until the consensus ends.
pub(crate) struct Leadership {
    pub(crate) member: Arc<Member>,
    pub(crate) raft: Raft,
    pub(crate) status: watch::Sender<Status>,
}

impl Leadership {
    pub(crate) async fn run(self) {
        let mut server = self.raft.server_metrics();
        let mut tick = tokio::time::interval(self.member.timing.watchdog_tick / 2);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let (led_sender, mut led) = mpsc::channel(1);
        let mut led_term = None;
        let mut leading_term = None;
        loop {
            tokio::select! {
                changed = server.changed() => if changed.is_err() { break },
                _ = tick.tick() => {}
                Some((term, done)) = led.recv() => {
                    leading_term = None;
                    led_term = Some(term).filter(|_| done).or(led_term);
                }
            }
            let metrics = self.raft.metrics().borrow().clone();
            if metrics.running_state.is_err() {
                break;
            }
            let leads = metrics.state == ServerState::Leader;
            if !leads {
                led_term = None;
            } else if led_term != Some(metrics.current_term) && leading_term != Some(metrics.current_term) {
                leading_term = Some(metrics.current_term);
                self.commit_first_entry(metrics.current_term, led_sender.clone());
            }
            self.publish(&metrics, led_term);
        }
        self.stop();
    }

    /// Proposes this leader's own entry; tells `done` the term and whether it was applied in it.
    fn commit_first_entry(&self, term: u64, done: mpsc::Sender<(u64, bool)>) {
        let (raft, member) = (self.raft.clone(), Arc::clone(&self.member));
        tokio::spawn(async move {
            let applied = propose_own(&raft, &member, Action::Lead { node: member.node })
                .await
                .is_some_and(|committed| committed == term);
            // The other end is gone only when the group is.
            let _ = done.send((term, applied)).await;
        });
    }

    fn publish(&self, metrics: &Metrics, led_term: Option<u64>) {
        let now = self.member.clock.boot_now();
        let status = describe(&self.member, metrics, led_term, now);
        let mut was_serving = false;
        let serves = status.serving_term.is_some();
        // Who sees that this node serves no more waits here until it is noted when it stopped.
        let mut contact = self.member.contact();
        self.status.send_if_modified(|current| {
            was_serving = current.serving_term.is_some();
            let changed = *current != status;
            *current = status;
            changed
        });
        if was_serving && !serves {
            contact.stopped_leading(self.member.clock.boot_now());
        }
    }

    fn stop(&self) {
        let mut contact = self.member.contact();
        self.status.send_modify(|status| {
            status.role = Role::Stopped;
            status.serving_term = None;
            status.leader = None;
        });
        contact.stopped_leading(self.member.clock.boot_now());
    }
}

/// Commits and applies an entry of the group's own with `action` alone; the term in which that happened.
pub(crate) async fn propose_own(raft: &Raft, member: &Member, action: Action) -> Option<u64> {
    let command = Command { id: CommandId(NodeId::generate().0.as_u128()), at: member.clock.now(), action };
    let bytes = Batch { commands: vec![command] }.encode().ok()?;
    let write = raft.client_write(EntryData(bytes.into()));
    match tokio::time::timeout(member.timing.group_lease * 2, write).await {
        Ok(Ok(response)) => Some(response.log_id.leader_id.term),
        Ok(Err(error)) => {
            tracing::info!(%error, "an entry of the group's own was not committed");
            None
        }
        Err(_) => None,
    }
}

/// Whether `leader` was heard lately. The consensus itself never forgets a leader, because its election timer is off; a
/// node that is alone would name a dead one for ever.
fn is_heard(member: &Member, leader: NodeId, now: BootInstant) -> bool {
    let heard = member.contact().last_heard();
    heard.is_some_and(|(node, at)| node == leader && now.saturating_since(at) <= member.timing.group_lease * 2)
}

/// The status that follows from what is known at `now`.
fn describe(member: &Member, metrics: &Metrics, led_term: Option<u64>, now: BootInstant) -> Status {
    let membership = metrics.membership_config.membership();
    let voter_sets: Vec<_> =
        membership.get_joint_config().iter().map(|set| set.iter().map(|voter| voter.0).collect()).collect();
    let term = metrics.current_term;
    let leads = metrics.state == ServerState::Leader;
    let followed_at = leads.then(|| member.acknowledgements().quorum_at(&voter_sets, member.node, term, now)).flatten();
    let superseded_by = member.superseded_by();
    let pledged_away = member.contact().forbids(Reign { term, node: member.node, run: member.run }).is_some();
    let is_followed = followed_at.is_some_and(|at| now.saturating_since(at) <= member.timing.group_lease);
    let serves = leads && is_followed && led_term == Some(term) && superseded_by.is_none() && !pledged_away;
    Status {
        role: match metrics.state {
            ServerState::Learner => Role::Learner,
            ServerState::Follower => Role::Follower,
            ServerState::Candidate => Role::Candidate,
            ServerState::Leader => Role::Leader,
            ServerState::Shutdown => Role::Stopped,
        },
        term,
        leader: metrics
            .current_leader
            .map(|leader| leader.0)
            .filter(|leader| if *leader == member.node { is_followed } else { is_heard(member, *leader, now) }),
        serving_term: serves.then_some(term),
        epoch: member.epoch,
        superseded_by,
        voter_sets,
        learners: membership.learner_ids().map(|learner| learner.0).collect(),
        last_applied: metrics.last_applied.map(|id| id.index),
        is_followed,
    }
}
