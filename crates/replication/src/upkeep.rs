//! What a group does by itself now and then: snapshots and purges by the log's bytes, and on the leader the changes of
//! membership that the autopilot asks for, and the gate of versions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::{Digest, NodeId};
use fleet_store::Store;
use fleet_store::record::NodeStanding;
use fleet_store::state::{jobs, members};
use openraft::{ChangeMembers, EmptyNode};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::autopilot::{self, Candidate, Change, Picture};
use crate::blobs::Held;
use crate::command::{Action, COMMAND_VERSION};
use crate::consensus::{Raft, StoredError, VoterId, applied_index};
use crate::error::Error;
use crate::gate;
use crate::leadership::propose_own;
use crate::log_storage::LogMeter;
use crate::member::Member;
use crate::network::exchange;
use crate::promotion::{Promotion, promoted};
use crate::remembered::Remembered;
use crate::site_view::SiteView;
use crate::snapshot;
use crate::status::Status;
use crate::wire::{Request, Response};

/// How often it looks.
const TICK: Duration = Duration::from_millis(250);
/// Bytes of log past which a snapshot is taken and the log is purged.
const LOG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of log that a purge leaves, so that a follower that was away for a moment needs no snapshot.
const LOG_BYTES_KEPT: u64 = 16 * 1024 * 1024;
/// How many entries behind the leader a learner may be to get a vote.
const CAUGHT_UP_ENTRIES_MAX: u64 = 64;
/// How long a change of membership may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a learner may take to say which blobs it has.
const HELD_TIMEOUT: Duration = Duration::from_secs(1);
/// How often unused blobs are swept out; far longer than any proposal takes.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// How long taking a snapshot may take: it only reads one row.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a leader's upkeep wants to know of the applied state.
#[derive(Clone, Copy, Debug)]
struct Stated {
    /// The gate of versions.
    gate: u32,
    /// A node that a hold awaits although it was removed: it never comes back to reconcile.
    unawaited: Option<NodeId>,
}

/// The task that looks after the group.
pub(crate) struct Upkeep {
    pub(crate) member: Arc<Member>,
    pub(crate) raft: Raft,
    pub(crate) meter: LogMeter,
    pub(crate) store: Store,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) site: watch::Receiver<Option<SiteView>>,
}

impl Upkeep {
    pub(crate) async fn run(self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut promotion = None;
        let mut stated = Remembered::default();
        let mut swept_at = self.member.clock.boot_now();
        loop {
            tick.tick().await;
            if self.status.borrow().is_stopped() {
                return;
            }
            if let Err(error) = self.keep_log_short().await {
                // A stalled disk, say. If it is the group's end, its status will tell.
                tracing::warn!(%error, "the log could not be shortened; trying again");
            }
            let now = self.member.clock.boot_now();
            if now.saturating_since(swept_at) >= SWEEP_EVERY {
                swept_at = now;
                self.sweep_blobs().await;
            }
            if self.member.serving_term(&self.status).is_some() {
                self.lead(&mut promotion, &mut stated).await;
            } else {
                self.abandon(&mut promotion);
            }
        }
    }

    /// What only a leader does.
    async fn lead(&self, promotion: &mut Option<Promotion>, stated: &mut Remembered<Stated>) {
        if let Some(change) = self.next_change(promotion).await {
            tracing::info!(?change, "the autopilot changes the membership");
            if let Err(error) = change_membership(&self.raft, change).await {
                tracing::warn!(%error, "the autopilot's change failed");
            }
        }
        let applied = applied_index(&self.raft);
        let stated = match stated.get(applied, || self.stated()) {
            Ok(stated) => stated,
            Err(error) => {
                tracing::warn!(%error, "the hold and the gate of versions cannot be read");
                return;
            }
        };
        // What does not come through is proposed again at the next look.
        if let Some(node) = stated.unawaited {
            let _ = propose_own(&self.raft, &self.member, Action::Reconciled { node }).await;
        }
        if let Some(version) = self.next_gate(stated.gate) {
            tracing::info!(version, "every member knows newer commands");
            let _ = propose_own(&self.raft, &self.member, Action::Gate { version }).await;
        }
    }

