//! Changing one job: loads its row, and saves it with everything that must follow it.
//!
//! Invariants that every save keeps: a job has exactly one row in `JOBS_BY_STATE`; one in `TIMERS` exactly while it waits
//! with a due time; the counters count every row; a job has a holder exactly in the states that need one, and a cause to
//! stop exactly while stopping; an ended job is never saved again.

use fleet_core::{JobId, Timestamp};
use fleet_store::Error;
use fleet_store::record::{Assignment, Content, Ending, Job, JobState, JournalMark, JournalRecord, Reason, StopCause};
use fleet_store::state::index::{state_key, timer_due};
use fleet_store::state::tables::{JOB_ENDINGS, JOBS, JOBS_BY_STATE, JOURNAL, TIMERS};
use fleet_store::state::{jobs, moves};

use super::scope::{Halt, Scope};
use super::{Event, reports};
use crate::command::Refusal;

/// Most commands of operators and senders that a job remembers.
const HANDLED_MAX: usize = 8;

/// A job being changed.
pub(super) struct Transition {
    pub(super) id: JobId,
    pub(super) job: Job,
    /// Whether the job's holder moves it, by a word of its own.
    pub(super) by_holder: bool,
    before: Option<Before>,
}

/// What the indexes, counters and events must know of the job as it was.
struct Before {
    state: JobState,
    key: (u8, u8, u64),
    due: Option<Timestamp>,
    assignment: Option<Assignment>,
    stop: Option<StopCause>,
    journal_length: u32,
}

impl Transition {
    /// The job `id`, to be changed.
    pub(super) fn load(scope: &Scope<'_, '_>, id: JobId) -> Result<Self, Halt> {
        let Some(job) = jobs::job(scope.transaction, id)? else { return Err(missing(scope, id)?.into()) };
        let before = Before {
            state: job.state,
            key: state_key(&job),
            due: timer_due(&job),
            assignment: job.assignment,
            stop: job.stop,
            journal_length: job.journal_length,
        };
        Ok(Self { id, job, by_holder: false, before: Some(before) })
    }

    /// A job that is new.
    pub(super) fn create(id: JobId, job: Job) -> Self {
        Self { id, job, by_holder: false, before: None }
    }

    /// Whether the job already obeyed this command.
    pub(super) fn has_handled(&self, scope: &Scope<'_, '_>) -> bool {
        self.job.handled.contains(&scope.id)
    }

    /// Remembers that the job obeyed this command.
    pub(super) fn note_handled(&mut self, scope: &Scope<'_, '_>) {
        if self.job.handled.len() == HANDLED_MAX {
            self.job.handled.remove(0);
        }
        self.job.handled.push(scope.id);
    }

    /// Appends one record to the journal.
    pub(super) fn append(&mut self, scope: &mut Scope<'_, '_>, record: &JournalRecord) -> Result<(), Error> {
        scope.transaction.put(&JOURNAL, &(self.id, self.job.journal_length), record)?;
        scope.count_blob(&record.event)?;
        self.job.journal_length += 1;
        self.job.journal_bytes += record.event.length();
        scope.site.counters.journaled += 1;
        match &record.mark {
            JournalMark::Plain => {}
            JournalMark::EffectStarted(path) => {
                if !self.job.in_flight.contains(path) {
                    self.job.in_flight.push(path.clone());
                }
            }
            JournalMark::EffectEnded(path) => self.job.in_flight.retain(|started| started != path),
        }
        Ok(())
    }

    /// Takes the job from its holder and leaves it in `state`, not ended. Effects that were journaled as begun and not as
    /// ended were lost with the holder, and the journal says so.
    pub(super) fn leave_holder(
        &mut self,
        scope: &mut Scope<'_, '_>,
        state: JobState,
        reason: Option<Reason>,
    ) -> Result<(), Error> {
        for path in std::mem::take(&mut self.job.in_flight) {
            let record = JournalRecord::effect_lost(&path, scope.now)?;
            self.append(scope, &record)?;
        }
        self.rest(state, reason);
        Ok(())
    }

    /// Puts the job, which nobody holds from now on, into `state`.
    pub(super) fn rest(&mut self, state: JobState, reason: Option<Reason>) {
        self.job.assignment = None;
        self.job.stop = None;
        self.job.wake_at = None;
        self.job.state = state;
        self.job.reason = reason;
    }

