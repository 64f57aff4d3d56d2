//! Timers of parked jobs.

use fleet_core::limits::TIMERS_PER_ENTRY_MAX;
use fleet_store::record::JobState;
use fleet_store::state::queue;

use super::scope::{Halt, Scope};
use super::transition::Transition;
use crate::command::Outcome;

/// Queues the parked jobs whose timers are due at the command's time, earliest first, up to the bound.
pub(super) fn fire(scope: &mut Scope<'_, '_>) -> Result<Outcome, Halt> {
    let mut due = queue::due_timers(scope.transaction, scope.now, TIMERS_PER_ENTRY_MAX + 1)?;
    let more = due.len() > TIMERS_PER_ENTRY_MAX;
    due.truncate(TIMERS_PER_ENTRY_MAX);
    let mut jobs = 0;
    for (_, job) in due {
        let mut transition = Transition::load(scope, job)?;
        transition.rest(JobState::Queued, None);
        transition.save(scope)?;
        jobs += 1;
    }
    Ok(Outcome::Fired { jobs, more })
}
