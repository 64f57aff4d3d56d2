//! The simulator's replicated log: a small, deterministic stand-in for openraft with the behaviour that the rest depends on.
//!
//! Like openraft 0.9 it does one thing after the other: while it waits for the disk it hears nothing. It votes and
//! acknowledges only what is synced, a leader sends nothing on that its own disk has not, no vote is given within the
//! lease of a leader that was heard, and a leader that restarts leads on in its old term, without an election. It holds no
//! election of its own accord: the watchdog asks. Membership changes by joint configurations. The beginning of a log is
//! purged once the state has it, and a member that needs what is gone gets a snapshot.

mod leading;
mod record;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::{BootInstant, NodeId};

pub(crate) use record::{Base, DiskRecord, Entry, Members, Payload, Place, Remains, Snapshot, Vote};

#[derive(Clone, Debug)]
pub(crate) enum Request {
    Append {
        term: u64,
        previous: Place,
        entries: Vec<Entry>,
        committed: u64,
    },
    Vote {
        term: u64,
        last: Place,
    },
    /// The state, for whoever needs entries that are gone.
    Install {
        term: u64,
        snapshot: Arc<Snapshot>,
    },
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
    /// The disk has the state of this snapshot: what comes long before it may go.
    Purge(Arc<Snapshot>),
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
    /// Send a snapshot to a member that needs entries that are gone.
    SendSnapshot {
        to: NodeId,
        term: u64,
    },
    /// The state is that of this snapshot now.
    Install(Arc<Snapshot>),
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
    /// What was before the entries of the log.
    pub(crate) base: Base,
    log: Vec<Entry>,
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
        let Remains { vote, base, log } = Remains::of(records);
        let committed = committed.max(base.state.place.1);
        let mut consensus = Self {
            node,
            pace,
            vote,
            base,
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
        self.log.last().map_or(self.base.purged, |entry| entry.place)
    }

    /// The entries behind `index`, which must not be gone.
    pub(crate) fn after(&self, index: u64) -> &[Entry] {
        let gone = index.checked_sub(self.base.purged.1).expect("entries that are gone are not asked for");
        self.log.get(length(gone)..).unwrap_or_default()
    }

    /// Where the entry of `index` stands, if it is in the log or the last one that is gone.
    fn place_at(&self, index: u64) -> Option<Place> {
        match index.checked_sub(self.base.purged.1)? {
            0 => Some(self.base.purged),
            behind => self.log.get(length(behind - 1)).map(|entry| entry.place),
        }
    }

    fn find_members(&mut self) {
        self.members = self.members_at(self.last().1);
    }

    /// Where the applied entry of `index` stands.
    pub(crate) fn place_of(&self, index: u64) -> Place {
        self.place_at(index).expect("what is applied and gone is not asked for")
    }

    /// Who belonged to the group by the entries up to `index`, which must not be gone.
    pub(crate) fn members_at(&self, index: u64) -> Members {
        let latest =
            self.log.iter().rev().filter(|entry| entry.place.1 <= index).find_map(|entry| match &entry.payload {
                Payload::Members(members) => Some(members.clone()),
                _ => None,
            });
        latest.unwrap_or_else(|| self.base.members.clone())
    }

    fn lead(&mut self) {
        let first = self.log.iter().find(|entry| entry.place.0 == self.vote.term);
        let first_index = match self.base.purged {
            (term, index) if term == self.vote.term => index,
            _ => first.map_or(self.last().1 + 1, |entry| entry.place.1),
        };
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
            Input::Purge(snapshot) => self.purge(snapshot),
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
            Request::Install { term, snapshot } => {
                let response = self.install(now, from, term, snapshot);
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

    /// Whether `from` is the leader of `term`, whom this node follows then.
    fn hear(&mut self, now: BootInstant, from: NodeId, term: u64) -> bool {
        if term < self.vote.term || term == self.vote.term && self.vote.is_committed && self.vote.node != Some(from) {
            return false;
        }
        self.follow(Vote { term, node: Some(from), is_committed: true });
        self.heard_at = Some(now);
        true
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
        if !self.hear(now, from, term) {
            return Response::Higher(self.vote.term);
        }
        if previous.1 > self.base.purged.1 && self.place_at(previous.1) != Some(previous) {
            return Response::Conflict(previous.1.min(self.last().1 + 1));
        }
        let matched = previous.1 + entries.len() as u64;
        let purged = self.base.purged.1;
        let has = |entry: &Entry| entry.place.1 <= purged || self.place_at(entry.place.1) == Some(entry.place);
        let known = entries.iter().take_while(|entry| has(entry)).count();
        let new: Vec<Entry> = entries.into_iter().skip(known).collect();
        if let Some(first) = new.first().map(|entry| entry.place.1) {
            if first <= self.last().1 {
                self.log.retain(|entry| entry.place.1 < first);
                self.writes.push(DiskRecord::Truncate(first));
            }
            self.log.extend(new.iter().cloned());
            self.writes.push(DiskRecord::Entries(new));
            self.find_members();
        }
        self.committed = self.committed.max(committed.min(matched));
        Response::Appended(matched)
    }
}

fn length(index: u64) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}
