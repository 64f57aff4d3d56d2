//! Becoming the leader, and what a leader does: it orders entries, brings them to the others, and commits.

use std::collections::BTreeSet;

use fleet_core::{BootInstant, NodeId};

use super::length;
use super::{Consensus, DiskRecord, Effect, Entry, Members, Payload, Place, Progress, Request, Response, Role, Vote};

/// Most entries of one message.
const ENTRIES_PER_MESSAGE: usize = 32;

impl Consensus {
    pub(super) fn elect(&mut self) {
        if !self.members.votes(self.node) || self.leads() {
            return;
        }
        self.vote = Vote { term: self.vote.term + 1, node: Some(self.node), is_committed: false };
        self.writes.push(DiskRecord::Vote(self.vote));
        self.role = Role::Candidate(BTreeSet::from([self.node]));
        let (term, last) = (self.vote.term, self.last());
        for voter in self.members.voters.iter().flatten().copied().collect::<BTreeSet<_>>() {
            if voter != self.node {
                self.effects.push(Effect::Send { to: voter, request: Request::Vote { term, last }, round: None });
            }
        }
        self.count_votes();
    }

    fn count_votes(&mut self) {
        let Role::Candidate(granted) = &self.role else { return };
        if !self.members.is_quorum(|voter| granted.contains(&voter)) {
            return;
        }
        self.vote.is_committed = true;
        self.writes.push(DiskRecord::Vote(self.vote));
        self.lead();
        self.add(Payload::Blank);
    }

    fn add(&mut self, payload: Payload) -> Place {
        let place = (self.vote.term, self.last().1 + 1);
        let entry = Entry { place, payload };
        self.log.push(entry.clone());
        self.writes.push(DiskRecord::Entries(vec![entry]));
        self.find_members();
        place
    }

    pub(super) fn propose(&mut self, token: u64, payload: Payload) {
        if !self.leads() {
            return self.effects.push(Effect::NotLeader { token });
        }
        let place = self.add(payload);
        self.effects.push(Effect::Proposed { token, place });
    }

    pub(super) fn confirm(&mut self, round: u64) {
        let (term, node, committed) = (self.vote.term, self.node, self.committed);
        let Role::Leader { progress, first_index, rounds } = &mut self.role else { return };
        let index = committed.max(*first_index);
        if self.members.is_quorum(|voter| voter == node) {
            return self.effects.push(Effect::Confirmed { round, index });
        }
        rounds.insert(round, (BTreeSet::from([node]), index));
        while rounds.len() > 8 {
            rounds.pop_first();
        }
        for voter in self.members.voters.iter().flatten().copied().collect::<BTreeSet<_>>() {
            if voter == node {
                continue;
            }
            let matched = progress.get(&voter).map_or(0, |progress| progress.matched);
            let gone = self.base.purged;
            let at = matched.checked_sub(gone.1 + 1).and_then(|place| self.log.get(length(place)));
            let previous = at.map_or(gone, |entry| entry.place);
            let request = Request::Append { term, previous, entries: Vec::new(), committed };
            self.effects.push(Effect::Send { to: voter, request, round: Some(round) });
        }
    }

    /// A voter answered the question of a round.
    pub(crate) fn followed(&mut self, round: u64, voter: NodeId) -> Vec<Effect> {
        if let Role::Leader { rounds, .. } = &mut self.role
            && let Some((voters, index)) = rounds.get_mut(&round)
        {
            voters.insert(voter);
            let (voters, index) = (voters.clone(), *index);
            if self.members.is_quorum(|voter| voters.contains(&voter)) {
                rounds.remove(&round);
                self.effects.push(Effect::Confirmed { round, index });
            }
        }
        std::mem::take(&mut self.effects)
    }

    /// The call that brings entries to `to` got this number.
    pub(crate) fn called(&mut self, to: NodeId, call: u64, now: BootInstant) {
        if let Role::Leader { progress, .. } = &mut self.role
            && let Some(progress) = progress.get_mut(&to)
        {
            progress.under_way = Some((call, now));
        }
    }

