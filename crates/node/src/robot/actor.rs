//! The robot's actor: plumbing between the session machine, the link and the executions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use ractor_cluster::RactorMessage;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinHandle;

use fleet_core::timing::Timing;
use fleet_core::{BootInstant, NodeId, SessionId};
use fleet_replication::command::{Next, Records};
use fleet_store::Evidence;
use fleet_store::record::{JournalRecord, StopCause};

use super::definitions::Definitions;
use super::jobs::{JobLease, Jobs};
use super::kept::Kept;
use super::link::{self, Link};
use crate::execution::course::batch_length;
use crate::execution::task::Surroundings;
use crate::link::{Heartbeat, RobotReport, RobotStreams, WorkDown, WorkUp};
use crate::ports::{GroupStanding, Lease, RobotLink};
use crate::scheduler::LinkServer;
use crate::session::{BeatAnswer, EndKind, Pair, RobotCommand, RobotSession};

/// Ticks in one heartbeat interval.
const TICKS_PER_BEAT: u32 = 4;

/// What the robot is told.
#[derive(Debug, RactorMessage)]
pub(crate) enum RobotMessage {
    Tick {
        /// Whether the robots of the site send at this one.
        is_shared: bool,
    },
    Standing(GroupStanding),
    Dialled {
        number: u64,
        streams: Option<Box<RobotStreams>>,
    },
    Unlinked {
        number: u64,
    },
    Answer {
        number: u64,
        answer: BeatAnswer,
    },
    Down {
        message: Box<WorkDown>,
        permit: OwnedSemaphorePermit,
    },
    Records(Box<Records>),
    /// A batch of a journal to deliver.
    Kept {
        pair: Pair,
        from: u32,
        records: Vec<JournalRecord>,
    },
    /// The group refused a journal of so many records, which is kept as evidence; so many earlier ones gave way.
    Refused {
        records: usize,
        dropped: usize,
    },
    Ended {
        pair: Pair,
        how: EndKind,
    },
    TakeNoMore(bool),
    StopAll(StopCause),
    Observe(RpcReplyPort<RobotObservation>),
}

/// What the robot shows of itself.
#[derive(Clone, Debug, Serialize)]
pub struct RobotObservation {
    /// Its session, if it has one.
    pub session: Option<SessionId>,
    /// The leader it is linked to.
    pub linked_to: Option<NodeId>,
    /// Jobs it has.
    pub jobs: usize,
    /// Its slots.
    pub slots: u32,
    /// Whether it takes no new work.
    pub is_draining: bool,
    /// Journals written down while it was cut off that are still to be delivered.
    pub kept_journals: usize,
    /// Records written down while it was cut off that the group refused, since the robot was started.
    pub refused_records: usize,
    /// Refused journals that gave way to later ones, since the robot was started.
    pub dropped_journals: usize,
}

/// What the robot is made of.
pub(crate) struct RobotArguments {
    pub(crate) node: NodeId,
    pub(crate) boot: u64,
    pub(crate) timing: Timing,
    pub(crate) report: RobotReport,
    pub(crate) around: Arc<Surroundings>,
    pub(crate) port: Arc<dyn RobotLink>,
    pub(crate) server: LinkServer,
    pub(crate) standing: watch::Receiver<GroupStanding>,
    /// No session opens before this.
    pub(crate) opens_from: BootInstant,
    /// The last session number used in this boot, kept over restarts of the actor.
    pub(crate) number_last: Arc<AtomicU64>,
    /// Whether no guard of the node's last boot can be alive. What was not so at the start is never taken to be so later:
    /// guards of this boot hold the same lock. That costs time (the leader waits for the bound of a job's absence) and
    /// no more. Guards of this boot end what they hold when their pipe closes; a robot that is started again waits a lease.
    pub(crate) guards_gone: bool,
}

pub(crate) struct RobotState {
    arguments: Arc<RobotArguments>,
    report: RobotReport,
    session: RobotSession,
    jobs: Jobs,
    kept: Kept,
    refused_records: usize,
    dropped_journals: usize,
    definitions: Definitions,
    /// Whether everything was told to stop: what is assigned after that is given back.
    is_stopping: bool,
    leader: Option<NodeId>,
    link: Option<Link>,
    link_number: u64,
    dials_from: BootInstant,
    answered_at: BootInstant,
    /// The lease of the session under way; each session has its own, so that none revives.
    lease: (Option<SessionId>, watch::Sender<BootInstant>),
    tasks: Vec<JoinHandle<()>>,
}

