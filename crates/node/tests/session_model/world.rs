//! A small world around the real session machines: three voters and their log in the abstract, two robots, one job, and
//! a network that loses, repeats, delays and reorders.
//!
//! What a leader appended and could not commit stays at the end of its voter's log, and commits if that voter is elected
//! before anything else was. Clocks run at different rates. The rule taken out of a world, if any, is broken by the
//! world around the machines, never inside them.

use std::time::Duration;

use fleet_core::timing::Timing;
use fleet_core::{BootInstant, Fence, JobId, NodeId, SessionId};
use fleet_node::session::{
    Beat, BeatAnswer, Claim, EndKind, Finishing, LeaderCommand, LeaderSessions, LeaderTerm, Pair, ReleaseCause,
    RobotCommand, RobotSession,
};

use fleet_store::record::Absence;

use crate::rule::Rule;

pub(crate) const JOB: JobId = JobId::from_bytes([7; 16]);
/// Clock rates in thousandths of a percent: of the three voters, and of the two robots.
const VOTER_RATES: [u64; 3] = [100_000, 100_400, 99_600];
const ROBOT_RATES: [u64; 2] = [99_600, 100_400];
const NETWORK_MAX: usize = 12;
/// How long a job may be finished cut off, where it may.
pub(crate) const WITHIN: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Entry {
    Lead,
    Assign { attempt: u32, session: SessionId },
    Stop,
    Release { fence: Fence },
    Finish { fence: Fence },
    Note { fence: Fence, absence: Absence },
    Rebind { fence: Fence, session: SessionId },
    ReleaseAbsent { fence: Fence, number: u32 },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Job {
    pub(crate) claim: Option<Claim>,
    pub(crate) attempt: u32,
    /// Whether it may be finished cut off.
    pub(crate) may_finish: bool,
}

impl Job {
    /// The claim of a new assignment.
    fn claim(self, fence: Fence, session: SessionId) -> Claim {
        let finishing = self.may_finish.then_some(Finishing { within: WITHIN, absence: Absence::default() });
        Claim { fence, session, is_stopping: false, finishing }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Voter {
    pub(crate) is_up: bool,
    pub(crate) is_cut: bool,
    pub(crate) promised: u64,
    /// When it last heard an earlier leader, its boot if it restarted since, or when it stopped leading.
    pub(crate) heard_at: u64,
    /// How much of the committed log it has.
    pub(crate) known: usize,
    /// What follows in its log and is not known to be committed.
    pub(crate) tail: Vec<Entry>,
    pub(crate) leader: Option<Leader>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Leader {
    pub(crate) term: u64,
    pub(crate) is_takeover_known: bool,
    pub(crate) sessions: Option<LeaderSessions>,
    pub(crate) job: Job,
    pub(crate) rounds: Vec<u64>,
    pub(crate) confirmed_at: Option<u64>,
    sent_once: Vec<(bool, Fence)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Robot {
    pub(crate) boot: u64,
    pub(crate) is_up: bool,
    pub(crate) is_stopped: bool,
    pub(crate) session: RobotSession,
    /// The fence whose last records it has sent: it begins nothing more under it.
    pub(crate) finished: Option<Fence>,
    /// What runs on of an earlier boot, and until when, where that is not forbidden.
    left_over: Option<(Pair, BootInstant)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Message {
    Beat { to: usize, beat: Beat },
    Answer { to: usize, answer: BeatAnswer },
    Assign { to: usize, term: LeaderTerm, session: SessionId, pair: Pair },
    Stop { to: usize, term: LeaderTerm, session: SessionId, pair: Pair },
    Stopped { to: usize, session: SessionId, pair: Pair },
    Gone { to: usize, session: SessionId, pair: Pair },
    Finished { to: usize, session: SessionId, pair: Pair },
    Over { to: usize, session: SessionId, pair: Pair },
    Returned { to: usize, session: SessionId, pair: Pair },
    Ask { to: usize, term: LeaderTerm, session: SessionId, pair: Pair },
    Refused { to: usize, session: SessionId, pair: Pair },
}

/// One step of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Wait(u64),
    Deliver(usize),
    Repeat(usize),
    Lose(usize),
    Elect(usize),
    Commit(usize),
    Confirm(usize),
    AskTakeover(usize),
    Dispatch(usize, usize),
    Drain(usize),
    Depose(usize),
    RestartVoter(usize),
    CutVoter(usize),
    JoinVoter(usize),
    KillRobot(usize),
    StartRobot(usize),
    StopRobot(usize),
    ContinueRobot(usize),
    Finish(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) voters: [Voter; 3],
    pub(crate) robots: [Robot; 2],
    pub(crate) committed: Vec<Entry>,
    pub(crate) job: Job,
    pub(crate) network: Vec<Message>,
    /// The leader that each robot turns to: the one elected last.
    pub(crate) hints: [usize; 2],
    /// The rule that does not hold here.
    pub(crate) without: Option<Rule>,
    has_drift: bool,
}

fn node(robot: usize) -> NodeId {
    NodeId::from_bytes([if robot == 0 { 1 } else { 2 }; 16])
}

fn term_of(term: u64) -> LeaderTerm {
    LeaderTerm { epoch: 1, term }
}

impl World {
    pub(crate) fn new(without: Option<Rule>, has_drift: bool) -> Self {
        Self::with_job(Job::default(), without, has_drift)
    }

    /// A world whose job may be finished cut off.
    pub(crate) fn finishing(without: Option<Rule>, has_drift: bool) -> Self {
        Self::with_job(Job { may_finish: true, ..Job::default() }, without, has_drift)
    }

    fn with_job(job: Job, without: Option<Rule>, has_drift: bool) -> Self {
        let voter = Voter { is_up: true, ..Voter::default() };
        let robots = [0, 1].map(|index| Robot {
            boot: 1,
            is_up: true,
            is_stopped: false,
            session: robot_session(index, 1, without, BootInstant::default()),
            finished: None,
            left_over: None,
        });
        let mut world = Self {
            now: 10_000,
            voters: [voter.clone(), voter.clone(), voter],
            robots,
            committed: Vec::new(),
            job,
            network: Vec::new(),
            hints: [0, 0],
            without,
            has_drift,
        };
        world.step(Step::Elect(0));
        world.step(Step::Commit(0));
        world.step(Step::AskTakeover(0));
        world
    }

    fn lacks(&self, rule: Rule) -> bool {
        self.without == Some(rule)
    }

    fn voter_clock(&self, index: usize) -> BootInstant {
        self.clock(VOTER_RATES[index])
    }

    pub(crate) fn robot_clock(&self, index: usize) -> BootInstant {
        self.clock(ROBOT_RATES[index])
    }

    fn clock(&self, rate: u64) -> BootInstant {
        let rate = if self.has_drift { rate } else { 100_000 };
        BootInstant(Duration::from_micros(self.now * rate / 100))
    }

    /// Which robots would begin an effect for the job now.
    pub(crate) fn actors(&self) -> Vec<usize> {
        let acts = |index: &usize| {
            let robot = &self.robots[*index];
            let now = self.robot_clock(*index);
            let ignores_lease = self.lacks(Rule::RobotCountsLease);
            let acts_for = |pair: Pair| robot.session.may_act(now, pair) || ignores_lease;
            let mut pairs = robot.session.held().filter(|pair| robot.finished != Some(pair.fence));
            let has_left_over = robot.left_over.is_some_and(|(_, until)| now < until);
            robot.is_up && !robot.is_stopped && (pairs.any(acts_for) || has_left_over)
        };
        [0, 1].into_iter().filter(acts).collect()
    }

    /// Whether voter `index` reaches a majority that has promised nothing to a later term.
    fn majority(&self, index: usize, term: u64) -> Option<Vec<usize>> {
        let can_talk = |voter: &Voter| voter.is_up && !voter.is_cut;
        let others = (0..3).filter(|other| {
            let voter = &self.voters[*other];
            *other != index && can_talk(voter) && can_talk(&self.voters[index]) && voter.promised <= term
        });
        let group: Vec<usize> = others.chain([index]).collect();
        (group.len() >= 2 && self.voters[index].promised <= term).then_some(group)
    }

    pub(crate) fn step(&mut self, step: Step) {
        match step {
            Step::Wait(ms) => self.wait(ms),
            Step::Deliver(index) => {
                let message = self.network.remove(index);
                self.deliver(message);
            }
            Step::Repeat(index) => self.deliver(self.network[index].clone()),
            Step::Lose(index) => drop(self.network.remove(index)),
            Step::Elect(voter) => self.elect(voter),
            Step::Commit(voter) => self.commit(voter),
            Step::Confirm(voter) => self.confirm(voter),
            Step::AskTakeover(voter) => self.ask_takeover(voter),
            Step::Dispatch(voter, robot) => self.dispatch(voter, robot),
            Step::Drain(voter) => self.drain(voter),
            Step::Depose(voter) => self.step_down(voter),
            Step::RestartVoter(voter) => self.restart_voter(voter),
            Step::CutVoter(voter) => self.voters[voter].is_cut = true,
            Step::JoinVoter(voter) => self.voters[voter].is_cut = false,
            Step::KillRobot(robot) => self.robots[robot].is_up = false,
            Step::StartRobot(robot) => self.start_robot(robot),
            Step::StopRobot(robot) => self.robots[robot].is_stopped = true,
            Step::ContinueRobot(robot) => self.robots[robot].is_stopped = false,
            Step::Finish(robot) => self.finish(robot),
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now += ms;
        for index in 0..2 {
            self.drive_robot(index, RobotSession::tick);
        }
        for index in 0..3 {
            self.drive_leader(index, LeaderSessions::tick);
        }
    }

    fn elect(&mut self, index: usize) {
        let term = self.voters.iter().map(|voter| voter.promised).max().unwrap_or_default() + 1;
        let is_complete = self.voters[index].known == self.committed.len();
        let group = self.majority(index, term).filter(|_| is_complete && self.voters[index].is_up);
        if self.lacks(Rule::ConfirmedTermsOnly) {
            for robot in 0..2 {
                self.candidate_speaks(robot, term + 1);
            }
        }
        let Some(group) = group else { return };
        self.step_down(index);
        for member in group {
            self.voters[member].promised = term;
        }
        self.voters[index].tail.push(Entry::Lead);
        self.lead(index, term);
    }

    fn lead(&mut self, index: usize, term: u64) {
        self.voters[index].leader = Some(Leader {
            term,
            is_takeover_known: false,
            sessions: None,
            job: self.job_at(0),
            rounds: Vec::new(),
            confirmed_at: None,
            sent_once: Vec::new(),
        });
        self.hints = [index, index];
        if self.lacks(Rule::OwnFirstEntry) {
            self.serve(index, self.job_at(self.voters[index].known));
        }
    }

    fn serve(&mut self, index: usize, job: Job) {
        let Some(leader) = &mut self.voters[index].leader else { return };
        leader.job = job;
        let claims = job.claim.map(|claim| (JOB, as_known(claim, self.without)));
        leader.sessions = Some(LeaderSessions::new(term_of(leader.term), &Timing::LAN, claims));
    }

    fn step_down(&mut self, index: usize) {
        let now = self.now;
        let voter = &mut self.voters[index];
        if voter.leader.take().is_some() && self.without != Some(Rule::ResumedLeaderCounts) {
            voter.heard_at = now;
        }
    }

    fn restart_voter(&mut self, index: usize) {
        let resumed = self.voters[index].leader.as_ref().map(|leader| leader.term);
        let forgets = self.lacks(Rule::RestartedVoterCounts);
        let is_unmarked = resumed.is_some() && self.lacks(Rule::ResumedLeaderCounts);
        let voter = &mut self.voters[index];
        voter.leader = None;
        voter.heard_at = if forgets || is_unmarked { 0 } else { self.now };
        if let Some(term) = resumed.filter(|term| *term == voter.promised) {
            voter.tail.push(Entry::Lead);
            self.lead(index, term);
        }
    }

    /// Commits what stands at the end of a leader's log.
    fn commit(&mut self, index: usize) {
        let voter = &self.voters[index];
        let Some(leader) = &voter.leader else { return };
        let Some(group) = self.majority(index, leader.term) else { return };
        if voter.tail.is_empty() || voter.known != self.committed.len() {
            return;
        }
        for member in group {
            self.voters[member].promised = self.voters[index].leader.as_ref().map_or(0, |leader| leader.term);
            self.voters[member].known = self.committed.len() + self.voters[index].tail.len();
            if member != index {
                self.voters[member].tail.clear();
                self.step_down(member);
            }
        }
        for entry in std::mem::take(&mut self.voters[index].tail) {
            self.committed.push(entry);
            let before = self.job;
            let fence = Fence::mint(1, self.committed.len() as u64, 0);
            self.job = apply(before, entry, fence, self.without);
            let is_serving = self.voters[index].leader.as_ref().is_some_and(|leader| leader.sessions.is_some());
            if is_serving {
                self.applied(index, before, self.job);
            } else if self.voters[index].tail.is_empty() && entry == Entry::Lead {
                self.serve(index, self.job);
            }
        }
    }

    /// The job after the first `length` committed entries.
    fn job_at(&self, length: usize) -> Job {
        let mut job = Job { may_finish: self.job.may_finish, ..Job::default() };
        for (index, entry) in self.committed.iter().take(length).enumerate() {
            job = apply(job, *entry, Fence::mint(1, index as u64 + 1, 0), self.without);
        }
        job
    }

    fn applied(&mut self, index: usize, before: Job, after: Job) {
        if let Some(leader) = &mut self.voters[index].leader {
            leader.job = after;
        }
        let without = self.without;
        self.drive_leader(index, |sessions, now| match (before.claim, after.claim) {
            (Some(_), None) => {
                sessions.released(JOB);
                Vec::new()
            }
            (None, Some(claim)) => sessions.assigned(now, JOB, as_known(claim, without)),
            (Some(old), Some(new)) if !old.is_same(&new) => sessions.assigned(now, JOB, as_known(new, without)),
            (Some(old), Some(new)) if !old.is_stopping && new.is_stopping => sessions.stopping(now, JOB),
            _ => Vec::new(),
        });
    }

    fn confirm(&mut self, index: usize) {
        let now = self.now;
        let Some(leader) = &self.voters[index].leader else { return };
        let (term, is_unchecked) = (leader.term, self.lacks(Rule::QuorumConfirms));
        let is_recent =
            self.lacks(Rule::FreshConfirmation) && leader.confirmed_at.is_some_and(|at| now.saturating_sub(at) < 1_000);
        let Some(round) = leader.rounds.first().copied() else { return };
        if !is_unchecked && !is_recent {
            let Some(group) = self.majority(index, term) else { return };
            for member in group {
                self.voters[member].heard_at = now;
                self.voters[member].promised = term;
            }
        }
        if let Some(leader) = &mut self.voters[index].leader {
            leader.rounds.remove(0);
            if !is_recent {
                leader.confirmed_at = Some(now);
            }
        }
        self.drive_leader(index, |sessions, clock| sessions.confirmed(clock, round));
    }

    fn ask_takeover(&mut self, index: usize) {
        let Some(leader) = self.voters[index].leader.as_ref().filter(|leader| leader.sessions.is_some()) else {
            return;
        };
        let Some(group) = self.majority(index, leader.term) else { return };
        let term = leader.term;
        let mut latest = 0;
        for member in group {
            self.voters[member].promised = term;
            latest = latest.max(self.voters[member].heard_at);
        }
        if self.lacks(Rule::TakeoverWait) {
            latest = 0;
        }
        let rate = if self.has_drift { VOTER_RATES[index] } else { 100_000 };
        let latest = BootInstant(Duration::from_micros(latest * rate / 100));
        if let Some(leader) = &mut self.voters[index].leader {
            leader.is_takeover_known = true;
            if let Some(sessions) = &mut leader.sessions {
                sessions.takeover_known(latest);
            }
        }
    }

    fn dispatch(&mut self, index: usize, robot: usize) {
        let voter = &mut self.voters[index];
        let Some(leader) = &voter.leader else { return };
        let Some(session) = leader.sessions.as_ref().and_then(|sessions| sessions.live(node(robot))) else { return };
        let has_assignment = voter.tail.iter().any(|entry| matches!(entry, Entry::Assign { .. }));
        if leader.job.claim.is_none() && !has_assignment {
            voter.tail.push(Entry::Assign { attempt: leader.job.attempt, session });
        }
    }

    fn drain(&mut self, index: usize) {
        let lacks_stopping = self.lacks(Rule::StoppingFirst);
        let voter = &mut self.voters[index];
        let Some(leader) = voter.leader.as_ref().filter(|leader| leader.sessions.is_some()) else { return };
        let Some(claim) = leader.job.claim else { return };
        let entry = if lacks_stopping { Entry::Release { fence: claim.fence } } else { Entry::Stop };
        if !voter.tail.contains(&entry) {
            voter.tail.push(entry);
        }
    }

    fn start_robot(&mut self, index: usize) {
        let boot = if self.lacks(Rule::BootsOrdered) { 1 } else { self.robots[index].boot + 1 };
        let now = self.robot_clock(index);
        let session = robot_session(index, boot, self.without, now);
        let before = &self.robots[index].session;
        let held = before.held().map(|pair| (pair, before.acts_until(pair))).next();
        let left_over = held.filter(|_| self.lacks(Rule::RestartEndsAll));
        self.robots[index] = Robot { boot, is_up: true, is_stopped: false, session, finished: None, left_over };
    }

    /// The robot's last records go up; it lets go of the job once they are committed.
    fn finish(&mut self, index: usize) {
        let session = &self.robots[index].session;
        let (Some(id), Some(pair)) = (session.session(), session.held().next()) else { return };
        if self.robots[index].is_up && !self.robots[index].is_stopped {
            self.robots[index].finished = Some(pair.fence);
            self.send(Message::Finished { to: self.hints[index], session: id, pair });
        }
    }

    fn candidate_speaks(&mut self, robot: usize, term: u64) {
        let Some(session) = self.robots[robot].session.session() else { return };
        let pair = Pair { job: JobId::default(), fence: Fence::default() };
        self.drive_robot(robot, |robot, now| {
            robot.stop(now, term_of(term), session, pair);
            Vec::new()
        });
    }

    fn deliver(&mut self, message: Message) {
        let term_of_all = self.lacks(Rule::TermsMonotonic).then(|| term_of(1 << 40));
        let is_bound = !self.lacks(Rule::MessagesBound);
        match message {
            Message::Beat { to, mut beat } => {
                if term_of_all.is_some() {
                    beat.term_seen = LeaderTerm::default();
                }
                let is_serving = self.voters[to].leader.as_ref().is_some_and(|leader| leader.sessions.is_some());
                if self.lacks(Rule::UnlistedIsNotGone) && is_serving {
                    self.requeue_unlisted(to, &beat);
                }
                self.drive_leader(to, |sessions, now| sessions.heard(now, beat));
            }
            Message::Answer { to, mut answer } => {
                answer.term = term_of_all.unwrap_or(answer.term);
                self.drive_robot(to, |robot, now| robot.answered(now, answer));
            }
            Message::Assign { to, term, mut session, pair } => {
                if !is_bound {
                    session = self.robots[to].session.session().unwrap_or(session);
                }
                let term = term_of_all.unwrap_or(term);
                let finish_within = self.job.may_finish.then_some(WITHIN);
                self.drive_robot(to, |robot, now| robot.assigned(now, term, session, pair, finish_within));
            }
            Message::Stop { to, term, mut session, pair } => {
                if !is_bound {
                    session = self.robots[to].session.session().unwrap_or(session);
                }
                let term = term_of_all.unwrap_or(term);
                self.drive_robot(to, |robot, now| robot.stop(now, term, session, pair));
            }
            Message::Stopped { to, session, pair } => {
                self.drive_leader(to, |sessions, now| sessions.stopped(now, session, pair));
            }
            Message::Gone { to, session, pair } => {
                self.drive_leader(to, |sessions, now| sessions.gone(now, session, pair));
            }
            Message::Finished { to, session, pair } => self.finished(to, session, pair),
            Message::Returned { to, session, pair } => {
                self.drive_leader(to, |sessions, now| sessions.returned(now, session, pair));
            }
            Message::Ask { to, term, session, pair } => {
                self.drive_robot(to, |robot, now| robot.asked(now, term, session, pair, false));
            }
            Message::Refused { to, session, pair } => {
                if self.robots[to].session.session() == Some(session) {
                    self.drive_robot(to, |robot, now| robot.ended(now, pair, EndKind::Finished));
                }
            }
            Message::Over { to, session, pair } => {
                if self.robots[to].session.session() == Some(session) {
                    self.drive_robot(to, |robot, now| robot.ended(now, pair, EndKind::Finished));
                }
            }
        }
    }

    fn requeue_unlisted(&mut self, index: usize, beat: &Beat) {
        let voter = &mut self.voters[index];
        let Some(claim) = voter.leader.as_ref().and_then(|leader| leader.job.claim) else { return };
        let is_listed = beat.pairs.iter().any(|pair| pair.fence == claim.fence);
        if claim.session == beat.session && !is_listed {
            voter.tail.push(Entry::Release { fence: claim.fence });
        }
    }

    fn finished(&mut self, to: usize, session: SessionId, pair: Pair) {
        let voter = &mut self.voters[to];
        let Some(leader) = voter.leader.as_ref().filter(|leader| leader.sessions.is_some()) else { return };
        let entry = Entry::Finish { fence: pair.fence };
        match leader.job.claim {
            Some(claim) if claim.fence == pair.fence => {
                if !voter.tail.contains(&entry) {
                    voter.tail.push(entry);
                }
            }
            _ => {
                let to = if session.node == node(0) { 0 } else { 1 };
                self.send(Message::Over { to, session, pair });
            }
        }
    }

    fn send(&mut self, message: Message) {
        if self.network.len() < NETWORK_MAX {
            self.network.push(message);
        }
    }

    fn drive_leader(
        &mut self,
        index: usize,
        call: impl FnOnce(&mut LeaderSessions, BootInstant) -> Vec<LeaderCommand>,
    ) {
        let now = self.voter_clock(index);
        let resends = !self.lacks(Rule::Resending);
        let voter = &mut self.voters[index];
        let Some(leader) = voter.leader.as_mut().filter(|_| voter.is_up) else { return };
        let Some(sessions) = &mut leader.sessions else { return };
        let mut outgoing = Vec::new();
        for command in call(sessions, now) {
            let term = term_of(leader.term);
            let robot = |session: SessionId| if session.node == node(0) { 0 } else { 1 };
            match command {
                LeaderCommand::ConfirmLeadership { round } => leader.rounds.push(round),
                LeaderCommand::Answer(answer) => {
                    outgoing.push(Message::Answer { to: robot(answer.session), answer });
                }
                LeaderCommand::SendAssign { session, pair } => {
                    if resends || !leader.sent_once.contains(&(false, pair.fence)) {
                        leader.sent_once.push((false, pair.fence));
                        outgoing.push(Message::Assign { to: robot(session), term, session, pair });
                    }
                }
                LeaderCommand::SendStop { session, pair } => {
                    if resends || !leader.sent_once.contains(&(true, pair.fence)) {
                        leader.sent_once.push((true, pair.fence));
                        outgoing.push(Message::Stop { to: robot(session), term, session, pair });
                    }
                }
                LeaderCommand::Release { pair, cause } => {
                    let entry = match cause {
                        ReleaseCause::Absent { number } => Entry::ReleaseAbsent { fence: pair.fence, number },
                        _ => Entry::Release { fence: pair.fence },
                    };
                    if !voter.tail.contains(&entry) {
                        voter.tail.push(entry);
                    }
                }
                LeaderCommand::NoteAbsence { pair, absence } => {
                    voter.tail.push(Entry::Note { fence: pair.fence, absence });
                }
                LeaderCommand::Rebind { session, pair } => {
                    let entry = Entry::Rebind { fence: pair.fence, session };
                    if !voter.tail.contains(&entry) {
                        voter.tail.push(entry);
                    }
                }
                LeaderCommand::SendAsk { session, pair } => {
                    outgoing.push(Message::Ask { to: robot(session), term, session, pair });
                }
                LeaderCommand::SendRefused { session, pair } => {
                    outgoing.push(Message::Refused { to: robot(session), session, pair });
                }
                LeaderCommand::Opened { .. } | LeaderCommand::Closed { .. } => {}
            }
        }
        for message in outgoing {
            self.send(message);
        }
    }

    fn drive_robot(&mut self, index: usize, call: impl FnOnce(&mut RobotSession, BootInstant) -> Vec<RobotCommand>) {
        let clock = self.robot_clock(index);
        let (hint, without) = (self.hints[index], self.without);
        let robot = &mut self.robots[index];
        if !robot.is_up || robot.is_stopped {
            return;
        }
        // A robot that revives: its session does not notice that it ran out, only `may_act` reads the true clock.
        let now = match robot.session.lease_until() {
            Some(until) if without == Some(Rule::RobotNeverRevives) && clock >= until => {
                BootInstant(until.0.saturating_sub(Duration::from_micros(1)))
            }
            _ => clock,
        };
        let mut todo = call(&mut robot.session, now);
        forget(&mut robot.session, without);
        let mut outgoing = Vec::new();
        while !todo.is_empty() {
            match todo.remove(0) {
                RobotCommand::SendBeat(beat) => outgoing.push(Message::Beat { to: hint, beat }),
                RobotCommand::Start(_) | RobotCommand::RunOn(_) | RobotCommand::Rejoin(_) => {}
                RobotCommand::SendReturned { session, pair } => {
                    outgoing.push(Message::Returned { to: hint, session, pair });
                }
                RobotCommand::Stop(pair) | RobotCommand::Abort(pair) => {
                    if without != Some(Rule::RobotCountsLease) || robot.session.lease_until().is_some() {
                        todo.extend(robot.session.ended(now, pair, EndKind::Stopped));
                    }
                }
                RobotCommand::SendStopped { session, pair } => {
                    outgoing.push(Message::Stopped { to: hint, session, pair });
                }
                RobotCommand::SendGone { session, pair } => outgoing.push(Message::Gone { to: hint, session, pair }),
            }
            forget(&mut robot.session, without);
        }
        for message in outgoing {
            self.send(message);
        }
    }
}

fn robot_session(index: usize, boot: u64, without: Option<Rule>, now: BootInstant) -> RobotSession {
    let lease = match without {
        Some(Rule::ClockMargin) => Timing::LAN.robot_lease * 100 / 99 + Duration::from_millis(1),
        _ => Timing::LAN.robot_lease,
    };
    RobotSession::new(node(index), boot, &Timing { robot_lease: lease, ..Timing::LAN }, now)
}

/// Edits the robot's memory where a rule about it is taken out.
fn forget(session: &mut RobotSession, without: Option<Rule>) {
    let edit: fn(&mut serde_json::Value) = match without {
        Some(Rule::RobotRemembers) => |state| {
            state["done"] = serde_json::json!({});
            state["settled_before"] = serde_json::json!({ "epoch": 0, "index": 0, "position": 0 });
        },
        Some(Rule::OpeningCountsFromFirst) => |state| {
            if !state["current"].is_null() {
                state["current"]["first_sent"] = state["current"]["last_sent"].clone();
            }
        },
        _ => return,
    };
    let mut state = serde_json::to_value(&*session).expect("the state is plain data");
    edit(&mut state);
    *session = serde_json::from_value(state).expect("the state was only edited");
}

/// The state machine's part: what an entry does to the job.
fn apply(job: Job, entry: Entry, fence: Fence, without: Option<Rule>) -> Job {
    let is_checked = without != Some(Rule::Preconditions);
    match (entry, job.claim) {
        (Entry::Assign { attempt, session }, claim) if !is_checked || (claim.is_none() && attempt == job.attempt) => {
            Job { claim: Some(job.claim(fence, session)), attempt: job.attempt + 1, ..job }
        }
        (Entry::Stop, Some(claim)) => Job { claim: Some(Claim { is_stopping: true, ..claim }), ..job },
        (Entry::Release { fence } | Entry::Finish { fence }, Some(claim)) if !is_checked || fence == claim.fence => {
            Job { claim: None, ..job }
        }
        (entry, Some(claim)) => Job { claim: apply_absence(claim, entry, without), ..job },
        _ => job,
    }
}

/// What an entry about a holder that may finish the job cut off does to its claim.
fn apply_absence(claim: Claim, entry: Entry, without: Option<Rule>) -> Option<Claim> {
    let Some(finishing) = claim.finishing else { return Some(claim) };
    let known = finishing.absence;
    let with = |absence| Claim { finishing: Some(Finishing { absence, ..finishing }), ..claim };
    match entry {
        Entry::Note { fence, absence } if fence == claim.fence && absence > known => Some(with(absence)),
        Entry::Rebind { fence, session }
            if fence == claim.fence && session.boot == claim.session.boot && session.is_newer_than(&claim.session) =>
        {
            let elapsed_ms = if without == Some(Rule::ReturnBeginsAnew) { known.elapsed_ms } else { 0 };
            Some(Claim { session, ..with(Absence { number: known.number + 1, elapsed_ms }) })
        }
        Entry::ReleaseAbsent { fence, number } if fence == claim.fence => {
            (number != known.number && without != Some(Rule::AbsencesNumbered)).then_some(claim)
        }
        _ => Some(claim),
    }
}

/// What a leader is told of a claim.
fn as_known(mut claim: Claim, without: Option<Rule>) -> Claim {
    match (&mut claim.finishing, without) {
        (finishing, Some(Rule::AbsenceWaits)) => *finishing = None,
        (Some(finishing), Some(Rule::AbsenceMargin)) => finishing.within = finishing.within * 100 / 101,
        (Some(finishing), Some(Rule::CountsOn)) => finishing.absence.elapsed_ms = 0,
        _ => {}
    }
    claim
}
