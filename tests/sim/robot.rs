//! A node's robot: carries out what the production session ([`RobotSession`]) and the production course of each execution
//! ([`Course`]) say, with the real interpreter.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_core::{BootInstant, JobId, NodeId};
use fleet_node::execution::{self, Act, Assigned, Course, Pulse, Start, Unacknowledged};
use fleet_node::link::{Assignment, Heartbeat, RobotReport, WorkDown, WorkUp};
use fleet_node::ports::JobMachine;
use fleet_node::session::{BeatAnswer, EndKind, Pair, RobotCommand, RobotSession};
use fleet_replication::command::Records;
use fleet_store::record::StopCause;
use fleet_workflow::machine::command::EffectPath;
use fleet_workflow::machine::event::Event;

use crate::message::{Alarm, Fact, Message, Out, Situation, Step};
use crate::own_journal::OwnJournals;
use crate::workflows::{self, Interpreter};

/// How many jobs a robot runs at once.
pub(crate) const SLOTS: u32 = 3;

/// A run of an effect.
#[derive(Debug)]
struct Running {
    token: u64,
    started_ms: u64,
    result: serde_json::Value,
}

/// One execution.
struct Execution {
    pair: Pair,
    machine: Box<dyn JobMachine>,
    course: Course,
    effects: BTreeMap<EffectPath, Running>,
    unacknowledged: Unacknowledged,
    sent_at: BootInstant,
    /// Whether it ever went on cut off, so that records of it may be written down here.
    was_cut_off: bool,
}

/// The robot of one node.
pub(crate) struct Robot {
    node: NodeId,
    name: String,
    pub(crate) tags: Vec<String>,
    pub(crate) session: RobotSession,
    executions: BTreeMap<JobId, Execution>,
    leader: Option<NodeId>,
    tokens: u64,
    interpreter: Interpreter,
    own: OwnJournals,
}

impl Robot {
    /// A robot in boot number `boot`.
    pub(crate) fn start(
        step: &Step<'_>,
        (node, name, boot): (NodeId, String, u64),
        opens_from: BootInstant,
        interpreter: Interpreter,
        own: OwnJournals,
    ) -> Self {
        let session = RobotSession::new(node, boot, &step.timing, opens_from);
        Self {
            node,
            name,
            tags: Vec::new(),
            session,
            executions: BTreeMap::new(),
            leader: None,
            tokens: 0,
            interpreter,
            own,
        }
    }

    /// Time passed; `leader` is whom this node takes for the leader.
    pub(crate) fn tick(&mut self, step: &mut Step<'_>, leader: Option<NodeId>) {
        let is_new = leader.is_some() && leader != self.leader;
        self.leader = leader;
        let commands = match is_new {
            true => self.session.leader_changed(step.now),
            false => self.session.tick(step.now),
        };
        self.obey(step, commands);
        let jobs: Vec<JobId> = self.executions.keys().copied().collect();
        for job in jobs {
            self.resend(step, job);
            self.carry_out(step, job);
        }
        self.deliver(step);
    }

    /// Brings the group what was written down here, once a leader has confirmed the session.
    fn deliver(&mut self, step: &mut Step<'_>) {
        let Some(session) = self.session.session().filter(|_| self.session.lease_until().is_some()) else { return };
        if self.leader.is_none() {
            return;
        }
        for message in self.own.due(step, session) {
            self.send_up(step, |_| message);
        }
    }

    pub(crate) fn answered(&mut self, step: &mut Step<'_>, answer: BeatAnswer) {
        let commands = self.session.answered(step.now, answer);
        self.obey(step, commands);
    }

