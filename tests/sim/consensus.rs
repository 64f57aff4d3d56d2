//! The simulator's replicated log: a small, deterministic stand-in for openraft with the behaviour that the rest depends on.
//!
//! Like openraft 0.9 it does one thing after the other: while it waits for the disk it hears nothing. It votes and
//! acknowledges only what is synced, a leader sends nothing on that its own disk has not, no vote is given within the
//! lease of a leader that was heard, and a leader that restarts leads on in its old term, without an election. It holds no
//! election of its own accord: the watchdog asks. Membership changes by joint configurations. The log is never purged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::{BootInstant, NodeId};
use fleet_replication::command::Command;

/// Most entries of one message.
const ENTRIES_PER_MESSAGE: usize = 32;

/// Where an entry stands: term and index; the first entry has index 1.
pub(crate) type Place = (u64, u64);

/// What an entry carries.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Payload {
    Blank,
    Commands(Arc<Vec<Command>>),
    Members(Members),
}

/// Who belongs to the group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// The voters; two sets in a joint configuration.
    pub(crate) voters: Vec<BTreeSet<NodeId>>,
    pub(crate) learners: BTreeSet<NodeId>,
}

impl Members {
    pub(crate) fn all(&self) -> BTreeSet<NodeId> {
        self.voters.iter().flatten().chain(&self.learners).copied().collect()
    }

    pub(crate) fn votes(&self, node: NodeId) -> bool {
        self.voters.iter().any(|set| set.contains(&node))
    }

    /// Whether those for whom `agrees` holds are a majority of every set of voters.
    pub(crate) fn is_quorum(&self, agrees: impl Fn(NodeId) -> bool) -> bool {
        self.voters.iter().all(|set| set.iter().filter(|voter| agrees(**voter)).count() > set.len() / 2)
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) payload: Payload,
}

/// Whom this node follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vote {
    pub(crate) term: u64,
    pub(crate) node: Option<NodeId>,
    /// Whether a quorum made that node the leader.
    pub(crate) is_committed: bool,
}

/// What is written to the disk.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DiskRecord {
    Boot(u64),
    Vote(Vote),
    Entries(Vec<Entry>),
    /// Entries from this index on are void.
    Truncate(u64),
}

#[derive(Clone, Debug)]
pub(crate) enum Request {
    Append { term: u64, previous: Place, entries: Vec<Entry>, committed: u64 },
    Vote { term: u64, last: Place },
}

#[derive(Clone, Debug)]
pub(crate) enum Response {
    /// The log agrees up to this index.
    Appended(u64),
    /// The log has no such entry as the one before those sent; it ends here or differs.
    Conflict(u64),
    Granted,
    /// The vote that stands against it.
    Higher(u64),
    NotGranted,
}

/// What is asked of the consensus.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Request {
        from: NodeId,
        call: u64,
        run: u64,
        request: Request,
    },
    Response {
        from: NodeId,
        call: u64,
        response: Response,
    },
    Elect,
    Propose {
        token: u64,
        payload: Payload,
    },
    /// Ask the voters whether they still follow.
    Confirm {
        round: u64,
    },
    Tick,
}

/// What comes of it, once what is to be written is on the disk.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    Send {
        to: NodeId,
        request: Request,
        round: Option<u64>,
    },
    /// `hears` says whether a leader was heard by it.
    Answer {
        to: NodeId,
        call: u64,
        run: u64,
        term: u64,
        hears: bool,
        response: Response,
    },
    /// The proposal of this token has this place.
    Proposed {
        token: u64,
        place: Place,
    },
    NotLeader {
        token: u64,
    },
    /// A quorum followed when it was asked; everything committed then has at most this index.
    Confirmed {
        round: u64,
        index: u64,
    },
    /// This node became the leader.
    Leads,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    next: u64,
    matched: u64,
    /// The call under way and when it was made.
    under_way: Option<(u64, BootInstant)>,
    sent_at: BootInstant,
    /// The commit index it was told last.
    told: u64,
}

#[derive(Clone, Debug)]
enum Role {
    Follower,
    Candidate(BTreeSet<NodeId>),
    Leader { progress: BTreeMap<NodeId, Progress>, first_index: u64, rounds: BTreeMap<u64, (BTreeSet<NodeId>, u64)> },
}