    pub(super) fn response(&mut self, from: NodeId, call: u64, response: Response) {
        match response {
            Response::Higher(term) if term > self.vote.term => {
                self.follow(Vote { term, node: None, is_committed: false });
            }
            Response::Granted => {
                if let Role::Candidate(granted) = &mut self.role {
                    granted.insert(from);
                    self.count_votes();
                }
            }
            Response::Appended(_) | Response::Conflict(_) => self.progressed(from, call, &response),
            Response::Higher(_) | Response::NotGranted => {}
        }
    }

    fn progressed(&mut self, from: NodeId, call: u64, response: &Response) {
        let Role::Leader { progress, .. } = &mut self.role else { return };
        let Some(progress) = progress.get_mut(&from) else { return };
        if progress.under_way.is_none_or(|(known, _)| known != call) {
            return;
        }
        progress.under_way = None;
        match response {
            Response::Appended(matched) => {
                progress.matched = progress.matched.max(*matched);
                progress.next = progress.matched + 1;
            }
            Response::Conflict(at) => progress.next = (*at).max(progress.matched + 1),
            _ => {}
        }
    }

    pub(super) fn advance(&mut self) {
        let (node, term) = (self.node, self.vote.term);
        let Role::Leader { progress, .. } = &self.role else { return };
        let own = self.last().1;
        let matched = |voter: NodeId| match voter == node {
            true => own,
            false => progress.get(&voter).map_or(0, |progress| progress.matched),
        };
        let mut index = self.committed;
        for entry in self.after(self.committed) {
            let at = entry.place.1;
            if !self.members.is_quorum(|voter| matched(voter) >= at) {
                break;
            }
            if entry.place.0 == term {
                index = at;
            }
        }
        self.committed = index;
        let is_joint = self.members.voters.len() > 1;
        let members_at = self.log.iter().rev().find(|entry| matches!(entry.payload, Payload::Members(_)));
        if is_joint && members_at.is_none_or(|entry| entry.place.1 <= index) {
            let uniform = Members {
                voters: self.members.voters.last().cloned().into_iter().collect(),
                learners: self.members.learners.clone(),
            };
            self.add(Payload::Members(uniform));
        }
    }

    pub(super) fn replicate(&mut self, now: BootInstant) {
        let (term, node, committed, pace) = (self.vote.term, self.node, self.committed, self.pace);
        let all = self.members.all();
        let (last, gone) = (self.last().1, self.base.purged);
        let Role::Leader { progress, .. } = &mut self.role else { return };
        progress.retain(|member, _| all.contains(member));
        for member in all.into_iter().filter(|member| *member != node) {
            let fresh = Progress { next: last + 1, ..Progress::default() };
            let progress = progress.entry(member).or_insert(fresh);
            if progress.under_way.is_some_and(|(_, at)| now.saturating_since(at) < pace.heartbeat) {
                continue;
            }
            let has_news = progress.next <= last || progress.told < committed;
            if !has_news && now.saturating_since(progress.sent_at) < pace.heartbeat {
                continue;
            }
            if progress.next <= gone.1 {
                (progress.sent_at, progress.told) = (now, 0);
                self.effects.push(Effect::SendSnapshot { to: member, term });
                continue;
            }
            let from = length(progress.next - 1 - gone.1);
            let entries: Vec<Entry> = self.log[from..].iter().take(ENTRIES_PER_MESSAGE).cloned().collect();
            let before = from.checked_sub(1).and_then(|place| self.log.get(place));
            let previous = before.map_or(gone, |entry| entry.place);
            (progress.sent_at, progress.told) = (now, committed);
            let request = Request::Append { term, previous, entries, committed };
            self.effects.push(Effect::Send { to: member, request, round: None });
        }
    }
}
