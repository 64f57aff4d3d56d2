//! A node's scheduler: carries out what the production decisions of a leadership ([`Leading`]) say.

use fleet_core::{BootInstant, JobId, NodeId, SessionId};
use fleet_node::link::{Assignment, Heartbeat, WorkDown, WorkUp};
use fleet_node::placement::Assigned;
use fleet_node::session::{BeatAnswer, LeaderCommand, LeaderTerm, Pair, ReleaseCause};
use fleet_node::{Leading, Seats, WorkOrder};
use fleet_replication::command::{self, Action, Next, Outcome};
use fleet_replication::fsm::Event;
use fleet_store::record::{Content, Payload, StopCause};
use fleet_store::state::jobs;
use fleet_store::{StateRead, StateReader};
use tokio::sync::mpsc;

use crate::bugs::PlantedBug;
use crate::group::{GroupPart, Question};
use crate::message::{Message, Step};

/// Messages to robots that wait within one step.
const WAITING_MAX: usize = 4_096;
/// How much too early leases are taken for over, where that bug is planted.
const TOO_EARLY: std::time::Duration = std::time::Duration::from_millis(1_000);

/// Who waits for the outcome of a proposal.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Nobody,
    Client(u64),
    Assigned(LeaderTerm, Assigned),
    SubmitAssigned(u64, Option<(LeaderTerm, Assigned)>),
    StopProposed(LeaderTerm, JobId),
    Fired,
    Courier(u64),
    Records { session: SessionId, pair: Pair, leaves: bool },
}

/// The scheduler of one node.
pub(crate) struct Scheduler {
    seats: Seats,
    pub(crate) leading: Option<Leading>,
    is_takeover_known: bool,
    answers: (mpsc::Sender<BeatAnswer>, mpsc::Receiver<BeatAnswer>),
    orders: (mpsc::Sender<WorkOrder>, mpsc::Receiver<WorkOrder>),
}

impl Scheduler {
    pub(crate) fn new() -> Self {
        Self {
            seats: Seats::default(),
            leading: None,
            is_takeover_known: false,
            answers: mpsc::channel(WAITING_MAX),
            orders: mpsc::channel(WAITING_MAX),
        }
    }

    fn term(&self) -> Option<LeaderTerm> {
        self.leading.as_ref().map(|leading| leading.sessions.term())
    }

    /// The group's standing may have changed.
    pub(crate) fn follow(&mut self, step: &mut Step<'_>, group: &mut GroupPart) {
        if group.leader(step) != Some(group.node) {
            self.seats.close_all();
        }
        let serving = group.serving.map(|term| LeaderTerm { epoch: 1, term });
        if serving == self.term() {
            return;
        }
        self.leading = None;
        let Some(term) = serving else { return };
        let reader = group.reader();
        let mut leading = Leading::begin(term, &step.timing, &reader).expect("the state can be read");
        while leading.load(&reader).expect("the state can be read") {}
        self.leading = Some(leading);
        self.is_takeover_known = false;
        group.ask_takeover(step);
    }

    pub(crate) fn tick(&mut self, step: &mut Step<'_>, group: &mut GroupPart) {
        self.follow(step, group);
        if self.leading.is_some() && !self.is_takeover_known {
            group.ask_takeover(step);
        }
        let Some(leading) = &mut self.leading else { return };
        let commands = leading.sessions.tick(lease_clock(step));
        let term = leading.sessions.term();
        for job in leading.drained_late(step.wall) {
            let stop = Action::Stop { job, cause: StopCause::Drain };
            group.propose(step, stop, Reply::StopProposed(term, job));
        }
        if leading.wants_look() {
            leading.look_again(&group.reader()).expect("the state can be read");
        }
        if leading.begin_firing(step.wall) {
            group.propose(step, Action::FireTimers, Reply::Fired);
        }
        self.obey(step, group, commands);
    }

    pub(crate) fn takeover(&mut self, term: u64, latest: Option<BootInstant>) {
        if let (Some(leading), Some(latest)) = (&mut self.leading, latest)
            && leading.sessions.term().term == term
        {
            leading.sessions.takeover_known(latest);
            self.is_takeover_known = true;
        }
    }

    pub(crate) fn applied(&mut self, step: &mut Step<'_>, group: &mut GroupPart, events: &[Event]) {
        let Some(leading) = &mut self.leading else { return };
        let reader = group.reader();
        let mut commands = Vec::new();
        for event in events {
            commands.extend(leading.applied(step.now, &reader, event).expect("the state can be read"));
        }
        drop(reader);
        self.obey(step, group, commands);
    }

