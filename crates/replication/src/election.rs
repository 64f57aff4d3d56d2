//! Carries out what the watchdog decides: looks every tick, asks the voters, and triggers the election.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleet_core::{BootInstant, NodeId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::consensus::Raft;
use crate::member::Member;
use crate::network::exchange;
use crate::site_view::SiteView;
use crate::status::{Role, Status};
use crate::watchdog::{self, Outlook, Terms};
use crate::wire::{Request, Response};

/// The elections of one voter.
pub(crate) struct Elections {
    pub(crate) member: Arc<Member>,
    pub(crate) raft: Raft,
    pub(crate) status: watch::Receiver<Status>,
    pub(crate) site: watch::Receiver<Option<SiteView>>,
}

impl Elections {
    pub(crate) async fn run(self) {
        let mut tick = tokio::time::interval(self.member.timing.watchdog_tick);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut tried_at = None;
        let mut terms = Terms::begin(self.status.borrow().term, self.member.clock.boot_now());
        loop {
            tick.tick().await;
            let outlook = self.outlook(tried_at, &mut terms);
            if self.status.borrow().is_stopped() {
                return;
            }
            if self.member.superseded_by().is_some() || !watchdog::should_poll(&outlook, &self.member.timing) {
                continue;
            }
            if !self.poll(&outlook).await {
                continue;
            }
            // Something may have been heard while the others answered.
            let outlook = self.outlook(tried_at, &mut terms);
            if !watchdog::should_poll(&outlook, &self.member.timing) {
                continue;
            }
            tracing::info!(term = outlook.term, "no leader is heard: asking for an election");
            metrics::counter!("fleet_group_elections_started").increment(1);
            tried_at = Some(self.member.clock.boot_now());
            if self.raft.trigger().elect().await.is_err() {
                return;
            }
        }
    }

    fn outlook(&self, tried_at: Option<BootInstant>, terms: &mut Terms) -> Outlook {
        let status = self.status.borrow().clone();
        let now = self.member.clock.boot_now();
        terms.see(status.term, now);
        let alive = self.site.borrow().as_ref().map(SiteView::alive);
        let contact = self.member.contact();
        Outlook {
            group: self.member.group,
            node: self.member.node,
            term: status.term,
            leads: status.role == Role::Leader,
            voters: status.voter_sets,
            alive,
            heard: contact.last_heard(),
            started_at: contact.started_at(),
            tried_at,
            term_since: terms.since,
            term_of_leader: contact.last_term().unwrap_or(terms.first),
            now,
        }
    }

    /// Asks every other voter until enough would follow; whoever does not answer within a rank's step counts for nothing.
    async fn poll(&self, outlook: &Outlook) -> bool {
        let own_last_log = self.raft.data_metrics().borrow().last_log;
        let lease = self.member.timing.group_lease;
        let others: BTreeSet<NodeId> =
            outlook.voters.iter().flatten().copied().filter(|voter| *voter != outlook.node).collect();
        let deadline = self.member.timing.rank_step(others.len() + 1);
        let mut calls = JoinSet::new();
        for voter in others {
            let member = Arc::clone(&self.member);
            calls.spawn(async move { (voter, exchange(&member, voter, Request::Poll, deadline).await) });
        }
        let mut answers = BTreeMap::new();
        loop {
            if watchdog::should_elect(outlook, own_last_log, &answers, lease) {
                return true;
            }
            match calls.join_next().await {
                Some(Ok((voter, Ok(Response::Poll(answer))))) => {
                    answers.insert(voter, answer);
                }
                Some(_) => {}
                None => return false,
            }
        }
    }
}