/// Durations that it goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) heartbeat: Duration,
    pub(crate) lease: Duration,
}

/// One node's part.
#[derive(Clone, Debug)]
pub(crate) struct Consensus {
    node: NodeId,
    pace: Pace,
    pub(crate) vote: Vote,
    pub(crate) log: Vec<Entry>,
    pub(crate) members: Members,
    pub(crate) committed: u64,
    role: Role,
    heard_at: Option<BootInstant>,
    pub(crate) writes: Vec<DiskRecord>,
    effects: Vec<Effect>,
}

impl Consensus {
    /// What `records` of the disk make of a node; `committed` is what it remembers of the commits, maybe too little.
    pub(crate) fn restart(node: NodeId, pace: Pace, records: &[DiskRecord], committed: u64) -> Self {
        let (mut vote, mut log) = (Vote::default(), Vec::new());
        for record in records {
            match record {
                DiskRecord::Boot(_) => {}
                DiskRecord::Vote(later) => vote = *later,
                DiskRecord::Entries(entries) => log.extend(entries.iter().cloned()),
                DiskRecord::Truncate(from) => log.truncate(length(*from - 1)),
            }
        }
        let mut consensus = Self {
            node,
            pace,
            vote,
            log,
            members: Members::default(),
            committed,
            role: Role::Follower,
            heard_at: None,
            writes: Vec::new(),
            effects: Vec::new(),
        };
        consensus.find_members();
        if vote.is_committed && vote.node == Some(node) {
            consensus.lead();
            consensus.effects.clear();
        }
        consensus
    }

    pub(crate) fn leads(&self) -> bool {
        matches!(self.role, Role::Leader { .. })
    }

    pub(crate) fn last(&self) -> Place {
        self.log.last().map(|entry| entry.place).unwrap_or_default()
    }

    fn entry(&self, index: u64) -> Option<&Entry> {
        index.checked_sub(1).and_then(|place| self.log.get(length(place)))
    }

    fn find_members(&mut self) {
        let latest = self.log.iter().rev().find_map(|entry| match &entry.payload {
            Payload::Members(members) => Some(members.clone()),
            _ => None,
        });
        self.members = latest.unwrap_or_default();
    }

    fn lead(&mut self) {
        let first_index = self
            .log
            .iter()
            .find(|entry| entry.place.0 == self.vote.term)
            .map_or(self.last().1 + 1, |entry| entry.place.1);
        let progress = BTreeMap::new();
        self.role = Role::Leader { progress, first_index, rounds: BTreeMap::new() };
        self.effects.push(Effect::Leads);
    }

    /// Takes `input` in. What is to be written is in `writes`; the effects count once that is synced.
    pub(crate) fn handle(&mut self, now: BootInstant, input: Input) -> Vec<Effect> {
        match input {
            Input::Request { from, call, run, request } => self.request(now, from, call, run, request),
            Input::Response { from, call, response } => self.response(from, call, response),
            Input::Elect => self.elect(),
            Input::Propose { token, payload } => self.propose(token, payload),
            Input::Confirm { round } => self.confirm(round),
            Input::Tick => {}
        }
        std::mem::take(&mut self.effects)
    }

    /// What follows from everything written so far being synced: commits, and what the others are sent.
    pub(crate) fn synced(&mut self, now: BootInstant) -> Vec<Effect> {
        self.advance();
        self.replicate(now);
        std::mem::take(&mut self.effects)
    }

    fn request(&mut self, now: BootInstant, from: NodeId, call: u64, run: u64, request: Request) {
        let (term, hears, response) = match request {
            Request::Vote { term, last } => (term, false, self.vote_for(now, from, term, last)),
            Request::Append { term, previous, entries, committed } => {
                let response = self.append(now, from, term, previous, entries, committed);
                (term, !matches!(response, Response::Higher(_)), response)
            }
        };
        self.effects.push(Effect::Answer { to: from, call, run, term, hears, response });
    }

