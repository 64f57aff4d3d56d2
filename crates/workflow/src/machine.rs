//! The interpreter: events in, commands out. Same definition, input, journal and interpreter version give the same
//! commands, byte for byte.
//!
//! A driver starts a machine, journals what happens as events, applies each once it is durable, and carries out the
//! commands. After a crash it replays the journal and gets exactly the commands that are still outstanding. An event
//! that nobody waits for (a result told twice, a result after a cancellation) changes nothing.
//!
//! Absent on purpose: a clock (time comes with events), randomness, I/O, and any knowledge of nodes.

pub mod command;
pub mod effect;
mod engine;
mod evaluation;
pub mod event;
mod fault;
mod hash;
mod path;
pub mod plan;
pub mod report;
mod schema;
pub mod snapshot;
pub mod stack;
mod state;
mod tasks;
pub mod variables;
mod waits;

use std::sync::Arc;

use self::command::{Command, EffectPath};
use self::event::Event;
use self::state::{Sequence, State};
use crate::expr::Val;

pub use self::plan::{CompileError, CompiledWorkflow};
pub use self::report::{TaskReport, TaskState};
pub use self::snapshot::SnapshotError;
pub use self::stack::on_big_stack;

/// Version of the interpreter. A job keeps the one it was started with: another may give other commands.
pub const INTERPRETER_VERSION: u32 = 1;

/// Most bytes of a workflow's output, as JSON.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// What the machine knows of its job beside the definition and the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobContext {
    /// The job's id as text: `$workflow.id`, and the seed of jitter.
    pub job_id: String,
    /// The version of the runtime: `$runtime.version`. It must be the same on a replay.
    pub runtime_version: String,
}

/// One job.
#[derive(Clone, Debug)]
pub struct Machine {
    workflow: Arc<CompiledWorkflow>,
    context: JobContext,
    state: State,
    /// Commands of the event being applied.
    commands: Vec<Command>,
    /// What is to be done before the event is applied; the last first.
    agenda: Vec<engine::Step>,
    /// Tasks entered by the event being applied.
    entered: u32,
}

impl Machine {
    /// A machine at its beginning. Nothing happens before [`Event::Started`] is applied.
    pub fn start(workflow: Arc<CompiledWorkflow>, context: JobContext, input: &serde_json::Value) -> Self {
        let root = Sequence { block: workflow.root, path: "/do".to_owned(), visits: Vec::new() };
        let reports = vec![report::Report::default(); workflow.tasks.len()];
        let state = State { raw_input: Val::from(input), root, reports, ..State::default() };
        Self { workflow, context, state, commands: Vec::new(), agenda: Vec::new(), entered: 0 }
    }

    /// The machine after all events of a journal, and the commands that are still outstanding: those to give to a
    /// driver that knows nothing. An effect whose start is journaled ([`Machine::is_started`]) must not be started
    /// again: the driver answers its command with [`Event::EffectLost`].
    pub fn replay(
        workflow: Arc<CompiledWorkflow>,
        context: JobContext,
        input: &serde_json::Value,
        events: &[Event],
    ) -> (Self, Vec<Command>) {
        let mut machine = Self::start(workflow, context, input);
        for event in events {
            machine.apply(event);
        }
        let outstanding = machine.outstanding();
        (machine, outstanding)
    }

    /// Applies the next event of the journal; gives what is to be done because of it, in order.
    pub fn apply(&mut self, event: &Event) -> Vec<Command> {
        self.state.now_ms = self.state.now_ms.max(event.at_ms());
        self.entered = 0;
        crate::expr::begin_event();
        if self.state.ended.is_none() {
            self.take(event);
            self.work_off();
        }
        self.state.events += 1;
        std::mem::take(&mut self.commands)
    }

    /// Everything asked of the driver and not answered, in the order it was asked; or how the workflow ended.
    pub fn outstanding(&self) -> Vec<Command> {
        if let Some(ended) = &self.state.ended {
            return vec![ended.clone()];
        }
        let mut waiting: Vec<_> = self.state.waiting.values().collect();
        waiting.sort_by_key(|waiting| waiting.number);
        waiting.into_iter().map(|waiting| waiting.command.clone()).collect()
    }

    /// Whether the workflow ended.
    pub fn is_ended(&self) -> bool {
        self.state.ended.is_some()
    }

    /// How the workflow ended: [`Command::Complete`] or [`Command::Fail`].
    pub fn ended(&self) -> Option<&Command> {
        self.state.ended.as_ref()
    }

    /// Whether the workflow ended because its own timeout passed.
    pub fn is_timed_out(&self) -> bool {
        match &self.state.ended {
            Some(Command::Fail { error }) => error.instance.as_deref() == Some("/") && error.status == 408,
            _ => false,
        }
    }

    /// Whether the job is only waiting for time to pass: no effect is in flight, so it needs no robot until
    /// [`Machine::next_due_ms`].
    pub fn is_waiting_for_time(&self) -> bool {
        let is_timer = |waiting: &state::Waiting| waiting.purpose != state::Purpose::Effect;
        !self.is_ended() && !self.state.waiting.is_empty() && self.state.waiting.values().all(is_timer)
    }

    /// When the earliest timer is due, milliseconds since the epoch.
    pub fn next_due_ms(&self) -> Option<u64> {
        let due = |waiting: &state::Waiting| match waiting.command {
            Command::SetTimer { due_ms, .. } => Some(due_ms),
            _ => None,
        };
        self.state.waiting.values().filter_map(due).min()
    }

    /// Whether the journal says that the outstanding effect at this path began.
    pub fn is_started(&self, path: &EffectPath) -> bool {
        self.state.waiting.get(path).is_some_and(|waiting| waiting.started)
    }

    /// The workflow's namespace, name and version, as `namespace/name:version`.
    pub fn workflow_name(&self) -> String {
        let document = &self.workflow.workflow.document;
        format!("{}/{}:{}", document.namespace, document.name, document.version)
    }

    /// Events applied.
    pub fn events_applied(&self) -> u64 {
        self.state.events
    }

    /// One report for each task of the definition, in the order of the file.
    pub fn tasks(&self) -> Vec<TaskReport> {
        let report = |id: &usize| {
            let task = &self.workflow.tasks[*id];
            self.state.reports[*id].public(&task.pointer, &task.name)
        };
        self.workflow.order.iter().map(report).collect()
    }
}
