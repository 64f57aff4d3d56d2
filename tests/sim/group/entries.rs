//! What goes into the log and what comes out of it: proposals in batches, and the entries that are applied.

use std::sync::Arc;

use fleet_replication::command::Command;

use super::{COMMANDS_MAX, GroupPart, Notice, UnderWay};
use crate::applying::{self, Order};
use crate::bugs::PlantedBug;
use crate::consensus::{Input, Payload, Place};
use crate::message::{AppliedFact, Fact, Step};
use crate::scheduler::Reply;

impl GroupPart {
    pub(super) fn write_entry(&mut self, step: &mut Step<'_>) {
        if self.under_way.is_some() || self.waiting.is_empty() {
            return;
        }
        let count = self.waiting.len().min(COMMANDS_MAX);
        let (commands, replies): (Vec<Command>, Vec<Reply>) = self.waiting.drain(..count).unzip();
        if self.serving.is_none() {
            self.notices.extend(replies.into_iter().map(|reply| Notice::Proposed(reply, None)));
            return;
        }
        let token = self.number();
        self.under_way = Some(UnderWay { token, place: None, replies, since: step.now });
        self.take(step, Input::Propose { token, payload: Payload::Commands(Arc::new(commands)) });
    }

    pub(super) fn proposed(&mut self, token: u64, place: Place) {
        if let Some(own) = self.own_entry.as_mut().filter(|own| own.token == token) {
            own.place = Some(place);
        }
        if let Some(entry) = self.under_way.as_mut().filter(|entry| entry.token == token) {
            entry.place = Some(place);
        }
    }

    pub(super) fn not_proposed(&mut self, token: u64) {
        if let Some(entry) = self.under_way.take_if(|entry| entry.token == token) {
            self.notices.extend(entry.replies.into_iter().map(|reply| Notice::Proposed(reply, None)));
        }
    }

    /// Applies what is committed.
    pub(super) fn apply(&mut self, step: &mut Step<'_>) {
        let committed = self.consensus.committed;
        if committed > self.told_committed {
            self.told_committed = committed;
            step.fact(Fact::Committed { index: committed });
        }
        if self.applied >= committed {
            return;
        }
        let count = usize::try_from(committed - self.applied).unwrap_or_default();
        let entries = self.consensus.after(self.applied).iter().take(count).cloned().collect();
        let order = Order {
            wall: step.has(PlantedBug::ApplyWithWallClock).then_some(step.wall),
            takes_any_fence: step.has(PlantedBug::StaleFenceAccepted),
            forgets_moves: step.has(PlantedBug::DedupLostOnTransfer),
            keeps_generation: step.has(PlantedBug::AbandonKeepsGeneration),
            recalls_itself: step.has(PlantedBug::RecallAtTheSource),
        };
        self.applied = committed;
        for applied in applying::apply(&self.store, self.id, self.node, entries, order) {
            self.entry_applied(step, applied);
        }
        self.purge(step);
        self.end_round(step);
        self.refresh(step);
        self.write_entry(step);
    }

    fn entry_applied(&mut self, step: &mut Step<'_>, fact: AppliedFact) {
        if let Some(own) = self.own_entry.take_if(|own| own.place == Some(fact.place)) {
            self.led_term = Some(own.term);
        }
        let events = fact.events.clone();
        let (place, outcomes) = (fact.place, fact.outcomes.clone());
        step.fact(Fact::Applied(Arc::new(fact)));
        if !events.is_empty() {
            self.notices.push_back(Notice::Applied(events));
        }
        if let Some(entry) = self.under_way.take_if(|entry| entry.place.is_some_and(|own| own.1 <= place.1)) {
            let is_ours = entry.place == Some(place);
            for (number, reply) in entry.replies.into_iter().enumerate() {
                let outcome = outcomes.get(number).filter(|_| is_ours).cloned();
                self.notices.push_back(Notice::Proposed(reply, outcome));
            }
        }
    }
}
