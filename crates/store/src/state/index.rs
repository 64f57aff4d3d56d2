//! Where a job stands in the two indexes. Pure: the state machine writes what this says, readers and tests compare.

use fleet_core::Timestamp;

use crate::record::{Job, JobState, Mirror};

/// The key of `job` in `JOBS_BY_STATE`. Within a state the order is that of submission, except among queued jobs, where
/// higher priority comes first.
pub fn state_key(job: &Job) -> (u8, u8, u64) {
    let rank = if job.state == JobState::Queued { rank_of_priority(job.priority) } else { 0 };
    (job.state.number(), rank, job.number)
}

/// The key of `mirror` in `MIRRORS_BY_STATE`.
pub fn mirror_key(mirror: &Mirror) -> (u8, u8, u64) {
    (mirror.standing.state.number(), 0, mirror.number)
}

/// The rank of a priority in the queue: the higher the priority, the lower the rank.
pub const fn rank_of_priority(priority: u8) -> u8 {
    u8::MAX - priority
}

/// When `job` is due in `TIMERS`, if it has a row there.
pub fn timer_due(job: &Job) -> Option<Timestamp> {
    if job.state == JobState::Waiting { job.wake_at } else { None }
}
