//! One job: how it stands, what was asked for, what it recorded and left.

use fleet_core::{Digest, JobId};

use super::tables::{
    BLOB_USES, DEFINITION_USES, DEFINITIONS, INBOX, JOB_ENDINGS, JOB_INPUTS, JOB_SPECS, JOBS, JOURNAL, SITE,
};
use crate::record::{Content, Ending, Job, JobSpec, JournalRecord, Site};
use crate::{Error, StateRead};

/// The row about the site, with its counters; an empty one before the first command.
pub fn site(state: &impl StateRead) -> Result<Site, Error> {
    Ok(state.get(&SITE, &())?.unwrap_or_default())
}

/// How a job stands.
pub fn job(state: &impl StateRead, job: JobId) -> Result<Option<Job>, Error> {
    state.get(&JOBS, &job)
}

/// What was asked for.
pub fn spec(state: &impl StateRead, job: JobId) -> Result<Option<JobSpec>, Error> {
    state.get(&JOB_SPECS, &job)
}

/// The input of a job.
pub fn input(state: &impl StateRead, job: JobId) -> Result<Option<Content>, Error> {
    state.get(&JOB_INPUTS, &job)
}

/// What a job left, if it ended with an output or an error.
pub fn ending(state: &impl StateRead, job: JobId) -> Result<Option<Ending>, Error> {
    state.get(&JOB_ENDINGS, &job)
}

/// At most `limit` records of a job's journal from position `from`, in order.
pub fn journal(state: &impl StateRead, job: JobId, from: u32, limit: usize) -> Result<Vec<JournalRecord>, Error> {
    let after = from.checked_sub(1).map(|position| (job, position));
    let rows = state.scan(&JOURNAL, &job, after.as_ref(), limit)?;
    Ok(rows.into_iter().map(|(_, record)| record).collect())
}

/// At most `limit` events delivered to a job, from position `from`, in order.
pub fn inbox(state: &impl StateRead, job: JobId, from: u32, limit: usize) -> Result<Vec<Content>, Error> {
    let after = from.checked_sub(1).map(|position| (job, position));
    let rows = state.scan(&INBOX, &job, after.as_ref(), limit)?;
    Ok(rows.into_iter().map(|(_, event)| event).collect())
}

/// The definition with this digest.
pub fn definition(state: &impl StateRead, digest: Digest) -> Result<Option<Content>, Error> {
    state.get(&DEFINITIONS, &digest)
}

/// How many kept jobs have the definition with this digest.
pub fn definition_uses(state: &impl StateRead, digest: Digest) -> Result<u64, Error> {
    Ok(state.get(&DEFINITION_USES, &digest)?.unwrap_or_default().jobs)
}

/// How often rows of jobs name the blob with this digest. A blob of count zero may be deleted once it is old.
pub fn blob_uses(state: &impl StateRead, digest: Digest) -> Result<u64, Error> {
    Ok(state.get(&BLOB_USES, &digest)?.unwrap_or_default().rows)
}
