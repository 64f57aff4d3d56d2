//! The leader's side of robot sessions: one value per leadership, built from the applied state, dropped when it ends.
//!
//! It does not send, propose or read a clock: it returns [`LeaderCommand`]s. Everything in it is level-triggered, so a
//! command that got lost is given again by a later heartbeat or tick.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use fleet_core::timing::Timing;
use fleet_core::{BootInstant, Fence, JobId, NodeId, SessionId};
use fleet_store::record::Absence;

use super::absence::{Count, Due, Finishing};
use super::{Beat, BeatAnswer, LeaderTerm, Pair, Verdict};

/// A committed assignment as the applied state has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// Its fence.
    pub fence: Fence,
    /// The session it was made in.
    pub session: SessionId,
    /// Whether the job is to be stopped.
    pub is_stopping: bool,
    /// Set if the robot may finish the job cut off.
    pub finishing: Option<Finishing>,
}

impl Claim {
    /// Whether both are the same right in the same session.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.fence, self.session) == (other.fence, other.session)
    }

    /// Whether `session` is a later one of the same boot of a robot that may finish the job cut off: it may have run on.
    fn may_return_in(&self, session: SessionId) -> bool {
        self.is_left_behind_by(session) && self.session.boot == session.boot
    }

    /// Whether `session` is later than that of the assignment, and the job is not lost by that.
    fn is_left_behind_by(&self, session: SessionId) -> bool {
        self.finishing.is_some() && session.is_newer_than(&self.session)
    }
}

/// Why a job leaves its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReleaseCause {
    /// The holder confirmed the stop.
    Stopped,
    /// The holder does not have it and never will under this fence.
    Gone,
    /// The holder's node has a newer session.
    Superseded,
    /// The holder's lease ran out.
    Lost,
    /// The holder may finish the job cut off, and was absent past its bound.
    Absent {
        /// The number of that absence.
        number: u32,
    },
}

/// What the leader's driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderCommand {
    /// Have a quorum confirm the leadership, beginning now, and report with this round number.
    ConfirmLeadership {
        /// Number of the round.
        round: u64,
    },
    /// Send this answer on the heartbeat stream.
    Answer(BeatAnswer),
    /// A session began, or was taken over from an earlier leader: its robot may be given work.
    Opened {
        /// The session.
        session: SessionId,
    },
    /// A session ended: nothing may be placed there any more.
    Closed {
        /// The session.
        session: SessionId,
    },
    /// Send the assignment, again if it was sent before.
    SendAssign {
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
    /// Send the stop, again if it was sent before.
    SendStop {
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
    /// Ask what the robot has of an assignment of an earlier session.
    SendAsk {
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
    /// Say that the robot has no right to this pair.
    SendRefused {
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
    /// Propose that the assignment is bound to this newer session: its robot has run on and is back.
    Rebind {
        /// The session.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
    /// Propose to note how long the holder has not been heard.
    NoteAbsence {
        /// The job and fence.
        pair: Pair,
        /// How long.
        absence: Absence,
    },
    /// Propose that the job leaves its holder; the state machine checks the fence and decides what it becomes.
    Release {
        /// The job and fence.
        pair: Pair,
        /// Why.
        cause: ReleaseCause,
    },
}

/// A claim and what was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Tracked {
    claim: Claim,
    sent_at: Option<BootInstant>,
    release: Option<(ReleaseCause, BootInstant)>,
    rebind_at: Option<BootInstant>,
    /// The absence of a holder that may finish the job cut off, while it is counted.
    away: Option<Count>,
}

/// The newest session known of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Known {
    session: SessionId,
    /// Until when it lives on this leader's clock; `None` once it is dead.
    until: Option<BootInstant>,
}

/// A heartbeat that waits for the leadership to be confirmed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Waiting {
    beat: Beat,
    received_at: BootInstant,
}

/// A confirmation under way for the first `covers` waiting heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Round {
    number: u64,
    covers: usize,
}