    /// The change of membership to make now. Nobody gets a vote before it holds every blob that a command may name.
    async fn next_change(&self, promotion: &mut Option<Promotion>) -> Option<Change> {
        let picture = self.picture();
        let change = picture.as_ref().and_then(autopilot::decide);
        let voters: BTreeSet<NodeId> = self.status.borrow().voters();
        let Some(mut picture) = picture.filter(|_| promoted(change.as_ref(), &voters).is_some()) else {
            self.abandon(promotion);
            return change;
        };
        let ready = picture.candidates.iter().filter(|candidate| candidate.is_alive && candidate.is_caught_up);
        let learners = ready.map(|candidate| candidate.node).filter(|node| !voters.contains(node)).collect();
        let held = self.ask_what_is_held(learners).await;
        for candidate in picture.candidates.iter_mut().filter(|candidate| !voters.contains(&candidate.node)) {
            candidate.is_caught_up &= held.get(&candidate.node).is_some_and(Held::is_complete);
        }
        let change = autopilot::decide(&picture);
        let Some(target) = promoted(change.as_ref(), &voters).cloned() else {
            self.abandon(promotion);
            return change;
        };
        match self.settle(promotion, &target) {
            Ok(Some(index)) => {
                let has_all = |node: &NodeId| held.get(node).is_some_and(|held| held.complete_at >= Some(index));
                change.filter(|_| target.difference(&voters).all(has_all))
            }
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "a promotion cannot be prepared");
                None
            }
        }
    }

    /// Prepares `target`, or goes on with it: the index at which the newcomers' blobs must be complete, once known.
    fn settle(&self, promotion: &mut Option<Promotion>, target: &BTreeSet<NodeId>) -> Result<Option<u64>, StoredError> {
        let mut current = match promotion.take().filter(|promotion| promotion.target == *target) {
            Some(current) => current,
            None => Promotion::begin(target.clone(), self.member.blobs().begin_joining(target.clone())),
        };
        let reader = self.store.reader(self.member.group)?;
        let applied = snapshot::applied_to(&reader)?.last.map_or(0, |last| last.index);
        let is_named = |digest: Digest| jobs::blob_uses(&reader, digest).is_ok_and(|uses| uses > 0);
        let index = current.settle(self.member.clock.boot_now(), applied, is_named);
        *promotion = Some(current);
        Ok(index)
    }

    /// Nobody is about to vote.
    fn abandon(&self, promotion: &mut Option<Promotion>) {
        if promotion.take().is_some() {
            self.member.blobs().end_joining();
        }
    }

    /// What `nodes` say of the blobs they have; who does not answer is left out.
    async fn ask_what_is_held(&self, nodes: Vec<NodeId>) -> BTreeMap<NodeId, Held> {
        let mut calls = JoinSet::new();
        for node in nodes {
            let member = Arc::clone(&self.member);
            calls.spawn(async move { (node, exchange(&member, node, Request::BlobsHeld, HELD_TIMEOUT).await) });
        }
        let mut held = BTreeMap::new();
        while let Some(call) = calls.join_next().await {
            if let Ok((node, Ok(Response::BlobsHeld(answer)))) = call {
                held.insert(node, answer);
            }
        }
        held
    }

    /// The version that `gate` can be raised to now; `None` where it is there, or gossip is blind.
    fn next_gate(&self, gate: u32) -> Option<u32> {
        let (status, site) = (self.status.borrow().clone(), self.site.borrow().clone()?);
        let known = site.nodes.iter().filter_map(|node| Some((node.node, node.commands?)));
        let known = known.chain([(self.member.node, COMMAND_VERSION)]).collect();
        let members = status.voters().union(&status.learners).copied().collect();
        gate::decide(gate, &members, &known)
    }

    fn stated(&self) -> Result<Stated, fleet_store::Error> {
        let reader = self.store.reader(self.member.group)?;
        let site = jobs::site(&reader)?;
        let mut unawaited = None;
        for node in site.hold.into_iter().flat_map(|hold| hold.awaited) {
            if members::node(&reader, node)?.is_none_or(|record| record.standing == NodeStanding::Removed) {
                unawaited = Some(node);
                break;
            }
        }
        Ok(Stated { gate: site.gate, unawaited })
    }

    async fn sweep_blobs(&self) {
        match self.store.sweep_blobs(self.member.group).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "removed blobs that nothing names any more"),
            Err(error) => tracing::warn!(%error, "unused blobs could not be removed"),
        }
    }

    async fn keep_log_short(&self) -> Result<(), Error> {
        if self.meter.total_bytes() < LOG_BYTES_MAX {
            return Ok(());
        }
        shorten_log(&self.raft, self.meter.purge_point(LOG_BYTES_KEPT)).await
    }

    /// What the autopilot decides on; `None` where gossip is blind.
    fn picture(&self) -> Option<Picture> {
        let metrics = self.raft.metrics().borrow().clone();
        let (replication, last_log) = (metrics.replication?, metrics.last_log_index?);
        let now = self.member.clock.boot_now();
        let status = self.status.borrow().clone();
        let site = self.site.borrow().clone()?;
        let candidates = site.nodes.iter().map(|node| {
            let matched = replication.get(&VoterId(node.node)).copied().flatten().map(|id| id.index);
            Candidate {
                node: node.node,
                is_alive: node.down_since.is_none() || node.node == self.member.node,
                down_for: node.down_for(now),
                is_caught_up: node.node == self.member.node
                    || matched.is_some_and(|index| index + CAUGHT_UP_ENTRIES_MAX >= last_log),
                is_removed: node.is_removed,
            }
        });
        Some(Picture {
            voters: status.voter_sets,
            learners: status.learners,
            candidates: candidates.collect(),
            leader: self.member.node,
        })
    }
}

