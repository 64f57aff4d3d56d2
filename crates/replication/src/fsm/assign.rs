//! Giving a queued job to a robot.

use fleet_core::{JobId, SessionId};
use fleet_store::record::{Absence, Assignment, JobState, NodeStanding};
use fleet_store::state::members;

use super::scope::{Halt, Scope};
use super::transition::Transition;
use crate::command::{Outcome, Refusal};

/// Assigns `job`, assigned `attempt` times so far, to the robot of `session`.
pub(super) fn assign(scope: &mut Scope<'_, '_>, job: JobId, attempt: u32, session: SessionId) -> Result<Outcome, Halt> {
    let mut transition = Transition::load(scope, job)?;
    let current = &transition.job;
    if let Some(assignment) = current.assignment
        && assignment.session == session
        && current.attempt == attempt.wrapping_add(1)
    {
        return Ok(Outcome::Assigned { job, fence: assignment.fence });
    }
    if current.attempt != attempt {
        return Err(Refusal::AttemptPassed { job, attempt: current.attempt }.into());
    }
    if current.state != JobState::Queued {
        return Err(Refusal::WrongState { job, state: current.state, wanted: JobState::Queued }.into());
    }
    if scope.site.hold.is_some() {
        return Err(Refusal::Held.into());
    }
    let node = members::node(scope.transaction, session.node)?.ok_or(Refusal::NodeUnknown(session.node))?;
    match node.standing {
        NodeStanding::Active => {}
        NodeStanding::Draining { .. } => return Err(Refusal::NodeDraining(session.node).into()),
        NodeStanding::Removed => return Err(Refusal::NodeRemoved(session.node).into()),
    }
    let fence = scope.fence;
    scope.site.counters.assigned += 1;
    transition.job.attempt += 1;
    transition.job.state = JobState::Assigned;
    transition.job.assignment = Some(Assignment { session, fence, at: scope.now });
    transition.job.absence = Absence::default();
    transition.job.node = Some(session.node);
    transition.job.reason = None;
    transition.save(scope)?;
    Ok(Outcome::Assigned { job, fence })
}
