//! Taking a job from a holder that confirmed, let go, or was lost.

use fleet_core::{Fence, JobId, NodeId};
use fleet_store::Error;
use fleet_store::record::{JobState, Reason, StopCause};
use fleet_store::state::jobs;

use super::scope::{Halt, Scope};
use super::transition::Transition;
use crate::command::{Outcome, Refusal, ReleaseCause};

/// Ends the right of `fence` to act for `job`.
pub(super) fn release(
    scope: &mut Scope<'_, '_>,
    job: JobId,
    fence: Fence,
    cause: ReleaseCause,
) -> Result<Outcome, Halt> {
    let mut transition = Transition::load(scope, job)?;
    if !transition.job.assignment.is_some_and(|assignment| assignment.fence.accepts(&fence)) {
        return Err(Refusal::StaleFence { job, presented: fence }.into());
    }
    transition.by_holder = cause == ReleaseCause::Stopped;
    match cause {
        ReleaseCause::Lost => lose(scope, &mut transition)?,
        ReleaseCause::Gone | ReleaseCause::Stopped => let_go(scope, &mut transition)?,
    }
    let state = transition.save(scope)?;
    Ok(Outcome::Changed { state })
}

/// Where the job goes whose holder let go of it alive.
pub(super) fn let_go(scope: &mut Scope<'_, '_>, transition: &mut Transition) -> Result<(), Halt> {
    let given_back = transition.job.node.map(|node| Reason::GivenBack { node });
    Ok(leave(scope, transition, given_back)?)
}

/// Where the job goes whose holder is lost: like one that let go, unless that happened too often.
pub(super) fn lose(scope: &mut Scope<'_, '_>, transition: &mut Transition) -> Result<(), Error> {
    scope.site.counters.lost += 1;
    transition.job.lost += 1;
    let lost = transition.job.lost;
    let lost_max = jobs::spec(scope.transaction, transition.id)?.map_or(0, |spec| spec.lost_max);
    let must_end = matches!(transition.job.stop, Some(StopCause::Cancel | StopCause::TimeOut));
    if lost > lost_max && !must_end {
        transition.end(scope, JobState::DeadLettered, Some(Reason::LostTooOften { lost, lost_max }));
        return Ok(());
    }
    let node = transition.job.node.unwrap_or_default();
    leave(scope, transition, Some(Reason::RobotLost { node, lost, lost_max }))
}

/// Where the job goes that nobody holds any more, by the cause for which its holder had to stop.
fn leave(scope: &mut Scope<'_, '_>, transition: &mut Transition, reason: Option<Reason>) -> Result<(), Error> {
    match transition.job.stop {
        None => transition.leave_holder(scope, JobState::Queued, reason),
        Some(StopCause::Drain) => {
            let drained = drained(transition.job.node);
            transition.leave_holder(scope, JobState::Queued, drained)
        }
        Some(StopCause::Pause) => transition.leave_holder(scope, JobState::Suspended, Some(Reason::PausedByOperator)),
        Some(StopCause::TimeOut) => {
            transition.end(scope, JobState::TimedOut, Some(Reason::TimeOver));
            Ok(())
        }
        Some(StopCause::Cancel) => {
            transition.end(scope, JobState::Cancelled, Some(Reason::CancelledByOperator));
            Ok(())
        }
    }
}

fn drained(node: Option<NodeId>) -> Option<Reason> {
    node.map(|node| Reason::Drained { node })
}