    pub(crate) fn down(&mut self, step: &mut Step<'_>, message: WorkDown) {
        match message {
            WorkDown::Assign(assignment) => self.assigned(step, *assignment, None),
            WorkDown::AssignFinishing { assignment, finish_within_ms } => {
                self.assigned(step, *assignment, Some(Duration::from_millis(finish_within_ms)));
            }
            WorkDown::Ask { term, session, pair } => {
                let commands = self.session.asked(step.now, term, session, pair, self.own.is_kept(pair));
                self.obey(step, commands);
            }
            WorkDown::Stop { term, session, pair, cause } => {
                let commands = self.session.stop(step.now, term, session, pair);
                self.obey(step, commands);
                if self.session.session() == Some(session) && self.session.is_stopping(pair) {
                    self.stop(step, pair, cause);
                }
            }
            WorkDown::Ack { session, pair, journal_len, is_over } => {
                if self.session.session() == Some(session) {
                    self.committed(step, pair, journal_len, is_over);
                    self.own.committed(pair, journal_len);
                    if is_over {
                        self.own.forget(step, pair);
                    }
                    self.deliver(step);
                }
            }
            WorkDown::Refused { session, pair } => {
                if self.session.session() == Some(session) {
                    self.own.refused(step, pair);
                    if self.has(pair) {
                        self.end(step, pair, EndKind::Stopped);
                    }
                }
            }
            WorkDown::Journal { .. } => {}
        }
    }

    fn has(&self, pair: Pair) -> bool {
        self.executions.get(&pair.job).is_some_and(|execution| execution.pair == pair)
    }

    fn assigned(&mut self, step: &mut Step<'_>, assignment: Assignment, finish_within: Option<Duration>) {
        let pair = assignment.pair;
        let commands = self.session.assigned(step.now, assignment.term, assignment.session, pair, finish_within);
        let is_ours = self.session.session() == Some(assignment.session) && self.session.is_running(pair);
        let begins = is_ours && !self.executions.contains_key(&pair.job);
        self.obey(step, commands);
        if !begins {
            return;
        }
        let Some(definition) = assignment.definition_text else { return };
        let job = Assigned { pair, definition, input: assignment.input, journal: assignment.journal, finish_within };
        let begun = execution::begin(&self.interpreter, &job, self.node, step.wall, &Pulse::default());
        let (machine, course) = match begun {
            Ok(begun) => begun,
            Err(error) => return step.fact(Fact::Broken(format!("an execution cannot begin: {error}"))),
        };
        let execution = Execution {
            pair,
            machine,
            course,
            effects: BTreeMap::new(),
            unacknowledged: Unacknowledged::default(),
            sent_at: step.now,
            was_cut_off: false,
        };
        self.executions.insert(pair.job, execution);
        self.carry_out(step, pair.job);
    }

    fn stop(&mut self, step: &mut Step<'_>, pair: Pair, cause: StopCause) {
        let Some(execution) = self.executions.get_mut(&pair.job).filter(|execution| execution.pair == pair) else {
            return;
        };
        if execution.course.stop(cause) {
            for path in std::mem::take(&mut execution.effects).into_keys() {
                execution.course.broke_off(&path);
            }
        }
        self.carry_out(step, pair.job);
    }

    fn committed(&mut self, step: &mut Step<'_>, pair: Pair, journal_len: u32, is_over: bool) {
        let Some(execution) = self.executions.get_mut(&pair.job).filter(|execution| execution.pair == pair) else {
            return;
        };
        execution.unacknowledged.acknowledged(journal_len, is_over);
        if is_over {
            return self.end(step, pair, EndKind::Finished);
        }
        execution.course.committed(journal_len);
        if execution.course.has_delivered() {
            execution.course.forgotten();
            self.own.forget(step, pair);
        }
        self.carry_out(step, pair.job);
    }

