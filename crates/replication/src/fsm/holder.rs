//! What a job's holder records: results of effects, and how the job goes on.

use fleet_core::Timestamp;
use fleet_core::limits::JOURNAL_BYTES_MAX;
use fleet_store::record::journal::journal_full;
use fleet_store::record::{Ending, JobState, JournalRecord, Reason, Settled, StopCause};

use super::release::let_go;
use super::scope::{Halt, Scope};
use super::transition::Transition;
use crate::command::{Next, Outcome, Records, Refusal};

/// Appends the records of a holder, at most once however often they come, and moves the job on.
pub(super) fn record(scope: &mut Scope<'_, '_>, records: &Records) -> Result<Outcome, Halt> {
    let mut transition = Transition::load(scope, records.job)?;
    let job = &transition.job;
    let end = records.from.saturating_add(u32::try_from(records.records.len()).unwrap_or(u32::MAX));
    if let Some(settled) = job.settled
        && settled.fence == records.fence
        && end <= settled.journal_length
    {
        return Ok(Outcome::Recorded { length: settled.journal_length, state: job.state });
    }
    if !job.assignment.is_some_and(|assignment| assignment.fence.accepts(&records.fence)) {
        return Err(Refusal::StaleFence { job: records.job, presented: records.fence }.into());
    }
    if records.from > job.journal_length {
        return Err(Refusal::JournalGap { job: records.job, length: job.journal_length }.into());
    }
    let known = usize::try_from(job.journal_length - records.from).unwrap_or(usize::MAX);
    let new = records.records.get(known..).unwrap_or_default();
    transition.by_holder = true;
    begin(scope, &mut transition);
    if transition.job.journal_bytes.saturating_add(bytes_of(new)) > JOURNAL_BYTES_MAX {
        transition.leave(scope, &Ending::Error(journal_full(JOURNAL_BYTES_MAX)?))?;
        transition.end(scope, JobState::Failed, Some(Reason::JournalFull { bytes_max: JOURNAL_BYTES_MAX }));
    } else {
        for record in new {
            transition.append(scope, record)?;
        }
        go_on(scope, &mut transition, records)?;
    }
    let length = transition.job.journal_length;
    let state = transition.save(scope)?;
    Ok(Outcome::Recorded { length, state })
}

fn bytes_of(records: &[JournalRecord]) -> u64 {
    records.iter().map(|record| record.event.length()).fold(0, u64::saturating_add)
}

/// The first word of a holder shows that it runs.
fn begin(scope: &Scope<'_, '_>, transition: &mut Transition) {
    let job = &mut transition.job;
    if job.state == JobState::Assigned {
        job.state = JobState::Running;
    }
    if job.started_at.is_none() {
        job.started_at = Some(scope.now.max(job.created_at));
    }
}

/// Moves the job on after its holder's records. A holder that ends the job before it heard of a stop has ended it.
fn go_on(scope: &mut Scope<'_, '_>, transition: &mut Transition, records: &Records) -> Result<(), Halt> {
    if records.next != Next::Continue {
        let journal_length = transition.job.journal_length;
        transition.job.settled = Some(Settled { fence: records.fence, journal_length });
    }
    match &records.next {
        Next::Continue => {}
        Next::Park { wake_at, inbox_read } => park(scope, transition, *wake_at, *inbox_read)?,
        Next::Complete { output } => {
            transition.leave(scope, &Ending::Output(output.clone()))?;
            transition.end(scope, JobState::Completed, None);
        }
        Next::Fail { error } => {
            transition.leave(scope, &Ending::Error(error.clone()))?;
            transition.end(scope, JobState::Failed, None);
        }
        Next::TimeOut { error } => {
            transition.leave(scope, &Ending::Error(error.clone()))?;
            transition.end(scope, JobState::TimedOut, Some(Reason::TimeOver));
        }
        Next::HandBack => let_go(scope, transition)?,
    }
    Ok(())
}

/// Parks the job, unless there is something to do already or its holder was to stop for more than a drain.
fn park(
    scope: &mut Scope<'_, '_>,
    transition: &mut Transition,
    wake_at: Option<Timestamp>,
    inbox_read: u32,
) -> Result<(), Halt> {
    if transition.job.stop.is_some_and(|cause| cause != StopCause::Drain) {
        return let_go(scope, transition);
    }
    let is_due = wake_at.is_some_and(|due| due <= scope.now);
    if is_due || transition.job.inbox_length > inbox_read {
        transition.leave_holder(scope, JobState::Queued, None)?;
        return Ok(());
    }
    let reason = wake_at.map_or(Reason::EventAwaited, |due| Reason::TimerRuns { due });
    transition.leave_holder(scope, JobState::Waiting, Some(reason))?;
    transition.job.wake_at = wake_at;
    Ok(())
}