/// The robot.
pub(crate) struct Robot;

impl Actor for Robot {
    type Msg = RobotMessage;
    type State = RobotState;
    type Arguments = Arc<RobotArguments>;

    async fn pre_start(
        &self,
        myself: ActorRef<RobotMessage>,
        arguments: Arc<RobotArguments>,
    ) -> Result<RobotState, ActorProcessingErr> {
        let tick = arguments.timing.robot_heartbeat() / TICKS_PER_BEAT;
        let clock = Arc::clone(&arguments.around.clock);
        let tasks = vec![
            tokio::spawn(crate::tasks::tick_by_clock(myself.clone(), clock, tick, |number| RobotMessage::Tick {
                is_shared: number.is_multiple_of(u64::from(TICKS_PER_BEAT)),
            })),
            tokio::spawn(crate::tasks::follow(myself, arguments.standing.clone(), RobotMessage::Standing)),
        ];
        let now = arguments.around.clock.boot_now();
        let number_last = arguments.number_last.load(Ordering::SeqCst);
        // A robot that is started again cannot know what its last life left behind: it waits a lease.
        let opens_from =
            if number_last == 0 { arguments.opens_from } else { now.saturating_add(arguments.timing.robot_lease) };
        let mut kept = Kept::default();
        for pair in arguments.around.own_journal.kept().await? {
            kept.add(pair);
        }
        let session = RobotSession::new(arguments.node, arguments.boot, &arguments.timing, opens_from);
        Ok(RobotState {
            report: arguments.report.clone(),
            session: session.after_number(number_last),
            jobs: Jobs::default(),
            kept,
            refused_records: 0,
            dropped_journals: 0,
            definitions: Definitions::default(),
            is_stopping: false,
            leader: None,
            link: None,
            link_number: 0,
            dials_from: now,
            answered_at: now,
            lease: (None, watch::channel(BootInstant::default()).0),
            arguments,
            tasks,
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<RobotMessage>,
        message: RobotMessage,
        state: &mut RobotState,
    ) -> Result<(), ActorProcessingErr> {
        state.handle(&myself, message);
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<RobotMessage>, state: &mut RobotState) -> Result<(), ActorProcessingErr> {
        for task in &state.tasks {
            task.abort();
        }
        Ok(())
    }
}

impl RobotState {
    fn now(&self) -> BootInstant {
        self.arguments.around.clock.boot_now()
    }

    fn handle(&mut self, myself: &ActorRef<RobotMessage>, message: RobotMessage) {
        let now = self.now();
        match message {
            RobotMessage::Tick { is_shared } => self.tick(myself, is_shared, now),
            RobotMessage::Standing(standing) => self.follow(myself, standing, now),
            RobotMessage::Dialled { number, streams } => self.dialled(myself, number, streams, now),
            RobotMessage::Unlinked { number } => self.unlink(number, now),
            RobotMessage::Answer { number, answer } => {
                if self.link.as_ref().is_some_and(|link| link.number == number) {
                    self.answered_at = now;
                }
                let commands = self.session.answered(now, answer);
                self.obey(commands);
            }
            RobotMessage::Down { message, permit } => {
                self.down(myself, *message, now);
                drop(permit);
            }
            RobotMessage::Records(records) => self.send_records(records),
            RobotMessage::Kept { pair, from, records } => self.deliver(pair, from, records),
            RobotMessage::Refused { records, dropped } => {
                self.refused_records += records;
                self.dropped_journals += dropped;
            }
            RobotMessage::Ended { pair, how } => {
                if self.jobs.ended(pair) && how != EndKind::Finished {
                    self.kept.add(pair);
                }
                let commands = self.session.ended(now, pair, how);
                self.obey(commands);
            }
            RobotMessage::TakeNoMore(is_draining) => self.report.is_draining = is_draining,
            RobotMessage::StopAll(cause) => {
                self.is_stopping = true;
                self.jobs.stop_all(cause);
                for pair in self.jobs.forget_all_incomplete() {
                    self.give_back(pair, now);
                }
            }
            RobotMessage::Observe(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(self.observe());
            }
        }
    }

    fn observe(&self) -> RobotObservation {
        RobotObservation {
            session: self.session.session(),
            linked_to: self.link.as_ref().and(self.leader),
            jobs: self.jobs.len(),
            slots: self.report.slots,
            is_draining: self.report.is_draining,
            kept_journals: self.kept.len(),
            refused_records: self.refused_records,
            dropped_journals: self.dropped_journals,
        }
    }

    fn tick(&mut self, myself: &ActorRef<RobotMessage>, is_shared: bool, now: BootInstant) {
        let lease = self.arguments.timing.robot_lease;
        if self.link.is_some() && now.saturating_since(self.answered_at) > lease / 2 {
            self.unlink(self.link_number, now);
        }
        self.dial_if_due(myself, now);
        let commands = if is_shared { self.session.meet(now) } else { self.session.tick(now) };
        self.obey(commands);
        for pair in self.jobs.overdue(now, lease / 2) {
            self.ask_again(pair);
        }
        self.jobs.tell_positions();
        self.read_kept(myself, now);
    }

    /// Reads what is to be delivered next, once a leader has confirmed the session.
    fn read_kept(&mut self, myself: &ActorRef<RobotMessage>, now: BootInstant) {
        if self.link.is_none() || self.session.lease_until().is_none() {
            return;
        }
        for (pair, from) in self.kept.due(now, self.arguments.timing.robot_lease) {
            let (reading, myself) = (self.arguments.around.own_journal.read(pair, from), myself.clone());
            tokio::spawn(async move {
                match reading.await {
                    Ok((from, records)) => link::report(&myself, RobotMessage::Kept { pair, from, records }),
                    Err(error) => not_kept(pair, &error),
                }
            });
        }
    }

    /// Sends a batch of a journal up, or forgets the journal if nothing is left of it.
    fn deliver(&mut self, Pair { job, fence }: Pair, from: u32, mut records: Vec<JournalRecord>) {
        if records.is_empty() {
            return self.forget(Pair { job, fence });
        }
        let Some(session) = self.session.session() else { return };
        records.truncate(batch_length(&records));
        let records = Box::new(Records { job, fence, from, records, next: Next::Continue });
        self.send_up(WorkUp::Records { session, records });
    }

    /// The group has all of a journal: what is left of the right is answered when the leader asks.
    fn forget(&mut self, pair: Pair) {
        if self.kept.remove(pair) {
            let forgetting = self.arguments.around.own_journal.forget(pair);
            tokio::spawn(async move {
                if let Err(error) = forgetting.await {
                    not_kept(pair, &error);
                }
            });
        }
    }

    /// The group has given the job of `pair` to somebody else: what was written down here is evidence of what was done.
    fn keep_evidence(&mut self, myself: &ActorRef<RobotMessage>, pair: Pair) {
        if self.kept.remove(pair) {
            let refusing = self.arguments.around.own_journal.refuse(pair, self.arguments.around.clock.now());
            let myself = myself.clone();
            tokio::spawn(async move {
                match refusing.await {
                    Ok(Evidence { records, dropped }) => {
                        tracing::warn!(job = %pair.job, fence = %pair.fence, records, dropped, "the group refused what a job cut off did: it was given to another robot; the records are kept here");
                        link::report(&myself, RobotMessage::Refused { records, dropped });
                    }
                    Err(error) => not_kept(pair, &error),
                }
            });
        }
    }

    fn ask_again(&mut self, pair: Pair) {
        if let Some(session) = self.session.session() {
            self.send_up(WorkUp::NeedDefinition { session, pair });
        }
    }

    fn follow(&mut self, myself: &ActorRef<RobotMessage>, standing: GroupStanding, now: BootInstant) {
        // The leader of this node serves in process; a change of its term is a new leader, too.
        let is_local_change = standing.leader == Some(self.arguments.node);
        if standing.leader != self.leader || is_local_change {
            self.leader = standing.leader;
            self.link = None;
            self.dials_from = now;
            self.dial_if_due(myself, now);
        }
    }

    fn dial_if_due(&mut self, myself: &ActorRef<RobotMessage>, now: BootInstant) {
        let Some(leader) = self.leader.filter(|_| self.link.is_none() && now >= self.dials_from) else { return };
        self.link_number += 1;
        self.dials_from = now.saturating_add(self.arguments.timing.robot_heartbeat());
        let local = (leader == self.arguments.node).then(|| self.arguments.server.clone());
        link::dial(myself.clone(), &self.arguments.port, local, leader, self.link_number);
    }

    fn dialled(
        &mut self,
        myself: &ActorRef<RobotMessage>,
        number: u64,
        streams: Option<Box<RobotStreams>>,
        now: BootInstant,
    ) {
        let Some(streams) = streams.filter(|_| number == self.link_number) else { return };
        self.link = Some(link::open(myself, number, *streams));
        self.answered_at = now;
        let commands = self.session.leader_changed(now);
        self.obey(commands);
        for records in self.jobs.unacknowledged() {
            self.send_records(Box::new(records));
        }
    }

    fn unlink(&mut self, number: u64, now: BootInstant) {
        if self.link.as_ref().is_some_and(|link| link.number == number) {
            self.link = None;
            self.dials_from = self.dials_from.max(now);
        }
    }

    fn down(&mut self, myself: &ActorRef<RobotMessage>, message: WorkDown, now: BootInstant) {
        match message {
            WorkDown::Assign(assignment) => self.assigned(myself, *assignment, None, now),
            WorkDown::AssignFinishing { assignment, finish_within_ms } => {
                self.assigned(myself, *assignment, Some(Duration::from_millis(finish_within_ms)), now);
            }
            WorkDown::Ask { term, session, pair } => {
                // While a guard of the last boot may hold a process of a job, it is not over here.
                let is_kept = self.kept.has(pair) || !self.arguments.guards_gone;
                let commands = self.session.asked(now, term, session, pair, is_kept);
                self.obey(commands);
            }
            WorkDown::Journal { session, pair, first, records } => {
                if self.session.session() == Some(session) {
                    self.jobs.take_in_journal(pair, first, records);
                    self.start_if_complete(myself, pair);
                }
            }
            WorkDown::Stop { term, session, pair, cause } => {
                let commands = self.session.stop(now, term, session, pair);
                self.obey(commands);
                if self.session.session() == Some(session) && self.session.is_stopping(pair) {
                    self.stop(pair, cause, now);
                }
            }
            WorkDown::Ack { session, pair, journal_len, is_over } => {
                if self.session.session() == Some(session) {
                    self.jobs.committed(pair, journal_len, is_over);
                    self.kept.committed(pair, journal_len);
                    if is_over {
                        self.forget(pair);
                    }
                    self.read_kept(myself, now);
                }
            }
            WorkDown::Refused { session, pair } => {
                if self.session.session() == Some(session) {
                    self.keep_evidence(myself, pair);
                    self.refused(pair, now);
                }
            }
        }
    }

    fn assigned(
        &mut self,
        myself: &ActorRef<RobotMessage>,
        assignment: crate::link::Assignment,
        finish_within: Option<Duration>,
        now: BootInstant,
    ) {
        let (pair, digest) = (assignment.pair, assignment.definition);
        let commands = self.session.assigned(now, assignment.term, assignment.session, pair, finish_within);
        let is_here = self.session.session() == Some(assignment.session) && self.session.is_running(pair);
        // What runs already has all that is in the assignment.
        let is_ours = is_here && !self.jobs.has(pair);
        if is_ours && self.is_stopping {
            self.obey(commands);
            return self.give_back(pair, now);
        }
        if is_ours {
            let session = assignment.session;
            if let Some(text) = &assignment.definition_text {
                self.definitions.keep(digest, text.clone());
                self.jobs.take_in_definition(digest, text);
            }
            let definition = self.definitions.get(&digest);
            let is_missing = definition.is_none();
            self.jobs.take_in(assignment, finish_within, definition, now);
            if is_missing {
                self.send_up(WorkUp::NeedDefinition { session, pair });
            }
        }
        self.obey(commands);
        if is_ours {
            self.start_if_complete(myself, pair);
        }
    }

    fn start_if_complete(&mut self, myself: &ActorRef<RobotMessage>, pair: Pair) {
        if let Some(job) = self.jobs.complete(pair.job) {
            let (lease, keeper) = match job.finish_within {
                None => (self.lease(), None),
                Some(_) => {
                    let (keeper, end) = JobLease::until(self.session.acts_until(job.pair));
                    (Lease::new(end, Arc::clone(&self.arguments.around.clock)), Some(keeper))
                }
            };
            self.jobs.start(myself, job, &self.arguments.around, lease, keeper);
        }
    }

    /// Gives back an assignment of which nothing has begun.
    fn give_back(&mut self, pair: Pair, now: BootInstant) {
        let commands = self.session.ended(now, pair, EndKind::HandedBack);
        self.obey(commands);
    }

    /// Stops what runs of `pair`; what has not begun is over at once.
    fn stop(&mut self, pair: Pair, cause: StopCause, now: BootInstant) {
        if !self.jobs.stop(pair, cause) && self.jobs.forget_incomplete(pair) {
            let commands = self.session.ended(now, pair, EndKind::Stopped);
            self.obey(commands);
        }
    }

    /// The group does not know this right any more.
    fn refused(&mut self, pair: Pair, now: BootInstant) {
        if self.jobs.abort(pair) {
            let commands = self.session.ended(now, pair, EndKind::Finished);
            self.obey(commands);
        }
    }

    fn send_records(&mut self, records: Box<Records>) {
        if self.jobs.sending(&records)
            && let Some(session) = self.session.session()
        {
            self.send_up(WorkUp::Records { session, records });
        }
    }

    fn send_up(&mut self, message: WorkUp) {
        let is_sent = self.link.as_ref().is_some_and(|link| link.send_work(message));
        if !is_sent && self.link.is_some() {
            // Broken or stuck: what counts is sent again on the next link.
            self.link = None;
        }
    }

    /// The lease of the session under way, kept up to date.
    fn lease(&mut self) -> Lease {
        Lease::new(self.lease.1.subscribe(), Arc::clone(&self.arguments.around.clock))
    }

    fn renew_lease(&mut self) {
        let session = self.session.session();
        if self.lease.0 != session {
            self.lease.1.send_replace(BootInstant::default());
            self.lease = (session, watch::channel(BootInstant::default()).0);
            if let Some(session) = session {
                self.arguments.number_last.fetch_max(session.number, Ordering::SeqCst);
            }
        }
        let until = self.session.lease_until().unwrap_or_default();
        self.lease.1.send_if_modified(|end| {
            let is_later = until > *end;
            *end = until.max(*end);
            is_later
        });
        self.jobs.renew_leases(|pair| self.session.acts_until(pair));
    }

    fn obey(&mut self, commands: Vec<RobotCommand>) {
        self.renew_lease();
        let now = self.now();
        for command in commands {
            match command {
                RobotCommand::SendBeat(beat) => {
                    if let Some(link) = &self.link {
                        link.send_heartbeat(Heartbeat { beat, report: self.report.clone() });
                    }
                }
                // Begun with the assignment's content, and stopped with the stop's cause.
                RobotCommand::Start(_) | RobotCommand::Stop(_) => {}
                RobotCommand::Abort(pair) => {
                    if self.jobs.abort(pair) {
                        let more = self.session.ended(now, pair, EndKind::Stopped);
                        self.obey(more);
                    }
                }
                RobotCommand::RunOn(pair) => {
                    if !self.jobs.set_cut_off(pair, true) {
                        self.jobs.forget_incomplete(pair);
                        let more = self.session.ended(now, pair, EndKind::HandedBack);
                        self.obey(more);
                    }
                }
                RobotCommand::Rejoin(pair) => {
                    self.jobs.set_cut_off(pair, false);
                    if let Some(records) = self.jobs.unacknowledged_of(pair) {
                        self.send_records(Box::new(records));
                    }
                }
                RobotCommand::SendReturned { session, pair } => self.send_up(WorkUp::Returned { session, pair }),
                RobotCommand::SendStopped { session, pair } => self.send_up(WorkUp::Stopped { session, pair }),
                RobotCommand::SendGone { session, pair } => self.send_up(WorkUp::Gone { session, pair }),
            }
        }
    }
}

fn not_kept(pair: Pair, error: &fleet_core::Error) {
    tracing::error!(job = %pair.job, error = %fleet_core::error::chain(error), "the robot's own journal is not to be used");
}

/// How long a stopping node waits between looks at its robot.
pub(crate) const OBSERVE_EVERY: Duration = Duration::from_millis(20);