    pub(crate) fn confirmed(
        &mut self,
        step: &mut Step<'_>,
        group: &mut GroupPart,
        term: u64,
        round: u64,
        is_confirmed: bool,
    ) {
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.sessions.term().term == term) else {
            return;
        };
        let commands = match is_confirmed {
            true => leading.sessions.confirmed(lease_clock(step), round),
            false => leading.sessions.unconfirmed(round),
        };
        self.obey(step, group, commands);
    }

    pub(crate) fn heard(&mut self, step: &mut Step<'_>, group: &mut GroupPart, heartbeat: Heartbeat) {
        let node = heartbeat.beat.session.node;
        if group.leader(step) == Some(group.node) {
            self.seats.open_heartbeats(node, 1, self.answers.0.clone());
            self.seats.open_work(node, 1, self.orders.0.clone());
        }
        let Some(leading) = &mut self.leading else { return };
        self.seats.report(node, heartbeat.report);
        let commands = leading.sessions.heard(step.now, heartbeat.beat);
        self.obey(step, group, commands);
    }

    pub(crate) fn up(&mut self, step: &mut Step<'_>, group: &mut GroupPart, message: WorkUp) {
        if let WorkUp::Records { session, records } = message {
            let pair = Pair { job: records.job, fence: records.fence };
            let leaves = records.next != Next::Continue;
            return group.propose(step, Action::Record(records), Reply::Records { session, pair, leaves });
        }
        let Some(leading) = &mut self.leading else { return };
        let commands = match message {
            WorkUp::Stopped { session, pair } => leading.sessions.stopped(step.now, session, pair),
            WorkUp::Gone { session, pair } => leading.sessions.gone(step.now, session, pair),
            WorkUp::Returned { session, pair } => leading.sessions.returned(step.now, session, pair),
            WorkUp::NeedDefinition { session, pair } => {
                let term = leading.sessions.term();
                self.seats.order(session.node, WorkOrder::Assign { term, session, pair, with_text: true });
                Vec::new()
            }
            WorkUp::Records { .. } => Vec::new(),
        };
        self.obey(step, group, commands);
    }

    /// A proposal of the scheduler or on behalf of a robot has come to an end.
    pub(crate) fn proposed(
        &mut self,
        step: &mut Step<'_>,
        group: &mut GroupPart,
        reply: Reply,
        outcome: Option<Outcome>,
    ) {
        let current = self.term();
        match reply {
            Reply::Assigned(term, assigned) | Reply::SubmitAssigned(_, Some((term, assigned))) => {
                if let Some(leading) = self.leading.as_mut().filter(|_| current == Some(term)) {
                    leading.proposed(&[(assigned, matches!(outcome, Some(Outcome::Assigned { .. })))]);
                }
            }
            Reply::StopProposed(term, job) => {
                if let Some(leading) = self.leading.as_mut().filter(|_| current == Some(term)) {
                    leading.stop_proposed(job);
                }
            }
            Reply::Fired => {
                if let Some(leading) = &mut self.leading {
                    leading.fired();
                }
            }
            Reply::Records { session, pair, leaves } => {
                let message = match outcome {
                    Some(Outcome::Recorded { length, state }) => {
                        let is_over = leaves || state.is_ended();
                        WorkDown::Ack { session, pair, journal_len: length, is_over }
                    }
                    Some(_) => WorkDown::Refused { session, pair },
                    // The stream ends; the robot sends again what it was not answered.
                    None => return,
                };
                step.send(session.node, Message::Down(Box::new(message)));
            }
            Reply::Nobody | Reply::Client(_) | Reply::Courier(_) | Reply::SubmitAssigned(_, None) => {}
        }
        self.place(step, group);
    }

    /// Has a job accepted; where a robot is free, it goes there in the same commit.
    pub(crate) fn submit(
        &mut self,
        step: &mut Step<'_>,
        group: &mut GroupPart,
        number: u64,
        id: fleet_store::record::CommandId,
        mut submission: Box<command::Submission>,
    ) {
        let job = submission.job;
        let offered = self.leading.as_mut().and_then(|leading| {
            leading.lower_needs(&mut submission);
            let session = leading.offer(&submission, &self.seats)?;
            Some((leading.sessions.term(), Assigned { job, attempt: 0, session }))
        });
        let action = match offered {
            Some((_, Assigned { session, .. })) => Action::SubmitAssigned { submission, session },
            None => Action::Submit(submission),
        };
        group.propose_as(step, id, action, Reply::SubmitAssigned(number, offered));
    }

    fn place(&mut self, step: &mut Step<'_>, group: &mut GroupPart) {
        let Some(leading) = &mut self.leading else { return };
        let term = leading.sessions.term();
        for assigned in leading.place(&self.seats) {
            let Assigned { job, attempt, session } = assigned;
            group.propose(step, Action::Assign { job, attempt, session }, Reply::Assigned(term, assigned));
        }
    }

    fn obey(&mut self, step: &mut Step<'_>, group: &mut GroupPart, commands: Vec<LeaderCommand>) {
        for command in commands {
            let Some(leading) = &self.leading else { return };
            let term = leading.sessions.term();
            match command {
                LeaderCommand::ConfirmLeadership { round } => {
                    group.confirm(step, Question::Sessions { term: term.term, round });
                }
                LeaderCommand::Answer(answer) => self.seats.answer(answer),
                LeaderCommand::Opened { .. } | LeaderCommand::Closed { .. } => {}
                LeaderCommand::SendAssign { session, pair } => {
                    self.seats.order(session.node, WorkOrder::Assign { term, session, pair, with_text: false });
                }
                LeaderCommand::SendStop { session, pair } => {
                    let cause = leading.stop_cause(pair.job);
                    self.seats.order(session.node, WorkOrder::Stop { term, session, pair, cause });
                }
                LeaderCommand::SendAsk { session, pair } => {
                    self.seats.order(session.node, WorkOrder::Ask { term, session, pair });
                }
                LeaderCommand::SendRefused { session, pair } => {
                    self.seats.order(session.node, WorkOrder::Refuse { session, pair });
                }
                LeaderCommand::Rebind { session, pair: Pair { job, fence } } => {
                    group.propose(step, Action::Rebind { job, fence, session }, Reply::Nobody);
                }
                LeaderCommand::NoteAbsence { pair: Pair { job, fence }, absence } => {
                    group.propose(step, Action::NoteAbsence { job, fence, absence }, Reply::Nobody);
                }
                LeaderCommand::Release { pair, cause } => group.propose(step, release(pair, cause), Reply::Nobody),
            }
        }
        self.send_down(step, group);
        self.place(step, group);
    }

    /// Sends what went to the robots' streams.
    fn send_down(&mut self, step: &mut Step<'_>, group: &GroupPart) {
        while let Ok(answer) = self.answers.1.try_recv() {
            step.send(answer.session.node, Message::BeatAnswer(answer));
        }
        while let Ok(order) = self.orders.1.try_recv() {
            let message = match order {
                WorkOrder::Stop { term, session, pair, cause } => {
                    Some((session.node, WorkDown::Stop { term, session, pair, cause }))
                }
                WorkOrder::Ask { term, session, pair } => Some((session.node, WorkDown::Ask { term, session, pair })),
                WorkOrder::Refuse { session, pair } => Some((session.node, WorkDown::Refused { session, pair })),
                WorkOrder::Assign { term, session, pair, .. } => {
                    load(&group.reader(), term, session, pair).map(|loaded| (session.node, loaded))
                }
            };
            if let Some((node, message)) = message {
                step.send(node, Message::Down(Box::new(message)));
            }
        }
    }
}

