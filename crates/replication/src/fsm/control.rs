//! What operators and outside senders do to a job: stop, resume, deliver. Each is obeyed at most once per command id.

use fleet_core::JobId;
use fleet_store::record::{Content, JobState, Reason, StopCause};
use fleet_store::state::tables::INBOX;

use super::moves;
use super::scope::{Halt, Scope};
use super::transition::Transition;
use crate::command::{Outcome, Refusal};

/// Stops `job`: at once if nobody holds it, else its holder must stop first.
pub(super) fn stop(scope: &mut Scope<'_, '_>, job: JobId, cause: StopCause) -> Result<Outcome, Halt> {
    if cause == StopCause::Cancel
        && let Some(outcome) = moves::cancel(scope, job)?
    {
        return Ok(outcome);
    }
    let mut transition = Transition::load(scope, job)?;
    let state = transition.job.state;
    if transition.has_handled(scope) || is_stopped(state, cause) {
        return Ok(Outcome::Changed { state });
    }
    if state.is_ended() {
        return Err(Refusal::JobEnded { job, state }.into());
    }
    match state {
        JobState::Transferring => {
            return Err(Refusal::WrongState { job, state, wanted: JobState::Queued }.into());
        }
        held if held.has_holder() => {
            transition.job.stop = transition.job.stop.max(Some(cause));
            transition.job.state = JobState::Stopping;
        }
        _ => match cause {
            StopCause::Drain => {}
            StopCause::Pause => transition.rest(JobState::Suspended, Some(Reason::PausedByOperator)),
            StopCause::TimeOut => transition.end(scope, JobState::TimedOut, Some(Reason::TimeOver)),
            StopCause::Cancel => transition.end(scope, JobState::Cancelled, Some(Reason::CancelledByOperator)),
        },
    }
    if matches!(cause, StopCause::Pause | StopCause::Cancel) {
        transition.note_handled(scope);
    }
    let state = transition.save(scope)?;
    Ok(Outcome::Changed { state })
}

/// Whether a job in `state` is where a stop for `cause` would bring it.
fn is_stopped(state: JobState, cause: StopCause) -> bool {
    matches!(
        (state, cause),
        (JobState::Suspended, StopCause::Pause)
            | (JobState::TimedOut, StopCause::TimeOut)
            | (JobState::Cancelled, StopCause::Cancel)
    )
}

/// Queues a suspended job again. One whose holder is still stopping for a pause goes back to the queue when it has.
pub(super) fn resume(scope: &mut Scope<'_, '_>, job: JobId) -> Result<Outcome, Halt> {
    let mut transition = Transition::load(scope, job)?;
    let state = transition.job.state;
    if transition.has_handled(scope) {
        return Ok(Outcome::Changed { state });
    }
    if state.is_ended() {
        return Err(Refusal::JobEnded { job, state }.into());
    }
    match (state, transition.job.stop) {
        (JobState::Suspended, _) => transition.rest(JobState::Queued, None),
        (JobState::Stopping, Some(StopCause::Pause)) => transition.job.stop = Some(StopCause::Drain),
        _ => return Err(Refusal::WrongState { job, state, wanted: JobState::Suspended }.into()),
    }
    transition.note_handled(scope);
    let state = transition.save(scope)?;
    Ok(Outcome::Changed { state })
}

/// Keeps `event` for `job`, and queues the job if it is parked.
pub(super) fn deliver(scope: &mut Scope<'_, '_>, job: JobId, event: &Content) -> Result<Outcome, Halt> {
    let mut transition = Transition::load(scope, job)?;
    let state = transition.job.state;
    if transition.has_handled(scope) {
        return Ok(Outcome::Changed { state });
    }
    if state.is_ended() {
        return Err(Refusal::JobEnded { job, state }.into());
    }
    if state == JobState::Transferring {
        return Err(Refusal::WrongState { job, state, wanted: JobState::Queued }.into());
    }
    scope.transaction.put(&INBOX, &(job, transition.job.inbox_length), event)?;
    scope.count_blob(event)?;
    transition.job.inbox_length += 1;
    if state == JobState::Waiting {
        transition.rest(JobState::Queued, None);
    }
    transition.note_handled(scope);
    let state = transition.save(scope)?;
    Ok(Outcome::Changed { state })
}
