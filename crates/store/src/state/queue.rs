//! What the scheduler asks: who is next, who is held by whom, which timers are due.

use fleet_core::{JobId, Timestamp};

use super::index::rank_of_priority;
use super::moves;
use super::tables::{JOBS, JOBS_BY_STATE, TIMERS};
use crate::record::JobState;
use crate::{Error, StateRead};

/// Most ended jobs of one state that are looked at to find the old ones.
pub const ENDED_LOOKED_AT_MAX: usize = 1_000;

/// A job's place in the queue. Higher priority first, then order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueuePlace {
    rank: u8,
    number: u64,
}

impl QueuePlace {
    /// The place of a queued job with this priority and number.
    pub fn new(priority: u8, number: u64) -> Self {
        Self { rank: rank_of_priority(priority), number }
    }
}

/// At most `limit` queued jobs in the queue's order, those after `after` if given.
pub fn heads(
    state: &impl StateRead,
    after: Option<QueuePlace>,
    limit: usize,
) -> Result<Vec<(QueuePlace, JobId)>, Error> {
    let queued = JobState::Queued.number();
    let after = after.map(|place| (queued, place.rank, place.number));
    let rows = state.scan(&JOBS_BY_STATE, &queued, after.as_ref(), limit)?;
    Ok(rows.into_iter().map(|((_, rank, number), job)| (QueuePlace { rank, number }, job)).collect())
}

/// At most `limit` jobs in `state`, in order of submission (of the queue for queued jobs), those after `after` if given.
pub fn jobs_in(
    state: &impl StateRead,
    wanted: JobState,
    after: Option<&Place>,
    limit: usize,
) -> Result<Vec<(Place, JobId)>, Error> {
    let after = after.map(|place| place.0);
    let rows = state.scan(&JOBS_BY_STATE, &wanted.number(), after.as_ref(), limit)?;
    Ok(rows.into_iter().map(|(key, job)| (Place(key), job)).collect())
}

/// A job's place among those of its state; where a scan goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place((u8, u8, u64));

/// At most `limit` jobs that ended before `before`, of the [`ENDED_LOOKED_AT_MAX`] first submitted in each state of the
/// ended. One that was submitted early and ended late can hold others back for a while, never for good. A job whose end the
/// site that it came from has not acknowledged stays.
pub fn ended_before(state: &impl StateRead, before: Timestamp, limit: usize) -> Result<Vec<JobId>, Error> {
    let mut ended = Vec::new();
    for wanted in JobState::ALL.into_iter().filter(|state| state.is_ended()) {
        for (_, job) in jobs_in(state, wanted, None, ENDED_LOOKED_AT_MAX)? {
            if ended.len() == limit {
                return Ok(ended);
            }
            let Some(row) = state.get(&JOBS, &job)? else { continue };
            if row.ended_at.is_some_and(|at| at < before)
                && (row.generation == 0 || moves::origins(state, job)?.is_empty())
            {
                ended.push(job);
            }
        }
    }
    Ok(ended)
}

/// At most `limit` parked jobs whose timer is due at `now`, earliest first.
pub fn due_timers(state: &impl StateRead, now: Timestamp, limit: usize) -> Result<Vec<(Timestamp, JobId)>, Error> {
    let rows = state.range(&TIMERS, &Timestamp(0), &Timestamp(now.0.saturating_add(1)), limit)?;
    Ok(rows.into_iter().map(|(key, ())| key).collect())
}

/// When the earliest timer is due.
pub fn next_timer(state: &impl StateRead) -> Result<Option<Timestamp>, Error> {
    Ok(state.scan(&TIMERS, &(), None, 1)?.first().map(|((due, _), ())| *due))
}