/// The lease clock of the leader's sessions.
fn lease_clock(step: &Step<'_>) -> BootInstant {
    match step.has(PlantedBug::ReassignBeforeLeaseEnd) {
        true => step.now.saturating_add(TOO_EARLY),
        false => step.now,
    }
}

fn release(Pair { job, fence }: Pair, cause: ReleaseCause) -> Action {
    let cause = match cause {
        ReleaseCause::Absent { number } => return Action::ReleaseAbsent { job, fence, number },
        ReleaseCause::Stopped => command::ReleaseCause::Stopped,
        ReleaseCause::Gone => command::ReleaseCause::Gone,
        ReleaseCause::Superseded | ReleaseCause::Lost => command::ReleaseCause::Lost,
    };
    Action::Release { job, fence, cause }
}

/// The assignment of `pair` with all it takes; none if it is over meanwhile.
fn load(reader: &StateReader, term: LeaderTerm, session: SessionId, pair: Pair) -> Option<WorkDown> {
    let job = read(jobs::job(reader, pair.job))?;
    job.assignment.filter(|assignment| assignment.fence == pair.fence)?;
    let spec = read(jobs::spec(reader, pair.job))?;
    let text = bytes(read(jobs::definition(reader, spec.definition))?);
    let input = bytes(read(jobs::input(reader, pair.job))?);
    let journal = jobs::journal(reader, pair.job, 0, usize::MAX).expect("the state can be read");
    let assignment = Box::new(Assignment {
        term,
        session,
        pair,
        definition: spec.definition,
        definition_text: Some(text),
        input,
        interpreter: spec.interpreter,
        journal: journal.into_iter().map(|record| bytes(record.event)).collect(),
        journal_len: job.journal_length,
    });
    Some(match spec.finish_within_ms {
        None => WorkDown::Assign(assignment),
        Some(finish_within_ms) => WorkDown::AssignFinishing { assignment, finish_within_ms },
    })
}

fn read<T>(row: Result<Option<T>, fleet_store::Error>) -> Option<T> {
    row.expect("the state can be read")
}

fn bytes(content: Content) -> Payload {
    match content {
        Content::Inline(payload) => payload,
        Content::Blob { .. } => unreachable!("nothing in the simulation is large enough for a blob"),
    }
}

/// The nodes that a state knows.
pub(crate) fn nodes_in(reader: &impl StateRead) -> Vec<NodeId> {
    let nodes = fleet_store::state::members::nodes(reader).expect("the state can be read");
    nodes.into_iter().map(|node| node.id).collect()
}
