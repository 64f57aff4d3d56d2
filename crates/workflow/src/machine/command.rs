//! What the machine asks its driver to do.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::effect::Effect;
use super::event::ErrorObject;

/// The interpreter's deterministic position of an effect or timer: task pointer, loop indices, fork branch and the
/// language's retry number. The same on every re-run; with the job id it is the effect's key.
/// Percent-encoded ASCII, so that it can travel in a header as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EffectPath(pub String);

/// What becomes of an effect whose robot died while it was in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnLost {
    /// It is run again, with the same key.
    #[default]
    Retry,
    /// The task fails with a `lost` error. Its start is journaled before it begins.
    Fail,
}

/// One request of the machine to its driver, in the order they must be carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Run `effect` and answer with `Event::EffectEnded` for `path`.
    Start {
        /// Where the effect stands; its key.
        path: EffectPath,
        /// JSON pointer of the task.
        task: String,
        /// What to run.
        effect: Effect,
        /// What to do if the robot dies meanwhile.
        on_lost: OnLost,
        /// Wall time by which it must have ended (a task timeout), milliseconds since the epoch.
        deadline_ms: Option<u64>,
    },
    /// End an effect that is no longer wanted. What it still answers is ignored.
    Cancel {
        /// The effect's path.
        path: EffectPath,
    },
    /// Answer with `Event::TimerFired` for `path` once wall time reaches `due_ms`.
    SetTimer {
        /// The timer's path.
        path: EffectPath,
        /// When, milliseconds since the epoch.
        due_ms: u64,
    },
    /// Forget a timer.
    CancelTimer {
        /// The timer's path.
        path: EffectPath,
    },
    /// The workflow ended with this output. Nothing follows.
    Complete {
        /// The transformed output.
        output: Value,
    },
    /// The workflow ended with an error nobody caught. Nothing follows.
    Fail {
        /// The error, its instance filled in.
        error: ErrorObject,
    },
}