    /// Ends the job.
    pub(super) fn end(&mut self, scope: &Scope<'_, '_>, state: JobState, reason: Option<Reason>) {
        self.rest(state, reason);
        self.job.in_flight.clear();
        self.job.ended_at = Some(scope.now.max(self.job.started_at.unwrap_or(self.job.created_at)));
    }

    /// Writes what the job leaves.
    pub(super) fn leave(&self, scope: &mut Scope<'_, '_>, ending: &Ending) -> Result<(), Error> {
        let (Ending::Output(content) | Ending::Error(content)) = ending;
        let content: &Content = content;
        scope.count_blob(content)?;
        scope.transaction.put(&JOB_ENDINGS, &self.id, ending)
    }

    /// Writes the job and all that follows it; returns the job's state.
    pub(super) fn save(self, scope: &mut Scope<'_, '_>) -> Result<JobState, Error> {
        let Self { id, job, by_holder, before } = self;
        debug_assert_eq!(job.assignment.is_some(), job.state.has_holder(), "job {id}: holder and state disagree");
        debug_assert_eq!(job.stop.is_some(), job.state == JobState::Stopping, "job {id}: stop and state disagree");
        debug_assert!(before.as_ref().is_none_or(|before| !before.state.is_ended()), "job {id}: changed after its end");
        let (key, due) = (state_key(&job), timer_due(&job));
        if before.as_ref().map(|before| before.key) != Some(key) {
            if let Some(before) = &before {
                scope.transaction.remove(&JOBS_BY_STATE, &before.key)?;
            }
            scope.transaction.put(&JOBS_BY_STATE, &key, &id)?;
        }
        let due_before = before.as_ref().and_then(|before| before.due);
        if due_before != due {
            if let Some(due) = due_before {
                scope.transaction.remove(&TIMERS, &(due, id))?;
            }
            if let Some(due) = due {
                scope.transaction.put(&TIMERS, &(due, id), &())?;
            }
        }
        let counts = &mut scope.site.counters.jobs;
        if let Some(before) = &before {
            counts[usize::from(before.state.number())] -= 1;
        }
        counts[usize::from(job.state.number())] += 1;
        scope.transaction.put(&JOBS, &id, &job)?;
        announce(scope, id, &job, by_holder, before.as_ref());
        // Only a job that moved can have come from elsewhere.
        if job.generation > 0 && before.as_ref().map(|before| before.state) != Some(job.state) {
            reports::note_change(scope, id)?;
        }
        Ok(job.state)
    }

    /// Takes the job out of this group: it is another one's now. What was asked for stays, for its mirror.
    pub(super) fn remove(self, scope: &mut Scope<'_, '_>) -> Result<(), Error> {
        let Some(before) = &self.before else { return Ok(()) };
        debug_assert_eq!(before.state, JobState::Transferring, "job {}: it goes only when it moves", self.id);
        scope.transaction.remove(&JOBS_BY_STATE, &before.key)?;
        scope.transaction.remove(&JOBS, &self.id)?;
        scope.site.counters.jobs[usize::from(before.state.number())] -= 1;
        Ok(())
    }
}

/// Why the job `id` cannot be changed, which has no row.
fn missing(scope: &Scope<'_, '_>, id: JobId) -> Result<Refusal, Error> {
    Ok(match moves::of_job(scope.transaction, id)? {
        Some(moved) => Refusal::JobElsewhere { job: id, site: moved.to.site },
        None => Refusal::JobUnknown(id),
    })
}

fn announce(scope: &mut Scope<'_, '_>, id: JobId, job: &Job, by_holder: bool, before: Option<&Before>) {
    let journaled = before.map_or(0, |before| before.journal_length);
    if job.journal_length > journaled {
        scope.emit(Event::JournalAppended { job: id, from: journaled, length: job.journal_length });
    }
    let changed = before
        .is_none_or(|before| (before.state, before.assignment, before.stop) != (job.state, job.assignment, job.stop));
    if changed {
        // The same right in another session was not let go of.
        let fence = job.assignment.map(|assignment| assignment.fence);
        let released = before.and_then(|before| before.assignment).filter(|held| fence != Some(held.fence));
        scope.emit(Event::JobChanged {
            job: id,
            from: before.map(|before| before.state),
            to: job.state,
            attempt: job.attempt,
            assignment: job.assignment,
            settled: by_holder && released.is_some(),
            released,
            stop: job.stop,
        });
    }
}