    fn vote_for(&mut self, now: BootInstant, from: NodeId, term: u64, last: Place) -> Response {
        let in_lease = self.heard_at.is_some_and(|at| now.saturating_since(at) < self.pace.lease);
        if self.vote.is_committed && in_lease || last < self.last() {
            return Response::NotGranted;
        }
        if term < self.vote.term || term == self.vote.term && self.vote.node.is_some_and(|node| node != from) {
            return Response::Higher(self.vote.term);
        }
        self.follow(Vote { term, node: Some(from), is_committed: false });
        Response::Granted
    }

    fn follow(&mut self, vote: Vote) {
        if self.vote != vote {
            self.vote = vote;
            self.writes.push(DiskRecord::Vote(vote));
        }
        if vote.node != Some(self.node) {
            self.role = Role::Follower;
        }
    }

    fn append(
        &mut self,
        now: BootInstant,
        from: NodeId,
        term: u64,
        previous: Place,
        entries: Vec<Entry>,
        committed: u64,
    ) -> Response {
        if term < self.vote.term || term == self.vote.term && self.vote.is_committed && self.vote.node != Some(from) {
            return Response::Higher(self.vote.term);
        }
        self.follow(Vote { term, node: Some(from), is_committed: true });
        self.heard_at = Some(now);
        if previous.1 > 0 && self.entry(previous.1).is_none_or(|entry| entry.place != previous) {
            return Response::Conflict(previous.1.min(self.last().1 + 1));
        }
        let matched = previous.1 + entries.len() as u64;
        let differs = |entry: &Entry| self.entry(entry.place.1).is_none_or(|own| own.place != entry.place);
        let known = entries.iter().take_while(|entry| !differs(entry)).count();
        let new: Vec<Entry> = entries.into_iter().skip(known).collect();
        if let Some(first) = new.first().map(|entry| entry.place.1) {
            if first <= self.last().1 {
                self.log.truncate(length(first - 1));
                self.writes.push(DiskRecord::Truncate(first));
            }
            self.log.extend(new.iter().cloned());
            self.writes.push(DiskRecord::Entries(new));
            self.find_members();
        }
        self.committed = self.committed.max(committed.min(matched));
        Response::Appended(matched)
    }

    fn elect(&mut self) {
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

    fn propose(&mut self, token: u64, payload: Payload) {
        if !self.leads() {
            return self.effects.push(Effect::NotLeader { token });
        }
        let place = self.add(payload);
        self.effects.push(Effect::Proposed { token, place });
    }

    fn confirm(&mut self, round: u64) {
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
            let at = matched.checked_sub(1).and_then(|place| self.log.get(length(place)));
            let previous = at.map(|entry| entry.place).unwrap_or_default();
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

    fn response(&mut self, from: NodeId, call: u64, response: Response) {
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

    fn advance(&mut self) {
        let (node, term) = (self.node, self.vote.term);
        let Role::Leader { progress, .. } = &self.role else { return };
        let own = self.last().1;
        let matched = |voter: NodeId| match voter == node {
            true => own,
            false => progress.get(&voter).map_or(0, |progress| progress.matched),
        };
        let mut index = self.committed;
        for entry in self.log.iter().skip(length(self.committed)) {
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
        if is_joint && members_at.is_some_and(|entry| entry.place.1 <= index) {
            let uniform = Members {
                voters: self.members.voters.last().cloned().into_iter().collect(),
                learners: self.members.learners.clone(),
            };
            self.add(Payload::Members(uniform));
        }
    }

    fn replicate(&mut self, now: BootInstant) {
        let (term, node, committed, pace) = (self.vote.term, self.node, self.committed, self.pace);
        let all = self.members.all();
        let last = self.last().1;
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
            let from = length(progress.next - 1);
            let entries: Vec<Entry> = self.log[from..].iter().take(ENTRIES_PER_MESSAGE).cloned().collect();
            let before = progress.next.checked_sub(2).and_then(|place| self.log.get(length(place)));
            let previous = before.map(|entry| entry.place).unwrap_or_default();
            (progress.sent_at, progress.told) = (now, committed);
            let request = Request::Append { term, previous, entries, committed };
            self.effects.push(Effect::Send { to: member, request, round: None });
        }
    }
}

fn length(index: u64) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}
