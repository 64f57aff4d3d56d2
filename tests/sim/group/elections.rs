//! When this node asks to be elected, by the production watchdog.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::NodeId;
use fleet_replication::watchdog::{self, Outlook};

use super::{GroupPart, Poll, log_id};
use crate::consensus::Input;
use crate::message::{Ask, Step};

impl GroupPart {
    fn outlook(&self, step: &Step<'_>) -> Outlook {
        Outlook {
            group: self.id,
            node: self.node,
            term: self.consensus.vote.term,
            leads: self.consensus.leads(),
            voters: self.consensus.members.voters.clone(),
            alive: self.alive.clone(),
            heard: self.contact.last_heard(),
            started_at: self.contact.started_at(),
            tried_at: self.tried_at,
            term_since: self.terms.since,
            term_of_leader: self.contact.last_term().unwrap_or(self.terms.first),
            now: step.now,
        }
    }

    pub(super) fn watch(&mut self, step: &mut Step<'_>) {
        let voters = self.consensus.members.all().len();
        let deadline = step.timing.rank_step(voters);
        if self.poll.as_ref().is_some_and(|poll| step.now.saturating_since(poll.since) >= deadline) {
            self.poll = None;
        }
        self.terms.see(self.consensus.vote.term, step.now);
        let outlook = self.outlook(step);
        if self.poll.is_some() || !watchdog::should_poll(&outlook, &step.timing) {
            return;
        }
        let others: BTreeSet<NodeId> =
            outlook.voters.iter().flatten().copied().filter(|voter| *voter != self.node).collect();
        let calls = others.into_iter().map(|voter| self.call(step, voter, Ask::Poll, None, false)).collect();
        self.poll = Some(Poll { since: step.now, outlook, answers: BTreeMap::new(), calls });
        self.judge_poll(step);
    }

    pub(super) fn judge_poll(&mut self, step: &mut Step<'_>) {
        let Some(poll) = &self.poll else { return };
        let own = log_id(self.consensus.last());
        if !watchdog::should_elect(&poll.outlook, own, &poll.answers, step.timing.group_lease) {
            return;
        }
        self.poll = None;
        if watchdog::should_poll(&self.outlook(step), &step.timing) {
            self.tried_at = Some(step.now);
            self.take(step, Input::Elect);
        }
    }
}
