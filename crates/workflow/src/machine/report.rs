//! What became of each task: the rows of `job get`. One for each task of the definition, whatever often it ran, with
//! values up to a bound; so its memory is bounded by the definition.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::ErrorObject;
use crate::expr::Val;

/// Estimated bytes of an input or output that a report keeps; a larger one is left out.
pub const REPORT_VALUE_BYTES_MAX: u64 = 64 * 1024;

/// Phase of a task, as the language names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TaskState {
    /// Not reached yet, or skipped.
    #[default]
    Pending,
    /// At work.
    Running,
    /// Waiting for time to pass.
    Waiting,
    /// Held by an operator; the driver says so, never the machine.
    Suspended,
    /// Ended with an output.
    Completed,
    /// Ended with an error, caught or not.
    Faulted,
    /// Ended because a task around it ended.
    Cancelled,
}

impl TaskState {
    /// The word for it, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Suspended => "suspended",
            Self::Completed => "completed",
            Self::Faulted => "faulted",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What became of one task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskReport {
    /// JSON pointer of the task.
    pub pointer: String,
    /// Its name.
    pub name: String,
    /// Its phase; of the latest run if there were several.
    pub state: TaskState,
    /// How often it ended with a result or an error of its own.
    pub runs: u64,
    /// The round of the `try` around it, from 1.
    pub attempt: u32,
    /// The place of the latest run among all task runs of the job, from 0: the order in which they began.
    pub number: Option<u64>,
    /// When the latest run began, milliseconds since the epoch.
    pub started_ms: Option<u64>,
    /// When it ended, milliseconds since the epoch.
    pub ended_ms: Option<u64>,
    /// Its transformed input; absent if it is larger than [`REPORT_VALUE_BYTES_MAX`].
    pub input: Option<Value>,
    /// Its transformed output; absent likewise.
    pub output: Option<Value>,
    /// Its error.
    pub error: Option<ErrorObject>,
    /// Index in the journal of the latest event that moved this task: the node that recorded it ran the task.
    pub last_event: Option<u64>,
}

/// The same, as the machine keeps it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) state: TaskState,
    pub(super) runs: u64,
    pub(super) attempt: u32,
    number: Option<u64>,
    pub(super) started_ms: Option<u64>,
    pub(super) ended_ms: Option<u64>,
    input: Option<Val>,
    output: Option<Val>,
    error: Option<ErrorObject>,
    last_event: Option<u64>,
}

fn kept(value: &Val) -> Option<Val> {
    (value.bytes() <= REPORT_VALUE_BYTES_MAX).then(|| value.clone())
}

impl Report {
    /// A run begins.
    pub(super) fn start(&mut self, now_ms: u64, event: u64, attempt: u32, number: u64) {
        let runs = self.runs;
        *self = Self {
            state: TaskState::Running,
            runs,
            attempt,
            number: Some(number),
            started_ms: Some(now_ms),
            last_event: Some(event),
            ..Self::default()
        };
    }

    pub(super) fn input(&mut self, input: &Val) {
        self.input = kept(input);
    }

    /// An event moved the task.
    pub(super) fn touch(&mut self, state: TaskState, event: u64) {
        self.state = state;
        self.last_event = Some(event);
    }

    pub(super) fn complete(&mut self, output: &Val, now_ms: u64, event: u64) {
        self.output = kept(output);
        self.runs += 1;
        self.end(TaskState::Completed, now_ms, event);
    }

    pub(super) fn fault(&mut self, error: &ErrorObject, now_ms: u64, event: u64) {
        self.error = Some(error.clone());
        self.runs += 1;
        self.end(TaskState::Faulted, now_ms, event);
    }

    pub(super) fn end(&mut self, state: TaskState, now_ms: u64, event: u64) {
        self.touch(state, event);
        self.ended_ms = Some(now_ms);
    }

    pub(super) fn public(&self, pointer: &str, name: &str) -> TaskReport {
        TaskReport {
            pointer: pointer.to_owned(),
            name: name.to_owned(),
            state: self.state,
            runs: self.runs,
            attempt: self.attempt.max(1),
            number: self.number,
            started_ms: self.started_ms,
            ended_ms: self.ended_ms,
            input: self.input.as_ref().map(Val::to_json),
            output: self.output.as_ref().map(Val::to_json),
            error: self.error.clone(),
            last_event: self.last_event,
        }
    }
}
