//! Everything that changes while a job runs: plain data, so that a snapshot is its serialised form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::command::{Command, EffectPath};
use super::event::ErrorObject;
use super::plan::{BlockId, TaskId};
use super::report::Report;
use crate::expr::Val;

/// The number of an activation, never used twice in a job.
pub(super) type ActivationId = u64;

/// The state of a job.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// The raw input of the workflow.
    pub(super) raw_input: Val,
    /// `$context`.
    pub(super) context: Val,
    pub(super) started_ms: Option<u64>,
    /// The latest time an event told.
    pub(super) now_ms: u64,
    /// Events applied.
    pub(super) events: u64,
    pub(super) next_activation: ActivationId,
    /// Numbers the commands, so that what is outstanding keeps its order.
    pub(super) next_command: u64,
    /// The running tasks.
    pub(super) activations: BTreeMap<ActivationId, Activation>,
    /// The sequence of the workflow itself.
    pub(super) root: Sequence,
    /// What is asked of the driver and not answered.
    pub(super) waiting: BTreeMap<EffectPath, Waiting>,
    pub(super) ended: Option<Command>,
    /// One for each task of the definition.
    pub(super) reports: Vec<Report>,
}

/// One run of one task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Activation {
    pub(super) task: TaskId,
    /// The task around it; `None` is the workflow.
    pub(super) parent: Option<ActivationId>,
    /// Its place among the tasks of its scope.
    pub(super) place: usize,
    /// Its part of the effect path.
    pub(super) path: String,
    pub(super) raw_input: Val,
    pub(super) input: Val,
    pub(super) raw_output: Val,
    pub(super) started_ms: u64,
    /// Wall time of the nearest timeout, its own or of a task around it.
    pub(super) deadline_ms: Option<u64>,
    pub(super) running: Running,
    pub(super) children: Vec<ActivationId>,
    /// What it waits for.
    pub(super) waits: Vec<EffectPath>,
}

/// How far a task is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Running {
    /// At its beginning or end, or waiting for one answer.
    Single,
    Sequence(Sequence),
    For(Loop),
    Try(Trial),
    Fork(Branches),
}

/// Tasks that run one after another.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sequence {
    pub(super) block: BlockId,
    /// The effect path of the scope.
    pub(super) path: String,
    /// How often each task of the scope was entered.
    pub(super) visits: Vec<u32>,
}

/// A loop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Loop {
    pub(super) items: Val,
    /// The round, from 0.
    pub(super) index: usize,
    pub(super) sequence: Sequence,
}

/// Tasks whose errors are caught.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Trial {
    pub(super) phase: TrialPhase,
    /// The try, from 1.
    pub(super) attempt: u32,
    pub(super) first_ms: u64,
    /// The error last caught.
    pub(super) error: Option<ErrorObject>,
    pub(super) sequence: Sequence,
}

/// What a trial does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum TrialPhase {
    Trying,
    /// Waiting for the next try.
    Pausing,
    Catching,
}

/// Branches that run at the same time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Branches {
    /// Outputs of those that completed.
    pub(super) outputs: Vec<Option<Val>>,
    /// Those that ended.
    pub(super) ended: usize,
}

/// Something asked of the driver.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Waiting {
    /// The activation that waits; `None` is the workflow.
    pub(super) activation: Option<ActivationId>,
    pub(super) purpose: Purpose,
    /// Its number among the commands.
    pub(super) number: u64,
    pub(super) command: Command,
    /// Whether the journal says that the effect began.
    pub(super) started: bool,
}

/// Why something is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// The result of an effect.
    Effect,
    /// The end of a `wait`.
    Wait,
    /// The next try.
    Retry,
    /// The timeout of one try.
    AttemptTimeout,
    /// The timeout of the task, or of the workflow.
    Timeout,
}