/// Purges the log up to `through`, or to the last applied entry.
pub(crate) async fn shorten_log(raft: &Raft, through: Option<u64>) -> Result<(), Error> {
    let operation = "shorten the log";
    let ended = |error| Error::consensus(operation, &error);
    let Some(applied) = applied_index(raft) else { return Ok(()) };
    // The state is its own snapshot: taking one only moves the mark up to which the log may go.
    raft.trigger().snapshot().await.map_err(ended)?;
    let through = through.unwrap_or(applied).min(applied);
    let wait = raft.wait(Some(SNAPSHOT_TIMEOUT));
    let taken = wait.metrics(
        |metrics| metrics.snapshot.is_some_and(|id| id.index >= through),
        "the snapshot reaches what is purged",
    );
    taken.await.map_err(|_| Error::Deadline { operation })?;
    raft.trigger().purge_log(through).await.map_err(ended)
}

/// Carries out `change` through the log.
pub(crate) async fn change_membership(raft: &Raft, change: Change) -> Result<(), Error> {
    let work = async {
        match change {
            Change::AddLearner(node) => raft.add_learner(VoterId(node), EmptyNode {}, false).await,
            Change::RemoveLearner(node) => {
                raft.change_membership(ChangeMembers::RemoveNodes([VoterId(node)].into()), true).await
            }
            Change::SetVoters(voters) => {
                let voters = voters.into_iter().map(VoterId).collect();
                raft.change_membership(ChangeMembers::ReplaceAllVoters(voters), true).await
            }
        }
    };
    match tokio::time::timeout(CHANGE_TIMEOUT, work).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Error::Membership { problem: error.to_string() }),
        Err(_) => Err(Error::OutcomeUnknown),
    }
}
