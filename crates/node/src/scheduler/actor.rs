//! The scheduler's actor: plumbing between the group, the robots' streams and the decisions of a leadership.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use ractor_cluster::RactorMessage;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

use fleet_core::timing::Timing;
use fleet_core::{BootInstant, Clock, ErrorKind, JobId, NodeId, SessionId, Timestamp};
use fleet_replication::AppliedEntry;
use fleet_replication::command::{self, Action, Outcome, Submission};
use fleet_store::record::{JobState, StopCause};
use fleet_store::state::{jobs, members};

use super::leading::{Leading, needs_of};
use super::seats::{Seats, WorkOrder};
use crate::Error;
use crate::link::Heartbeat;
use crate::placement::{Assigned, RobotView, unplaced};
use crate::ports::{Group, GroupStanding};
use crate::session::{BeatAnswer, LeaderCommand, LeaderTerm, Pair, ReleaseCause};
use crate::tasks::Slot;

/// How often sessions and timers are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Applied entries that wait for the scheduler.
const ENTRIES_WAITING_MAX: usize = 256;

/// What the scheduler is told.
#[derive(Debug, RactorMessage)]
pub(crate) enum SchedulerMessage {
    Tick,
    Load,
    Standing(GroupStanding),
    Applied { entry: Arc<AppliedEntry>, permit: OwnedSemaphorePermit },
    Missed,
    Takeover { term: LeaderTerm, latest: Option<BootInstant> },
    HeartbeatsOpened { node: NodeId, number: u64, sender: mpsc::Sender<BeatAnswer> },
    WorkOpened { node: NodeId, number: u64, sender: mpsc::Sender<WorkOrder> },
    Closed { node: NodeId, number: u64 },
    Heard { heartbeat: Box<Heartbeat>, permit: OwnedSemaphorePermit },
    Stopped { session: SessionId, pair: Pair },
    Gone { session: SessionId, pair: Pair },
    NeedDefinition { session: SessionId, pair: Pair },
    Returned { session: SessionId, pair: Pair },
    Confirmed { term: LeaderTerm, round: u64, is_confirmed: bool },
    Assigned { term: LeaderTerm, proposed: Vec<(Assigned, bool)> },
    StopProposed { term: LeaderTerm, job: JobId },
    ReconciledProposed { term: LeaderTerm, node: NodeId },
    Fired { more: bool },
    ForgetMore,
    Submit { submission: Box<Submission>, reply: oneshot::Sender<Result<Outcome, fleet_core::Error>> },
    Explain(JobId, RpcReplyPort<Option<String>>),
    Observe(RpcReplyPort<SchedulerObservation>),
}

/// What the scheduler shows of itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SchedulerObservation {
    /// The term it serves; `None` while another node leads.
    pub term: Option<LeaderTerm>,
    /// Jobs queued, as far as they are read.
    pub queued: usize,
    /// Jobs held by robots.
    pub held: usize,
    /// The robots with a live session.
    pub robots: Vec<RobotView>,
}

/// What the scheduler is made of.
pub(crate) struct SchedulerArguments {
    pub(crate) node: NodeId,
    pub(crate) timing: Timing,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) group: Arc<dyn Group>,
    /// How long ended jobs are kept.
    pub(crate) ended_jobs_kept: Duration,
    pub(crate) slot: Slot<SchedulerMessage>,
    /// Whether the actor ran before in this process.
    pub(crate) has_started: AtomicBool,
}

pub(crate) struct SchedulerState {
    pub(super) arguments: Arc<SchedulerArguments>,
    seats: Seats,
    pub(super) leading: Option<Leading>,
    /// When an earlier life of this actor may have renewed a lease last; `None` in the first.
    may_have_renewed_until: Option<BootInstant>,
    tasks: Vec<JoinHandle<()>>,
}

/// The scheduler.
pub(crate) struct Scheduler;

impl Actor for Scheduler {
    type Msg = SchedulerMessage;
    type State = SchedulerState;
    type Arguments = Arc<SchedulerArguments>;

