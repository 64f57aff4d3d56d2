//! From leading to serving and back, confirmations of the leadership, and what an earlier leader may still have promised.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleet_core::{BootInstant, NodeId};
use fleet_replication::command::{Action, Command};
use fleet_replication::takeover;
use fleet_store::record::CommandId;

use super::{ENTRY_LEASES_MAX, GroupPart, Notice, OwnEntry, Round, Takeover};
use crate::bugs::PlantedBug;
use crate::consensus::{Input, Payload};
use crate::message::{Ask, Fact, Step};

impl GroupPart {
    /// Time passed.
    pub(crate) fn tick(&mut self, step: &mut Step<'_>, is_watching: bool) {
        let lease = step.timing.group_lease;
        self.calls.retain(|_, call| step.now.saturating_since(call.sent_at) < lease * 4);
        self.take(step, Input::Tick);
        self.refresh(step);
        if is_watching {
            self.watch(step);
        }
        if self.round.as_ref().is_some_and(|round| step.now.saturating_since(round.since) >= lease) {
            let round = self.round.take();
            self.fail_round(round);
        }
        self.begin_round(step);
        if self.takeover.as_ref().is_some_and(|takeover| step.now.saturating_since(takeover.since) >= lease / 2) {
            let term = self.takeover.take().map_or(0, |takeover| takeover.term);
            self.notices.push_back(Notice::Takeover { term, latest: None });
        }
        let is_over = |since: BootInstant| step.now.saturating_since(since) >= lease * ENTRY_LEASES_MAX;
        if self.under_way.as_ref().is_some_and(|entry| is_over(entry.since)) {
            let replies = self.under_way.take().map(|entry| entry.replies).unwrap_or_default();
            self.notices.extend(replies.into_iter().map(|reply| Notice::Proposed(reply, None)));
        }
        self.write_entry(step);
    }

    /// Brings the standing up to date.
    pub(crate) fn refresh(&mut self, step: &mut Step<'_>) {
        let (term, leads) = (self.consensus.vote.term, self.consensus.leads());
        if !leads {
            (self.led_term, self.own_entry) = (None, None);
        } else if self.led_term != Some(term) {
            let lease = step.timing.group_lease;
            let is_open = self
                .own_entry
                .as_ref()
                .is_some_and(|own| own.term == term && step.now.saturating_since(own.since) < lease * 2);
            if step.has(PlantedBug::ServeBeforeOwnEntry) {
                self.led_term = Some(term);
            } else if !is_open {
                self.propose_own(step, term);
            }
        }
        let voters = &self.consensus.members.voters;
        let followed_at = leads.then(|| self.acknowledgements.quorum_at(voters, self.node, term, step.now)).flatten();
        self.is_followed = followed_at.is_some_and(|at| step.now.saturating_since(at) <= step.timing.group_lease);
        let is_pledged_away = self.contact.forbids(self.reign()).is_some();
        let serves = leads && self.is_followed && self.led_term == Some(term) && !is_pledged_away;
        let serving = serves.then_some(term);
        if self.serving.is_some() && serving.is_none() {
            self.contact.stopped_leading(step.now);
        }
        if serving.is_some() && serving != self.serving {
            step.fact(Fact::Serves { node: self.node, term, applied: self.applied });
        }
        self.serving = serving;
    }

    fn propose_own(&mut self, step: &mut Step<'_>, term: u64) {
        let token = self.number();
        let id = CommandId(u128::from(step.dice.bits()));
        let command = Command { id, at: step.wall, action: Action::Lead { node: self.node } };
        self.own_entry = Some(OwnEntry { term, token, place: None, since: step.now });
        self.take(step, Input::Propose { token, payload: Payload::Commands(Arc::new(vec![command])) });
    }

    pub(super) fn begin_round(&mut self, step: &mut Step<'_>) {
        if self.round.is_some() || self.questions.is_empty() {
            return;
        }
        let number = self.number();
        let questions = std::mem::take(&mut self.questions);
        let term = self.serving.filter(|_| self.contact.forbids(self.reign()).is_none());
        let mut round = Round { number, since: step.now, term: term.unwrap_or_default(), index: None, questions };
        if term.is_none() {
            return self.fail_round(Some(round));
        }
        if step.has(PlantedBug::RenewWithoutQuorum) {
            round.index = Some(self.applied);
            self.round = Some(round);
            return self.end_round(step);
        }
        self.round = Some(round);
        self.take(step, Input::Confirm { round: number });
    }

    fn fail_round(&mut self, round: Option<Round>) {
        let questions = round.map(|round| round.questions).unwrap_or_default();
        self.notices.extend(questions.into_iter().map(|question| Notice::Confirmed(question, false)));
    }

    pub(super) fn end_round(&mut self, step: &mut Step<'_>) {
        let applied = self.applied;
        let Some(round) = self.round.take_if(|round| round.index.is_some_and(|index| index <= applied)) else { return };
        let still = self.serving.filter(|_| self.contact.forbids(self.reign()).is_none());
        if still != Some(round.term) {
            return self.fail_round(Some(round));
        }
        let questions = round.questions.into_iter();
        self.notices.extend(questions.map(|question| Notice::Confirmed(question, true)));
        self.begin_round(step);
    }

    /// Asks when an earlier leader was last heard.
    pub(crate) fn ask_takeover(&mut self, step: &mut Step<'_>) {
        let term = self.consensus.vote.term;
        if self.takeover.as_ref().is_some_and(|takeover| takeover.term == term) {
            return;
        }
        let Some(own) = self.contact.take_over(self.reign()) else {
            return self.notices.push_back(Notice::Takeover { term, latest: None });
        };
        let voters = &self.consensus.members.voters;
        let others: BTreeSet<NodeId> = voters.iter().flatten().copied().filter(|voter| *voter != self.node).collect();
        let ask = Ask::Takeover { term };
        let calls = others.into_iter().map(|voter| self.call(step, voter, ask.clone(), None, false)).collect();
        let reports = BTreeMap::from([(self.node, own)]);
        self.takeover = Some(Takeover { term, since: step.now, reports, calls });
        self.judge_takeover();
    }

    pub(super) fn judge_takeover(&mut self) {
        let Some(asked) = &self.takeover else { return };
        if let Some(latest) = takeover::latest(&self.consensus.members.voters, &asked.reports) {
            self.notices.push_back(Notice::Takeover { term: asked.term, latest: Some(latest) });
            self.takeover = None;
        }
    }
}
