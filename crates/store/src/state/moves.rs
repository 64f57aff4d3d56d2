//! Jobs between sites: where each went, what is not answered or acknowledged yet, and what was decided of those that came.

use fleet_core::{GroupId, JobId, Timestamp};

use super::index::mirror_key;
use super::queue::ENDED_LOOKED_AT_MAX;
use super::tables::{ARRIVALS, CANCELS, MIRRORS_BY_STATE, MOVES, ORIGINS, OUTBOX, PEERS, REPORTS};
use crate::record::{Arrival, JobState, Mirror, Move, Origin, Peer, Serial};
use crate::{Error, StateRead};

/// Most other groups that one ever has to do with.
pub const PEERS_MAX: usize = 10_000;
/// Most groups that are told of one job.
pub const ORIGINS_MAX: usize = 16;

/// What is kept of the group `peer`.
pub fn peer(state: &impl StateRead, peer: GroupId) -> Result<Option<Peer>, Error> {
    state.get(&PEERS, &peer)
}

/// Every group that jobs went to or came from.
pub fn peers(state: &impl StateRead) -> Result<Vec<(GroupId, Peer)>, Error> {
    state.scan(&PEERS, &(), None, PEERS_MAX)
}

/// Where `job` goes or went; `None` if it lives here or nowhere.
pub fn of_job(state: &impl StateRead, job: JobId) -> Result<Option<Move>, Error> {
    state.get(&MOVES, &job)
}

/// At most `limit` jobs that left this group, or are about to, by id, those after `after` if given.
pub fn after(state: &impl StateRead, after: Option<JobId>, limit: usize) -> Result<Vec<(JobId, Move)>, Error> {
    state.scan(&MOVES, &(), after.as_ref(), limit)
}

/// How `job` stands at another site; `None` if it does not live at one as far as this group knows.
pub fn mirror(state: &impl StateRead, job: JobId) -> Result<Option<(Move, Mirror)>, Error> {
    let moved = of_job(state, job)?;
    Ok(moved.and_then(|moved| moved.mirror.clone().map(|mirror| (moved, mirror))))
}

/// At most `limit` moves to `peer` that it has not answered, oldest first, those after `after` if given.
pub fn outbox(
    state: &impl StateRead,
    peer: GroupId,
    after: Option<Serial>,
    limit: usize,
) -> Result<Vec<(Serial, JobId)>, Error> {
    let rows = state.scan(&OUTBOX, &peer, after.map(|serial| (peer, serial)).as_ref(), limit)?;
    Ok(rows.into_iter().map(|((_, serial), row)| (serial, row.job)).collect())
}

/// The job of the move `number` to `peer`, while it is not answered.
pub fn unanswered(state: &impl StateRead, peer: GroupId, number: Serial) -> Result<Option<JobId>, Error> {
    Ok(state.get(&OUTBOX, &(peer, number))?.map(|row| row.job))
}

/// The watermark for `peer`: every move before it was answered, and the answer committed.
pub fn watermark(state: &impl StateRead, peer: GroupId) -> Result<Serial, Error> {
    if let Some((first, _)) = outbox(state, peer, None, 1)?.first() {
        return Ok(*first);
    }
    let last = self::peer(state, peer)?.map(|row| row.moved).unwrap_or_default();
    Ok(last.next(last.epoch))
}

/// At most `limit` jobs that are to be cancelled at `peer`, those after `after` if given.
pub fn cancels(
    state: &impl StateRead,
    peer: GroupId,
    after: Option<Serial>,
    limit: usize,
) -> Result<Vec<(Serial, JobId)>, Error> {
    let rows = state.scan(&CANCELS, &peer, after.map(|serial| (peer, serial)).as_ref(), limit)?;
    Ok(rows.into_iter().map(|((_, serial), row)| (serial, row.job)).collect())
}

/// At most `limit` reports that `peer` has not acknowledged, oldest first, those after `after` if given.
pub fn reports(
    state: &impl StateRead,
    peer: GroupId,
    after: Option<Serial>,
    limit: usize,
) -> Result<Vec<(Serial, JobId)>, Error> {
    let rows = state.scan(&REPORTS, &peer, after.map(|serial| (peer, serial)).as_ref(), limit)?;
    Ok(rows.into_iter().map(|((_, serial), row)| (serial, row.job)).collect())
}

/// What was decided of the move `number` of `source`, as long as that is kept.
pub fn arrival(state: &impl StateRead, source: GroupId, number: Serial) -> Result<Option<Arrival>, Error> {
    state.get(&ARRIVALS, &(source, number))
}

/// By which move `job` came from `source`.
pub fn origin(state: &impl StateRead, job: JobId, source: GroupId) -> Result<Option<Origin>, Error> {
    state.get(&ORIGINS, &(job, source))
}

/// The groups that are told of `job`.
pub fn origins(state: &impl StateRead, job: JobId) -> Result<Vec<(GroupId, Origin)>, Error> {
    let rows = state.scan(&ORIGINS, &job, None, ORIGINS_MAX)?;
    Ok(rows.into_iter().map(|((_, group), origin)| (group, origin)).collect())
}

/// At most `limit` jobs of whose end at another site this group heard before `before`, as [`super::queue::ended_before`] finds those that
/// ended here.
pub fn ended_before(state: &impl StateRead, before: Timestamp, limit: usize) -> Result<Vec<JobId>, Error> {
    let mut ended = Vec::new();
    for wanted in JobState::ALL.into_iter().filter(|state| state.is_ended()) {
        for (_, job) in state.scan(&MIRRORS_BY_STATE, &wanted.number(), None, ENDED_LOOKED_AT_MAX)? {
            if ended.len() == limit {
                return Ok(ended);
            }
            let Some((_, mirror)) = self::mirror(state, job)? else {
                return Err(Error::corrupt("mirrors_by_state", format!("job {job} has no mirror")));
            };
            debug_assert_eq!(mirror_key(&mirror).0, wanted.number(), "job {job}: mirror and index disagree");
            if mirror.ended_here.is_some_and(|at| at < before) {
                ended.push(job);
            }
        }
    }
    Ok(ended)
}