    async fn pre_start(
        &self,
        myself: ActorRef<SchedulerMessage>,
        arguments: Arc<SchedulerArguments>,
    ) -> Result<SchedulerState, ActorProcessingErr> {
        let (applied, standing) = (arguments.group.applied(), arguments.group.standing());
        let tasks = vec![
            tokio::spawn(follow_applied(myself.clone(), applied)),
            tokio::spawn(crate::tasks::follow(myself.clone(), standing, SchedulerMessage::Standing)),
            tokio::spawn(crate::tasks::tick(myself.clone(), TICK, || SchedulerMessage::Tick)),
        ];
        // An actor that is started again has forgotten whose leases its last life renewed, up to now.
        let may_have_renewed_until =
            arguments.has_started.swap(true, Ordering::SeqCst).then(|| arguments.clock.boot_now());
        arguments.slot.set(myself);
        Ok(SchedulerState { arguments, seats: Seats::default(), leading: None, may_have_renewed_until, tasks })
    }

    async fn handle(
        &self,
        myself: ActorRef<SchedulerMessage>,
        message: SchedulerMessage,
        state: &mut SchedulerState,
    ) -> Result<(), ActorProcessingErr> {
        state.handle(&myself, message)?;
        Ok(())
    }

    async fn post_stop(
        &self,
        _: ActorRef<SchedulerMessage>,
        state: &mut SchedulerState,
    ) -> Result<(), ActorProcessingErr> {
        for task in &state.tasks {
            task.abort();
        }
        Ok(())
    }
}

