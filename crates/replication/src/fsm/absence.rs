//! Holders that may finish a job cut off (`onDisconnect: finish`): how long one has not been heard, its return, and its end.
//!
//! Absences of a holder are numbered, and a return begins the next number with nothing elapsed. So a leader that was not
//! told of the return (its words come late, or it has been deposed) neither shortens what is left to the holder nor takes
//! the job from it: what it says of the absence before is refused here.

use fleet_core::{Fence, JobId, SessionId};
use fleet_store::record::{Absence, Assignment};
use fleet_store::state::jobs;

use super::release::lose;
use super::scope::{Halt, Scope};
use super::transition::Transition;
use crate::command::{Outcome, Refusal};

/// The job `job`, held under `fence`.
fn held(scope: &Scope<'_, '_>, job: JobId, fence: Fence) -> Result<(Transition, Assignment), Halt> {
    let transition = Transition::load(scope, job)?;
    match transition.job.assignment.filter(|assignment| assignment.fence.accepts(&fence)) {
        Some(assignment) => Ok((transition, assignment)),
        None => Err(Refusal::StaleFence { job, presented: fence }.into()),
    }
}

/// Notes how long the holder has not been heard. Only more than is known counts.
pub(super) fn note(scope: &mut Scope<'_, '_>, job: JobId, fence: Fence, absence: Absence) -> Result<Outcome, Halt> {
    let (mut transition, _) = held(scope, job, fence)?;
    if absence <= transition.job.absence {
        return Ok(Outcome::Unchanged);
    }
    transition.job.absence = absence;
    transition.save(scope)?;
    Ok(Outcome::Done)
}

/// Binds the assignment to `session`, in which its holder is back. The fence stays: it is the same right, which was never
/// given to anybody else, and what the holder wrote while it was away carries it.
pub(super) fn rebind(scope: &mut Scope<'_, '_>, job: JobId, fence: Fence, session: SessionId) -> Result<Outcome, Halt> {
    let (mut transition, assignment) = held(scope, job, fence)?;
    let bound = assignment.session;
    if bound == session {
        return Ok(Outcome::Unchanged);
    }
    let may_finish = jobs::spec(scope.transaction, job)?.is_some_and(|spec| spec.finish_within_ms.is_some());
    let is_same_boot = (bound.node, bound.boot) == (session.node, session.boot);
    if !may_finish || !is_same_boot || !session.is_newer_than(&bound) {
        return Err(Refusal::HolderMoved(job).into());
    }
    transition.job.assignment = Some(Assignment { session, ..assignment });
    transition.job.absence = Absence { number: transition.job.absence.number.saturating_add(1), elapsed_ms: 0 };
    transition.save(scope)?;
    Ok(Outcome::Done)
}

/// Takes the job from a holder whose absence `number` lasted past its bound.
pub(super) fn release(scope: &mut Scope<'_, '_>, job: JobId, fence: Fence, number: u32) -> Result<Outcome, Halt> {
    let (mut transition, _) = held(scope, job, fence)?;
    if transition.job.absence.number != number {
        return Err(Refusal::HolderMoved(job).into());
    }
    lose(scope, &mut transition)?;
    let state = transition.save(scope)?;
    Ok(Outcome::Changed { state })
}
