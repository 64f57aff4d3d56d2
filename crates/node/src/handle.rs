//! The handle of a node: what the daemon may ask of it. Cheap to clone; it hides every channel and actor.
//!
//! Changes are proposed to the group and need the leader: elsewhere they are refused with [`Error::NotLeader`]. Reads
//! answer from the state as applied on this node.

mod moving;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use ractor::{Actor, ActorRef, RpcReplyPort};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use fleet_core::limits::INTERPRETER_TIMEOUT;
use fleet_core::timing::Timing;
use fleet_core::{Clock, JobId, NodeId, SiteName, Timestamp};
use fleet_replication::command::{Action, Outcome, Submission};
use fleet_store::record::{CommandId, JobSpec, JobState, Payload, StopCause};
use fleet_store::state::jobs;
use serde::Serialize;
use uuid::Uuid;

use crate::Error;
use crate::courier::CourierServer;
use crate::courier::actor::CourierArguments;
use crate::execution::task::Surroundings;
use crate::execution::thinker::Thinker;
use crate::link::RobotReport;
use crate::ports::{Effects, Group, Interpreter, OwnJournal, RobotLink, Sites};
use crate::robot::actor::{OBSERVE_EVERY, RobotArguments, RobotMessage, RobotObservation};
use crate::scheduler::LinkServer;
use crate::scheduler::actor::{SchedulerArguments, SchedulerMessage, SchedulerObservation};
use crate::supervisor::{Supervisor, SupervisorArguments, SupervisorMessage};
use crate::tasks::Slot;
use crate::watch::{JobChanges, Watchers};

/// How long an actor may take to show itself.
const OBSERVE_TIMEOUT_MS: u64 = 1_000;

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The node.
    pub node: NodeId,
    /// Its boot number, stored before this is used.
    pub boot: u64,
    /// The site's durations.
    pub timing: Timing,
    /// Name, slots, tags and capabilities of its robot.
    pub robot: RobotReport,
    /// Whether no guard of the node's last boot can be alive. If not, its robot waits for a lease.
    pub guards_gone: bool,
    /// How long ended jobs are kept at least; the leader forgets them some time after.
    pub ended_jobs_kept: Duration,
    /// Threads with a large stack for interpreters; 0 runs them on their callers' stacks.
    pub interpreter_threads: usize,
}

/// What a node needs from outside.
#[derive(Clone)]
pub struct NodePorts {
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The site's group.
    pub group: Arc<dyn Group>,
    /// Runs effects.
    pub effects: Arc<dyn Effects>,
    /// Reaches leaders on other nodes.
    pub robot_link: Arc<dyn RobotLink>,
    /// Runs definitions.
    pub interpreter: Arc<dyn Interpreter>,
    /// Asks other sites.
    pub sites: Arc<dyn Sites>,
    /// Where the robot writes down what its group has not committed of jobs that may be finished cut off.
    pub own_journal: Arc<dyn OwnJournal>,
}

/// A job to accept, checked by the caller as far as it can be checked without the state.
#[derive(Clone, Debug)]
pub struct JobRequest {
    /// Its id.
    pub job: JobId,
    /// What is asked for. The digest in it is that of `definition`.
    pub spec: JobSpec,
    /// The site that was asked for; `None`: this one, or another that has a robot for it where this one has none.
    pub site: Option<SiteName>,
    /// Priority, 0 to 20, higher first.
    pub priority: u8,
    /// Input, JSON.
    pub input: Payload,
    /// Definition, JSON.
    pub definition: Payload,
}

/// What an operator wants of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobAction {
    /// It ends, cancelled.
    Cancel,
    /// It stops before its next effect, and becomes suspended.
    Pause,
    /// A suspended job is queued again.
    Resume,
}

/// What the node's actors show of themselves.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NodeObservation {
    /// The scheduler; `None` if it does not answer.
    pub scheduler: Option<SchedulerObservation>,
    /// The robot; `None` if it does not answer.
    pub robot: Option<RobotObservation>,
}

/// A running node.
#[derive(Clone)]
pub struct Node {
    shared: Arc<Shared>,
}