/// The sessions of a leader. Build it only once the leader's own first entry of this leadership is applied.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaderSessions {
    term: LeaderTerm,
    lease: Duration,
    beat_interval: Duration,
    reassigns_from: Option<BootInstant>,
    known: BTreeMap<NodeId, Known>,
    claims: BTreeMap<JobId, Tracked>,
    by_node: BTreeMap<NodeId, BTreeMap<Fence, JobId>>,
    fence_max: Fence,
    waiting: VecDeque<Waiting>,
    round: Option<Round>,
    round_last: u64,
}

impl LeaderSessions {
    /// Most heartbeats that wait for one confirmation; more are dropped and come again.
    const WAITING_MAX: usize = 4_096;

    /// A leadership in `term` whose applied state has `claims`. Nothing is known yet of any session, and nothing is
    /// reassigned for a run-out lease before [`Self::takeover_known`].
    pub fn new(term: LeaderTerm, timing: &Timing, claims: impl IntoIterator<Item = (JobId, Claim)>) -> Self {
        let mut sessions = Self {
            term,
            lease: timing.robot_lease,
            beat_interval: timing.robot_heartbeat(),
            reassigns_from: None,
            known: BTreeMap::new(),
            claims: BTreeMap::new(),
            by_node: BTreeMap::new(),
            fence_max: Fence::default(),
            waiting: VecDeque::new(),
            round: None,
            round_last: 0,
        };
        for (job, claim) in claims {
            sessions.track(job, claim);
        }
        sessions
    }

    /// The term of this leadership.
    pub fn term(&self) -> LeaderTerm {
        self.term
    }

    /// The latest time an earlier leader can have renewed anything, as a majority of voters reported it (each: when it
    /// last heard an earlier leader, its boot if it restarted since, or the moment it stopped if it led). Nothing is
    /// reassigned for a run-out lease before a whole lease after it.
    pub fn takeover_known(&mut self, latest: BootInstant) {
        self.reassigns_from = Some(latest.saturating_add(self.lease));
    }

    /// Whether leases given by earlier leaders are over by now.
    pub fn is_wait_over(&self, now: BootInstant) -> bool {
        self.reassigns_from.is_some_and(|from| now >= from)
    }

    /// The live session of `node`, if it has one.
    pub fn live(&self, node: NodeId) -> Option<SessionId> {
        self.known.get(&node).filter(|known| known.until.is_some()).map(|known| known.session)
    }

    /// The claim on `job`, if it is held.
    pub fn claim(&self, job: JobId) -> Option<Claim> {
        self.claims.get(&job).map(|tracked| tracked.claim)
    }

