//! What one group has to say to another about jobs that move between them, read from its state. Pure.
//!
//! Not here: when it is said, and in which messages (the courier of `fleet-node`).

use fleet_core::{GroupId, JobId};
use fleet_store::record::{JobState, PeerSite, Serial, Standing};
use fleet_store::state::{jobs, members, moves};
use fleet_store::{Error, StateRead};

use crate::command::{Arriving, Report, Submission};

/// The job of the move `number` as `own` sends it to its target; `None` if it is under way no more.
pub fn arriving(state: &impl StateRead, own: &PeerSite, number: Serial, job: JobId) -> Result<Option<Arriving>, Error> {
    let Some(moved) = moves::of_job(state, job)?.filter(|moved| moved.number == number && moved.mirror.is_none())
    else {
        return Ok(None);
    };
    let (Some(row), Some(spec), Some(input)) =
        (jobs::job(state, job)?, jobs::spec(state, job)?, jobs::input(state, job)?)
    else {
        return Err(Error::corrupt("moves", format!("job {job} has no row")));
    };
    let definition = jobs::definition(state, spec.definition)?;
    let submission = Submission { job, spec, priority: row.priority, input, definition };
    let (source, generation, created_at) = (own.clone(), moved.generation, row.created_at);
    Ok(Some(Arriving { source, number, generation, created_at, submission }))
}

/// How `job` stands, as `own` tells the group `to` under `serial`; `None` if a newer report took its place.
pub fn report(
    state: &impl StateRead,
    own: GroupId,
    to: GroupId,
    serial: Serial,
    job: JobId,
) -> Result<Option<Report>, Error> {
    let origin = moves::origin(state, job, to)?.filter(|origin| origin.pending == Some(serial));
    let (Some(origin), Some(row)) = (origin, jobs::job(state, job)?) else { return Ok(None) };
    let node = match row.node {
        Some(node) => members::node(state, node)?.map_or_else(|| node.to_string(), |record| record.profile.name),
        None => String::new(),
    };
    // The origin's own words for where a job is are enough while it is under way.
    let reason = row.reason.as_ref().map(ToString::to_string).unwrap_or_default();
    let standing = Standing {
        state: row.state,
        reason,
        node,
        attempt: row.attempt,
        started_at: row.started_at,
        ended_at: row.ended_at,
    };
    debug_assert_ne!(row.state, JobState::Transferring, "job {job}: what came from elsewhere moves no further");
    let ending = jobs::ending(state, job)?;
    let (number, generation) = (origin.number, origin.generation);
    Ok(Some(Report { from: own, serial, job, number, generation, standing, ending }))
}
