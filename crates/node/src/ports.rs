//! What the actors need from outside, as traits: the daemon implements them with its clients, tests with queues.

mod catalog_rows;
mod group;
mod own_journal;
mod sites;

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use fleet_core::{BootInstant, Clock, Error, JobId, NodeId, Timestamp};
use fleet_workflow::machine::command::{Command, EffectPath};
use fleet_workflow::machine::effect::Effect;
use fleet_workflow::machine::event::{ErrorObject, Event, Outcome as EffectOutcome};

use crate::link::RobotStreams;

pub use catalog_rows::CatalogRows;
pub use group::{Group, GroupStanding};
pub use own_journal::OwnJournal;
pub use sites::{KnownSite, KnownSites, RobotOffer, SiteServer, SiteTopic, Sites};

/// The surroundings of one effect.
#[derive(Clone)]
pub struct EffectContext {
    /// The job it belongs to.
    pub job: JobId,
    /// The node that runs it.
    pub node: NodeId,
    /// Name of that node.
    pub node_name: Arc<str>,
    /// Where it stands in the job; with the job id it is the effect's key.
    pub path: EffectPath,
    /// Wall time by which it must have ended.
    pub deadline: Option<Timestamp>,
    /// Turns true when the effect is no longer wanted.
    pub cancelled: watch::Receiver<bool>,
    /// How long this robot may act.
    pub lease: Lease,
}

/// How a run of an effect ended.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectReport {
    /// The outcome for the journal; `None` if the run was broken off (cancelled, or the lease ended), which says nothing
    /// about the effect.
    pub outcome: Option<EffectOutcome>,
    /// Last bytes of standard output, empty if it has none.
    pub stdout_tail: String,
    /// Last bytes of standard error, empty if it has none.
    pub stderr_tail: String,
}

impl EffectReport {
    /// A report without output streams.
    pub fn of(outcome: EffectOutcome) -> Self {
        Self { outcome: Some(outcome), stdout_tail: String::new(), stderr_tail: String::new() }
    }

    /// The report of a run that was broken off.
    pub fn broken_off() -> Self {
        Self { outcome: None, stdout_tail: String::new(), stderr_tail: String::new() }
    }
}

/// The robot's right to act, as its effects see it: an end on the lease clock that renewals move forward. Cheap to clone.
#[derive(Clone)]
pub struct Lease {
    end: watch::Receiver<BootInstant>,
    clock: Arc<dyn Clock>,
}

impl Lease {
    /// A lease whose end is in `end`, read by `clock`.
    pub fn new(end: watch::Receiver<BootInstant>, clock: Arc<dyn Clock>) -> Self {
        Self { end, clock }
    }

    /// When it ends, as known now.
    pub fn end(&self) -> BootInstant {
        *self.end.borrow()
    }

    /// Whether acting is allowed, by the lease clock read now. To be asked right before whatever the outside can see.
    pub fn is_live(&self) -> bool {
        self.clock.boot_now() < self.end()
    }

    /// The end and its later moves, for whoever passes them on to a guard.
    pub fn watch(&self) -> watch::Receiver<BootInstant> {
        self.end.clone()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("end", &self.end()).finish_non_exhaustive()
    }
}

/// Runs effects. One call is one run.
pub trait Effects: Send + Sync + 'static {
    /// Runs `effect` and answers when nothing of it runs any more: ended by itself, past its deadline, cancelled, or
    /// ended with the lease.
    fn run(&self, effect: Effect, context: EffectContext) -> BoxFuture<'static, EffectReport>;

    /// Ends what runs on of `job` after its task (`await: false`), and answers when it is gone. Asked for when this robot
    /// gives the job up before its end.
    fn end_job(&self, job: JobId) -> BoxFuture<'static, ()>;
}

/// Runs workflow definitions: pure, but it may need a large stack, so it is called on threads that have one.
pub trait Interpreter: Send + Sync + 'static {
    /// The machine of `job` at its beginning: it asks for nothing before it hears [`Event::Started`].
    fn begin(&self, job: JobId, definition: &[u8], input: &[u8]) -> Result<Box<dyn JobMachine>, ErrorObject>;
}

/// The machine of one job.
pub trait JobMachine: Send {
    /// What it asks after `event`.
    fn apply(&mut self, event: &Event) -> Vec<Command>;
    /// Whether the workflow ended by its own timeout.
    fn is_timed_out(&self) -> bool;
    /// Name of its workflow, for people.
    fn workflow(&self) -> String;
}

/// Reaches the leader of the site's group from this node's robot.
pub trait RobotLink: Send + Sync + 'static {
    /// Opens both streams to `leader`, each on a connection of its own. They close when either breaks.
    fn connect(&self, leader: NodeId) -> BoxFuture<'static, Result<RobotStreams, Error>>;
}