    /// An effect is over.
    pub(crate) fn effect_over(&mut self, step: &mut Step<'_>, pair: Pair, path: &EffectPath, token: u64) {
        let Some(execution) = self.executions.get_mut(&pair.job).filter(|execution| execution.pair == pair) else {
            return;
        };
        if execution.effects.get(path).is_none_or(|running| running.token != token) {
            return;
        }
        let Some(running) = execution.effects.remove(path) else { return };
        if execution.course.has_left() || !execution.course.wants(path) {
            return;
        }
        let event = Event::EffectEnded {
            path: path.clone(),
            started_ms: running.started_ms,
            at_ms: step.wall.0,
            outcome: fleet_workflow::machine::event::Outcome::Ok(running.result),
            stdout_tail: String::new(),
            stderr_tail: String::new(),
        };
        self.think(step, pair.job, vec![event]);
        self.carry_out(step, pair.job);
    }

    fn think(&mut self, step: &mut Step<'_>, job: JobId, events: Vec<Event>) {
        let Some(execution) = self.executions.get_mut(&job) else { return };
        let heard = execution::hear(&mut *execution.machine, self.node, events, &Pulse::default());
        let taken = heard.and_then(|heard| heard.into_iter().try_for_each(|heard| execution.course.heard(heard)));
        if let Err(error) = taken {
            step.fact(Fact::Broken(format!("an execution cannot think: {error}")));
        }
    }

    fn carry_out(&mut self, step: &mut Step<'_>, job: JobId) {
        let due = match self.executions.get(&job) {
            Some(execution) => execution.course.due_timers(step.wall),
            None => return,
        };
        if !due.is_empty() {
            let at_ms = step.wall.0;
            self.think(step, job, due.into_iter().map(|path| Event::TimerFired { path, at_ms }).collect());
        }
        let Some(execution) = self.executions.get_mut(&job) else { return };
        let acts = match execution.course.next(step.wall) {
            Ok(acts) => acts,
            Err(error) => return step.fact(Fact::Broken(format!("an execution cannot go on: {error}"))),
        };
        let pair = execution.pair;
        let mut is_secured = false;
        for act in acts {
            match act {
                Act::Start(start) => self.begin_effect(step, pair, *start),
                Act::BreakOff(path) => {
                    if let Some(execution) = self.executions.get_mut(&job) {
                        execution.effects.remove(&path);
                        execution.course.broke_off(&path);
                    }
                }
                Act::Send(records) => self.send_records(step, records),
                Act::Secure { from, records } => {
                    if !self.own.write(step, pair, from, records) {
                        return;
                    }
                    if let Some(execution) = self.executions.get_mut(&job) {
                        execution.course.secured();
                    }
                    is_secured = true;
                }
            }
        }
        // What waited for that may begin.
        if is_secured {
            self.carry_out(step, job);
        }
    }

    /// Begins an effect, if the lease allows it by the clock read now.
    fn begin_effect(&mut self, step: &mut Step<'_>, pair: Pair, start: Start) {
        if !self.session.may_act(step.now, pair) {
            return;
        }
        self.tokens += 1;
        let Start { path, effect, .. } = start;
        let result = workflows::result_of(&effect);
        let running = Running { token: self.tokens, started_ms: step.wall.0, result };
        let token = running.token;
        if let Some(execution) = self.executions.get_mut(&pair.job) {
            execution.effects.insert(path.clone(), running);
        }
        step.fact(Fact::EffectBegan { node: self.node, pair, path: path.clone() });
        let longest_us = if step.dice.chance(25) { 3_000_000 } else { 300_000 };
        let delay_us = 1_000 + step.dice.below(longest_us) as u64;
        step.out.push(Out::Wake { delay_us, alarm: Alarm::EffectOver { pair, path, token } });
    }

    fn send_records(&mut self, step: &mut Step<'_>, records: Box<Records>) {
        let job = records.job;
        if let Some(execution) = self.executions.get_mut(&job) {
            execution.unacknowledged.sending(&records);
            execution.sent_at = step.now;
        }
        self.send_up(step, |session| WorkUp::Records { session, records });
    }