struct Shared {
    config: NodeConfig,
    ports: NodePorts,
    server: LinkServer,
    courier_server: CourierServer,
    scheduler: Slot<SchedulerMessage>,
    robot: Slot<RobotMessage>,
    supervisor: ActorRef<SupervisorMessage>,
    failed: watch::Receiver<bool>,
    watchers: Watchers,
    /// Follows what is applied, for the watchers.
    follower: JoinHandle<()>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Node {
    /// Starts the actors of a node.
    pub async fn start(config: NodeConfig, ports: NodePorts) -> Result<Self, Error> {
        let thinker = Thinker::start(config.interpreter_threads, INTERPRETER_TIMEOUT)
            .map_err(|error| Error::Actor(format!("start the interpreter's threads: {error}")))?;
        let scheduler = Slot::default();
        let robot = Slot::default();
        let server = LinkServer::new(scheduler.clone(), Arc::clone(&ports.group));
        let courier_server = CourierServer::new(Arc::clone(&ports.group), Arc::clone(&ports.sites));
        let (failed, has_failed) = watch::channel(false);
        let around = Arc::new(surroundings(&config, &ports, thinker));
        let watchers = Watchers::default();
        let follower = tokio::spawn(watchers.clone().follow(ports.group.applied()));
        let arguments = SupervisorArguments {
            clock: Arc::clone(&ports.clock),
            scheduler: Arc::new(SchedulerArguments {
                node: config.node,
                timing: config.timing,
                clock: Arc::clone(&ports.clock),
                group: Arc::clone(&ports.group),
                ended_jobs_kept: config.ended_jobs_kept,
                slot: scheduler.clone(),
                has_started: AtomicBool::new(false),
            }),
            robot: Arc::new(robot_arguments(&config, &ports, server.clone(), around)),
            robot_slot: robot.clone(),
            courier: Arc::new(CourierArguments {
                clock: Arc::clone(&ports.clock),
                group: Arc::clone(&ports.group),
                sites: Arc::clone(&ports.sites),
            }),
            failed,
        };
        let (supervisor, _) = Actor::spawn(None, Supervisor, arguments)
            .await
            .map_err(|error| Error::Actor(format!("start the supervisor: {error}")))?;
        let shared = Shared {
            config,
            ports,
            server,
            courier_server,
            scheduler,
            robot,
            supervisor,
            failed: has_failed,
            watchers,
            follower,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where the streams of robots go that turn to this node as leader.
    pub fn link_server(&self) -> LinkServer {
        self.shared.server.clone()
    }

    /// Turns true when an actor failed too often: the process should be started again.
    pub fn failed(&self) -> watch::Receiver<bool> {
        self.shared.failed.clone()
    }

    fn group(&self) -> &Arc<dyn Group> {
        &self.shared.ports.group
    }

    /// Tells when `job` changes, for whoever follows it.
    pub fn watch(&self, job: JobId) -> JobChanges {
        self.shared.watchers.watch(job)
    }

    /// Accepts a job. Returns once a majority has it on disk.
    pub async fn submit(&self, request: JobRequest) -> Result<JobId, Error> {
        self.check_leading("submit a job")?;
        let route = self.route(&request)?;
        let JobRequest { job, spec, priority, input, definition, .. } = request;
        let input = self.group().put_content(input).await?;
        let definition = self.group().put_content(definition).await?;
        let submission = Submission { job, spec, priority, input, definition: Some(definition) };
        self.submit_along(submission, route).await
    }

    async fn submit_contents(&self, submission: Submission) -> Result<JobId, Error> {
        let operation = "submit a job";
        self.check_leading(operation)?;
        // The scheduler proposes it, because it may have a robot for it at once.
        let (reply, answer) = oneshot::channel();
        self.shared.scheduler.tell(SchedulerMessage::Submit { submission: Box::new(submission), reply });
        let outcome =
            answer.await.map_err(|_| Error::Actor(format!("{operation}: the scheduler is starting again")))??;
        match outcome.accepted().map_err(|refusal| Error::Refused { operation, refusal })? {
            Outcome::Submitted { job, .. } | Outcome::Assigned { job, .. } => Ok(job),
            outcome => Err(unexpected(operation, &outcome)),
        }
    }

    /// Cancels, pauses or resumes a job. Returns its state right after.
    pub async fn control(&self, job: JobId, action: JobAction) -> Result<JobState, Error> {
        self.control_as(CommandId(Uuid::now_v7().as_u128()), job, action).await
    }

    /// As [`Self::control`], under the sender's own id: a repeat of it does nothing more and gives the state again.
    pub async fn control_as(&self, id: CommandId, job: JobId, action: JobAction) -> Result<JobState, Error> {
        let (operation, action) = match action {
            JobAction::Cancel => ("cancel a job", Action::Stop { job, cause: StopCause::Cancel }),
            JobAction::Pause => ("pause a job", Action::Stop { job, cause: StopCause::Pause }),
            JobAction::Resume => ("resume a job", Action::Resume { job }),
        };
        self.check_leading(operation)?;
        let outcome = self.group().propose_as(id, action).await?;
        match outcome.accepted().map_err(|refusal| Error::Refused { operation, refusal })? {
            Outcome::Changed { state } => Ok(state),
            Outcome::Done | Outcome::Unchanged => {
                let reader = self.group().reader()?;
                let row = jobs::job(&reader, job).map_err(Error::store("read a job"))?;
                row.map(|row| row.state).ok_or_else(|| Error::JobUnknown(job.to_string()))
            }
            outcome => Err(unexpected(operation, &outcome)),
        }
    }

    /// Stops placing jobs on a node; what still runs there at `deadline` is moved, or may end if there is none.
    pub async fn drain(&self, node: NodeId, deadline: Option<Timestamp>) -> Result<(), Error> {
        self.propose("drain a node", Action::DrainNode { node, deadline }).await.map(drop)
    }

    /// Places jobs on a drained node again.
    pub async fn undrain(&self, node: NodeId) -> Result<(), Error> {
        self.propose("resume a node", Action::UndrainNode { node }).await.map(drop)
    }

    /// Has `action` committed; a refusal is an error. For what has no verb of its own here: nodes, tokens, trust.
    pub async fn propose(&self, operation: &'static str, action: Action) -> Result<Outcome, Error> {
        self.check_leading(operation)?;
        let outcome = self.group().propose(action).await?;
        outcome.accepted().map_err(|refusal| Error::Refused { operation, refusal })
    }

    fn check_leading(&self, operation: &'static str) -> Result<(), Error> {
        let standing = *self.group().standing().borrow();
        if standing.serving.is_some() {
            return Ok(());
        }
        let leader = standing.leader.filter(|leader| *leader != self.shared.config.node);
        Err(Error::NotLeader { operation, leader })
    }

    /// Why a queued job is on no robot; `None` if it is not queued or this node does not lead.
    pub async fn explain(&self, job: JobId) -> Option<String> {
        let scheduler = self.shared.scheduler.get()?;
        ask(&scheduler, |reply| SchedulerMessage::Explain(job, reply)).await.flatten()
    }

    /// What the actors show of themselves.
    pub async fn observe(&self) -> NodeObservation {
        let scheduler = match self.shared.scheduler.get() {
            Some(scheduler) => ask(&scheduler, SchedulerMessage::Observe).await,
            None => None,
        };
        NodeObservation { scheduler, robot: self.observe_robot().await }
    }

    async fn observe_robot(&self) -> Option<RobotObservation> {
        ask(&self.shared.robot.get()?, RobotMessage::Observe).await
    }

    /// Ends the node's work: takes no more jobs, lets what runs end for half of `bound`, has the rest handed back in the
    /// other half, and stops the actors. Returns how many jobs were left.
    pub async fn stop(&self, bound: Duration) -> usize {
        self.shared.robot.tell(RobotMessage::TakeNoMore(true));
        let mut left = self.wait_for_jobs(bound / 2).await;
        if left > 0 {
            self.shared.robot.tell(RobotMessage::StopAll(StopCause::Drain));
            left = self.wait_for_jobs(bound / 2).await;
        }
        let stopped = self.shared.supervisor.stop_and_wait(None, Some(bound.max(OBSERVE_EVERY))).await;
        if let Err(error) = stopped {
            tracing::warn!(%error, "the supervisor does not stop");
        }
        left
    }

    /// Ends the actors at once, as a crash would: nothing is handed back, effects end with their executions.
    pub fn abandon(&self) {
        self.shared.supervisor.kill();
    }

    async fn wait_for_jobs(&self, bound: Duration) -> usize {
        let until = self.shared.ports.clock.boot_now().saturating_add(bound);
        loop {
            let left = self.observe_robot().await.map_or(0, |robot| robot.jobs);
            if left == 0 || self.shared.ports.clock.boot_now() >= until {
                return left;
            }
            tokio::time::sleep(OBSERVE_EVERY).await;
        }
    }
}

fn surroundings(config: &NodeConfig, ports: &NodePorts, thinker: Thinker) -> Surroundings {
    Surroundings {
        node: config.node,
        node_name: Arc::from(config.robot.node_name.as_str()),
        clock: Arc::clone(&ports.clock),
        effects: Arc::clone(&ports.effects),
        interpreter: Arc::clone(&ports.interpreter),
        thinker,
        own_journal: Arc::clone(&ports.own_journal),
    }
}

fn robot_arguments(
    config: &NodeConfig,
    ports: &NodePorts,
    server: LinkServer,
    around: Arc<Surroundings>,
) -> RobotArguments {
    let now = ports.clock.boot_now();
    let wait = if config.guards_gone { Duration::ZERO } else { config.timing.robot_lease };
    RobotArguments {
        node: config.node,
        boot: config.boot,
        timing: config.timing,
        report: config.robot.clone(),
        around,
        port: Arc::clone(&ports.robot_link),
        server,
        standing: ports.group.standing(),
        opens_from: now.saturating_add(wait),
        number_last: Arc::new(AtomicU64::new(0)),
        guards_gone: config.guards_gone,
    }
}

fn unexpected(operation: &'static str, outcome: &Outcome) -> Error {
    Error::Actor(format!("{operation}: the group answered {outcome:?}"))
}

async fn ask<M: ractor::Message, T: Send + 'static>(
    actor: &ActorRef<M>,
    message: impl FnOnce(RpcReplyPort<T>) -> M,
) -> Option<T> {
    match actor.call(message, Some(Duration::from_millis(OBSERVE_TIMEOUT_MS))).await {
        Ok(ractor::rpc::CallResult::Success(answer)) => Some(answer),
        _ => None,
    }
}
