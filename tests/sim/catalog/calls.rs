//! What nodes say to each other about the catalog: news that are told, and comparisons, question by question.

use fleet_core::NodeId;
use fleet_node::catalog::{Heard, Meeting};
use fleet_store::record::{CatalogKey, Payload};

use super::{CatalogWorld, Event};
use crate::judge::{Law, Violation, broken};

/// How long an answer is waited for, microseconds.
const PATIENCE_US: u64 = 10_000_000;
/// Bytes of rows in a message: few, so that comparing takes many of them.
const ROOM_BYTES: usize = 700;

impl CatalogWorld {
    fn machine_of(&self, node: NodeId) -> Option<usize> {
        self.machines.iter().position(|machine| machine.node == node)
    }

    /// Whether `machine` knows that `node` was removed: it neither calls it nor takes its calls.
    fn shuns(&self, machine: usize, node: NodeId) -> bool {
        let kept = self.machines[machine].drive.kept();
        kept.entries.keys().any(|key| matches!(key, CatalogKey::RevokedNode(_, removed) if *removed == node))
    }

    /// Offers what is new here to the other nodes of the site.
    pub(super) fn tell(&mut self, machine: usize) -> Result<(), Violation> {
        let news = self.with(machine, false, async |copy| {
            let (news, told) = copy.catalog.news(copy.told)?;
            copy.told = told;
            Ok(news)
        })?;
        let Some(Ok(Some(news))) = news else { return Ok(()) };
        let others: Vec<usize> = self.of_site(self.machines[machine].site).filter(|other| *other != machine).collect();
        for other in others {
            self.send_question(machine, other, 0, &news);
        }
        Ok(())
    }

    fn send_question(&mut self, machine: usize, other: usize, call: u64, question: &Payload) {
        let (from, to) = (self.machines[machine].node, self.machines[other].node);
        if self.shuns(machine, to) {
            return;
        }
        for delay_us in self.network.delays_us(&mut self.dice, machine, other) {
            self.agenda.book(delay_us, Event::Ask { to, from, call, question: question.clone() });
        }
    }

    pub(super) fn meet_within(&mut self, machine: usize, site: usize) -> Result<(), Violation> {
        let others: Vec<usize> = self.of_site(site).filter(|other| *other != machine).collect();
        let Some(copy) = &mut self.machines[machine].copy else { return Ok(()) };
        copy.turn += 1;
        match others.get(copy.turn % others.len().max(1)).copied() {
            Some(other) => self.meet(machine, other),
            None => Ok(()),
        }
    }

    pub(super) fn meet_between(&mut self, machine: usize, site: usize) -> Result<(), Violation> {
        let elsewhere: Vec<usize> =
            (0..self.machines.len()).filter(|other| self.machines[*other].site != site).collect();
        let leaders: Vec<usize> = elsewhere.iter().copied().filter(|other| self.machines[*other].leads).collect();
        // Whom it takes for the leader there may be anybody.
        let whom = if self.is_healed || self.dice.chance(80) { &leaders } else { &elsewhere };
        match self.dice.pick(whom).copied() {
            Some(other) => self.meet(machine, other),
            None => Ok(()),
        }
    }

    fn meet(&mut self, machine: usize, other: usize) -> Result<(), Violation> {
        let begun = self.with(machine, false, async |copy| Meeting::begin(copy.catalog.clone(), ROOM_BYTES))?;
        let Some(Ok((meeting, question))) = begun else { return Ok(()) };
        self.ask(machine, other, meeting, &question);
        Ok(())
    }

    fn ask(&mut self, machine: usize, other: usize, meeting: Meeting, question: &Payload) {
        self.calls += 1;
        let call = self.calls;
        if let Some(copy) = &mut self.machines[machine].copy {
            copy.meetings.insert(call, meeting);
        }
        self.agenda.book(PATIENCE_US, Event::Patience { machine, call });
        self.send_question(machine, other, call, question);
    }

    pub(super) fn asked(&mut self, to: NodeId, from: NodeId, call: u64, question: &Payload) -> Result<(), Violation> {
        let Some(machine) = self.machine_of(to) else { return Ok(()) };
        if self.shuns(machine, from) {
            return Ok(());
        }
        self.say(&format!("{from} asks {to}: {} bytes", question.as_slice().len()));
        let answer = match self.with(machine, false, async |copy| copy.catalog.answer(question).await)? {
            Some(Ok(answer)) => answer,
            Some(Err(error)) if !self.machines[machine].drive.is_off() => {
                return broken(Law::NothingBreaks, format!("a question is not answered: {error}"));
            }
            _ => return Ok(()),
        };
        let Some(asker) = self.machine_of(from).filter(|_| call > 0) else { return Ok(()) };
        for delay_us in self.network.delays_us(&mut self.dice, machine, asker) {
            let event = Event::Answer { to: from, from: to, call, answer: answer.clone() };
            self.agenda.book(delay_us, event);
        }
        Ok(())
    }

    pub(super) fn answered(&mut self, to: NodeId, from: NodeId, call: u64, answer: &Payload) -> Result<(), Violation> {
        let Some(machine) = self.machine_of(to) else { return Ok(()) };
        let meeting = self.machines[machine].copy.as_mut().and_then(|copy| copy.meetings.remove(&call));
        let Some(mut meeting) = meeting else { return Ok(()) };
        let next = self.with(machine, false, async |_| {
            let heard = meeting.heard(answer).await?;
            Ok((meeting, heard))
        })?;
        match next {
            Some(Ok((meeting, Heard::Next(question)))) => {
                if let Some(other) = self.machine_of(from) {
                    self.ask(machine, other, meeting, &question);
                }
                Ok(())
            }
            Some(Err(error)) if !self.machines[machine].drive.is_off() => {
                broken(Law::NothingBreaks, format!("an answer is not understood: {error}"))
            }
            _ => Ok(()),
        }
    }
}
