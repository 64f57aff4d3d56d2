//! Forgetting what is long over: ended jobs with every row of theirs, and spent tokens with what joiners got for them.
//!
//! Bounded in rows, so that no entry holds the store up; a long journal goes piece by piece, from its end.

use fleet_core::limits::{FORGOTTEN_JOBS_PER_ENTRY_MAX, FORGOTTEN_ROWS_PER_ENTRY_MAX};
use fleet_core::{JobId, Timestamp};
use fleet_store::record::{DefinitionUse, Ending, Job};
use fleet_store::state::index::state_key;
use fleet_store::state::tables::{
    DEFINITION_USES, DEFINITIONS, INBOX, JOB_ENDINGS, JOB_INPUTS, JOB_SPECS, JOBS, JOBS_BY_STATE, JOURNAL, MOVES,
    ORIGINS, REDEMPTIONS, REPORTS, TOKENS,
};
use fleet_store::state::{jobs, members, moves, queue};
use fleet_store::{Error, StateRead};

use super::mirrors;
use super::scope::{Halt, Scope};
use crate::command::{Outcome, Refusal};

/// Forgets what was over before `before`, as far as the bounds of one entry allow.
pub(super) fn forget(scope: &mut Scope<'_, '_>, before: Timestamp) -> Result<Outcome, Halt> {
    let mut rows_left = FORGOTTEN_ROWS_PER_ENTRY_MAX;
    let mut forgotten = 0;
    let mut ended = queue::ended_before(scope.transaction, before, FORGOTTEN_JOBS_PER_ENTRY_MAX + 1)?;
    let mut more = ended.len() > FORGOTTEN_JOBS_PER_ENTRY_MAX;
    ended.truncate(FORGOTTEN_JOBS_PER_ENTRY_MAX);
    for job in ended {
        if !forget_job(scope, job, &mut rows_left)? {
            more = true;
            break;
        }
        forgotten += 1;
    }
    let mirrors = forget_mirrors(scope, before, &mut rows_left)?;
    more |= mirrors.1;
    forgotten += mirrors.0;
    forget_tokens(scope, before, rows_left)?;
    Ok(Outcome::Forgotten { jobs: forgotten, more })
}

/// Forgets jobs that ended at other sites: how many, and whether there are more.
fn forget_mirrors(scope: &mut Scope<'_, '_>, before: Timestamp, rows_left: &mut usize) -> Result<(u32, bool), Halt> {
    let limit = (*rows_left).min(FORGOTTEN_JOBS_PER_ENTRY_MAX);
    let mut ended = moves::ended_before(scope.transaction, before, limit + 1)?;
    let more = ended.len() > limit;
    ended.truncate(limit);
    for id in &ended {
        if let Some((moved, mirror)) = moves::mirror(scope.transaction, *id)? {
            mirrors::remove(scope, *id, &moved, &mirror)?;
            scope.transaction.remove(&MOVES, id)?;
            remove_contents(scope, *id)?;
        }
    }
    *rows_left -= ended.len();
    Ok((u32::try_from(ended.len()).unwrap_or(u32::MAX), more))
}

/// Removes the job whole, or only the end of its journal where `rows_left` do not reach. Whether it is gone.
fn forget_job(scope: &mut Scope<'_, '_>, id: JobId, rows_left: &mut usize) -> Result<bool, Halt> {
    let mut job = jobs::job(scope.transaction, id)?.ok_or(Refusal::JobUnknown(id))?;
    let take = (job.journal_length as usize).min(*rows_left);
    let from = job.journal_length - u32::try_from(take).unwrap_or(u32::MAX);
    for position in from..job.journal_length {
        if let Some(record) = scope.transaction.take(&JOURNAL, &(id, position))? {
            job.journal_bytes -= record.event.length();
            scope.site.counters.journaled -= 1;
            scope.release_blob(&record.event)?;
        }
    }
    *rows_left -= take;
    job.journal_length = from;
    if from > 0 || *rows_left == 0 {
        scope.transaction.put(&JOBS, &id, &job)?;
        return Ok(false);
    }
    remove_rows(scope, id, &job)?;
    *rows_left = rows_left.saturating_sub(1 + job.inbox_length as usize);
    Ok(true)
}

fn remove_rows(scope: &mut Scope<'_, '_>, id: JobId, job: &Job) -> Result<(), Error> {
    for position in 0..job.inbox_length {
        if let Some(event) = scope.transaction.take(&INBOX, &(id, position))? {
            scope.release_blob(&event)?;
        }
    }
    for (group, origin) in moves::origins(scope.transaction, id)? {
        scope.transaction.remove(&ORIGINS, &(id, group))?;
        if let Some(pending) = origin.pending {
            scope.transaction.remove(&REPORTS, &(group, pending))?;
        }
    }
    remove_contents(scope, id)?;
    scope.transaction.remove(&JOBS_BY_STATE, &state_key(job))?;
    scope.transaction.remove(&JOBS, &id)?;
    scope.site.counters.jobs[usize::from(job.state.number())] -= 1;
    Ok(())
}

/// Removes what was asked for with a job, and what it left.
fn remove_contents(scope: &mut Scope<'_, '_>, id: JobId) -> Result<(), Error> {
    if let Some(input) = scope.transaction.take(&JOB_INPUTS, &id)? {
        scope.release_blob(&input)?;
    }
    if let Some(Ending::Output(content) | Ending::Error(content)) = scope.transaction.take(&JOB_ENDINGS, &id)? {
        scope.release_blob(&content)?;
    }
    if let Some(spec) = scope.transaction.take(&JOB_SPECS, &id)? {
        let uses = jobs::definition_uses(scope.transaction, spec.definition)?.saturating_sub(1);
        if uses > 0 {
            scope.transaction.put(&DEFINITION_USES, &spec.definition, &DefinitionUse { jobs: uses })?;
        } else {
            scope.transaction.remove(&DEFINITION_USES, &spec.definition)?;
            if let Some(definition) = scope.transaction.take(&DEFINITIONS, &spec.definition)? {
                scope.release_blob(&definition)?;
            }
        }
    }
    Ok(())
}

/// Tokens that ran out, and what joiners got, where both are older than `before`.
fn forget_tokens(scope: &mut Scope<'_, '_>, before: Timestamp, limit: usize) -> Result<(), Error> {
    for (token, record) in members::tokens(scope.transaction, None, limit)? {
        if record.expires_at < before {
            scope.transaction.remove(&TOKENS, &token.0)?;
        }
    }
    for (key, redemption) in scope.transaction.scan(&REDEMPTIONS, &(), None, limit)? {
        if redemption.at < before {
            scope.transaction.remove(&REDEMPTIONS, &key)?;
        }
    }
    Ok(())
}
