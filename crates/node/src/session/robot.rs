//! The robot's side of its session: what it holds, until when it may act, and what it must refuse.
//!
//! It does not send, start or stop anything and reads no clock: it returns [`RobotCommand`]s. The driver reports every
//! started piece of work back with [`RobotSession::ended`], and only then may a new session open.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use fleet_core::timing::Timing;
use fleet_core::{BootInstant, Fence, JobId, NodeId, SessionId};

use super::{Beat, BeatAnswer, LeaderTerm, Pair, Verdict};

/// What the robot's driver has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RobotCommand {
    /// Send this heartbeat.
    SendBeat(Beat),
    /// Begin the work of this assignment.
    Start(Pair),
    /// Bring the work to a stop, and report it ended.
    Stop(Pair),
    /// Break the work off at once: the right to it is gone. Report it ended.
    Abort(Pair),
    /// The session is over and this work may be finished cut off: from now on write its records down here.
    RunOn(Pair),
    /// The group has bound this work to the session under way: send what it has not committed.
    Rejoin(Pair),
    /// Tell the leader that this pair of an earlier session has run on.
    SendReturned {
        /// The session under way.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
    /// Tell the leader that this pair is stopped.
    SendStopped {
        /// The session it belongs to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
    /// Tell the leader that this pair is not held and never will be.
    SendGone {
        /// The session it belongs to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
}

/// How a piece of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EndKind {
    /// Its last records are committed: the leader knows.
    Finished,
    /// It was stopped as told.
    Stopped,
    /// It is given back unfinished.
    HandedBack,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Phase {
    Running,
    Stopping,
    /// No right to act any more; waits for the driver's report.
    Aborting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Held {
    fence: Fence,
    phase: Phase,
    /// Set if it may be finished cut off.
    finishing: Option<Finishing>,
    /// Whether its session is over and it is bound to none that lives.
    is_away: bool,
}

/// How far work may go on that may be finished cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Finishing {
    within: Duration,
    /// Until when the robot may act for it: `within` after the sending of the last confirmed heartbeat of its session.
    until: BootInstant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Sent {
    sequence: u64,
    at: BootInstant,
    pairs: Vec<Pair>,
}

/// The session under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Current {
    id: SessionId,
    first_sent: BootInstant,
    last_sent: BootInstant,
    /// Until when the robot may act; `None` while the opening is unanswered.
    until: Option<BootInstant>,
}

/// The session of one robot, for one boot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RobotSession {
    node: NodeId,
    boot: u64,
    lease: Duration,
    beat_interval: Duration,
    opens_from: BootInstant,
    number_last: u64,
    sequence_last: u64,
    term_seen: LeaderTerm,
    current: Option<Current>,
    held: BTreeMap<JobId, Held>,
    done: BTreeMap<JobId, Fence>,
    settled_before: Fence,
    sent: VecDeque<Sent>,
    returned_at: Option<BootInstant>,
}

impl RobotSession {
    /// The robot of `node` in its boot number `boot`, which was stored before anything is sent. It opens no session
    /// before `opens_from`: now if no guard of the last boot lives, else a lease from now.
    pub fn new(node: NodeId, boot: u64, timing: &Timing, opens_from: BootInstant) -> Self {
        Self {
            node,
            boot,
            lease: timing.robot_lease_at_robot(),
            beat_interval: timing.robot_heartbeat(),
            opens_from,
            number_last: 0,
            sequence_last: 0,
            term_seen: LeaderTerm::default(),
            current: None,
            held: BTreeMap::new(),
            done: BTreeMap::new(),
            settled_before: Fence::default(),
            sent: VecDeque::new(),
            returned_at: None,
        }
    }

    /// The same, its first session numbered after `number`: for a robot that is started again within a boot.
    #[must_use]
    pub fn after_number(mut self, number: u64) -> Self {
        self.number_last = self.number_last.max(number);
        self
    }

    /// The guards of the last boot are gone: the first session may open.
    pub fn guards_gone(&mut self, now: BootInstant) {
        self.opens_from = self.opens_from.min(now);
    }

    /// The session under way.
    pub fn session(&self) -> Option<SessionId> {
        self.current.map(|current| current.id)
    }

    /// The highest term of a leader seen.
    pub fn term_seen(&self) -> LeaderTerm {
        self.term_seen
    }

    /// Until when the robot may act, if a leader has renewed the session.
    pub fn lease_until(&self) -> Option<BootInstant> {
        self.current.and_then(|current| current.until)
    }

    /// What is held, whatever its phase.
    pub fn held(&self) -> impl Iterator<Item = Pair> + '_ {
        self.held.iter().map(|(job, held)| Pair { job: *job, fence: held.fence })
    }

    /// Whether `pair` is held and neither stopping nor being broken off.
    pub fn is_running(&self, pair: Pair) -> bool {
        self.phase(pair) == Some(Phase::Running)
    }

    /// Whether `pair` is held and is to be stopped.
    pub fn is_stopping(&self, pair: Pair) -> bool {
        self.phase(pair) == Some(Phase::Stopping)
    }

    /// Whether `pair` is held, whatever its phase.
    pub fn is_held(&self, pair: Pair) -> bool {
        self.phase(pair).is_some()
    }

    /// Whether `pair` is bound to the session under way.
    pub fn is_bound(&self, pair: Pair) -> bool {
        self.held.get(&pair.job).is_some_and(|held| held.fence == pair.fence && !held.is_away)
    }

    /// Until when the robot may act for `pair`: the end of its lease, or later where it may be finished cut off.
    pub fn acts_until(&self, pair: Pair) -> BootInstant {
        let Some(held) = self.held.get(&pair.job).filter(|held| held.fence == pair.fence) else {
            return BootInstant::default();
        };
        if held.phase == Phase::Aborting {
            return BootInstant::default();
        }
        let lease = if held.is_away { None } else { self.lease_until() };
        let finishing = held.finishing.map(|finishing| finishing.until);
        lease.max(finishing).unwrap_or_default()
    }

    fn phase(&self, pair: Pair) -> Option<Phase> {
        self.held.get(&pair.job).filter(|held| held.fence == pair.fence).map(|held| held.phase)
    }

    /// Whether the robot may begin an effect for `pair` at `now`.
    pub fn may_act(&self, now: BootInstant, pair: Pair) -> bool {
        now < self.acts_until(pair)
    }

    /// Time passed: a session that ran out ends, one that may open opens, a heartbeat that is due is sent.
    pub fn tick(&mut self, now: BootInstant) -> Vec<RobotCommand> {
        let mut commands = Vec::new();
        self.end_if_run_out(now, &mut commands);
        self.open_if_free(now, &mut commands);
        if let Some(current) = self.current
            && now.saturating_since(current.last_sent) >= self.beat_interval
        {
            self.beat(now, &mut commands);
        }
        self.tell_returned(now, &mut commands);
        commands
    }

    /// Like [`Self::tick`], at a moment at which all robots of the site send, so that one round of the consensus answers
    /// them: a heartbeat goes out unless one just did.
    pub fn meet(&mut self, now: BootInstant) -> Vec<RobotCommand> {
        let mut commands = self.tick(now);
        if self.current.is_some_and(|current| now.saturating_since(current.last_sent) >= self.beat_interval / 5) {
            self.beat(now, &mut commands);
        }
        commands
    }

    /// Another leader can be reached: it gets a heartbeat at once.
    pub fn leader_changed(&mut self, now: BootInstant) -> Vec<RobotCommand> {
        let mut commands = self.tick(now);
        let has_beat = commands.iter().any(|command| matches!(command, RobotCommand::SendBeat(_)));
        if self.current.is_some() && !has_beat {
            self.beat(now, &mut commands);
        }
        commands
    }

    /// A leader answered a heartbeat.
    pub fn answered(&mut self, now: BootInstant, answer: BeatAnswer) -> Vec<RobotCommand> {
        let mut commands = Vec::new();
        self.end_if_run_out(now, &mut commands);
        let Some(mut current) = self.current.filter(|current| current.id == answer.session) else { return commands };
        if answer.term < self.term_seen {
            return commands;
        }
        self.term_seen = answer.term;
        match answer.verdict {
            Verdict::Dead => self.close(&mut commands),
            Verdict::Renewed { pairs, settled_before } => {
                let Some(index) = self.sent.iter().position(|sent| sent.sequence == answer.sequence) else {
                    return commands;
                };
                let Some(sent) = self.sent.remove(index) else { return commands };
                let until = match current.until {
                    None => current.first_sent.saturating_add(self.lease),
                    Some(until) => until.max(sent.at.saturating_add(self.lease)),
                };
                current.until = Some(until);
                self.current = Some(current);
                for held in self.held.values_mut().filter(|held| !held.is_away) {
                    extend(held, until, self.lease);
                }
                for pair in sent.pairs.iter().filter(|pair| !pairs.contains(pair)) {
                    self.abort(*pair, &mut commands);
                }
                self.forget_before(settled_before);
            }
        }
        self.open_if_free(now, &mut commands);
        self.tell_returned(now, &mut commands);
        commands
    }

    /// A leader of `term` assigned `pair` in `session`; the robot may finish it cut off for `finish_within`. An assignment of
    /// what is away binds it to the session.
    pub fn assigned(
        &mut self,
        now: BootInstant,
        term: LeaderTerm,
        session: SessionId,
        pair: Pair,
        finish_within: Option<Duration>,
    ) -> Vec<RobotCommand> {
        let mut commands = Vec::new();
        if !self.hears(now, term, session, &mut commands) {
            return commands;
        }
        let Some(lease_until) = self.lease_until() else { return commands };
        match self.held.get(&pair.job).copied() {
            Some(held) if held.fence == pair.fence => self.rejoin(pair, lease_until, &mut commands),
            Some(held) if held.fence > pair.fence => commands.push(RobotCommand::SendGone { session, pair }),
            Some(held) => self.abort(Pair { job: pair.job, fence: held.fence }, &mut commands),
            None if self.is_done(pair) => commands.push(RobotCommand::SendGone { session, pair }),
            None => {
                let finishing = finish_within.map(|within| Finishing { within, until: BootInstant::default() });
                let mut held = Held { fence: pair.fence, phase: Phase::Running, finishing, is_away: false };
                extend(&mut held, lease_until, self.lease);
                self.held.insert(pair.job, held);
                commands.push(RobotCommand::Start(pair));
            }
        }
        commands
    }

    /// A leader of `term` wants `pair` of `session` stopped.
    pub fn stop(&mut self, now: BootInstant, term: LeaderTerm, session: SessionId, pair: Pair) -> Vec<RobotCommand> {
        let mut commands = Vec::new();
        if !self.hears(now, term, session, &mut commands) {
            return commands;
        }
        // A stop is sent only for what is bound to the session.
        if let Some(lease_until) = self.lease_until() {
            self.rejoin(pair, lease_until, &mut commands);
        }
        match self.held.get_mut(&pair.job) {
            Some(held) if held.fence == pair.fence => {
                if held.phase == Phase::Running {
                    held.phase = Phase::Stopping;
                    commands.push(RobotCommand::Stop(pair));
                }
            }
            other => {
                let older = other.map(|held| held.fence).filter(|fence| *fence < pair.fence);
                if let Some(fence) = older {
                    self.abort(Pair { job: pair.job, fence }, &mut commands);
                }
                self.remember(pair);
                commands.push(RobotCommand::SendStopped { session, pair });
            }
        }
        commands
    }

    /// A leader of `term` asks in `session` for `pair` of an earlier session. What runs on is told without being asked; what
    /// is still to be delivered (`is_kept`) is answered once it is.
    pub fn asked(
        &mut self,
        now: BootInstant,
        term: LeaderTerm,
        session: SessionId,
        pair: Pair,
        is_kept: bool,
    ) -> Vec<RobotCommand> {
        let mut commands = Vec::new();
        if self.hears(now, term, session, &mut commands) && !is_kept && !self.held.contains_key(&pair.job) {
            self.remember(pair);
            commands.push(RobotCommand::SendGone { session, pair });
        }
        commands
    }

    /// The work begun for `pair` is over, nothing of it runs any more.
    pub fn ended(&mut self, now: BootInstant, pair: Pair, how: EndKind) -> Vec<RobotCommand> {
        let mut commands = Vec::new();
        self.end_if_run_out(now, &mut commands);
        let Some(held) = self.held.get(&pair.job).copied().filter(|held| held.fence == pair.fence) else {
            return commands;
        };
        self.held.remove(&pair.job);
        self.remember(pair);
        if let Some(Current { id: session, .. }) = self.current.filter(|_| !held.is_away) {
            match (held.phase, how) {
                (Phase::Aborting, _) | (_, EndKind::Finished) => {}
                (Phase::Stopping, _) => commands.push(RobotCommand::SendStopped { session, pair }),
                (Phase::Running, _) => commands.push(RobotCommand::SendGone { session, pair }),
            }
        }
        self.open_if_free(now, &mut commands);
        commands
    }

    /// Whether an assignment or stop is for the session under way and from no earlier leader.
    fn hears(
        &mut self,
        now: BootInstant,
        term: LeaderTerm,
        session: SessionId,
        commands: &mut Vec<RobotCommand>,
    ) -> bool {
        self.end_if_run_out(now, commands);
        self.open_if_free(now, commands);
        if self.session() != Some(session) || term < self.term_seen {
            return false;
        }
        self.term_seen = term;
        true
    }

    fn is_done(&self, pair: Pair) -> bool {
        pair.fence < self.settled_before || self.done.get(&pair.job).is_some_and(|fence| pair.fence <= *fence)
    }

    fn remember(&mut self, pair: Pair) {
        if pair.fence >= self.settled_before {
            let fence = self.done.entry(pair.job).or_insert(pair.fence);
            *fence = (*fence).max(pair.fence);
        }
    }

    fn forget_before(&mut self, settled_before: Fence) {
        if settled_before > self.settled_before {
            self.settled_before = settled_before;
            self.done.retain(|_, fence| *fence >= settled_before);
        }
    }

    fn abort(&mut self, pair: Pair, commands: &mut Vec<RobotCommand>) {
        if let Some(held) = self.held.get_mut(&pair.job)
            && held.fence == pair.fence
            && held.phase != Phase::Aborting
        {
            held.phase = Phase::Aborting;
            commands.push(RobotCommand::Abort(pair));
        }
    }

    /// Binds what is away to the session under way, whose lease ends at `lease_until`.
    fn rejoin(&mut self, pair: Pair, lease_until: BootInstant, commands: &mut Vec<RobotCommand>) {
        let Some(held) = self.held.get_mut(&pair.job).filter(|held| held.fence == pair.fence) else { return };
        if held.is_away && held.phase != Phase::Aborting {
            held.is_away = false;
            extend(held, lease_until, self.lease);
            commands.push(RobotCommand::Rejoin(pair));
        }
    }

    /// Tells a leader that has confirmed the session what has run on since earlier ones, until it binds or refuses it.
    fn tell_returned(&mut self, now: BootInstant, commands: &mut Vec<RobotCommand>) {
        let Some(session) = self.session().filter(|_| self.lease_until().is_some()) else { return };
        if self.returned_at.is_some_and(|at| now.saturating_since(at) < self.beat_interval) {
            return;
        }
        let away = self.held.iter().filter(|(_, held)| held.is_away && held.phase != Phase::Aborting);
        let pairs: Vec<Pair> = away.map(|(job, held)| Pair { job: *job, fence: held.fence }).collect();
        if !pairs.is_empty() {
            self.returned_at = Some(now);
            commands.extend(pairs.into_iter().map(|pair| RobotCommand::SendReturned { session, pair }));
        }
    }

    /// Ends what may not go on: work past the time for which it may be finished cut off, and the session that ran out.
    fn end_if_run_out(&mut self, now: BootInstant, commands: &mut Vec<RobotCommand>) {
        let mut over = Vec::new();
        for (job, held) in &self.held {
            let pair = Pair { job: *job, fence: held.fence };
            if held.is_away && held.phase != Phase::Aborting && now >= self.acts_until(pair) {
                over.push(pair);
            }
        }
        for pair in over {
            self.abort(pair, commands);
        }
        let Some(current) = self.current else { return };
        if now >= current.until.unwrap_or_else(|| current.first_sent.saturating_add(self.lease)) {
            self.close(commands);
        }
    }

    fn close(&mut self, commands: &mut Vec<RobotCommand>) {
        self.current = None;
        self.sent.clear();
        self.returned_at = None;
        for pair in self.held().collect::<Vec<_>>() {
            match self.held.get_mut(&pair.job) {
                Some(held) if held.is_away => {}
                Some(held) if held.finishing.is_some() && held.phase != Phase::Aborting => {
                    held.is_away = true;
                    commands.push(RobotCommand::RunOn(pair));
                }
                _ => self.abort(pair, commands),
            }
        }
    }

    /// Opens the next session once nothing of the last one runs any more but what may be finished cut off. It begins empty.
    fn open_if_free(&mut self, now: BootInstant, commands: &mut Vec<RobotCommand>) {
        let is_busy = self.held.values().any(|held| !held.is_away);
        if self.current.is_some() || is_busy || now < self.opens_from {
            return;
        }
        self.number_last += 1;
        let id = SessionId { node: self.node, boot: self.boot, number: self.number_last };
        self.current = Some(Current { id, first_sent: now, last_sent: now, until: None });
        self.done.clear();
        self.settled_before = Fence::default();
        self.beat(now, commands);
    }

    fn beat(&mut self, now: BootInstant, commands: &mut Vec<RobotCommand>) {
        let Some(current) = &mut self.current else { return };
        current.last_sent = now;
        let session = current.id;
        self.sequence_last += 1;
        let live = self.held.iter().filter(|(_, held)| held.phase != Phase::Aborting && !held.is_away);
        let pairs: Vec<Pair> = live.map(|(job, held)| Pair { job: *job, fence: held.fence }).collect();
        self.sent.retain(|sent| now.saturating_since(sent.at) < self.lease);
        self.sent.push_back(Sent { sequence: self.sequence_last, at: now, pairs: pairs.clone() });
        commands.push(RobotCommand::SendBeat(Beat {
            session,
            sequence: self.sequence_last,
            term_seen: self.term_seen,
            pairs,
        }));
    }
}

/// A heartbeat sent a `lease` before `lease_until` was confirmed while `held` was bound to its session.
fn extend(held: &mut Held, lease_until: BootInstant, lease: Duration) {
    if let Some(finishing) = &mut held.finishing {
        let confirmed = BootInstant(lease_until.0.saturating_sub(lease));
        finishing.until = finishing.until.max(confirmed.saturating_add(finishing.within));
    }
}

#[cfg(test)]
#[path = "robot_tests.rs"]
mod tests;
