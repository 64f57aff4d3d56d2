//! Executions: one task for each running job. It replays the journal, runs the effects the machine asks for, and has every
//! result committed before the next effect starts.
//!
//! `course` decides (pure); `task` carries out; `thinker` is the threads with a large stack on which machines run,
//! and `mind` what they do there.

pub(crate) mod course;
pub(crate) mod mind;
pub(crate) mod task;
pub(crate) mod thinker;
mod unacknowledged;

pub use course::{Act, Course, Start};
pub use mind::{Heard, begin, hear};
pub use task::Assigned;
pub use thinker::Pulse;
pub use unacknowledged::Unacknowledged;