/// Passes on what is applied, a bounded number of entries at a time.
async fn follow_applied(scheduler: ActorRef<SchedulerMessage>, mut applied: broadcast::Receiver<Arc<AppliedEntry>>) {
    let room = Arc::new(Semaphore::new(ENTRIES_WAITING_MAX));
    loop {
        let message = match applied.recv().await {
            Ok(entry) => {
                let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
                SchedulerMessage::Applied { entry, permit }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => SchedulerMessage::Missed,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        if scheduler.cast(message).is_err() {
            return;
        }
    }
}

impl SchedulerState {
    fn handle(&mut self, myself: &ActorRef<SchedulerMessage>, message: SchedulerMessage) -> Result<(), Error> {
        let now = self.arguments.clock.boot_now();
        match message {
            SchedulerMessage::Standing(standing) => self.follow(myself, standing)?,
            SchedulerMessage::HeartbeatsOpened { node, number, sender } => {
                if self.may_serve() {
                    self.seats.open_heartbeats(node, number, sender);
                }
            }
            SchedulerMessage::WorkOpened { node, number, sender } => {
                if self.may_serve() {
                    self.seats.open_work(node, number, sender);
                }
            }
            SchedulerMessage::Closed { node, number } => self.seats.close(node, number),
            SchedulerMessage::Observe(reply) => {
                // Whoever asked may have gone.
                let _ = reply.send(self.observe());
            }
            SchedulerMessage::Submit { submission, reply } => self.submit(myself, submission, reply),
            SchedulerMessage::Explain(job, reply) => {
                let _ = reply.send(self.explain(job)?);
            }
            message => self.lead(myself, message, now)?,
        }
        Ok(())
    }

    /// Whether robots are right to turn to this node.
    fn may_serve(&self) -> bool {
        self.arguments.group.standing().borrow().leader == Some(self.arguments.node)
    }

    fn follow(&mut self, myself: &ActorRef<SchedulerMessage>, standing: GroupStanding) -> Result<(), Error> {
        if standing.leader != Some(self.arguments.node) {
            self.seats.close_all();
        }
        if standing.serving == self.leading.as_ref().map(|leading| leading.sessions.term()) {
            return Ok(());
        }
        self.leading = None;
        let Some(term) = standing.serving else { return Ok(()) };
        tracing::info!(epoch = term.epoch, term = term.term, "this node leads its site");
        let reader = self.arguments.group.reader()?;
        self.leading = Some(Leading::begin(term, &self.arguments.timing, &reader)?);
        cast(myself, SchedulerMessage::Load);
        self.ask_takeover(myself, term);
        Ok(())
    }

    fn ask_takeover(&self, myself: &ActorRef<SchedulerMessage>, term: LeaderTerm) {
        let asked = self.arguments.group.takeover_time();
        let (myself, again) = (myself.clone(), self.arguments.timing.group_heartbeat);
        tokio::spawn(async move {
            let latest = asked.await.ok();
            if latest.is_none() {
                tokio::time::sleep(again).await;
            }
            cast(&myself, SchedulerMessage::Takeover { term, latest });
        });
    }

    /// What only a leader does.
    fn lead(
        &mut self,
        myself: &ActorRef<SchedulerMessage>,
        message: SchedulerMessage,
        now: BootInstant,
    ) -> Result<(), Error> {
        let Some(leading) = &mut self.leading else { return Ok(()) };
        let current = leading.sessions.term();
        let commands = match message {
            SchedulerMessage::Tick => {
                let commands = leading.sessions.tick(now);
                self.tick(myself)?;
                self.forget_old(myself, now)?;
                commands
            }
            SchedulerMessage::Load | SchedulerMessage::Applied { .. } | SchedulerMessage::Missed => {
                self.read(myself, message, now)?
            }
            SchedulerMessage::Takeover { term, latest: Some(latest) } if term == current => {
                leading.sessions.takeover_known(latest.max(self.may_have_renewed_until.unwrap_or_default()));
                Vec::new()
            }
            SchedulerMessage::Takeover { term, latest: None } if term == current => {
                self.ask_takeover(myself, term);
                Vec::new()
            }
            SchedulerMessage::Assigned { term, proposed } if term == current => {
                leading.proposed(&proposed);
                Vec::new()
            }
            SchedulerMessage::StopProposed { term, job } if term == current => {
                leading.stop_proposed(job);
                Vec::new()
            }
            SchedulerMessage::ReconciledProposed { term, node } if term == current => {
                leading.reconciled_proposed(node);
                Vec::new()
            }
            SchedulerMessage::Fired { more } => {
                leading.fired();
                if more {
                    self.look(myself)?;
                }
                Vec::new()
            }
            SchedulerMessage::ForgetMore => {
                leading.forgets_from = now;
                Vec::new()
            }
            message => self.hear_robot(message, now),
        };
        self.obey(myself, commands);
        self.place(myself);
        Ok(())
    }

    /// What robots say, and what a quorum says of the leadership they are answered by.
    fn hear_robot(&mut self, message: SchedulerMessage, now: BootInstant) -> Vec<LeaderCommand> {
        let Some(leading) = &mut self.leading else { return Vec::new() };
        let current = leading.sessions.term();
        match message {
            SchedulerMessage::Heard { heartbeat, permit } => {
                let Heartbeat { beat, report } = *heartbeat;
                drop(permit);
                self.seats.report(beat.session.node, report);
                leading.sessions.heard(now, beat)
            }
            SchedulerMessage::Confirmed { term, round, is_confirmed } if term == current => {
                if is_confirmed {
                    leading.sessions.confirmed(now, round)
                } else {
                    leading.sessions.unconfirmed(round)
                }
            }
            SchedulerMessage::Stopped { session, pair } => leading.sessions.stopped(now, session, pair),
            SchedulerMessage::Gone { session, pair } => leading.sessions.gone(now, session, pair),
            SchedulerMessage::Returned { session, pair } => leading.sessions.returned(now, session, pair),
            SchedulerMessage::NeedDefinition { session, pair } => {
                let order = WorkOrder::Assign { term: current, session, pair, with_text: true };
                self.seats.order(session.node, order);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Follows the applied state.
    fn read(
        &mut self,
        myself: &ActorRef<SchedulerMessage>,
        message: SchedulerMessage,
        now: BootInstant,
    ) -> Result<Vec<LeaderCommand>, Error> {
        let Some(leading) = &mut self.leading else { return Ok(Vec::new()) };
        let reader = self.arguments.group.reader()?;
        let mut commands = Vec::new();
        match message {
            SchedulerMessage::Applied { entry, permit } => {
                for event in &entry.events {
                    commands.extend(leading.applied(now, &reader, event)?);
                }
                drop(permit);
            }
            SchedulerMessage::Missed => {
                commands = leading.catch_up(now, &reader)?;
                cast(myself, SchedulerMessage::Load);
            }
            _ => {
                if leading.load(&reader)? {
                    cast(myself, SchedulerMessage::Load);
                }
            }
        }
        Ok(commands)
    }

    fn tick(&mut self, myself: &ActorRef<SchedulerMessage>) -> Result<(), Error> {
        let Some(leading) = &mut self.leading else { return Ok(()) };
        let term = leading.sessions.term();
        let late = leading.drained_late(self.arguments.clock.now());
        let reconciled =
            if leading.is_held() { leading.reconciled(&self.arguments.group.reader()?)? } else { Vec::new() };
        for job in late {
            let stop = Action::Stop { job, cause: StopCause::Drain };
            self.propose_and_hear(myself, stop, SchedulerMessage::StopProposed { term, job });
        }
        for node in reconciled {
            let word = Action::Reconciled { node };
            self.propose_and_hear(myself, word, SchedulerMessage::ReconciledProposed { term, node });
        }
        self.look(myself)
    }

    /// Proposes what is proposed again as long as it is needed, but only once `over` has told that this try came to an end.
    fn propose_and_hear(&self, myself: &ActorRef<SchedulerMessage>, action: Action, over: SchedulerMessage) {
        let (proposed, myself) = (self.arguments.group.propose(action), myself.clone());
        tokio::spawn(async move {
            if let Err(error) = proposed.await {
                tracing::debug!(?over, error = %fleet_core::error::chain(&error), "a proposal was not committed");
            }
            cast(&myself, over);
        });
    }

    /// Looks at the applied state if that can show anything new, and proposes the firing of timers if one is due.
    fn look(&mut self, myself: &ActorRef<SchedulerMessage>) -> Result<(), Error> {
        let Some(leading) = &mut self.leading else { return Ok(()) };
        if leading.wants_look() {
            leading.look_again(&self.arguments.group.reader()?)?;
        }
        if !leading.begin_firing(self.arguments.clock.now()) {
            return Ok(());
        }
        let proposed = self.arguments.group.propose(Action::FireTimers);
        let myself = myself.clone();
        tokio::spawn(async move {
            let more = matches!(proposed.await, Ok(Outcome::Fired { more: true, .. }));
            cast(&myself, SchedulerMessage::Fired { more });
        });
        Ok(())
    }

    /// Proposes what can be assigned now.
    fn place(&mut self, myself: &ActorRef<SchedulerMessage>) {
        let Some(leading) = &mut self.leading else { return };
        let assignments = leading.place(&self.seats);
        if assignments.is_empty() {
            return;
        }
        let term = leading.sessions.term();
        let proposals: Vec<_> = assignments
            .iter()
            .map(|Assigned { job, attempt, session }| {
                let action = Action::Assign { job: *job, attempt: *attempt, session: *session };
                self.arguments.group.propose(action)
            })
            .collect();
        let myself = myself.clone();
        tokio::spawn(async move {
            let is_applied = |result| matches!(result, Ok(Outcome::Assigned { .. }));
            let results = join_all(proposals).await.into_iter().map(is_applied);
            let proposed = assignments.into_iter().zip(results).collect();
            cast(&myself, SchedulerMessage::Assigned { term, proposed });
        });
    }

    /// Has a job accepted; where a robot is free for it, it goes there in the same commit.
    fn submit(
        &mut self,
        myself: &ActorRef<SchedulerMessage>,
        mut submission: Box<Submission>,
        reply: oneshot::Sender<Result<Outcome, fleet_core::Error>>,
    ) {
        if let Some(leading) = &self.leading {
            leading.lower_needs(&mut submission);
            if submission.spec.finish_within_ms.is_some() && !leading.knows_finishing() {
                let message = "submit a job: not every node of this site knows `onDisconnect: finish` yet";
                let refused = fleet_core::Error::new(ErrorKind::Unsupported, message)
                    .with_next_step("Upgrade every node, or use `onDisconnect: stop`.");
                // Whoever asked may have gone.
                let _ = reply.send(Err(refused));
                return;
            }
        }
        let job = submission.job;
        let offered = self.leading.as_mut().and_then(|leading| {
            let session = leading.offer(&submission, &self.seats)?;
            Some((leading.sessions.term(), Assigned { job, attempt: 0, session }))
        });
        let action = match offered {
            Some((_, Assigned { session, .. })) => Action::SubmitAssigned { submission, session },
            None => Action::Submit(submission),
        };
        let proposed = self.arguments.group.propose(action);
        let myself = myself.clone();
        tokio::spawn(async move {
            let result = proposed.await;
            if let Some((term, assigned)) = offered {
                let is_applied = matches!(result, Ok(Outcome::Assigned { .. }));
                cast(&myself, SchedulerMessage::Assigned { term, proposed: vec![(assigned, is_applied)] });
            }
            // Whoever asked may have gone.
            let _ = reply.send(result);
        });
    }

    fn obey(&mut self, myself: &ActorRef<SchedulerMessage>, commands: Vec<LeaderCommand>) {
        let Some(leading) = &self.leading else { return };
        let term = leading.sessions.term();
        for command in commands {
            match command {
                LeaderCommand::ConfirmLeadership { round } => {
                    let confirmed = self.arguments.group.confirm_leadership();
                    let myself = myself.clone();
                    tokio::spawn(async move {
                        let is_confirmed = confirmed.await.is_ok();
                        cast(&myself, SchedulerMessage::Confirmed { term, round, is_confirmed });
                    });
                }
                LeaderCommand::Answer(answer) => self.seats.answer(answer),
                LeaderCommand::Opened { session } => tracing::info!(%session, "a robot's session is open"),
                LeaderCommand::Closed { session } => tracing::info!(%session, "a robot's session is over"),
                LeaderCommand::SendAssign { session, pair } => {
                    let order = WorkOrder::Assign { term, session, pair, with_text: false };
                    self.seats.order(session.node, order);
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
                    self.propose_and_forget(Action::Rebind { job, fence, session });
                }
                LeaderCommand::NoteAbsence { pair: Pair { job, fence }, absence } => {
                    self.propose_and_forget(Action::NoteAbsence { job, fence, absence });
                }
                LeaderCommand::Release { pair, cause } => self.propose_and_forget(release(pair, cause)),
            }
        }
    }

    /// Proposes what is proposed again as long as it is needed.
    fn propose_and_forget(&self, action: Action) {
        let proposed = self.arguments.group.propose(action);
        tokio::spawn(async move {
            if let Err(error) = proposed.await {
                tracing::debug!(error = %fleet_core::error::chain(&error), "a proposal failed");
            }
        });
    }

    /// Why a queued job is on no robot, or how long the robot of a held one has been away that may finish it cut off; `None`
    /// if neither is so, or this node does not lead.
    fn explain(&self, job: JobId) -> Result<Option<String>, Error> {
        let Some(leading) = &self.leading else { return Ok(None) };
        let clock = &self.arguments.clock;
        if let Some((elapsed, rest)) = leading.sessions.absence(clock.boot_now(), job) {
            return self.explain_absence(job, elapsed, clock.now().saturating_add(rest)).map(Some);
        }
        let reader = self.arguments.group.reader()?;
        let row = jobs::job(&reader, job).map_err(Error::store("read a job"))?;
        let spec = jobs::spec(&reader, job).map_err(Error::store("read a job"))?;
        let Some(spec) = spec.filter(|_| row.is_some_and(|row| row.state == JobState::Queued)) else { return Ok(None) };
        if leading.is_held() {
            return Ok(Some("dispatch is held until the site has reconciled".to_owned()));
        }
        Ok(Some(unplaced(&needs_of(spec), &leading.robots(&self.seats)).to_string()))
    }

    fn explain_absence(&self, job: JobId, elapsed: Duration, until: Timestamp) -> Result<String, Error> {
        let reader = self.arguments.group.reader()?;
        let row = jobs::job(&reader, job).map_err(Error::store("read a job"))?;
        let node = row.as_ref().and_then(|row| row.node).unwrap_or_default();
        let name = members::node(&reader, node).map_err(Error::store("read a node"))?.map(|node| node.profile.name);
        let name = name.unwrap_or_else(|| node.to_string());
        let heard = in_words(elapsed);
        let stop = match row.and_then(|row| row.stop) {
            None => "",
            Some(_) => "; it is told to stop as soon as it is heard again",
        };
        Ok(format!("its robot {name} was last heard {heard} ago; it may run on until {until}{stop}"))
    }

    fn observe(&self) -> SchedulerObservation {
        let Some(leading) = &self.leading else { return SchedulerObservation::default() };
        SchedulerObservation {
            term: Some(leading.sessions.term()),
            queued: leading.queued(),
            held: leading.sessions.claims().count(),
            robots: leading.robots(&self.seats),
        }
    }
}

/// A duration for people: its two largest units.
fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
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

pub(super) fn cast(scheduler: &ActorRef<SchedulerMessage>, message: SchedulerMessage) {
    if scheduler.cast(message).is_err() {
        tracing::debug!("the scheduler is gone");
    }
}