    /// Sends records again that nobody answered for so long that the stream would have been dialled anew.
    fn resend(&mut self, step: &mut Step<'_>, job: JobId) {
        let Some(execution) = self.executions.get_mut(&job) else { return };
        let Some(records) = execution.unacknowledged.batch().cloned().map(Box::new) else { return };
        if step.now.saturating_since(execution.sent_at) < step.timing.robot_lease / 4 {
            return;
        }
        execution.sent_at = step.now;
        self.send_up(step, |session| WorkUp::Records { session, records });
    }

    fn send_up(&self, step: &mut Step<'_>, message: impl FnOnce(fleet_core::SessionId) -> WorkUp) {
        if let (Some(leader), Some(session)) = (self.leader, self.session.session()) {
            step.send(leader, Message::Up(message(session)));
        }
    }

    /// Nothing of `pair` runs any more.
    fn end(&mut self, step: &mut Step<'_>, pair: Pair, how: EndKind) {
        let ended = self.executions.remove(&pair.job);
        if ended.is_some_and(|execution| execution.was_cut_off) && how != EndKind::Finished {
            self.own.keep(pair);
        }
        let commands = self.session.ended(step.now, pair, how);
        self.obey(step, commands);
    }

    fn obey(&mut self, step: &mut Step<'_>, commands: Vec<RobotCommand>) {
        for command in commands {
            match command {
                RobotCommand::SendBeat(beat) => {
                    if let Some(leader) = self.leader {
                        let report = self.report();
                        step.send(leader, Message::Heartbeat(Heartbeat { beat, report }));
                    }
                }
                // Begun with the assignment's content, and stopped with the stop's cause.
                RobotCommand::Start(_) | RobotCommand::Stop(_) => {}
                RobotCommand::Abort(pair) => self.end(step, pair, EndKind::Stopped),
                RobotCommand::SendStopped { session, pair } => {
                    self.send_up(step, |_| WorkUp::Stopped { session, pair });
                }
                RobotCommand::SendGone { session, pair } => self.send_up(step, |_| WorkUp::Gone { session, pair }),
                RobotCommand::RunOn(pair) => self.run_on(step, pair),
                RobotCommand::Rejoin(pair) => self.rejoin(step, pair),
                RobotCommand::SendReturned { session, pair } => {
                    self.send_up(step, |_| WorkUp::Returned { session, pair });
                }
            }
        }
    }

    /// The job of `pair` goes on cut off.
    fn run_on(&mut self, step: &mut Step<'_>, pair: Pair) {
        match self.executions.get_mut(&pair.job).filter(|execution| execution.pair == pair) {
            Some(execution) => {
                execution.course.cut_off();
                execution.was_cut_off = true;
                self.carry_out(step, pair.job);
            }
            None => self.end(step, pair, EndKind::HandedBack),
        }
    }

    /// It is bound to the session under way: effects wait for commits again.
    fn rejoin(&mut self, step: &mut Step<'_>, pair: Pair) {
        let Some(execution) = self.executions.get_mut(&pair.job).filter(|execution| execution.pair == pair) else {
            return;
        };
        execution.course.rejoined();
        execution.sent_at = BootInstant::default();
        step.fact(Fact::Seen(Situation::JobRejoined));
        self.resend(step, pair.job);
        self.carry_out(step, pair.job);
    }

    fn report(&self) -> RobotReport {
        RobotReport {
            node_name: self.name.clone(),
            slots: SLOTS,
            tags: self.tags.clone(),
            capabilities: vec!["http".to_owned(), "shell".to_owned()],
            is_draining: false,
        }
    }

    /// The pairs under which the robot may act at `now`. A job that it has let go of by its own records is over here, even
    /// if it does not know yet that they are committed.
    pub(crate) fn rights(&self, now: BootInstant) -> Vec<Pair> {
        let has_left = |pair: &Pair| self.has(*pair) && self.executions[&pair.job].course.has_left();
        self.session.held().filter(|pair| self.session.may_act(now, *pair) && !has_left(pair)).collect()
    }
}