    /// Every claim.
    pub fn claims(&self) -> impl Iterator<Item = (JobId, Claim)> + '_ {
        self.claims.iter().map(|(job, tracked)| (*job, tracked.claim))
    }

    /// The claims on jobs that `node` holds, whatever its session.
    pub fn claims_of(&self, node: NodeId) -> impl Iterator<Item = (JobId, Claim)> + '_ {
        self.jobs_of(node)
    }

    /// Every live session.
    pub fn live_sessions(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.known.values().filter(|known| known.until.is_some()).map(|known| known.session)
    }

    /// How many jobs `node` holds in its live session.
    pub fn held_by(&self, node: NodeId) -> usize {
        self.by_node.get(&node).map_or(0, BTreeMap::len)
    }

    /// A heartbeat came. It is judged when the leadership has been confirmed since.
    pub fn heard(&mut self, now: BootInstant, beat: Beat) -> Vec<LeaderCommand> {
        let mut commands = Vec::new();
        if beat.term_seen <= self.term && self.waiting.len() < Self::WAITING_MAX {
            self.waiting.push_back(Waiting { beat, received_at: now });
            self.begin_round(&mut commands);
        }
        commands
    }

    /// A quorum confirmed the leadership, asked after round `round` was commanded.
    pub fn confirmed(&mut self, now: BootInstant, round: u64) -> Vec<LeaderCommand> {
        let mut commands = Vec::new();
        let Some(current) = self.round.filter(|current| current.number == round) else { return commands };
        self.round = None;
        self.settle(now, &mut commands);
        for _ in 0..current.covers {
            let Some(waiting) = self.waiting.pop_front() else { break };
            self.judge(now, waiting, &mut commands);
        }
        self.begin_round(&mut commands);
        commands
    }

    /// No quorum confirmed round `round`: what waited for it gets no answer.
    pub fn unconfirmed(&mut self, round: u64) -> Vec<LeaderCommand> {
        let mut commands = Vec::new();
        let Some(current) = self.round.filter(|current| current.number == round) else { return commands };
        self.round = None;
        self.waiting.drain(..current.covers.min(self.waiting.len()));
        self.begin_round(&mut commands);
        commands
    }

    /// Time passed: ends sessions that ran out and releases what nobody can hold any more.
    pub fn tick(&mut self, now: BootInstant) -> Vec<LeaderCommand> {
        let mut commands = Vec::new();
        self.settle(now, &mut commands);
        commands
    }

    /// An assignment was applied, or bound to another session.
    pub fn assigned(&mut self, now: BootInstant, job: JobId, claim: Claim) -> Vec<LeaderCommand> {
        self.track(job, claim);
        self.send(now, job).into_iter().collect()
    }

    /// A held job was made `stopping`.
    pub fn stopping(&mut self, now: BootInstant, job: JobId) -> Vec<LeaderCommand> {
        let Some(tracked) = self.claims.get_mut(&job) else { return Vec::new() };
        tracked.claim.is_stopping = true;
        tracked.sent_at = None;
        self.send(now, job).into_iter().collect()
    }

    /// A job left its holder: ended, parked or requeued.
    pub fn released(&mut self, job: JobId) {
        let Some(tracked) = self.claims.remove(&job) else { return };
        let node = tracked.claim.session.node;
        if let Some(jobs) = self.by_node.get_mut(&node) {
            jobs.remove(&tracked.claim.fence);
            if jobs.is_empty() {
                self.by_node.remove(&node);
            }
        }
    }

    /// The robot of `session` confirmed that it does not act under `pair` and never will.
    pub fn stopped(&mut self, now: BootInstant, session: SessionId, pair: Pair) -> Vec<LeaderCommand> {
        self.given_up(now, session, pair, ReleaseCause::Stopped)
    }

    /// The robot of `session` does not have `pair` and never will.
    pub fn gone(&mut self, now: BootInstant, session: SessionId, pair: Pair) -> Vec<LeaderCommand> {
        self.given_up(now, session, pair, ReleaseCause::Gone)
    }

    /// The robot of `session` has run on with `pair` since an earlier session of this boot.
    pub fn returned(&mut self, now: BootInstant, session: SessionId, pair: Pair) -> Vec<LeaderCommand> {
        let mut commands = Vec::new();
        self.settle(now, &mut commands);
        if self.live(session.node) != Some(session) {
            return commands;
        }
        match self.claims.get_mut(&pair.job).filter(|tracked| tracked.claim.fence == pair.fence) {
            // The assignment is on its way to it in this session.
            Some(tracked) if tracked.claim.session == session => {}
            Some(tracked) if tracked.claim.may_return_in(session) => {
                let is_proposed = tracked.rebind_at.is_some_and(|at| now.saturating_since(at) < self.beat_interval);
                if !is_proposed {
                    tracked.rebind_at = Some(now);
                    commands.push(LeaderCommand::Rebind { session, pair });
                }
            }
            _ => commands.push(LeaderCommand::SendRefused { session, pair }),
        }
        commands
    }

    /// How long the holder of `job`, which may finish it cut off, has been away, and for how long it is waited on.
    pub fn absence(&self, now: BootInstant, job: JobId) -> Option<(Duration, Duration)> {
        let tracked = self.claims.get(&job)?;
        let finishing = tracked.claim.finishing?;
        let elapsed = tracked.away?.elapsed(finishing, now);
        Some((elapsed, Timing::finish_within_at_leader(finishing.within).saturating_sub(elapsed)))
    }

    fn given_up(
        &mut self,
        now: BootInstant,
        session: SessionId,
        pair: Pair,
        cause: ReleaseCause,
    ) -> Vec<LeaderCommand> {
        let mut commands = Vec::new();
        self.settle(now, &mut commands);
        let is_live = self.live(session.node) == Some(session);
        let Some(tracked) =
            self.claims.get_mut(&pair.job).filter(|tracked| is_live && tracked.claim.fence == pair.fence)
        else {
            return commands;
        };
        let claim = tracked.claim;
        let cause = match cause {
            ReleaseCause::Gone if claim.session == session => ReleaseCause::Gone,
            ReleaseCause::Gone if claim.may_return_in(session) => ReleaseCause::Gone,
            // Its node was started again since: that counts as a loss, as for every other job.
            ReleaseCause::Gone if claim.is_left_behind_by(session) => ReleaseCause::Superseded,
            _ if claim.session == session && claim.is_stopping => cause,
            _ => return commands,
        };
        tracked.release = Some((cause, now));
        commands.push(LeaderCommand::Release { pair, cause });
        commands
    }

    fn track(&mut self, job: JobId, claim: Claim) {
        self.released(job);
        self.fence_max = self.fence_max.max(claim.fence);
        self.by_node.entry(claim.session.node).or_default().insert(claim.fence, job);
        self.claims.insert(job, Tracked { claim, sent_at: None, release: None, rebind_at: None, away: None });
    }

    fn begin_round(&mut self, commands: &mut Vec<LeaderCommand>) {
        if self.round.is_none() && !self.waiting.is_empty() {
            self.round_last += 1;
            self.round = Some(Round { number: self.round_last, covers: self.waiting.len() });
            commands.push(LeaderCommand::ConfirmLeadership { round: self.round_last });
        }
    }

    /// Judges a heartbeat now that the leadership has been confirmed since it came.
    fn judge(&mut self, now: BootInstant, waiting: Waiting, commands: &mut Vec<LeaderCommand>) {
        let Waiting { beat, received_at } = waiting;
        let until = received_at.saturating_add(self.lease);
        let is_accepted = self.accepts(now, &beat) && now < until;
        if is_accepted {
            self.renew(beat.session, until, commands);
        }
        let verdict = if is_accepted { self.renewal(&beat) } else { Verdict::Dead };
        commands.push(LeaderCommand::Answer(BeatAnswer {
            term: self.term,
            session: beat.session,
            sequence: beat.sequence,
            verdict,
        }));
        if is_accepted {
            self.settle(now, commands);
            self.resend(received_at, &beat, commands);
        }
    }

    /// Whether the session of `beat` is alive, or may be opened or taken over.
    fn accepts(&self, now: BootInstant, beat: &Beat) -> bool {
        let session = beat.session;
        let is_overtaken = self.jobs_of(session.node).any(|(_, claim)| claim.session.is_newer_than(&session));
        match self.known.get(&session.node) {
            Some(known) if known.session == session => known.until.is_some(),
            Some(known) if known.session.is_newer_than(&session) => false,
            _ => !is_overtaken && (beat.pairs.is_empty() || !self.is_wait_over(now)),
        }
    }

    fn renew(&mut self, session: SessionId, until: BootInstant, commands: &mut Vec<LeaderCommand>) {
        match self.known.get_mut(&session.node) {
            Some(known) if known.session == session => known.until = known.until.max(Some(until)),
            older => {
                if let Some(Known { session: superseded, until: Some(_) }) = older {
                    commands.push(LeaderCommand::Closed { session: *superseded });
                }
                self.known.insert(session.node, Known { session, until: Some(until) });
                commands.push(LeaderCommand::Opened { session });
            }
        }
    }

    /// Which pairs of `beat` the applied state agrees with, and below which fence every assignment is over.
    fn renewal(&self, beat: &Beat) -> Verdict {
        let holds = |pair: &Pair| {
            self.claim(pair.job).is_some_and(|claim| claim.fence == pair.fence && claim.session == beat.session)
        };
        let past = Fence { position: self.fence_max.position.saturating_add(1), ..self.fence_max };
        let oldest = self.by_node.get(&beat.session.node).and_then(|jobs| jobs.keys().next());
        Verdict::Renewed {
            pairs: beat.pairs.iter().copied().filter(holds).collect(),
            settled_before: oldest.copied().unwrap_or(past),
        }
    }

    /// Sends what a heartbeat does not show as done, unless it was sent within the last interval.
    fn resend(&mut self, received_at: BootInstant, beat: &Beat, commands: &mut Vec<LeaderCommand>) {
        let due: Vec<JobId> = self
            .jobs_of(beat.session.node)
            .filter(|(job, claim)| {
                let is_listed = beat.pairs.iter().any(|pair| pair.job == *job && pair.fence == claim.fence);
                let is_here = claim.session == beat.session && (claim.is_stopping || !is_listed);
                is_here || claim.is_left_behind_by(beat.session)
            })
            .map(|(job, _)| job)
            .collect();
        for job in due {
            let sent_at = self.claims.get(&job).and_then(|tracked| tracked.sent_at);
            if sent_at.is_none_or(|at| received_at.saturating_since(at) >= self.beat_interval) {
                commands.extend(self.send(received_at, job));
            }
        }
    }

    fn send(&mut self, now: BootInstant, job: JobId) -> Option<LeaderCommand> {
        let live = self.claims.get(&job).and_then(|tracked| self.live(tracked.claim.session.node));
        let tracked = self.claims.get_mut(&job)?;
        let Claim { fence, session, is_stopping, .. } = tracked.claim;
        let pair = Pair { job, fence };
        if let Some(later) = live.filter(|live| tracked.claim.is_left_behind_by(*live)) {
            tracked.sent_at = Some(now);
            return Some(LeaderCommand::SendAsk { session: later, pair });
        }
        if live != Some(session) {
            return None;
        }
        tracked.sent_at = Some(now);
        Some(if is_stopping {
            LeaderCommand::SendStop { session, pair }
        } else {
            LeaderCommand::SendAssign { session, pair }
        })
    }

    fn jobs_of(&self, node: NodeId) -> impl Iterator<Item = (JobId, Claim)> + '_ {
        let jobs = self.by_node.get(&node).into_iter().flat_map(BTreeMap::values);
        jobs.filter_map(|job| self.claim(*job).map(|claim| (*job, claim)))
    }

    /// Ends what ran out, and releases what its holder can no longer act for.
    fn settle(&mut self, now: BootInstant, commands: &mut Vec<LeaderCommand>) {
        for known in self.known.values_mut() {
            if known.until.is_some_and(|until| now >= until) {
                known.until = None;
                commands.push(LeaderCommand::Closed { session: known.session });
            }
        }
        let is_wait_over = self.is_wait_over(now);
        for (job, tracked) in &mut self.claims {
            let Claim { fence, session, finishing, .. } = tracked.claim;
            let cause = match self.known.get(&session.node) {
                Some(known) if known.session.is_newer_than(&session) => ReleaseCause::Superseded,
                Some(known) if known.session == session && known.until.is_some() => {
                    tracked.away = None;
                    continue;
                }
                _ if is_wait_over => {
                    // Closed before anything is proposed: a late heartbeat of it finds it dead.
                    self.known.insert(session.node, Known { session, until: None });
                    ReleaseCause::Lost
                }
                _ => continue,
            };
            let pair = Pair { job: *job, fence };
            let cause = match finishing {
                None => cause,
                Some(finishing) => {
                    let count = tracked.away.get_or_insert_with(|| Count::begin(finishing, now));
                    match count.due(finishing, now) {
                        Due::Nothing => continue,
                        Due::Note(absence) => {
                            commands.push(LeaderCommand::NoteAbsence { pair, absence });
                            continue;
                        }
                        Due::Over(absence) => ReleaseCause::Absent { number: absence.number },
                    }
                }
            };
            let is_proposed = tracked.release.is_some_and(|(_, at)| now.saturating_since(at) < self.beat_interval);
            if !is_proposed {
                tracked.release = Some((cause, now));
                commands.push(LeaderCommand::Release { pair, cause });
            }
        }
    }
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
