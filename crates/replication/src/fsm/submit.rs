//! Accepting a job.

use fleet_core::limits::QUEUE_JOBS_MAX;
use fleet_core::{Digest, JobId, SessionId};
use fleet_store::record::{Content, DefinitionUse, Job, JobSpec, JobState};
use fleet_store::state::tables::{DEFINITION_USES, DEFINITIONS, JOB_INPUTS, JOB_SPECS};
use fleet_store::state::{jobs, moves};

use super::assign::assign;
use super::scope::{Halt, Scope};
use super::site::check_site;
use super::transition::Transition;
use crate::command::{Outcome, Refusal, Submission};

/// Accepts `submission`, or answers like the first time if it was accepted before.
pub(super) fn submit(scope: &mut Scope<'_, '_>, submission: &Submission) -> Result<Outcome, Halt> {
    let queued = scope.site.counters.jobs_in(JobState::Queued);
    if queued >= QUEUE_JOBS_MAX && !is_known(scope, submission.job)? {
        check_site(scope, &submission.spec.site)?;
        return Err(Refusal::QueueFull(queued).into());
    }
    accept_new(scope, submission)
}

/// As [`submit`], but for a job that does not stay in the queue.
pub(super) fn accept_new(scope: &mut Scope<'_, '_>, submission: &Submission) -> Result<Outcome, Halt> {
    let id = submission.job;
    if let Some(priority) = known_priority(scope, id)? {
        return match priority == submission.priority && has_same_content(scope, submission)? {
            true => Ok(Outcome::Submitted { job: id, created: false }),
            false => Err(Refusal::JobConflict(id).into()),
        };
    }
    check_site(scope, &submission.spec.site)?;
    store_contents(scope, submission, &submission.spec)?;
    scope.site.counters.submitted += 1;
    let job = Job::queued(scope.site.counters.submitted, submission.priority, scope.now);
    Transition::create(id, job).save(scope)?;
    Ok(Outcome::Submitted { job: id, created: true })
}

/// Whether the job was accepted before.
pub(super) fn is_known(scope: &Scope<'_, '_>, id: JobId) -> Result<bool, Halt> {
    Ok(known_priority(scope, id)?.is_some())
}

/// The priority of the job, here or at the site it went to; `None` if there is no such job.
fn known_priority(scope: &Scope<'_, '_>, id: JobId) -> Result<Option<u8>, Halt> {
    if let Some(job) = jobs::job(scope.transaction, id)? {
        return Ok(Some(job.priority));
    }
    Ok(moves::mirror(scope.transaction, id)?.map(|(_, mirror)| mirror.priority))
}

/// Stores what comes with a job that is new, with `spec` for what was asked for.
pub(super) fn store_contents(scope: &mut Scope<'_, '_>, submission: &Submission, spec: &JobSpec) -> Result<(), Halt> {
    let digest = spec.definition;
    let uses = jobs::definition_uses(scope.transaction, digest)?;
    if uses == 0 {
        store_definition(scope, digest, submission.definition.as_ref())?;
    }
    scope.transaction.put(&DEFINITION_USES, &digest, &DefinitionUse { jobs: uses + 1 })?;
    scope.transaction.put(&JOB_SPECS, &submission.job, spec)?;
    scope.transaction.put(&JOB_INPUTS, &submission.job, &submission.input)?;
    Ok(scope.count_blob(&submission.input)?)
}

/// Accepts `submission` and gives the job, if it is new, to the robot of `session`, where that robot may have it.
pub(super) fn submit_assigned(
    scope: &mut Scope<'_, '_>,
    submission: &Submission,
    session: SessionId,
) -> Result<Outcome, Halt> {
    let submitted = submit(scope, submission)?;
    if !matches!(submitted, Outcome::Submitted { created: true, .. }) {
        return Ok(submitted);
    }
    match assign(scope, submission.job, 0, session) {
        Err(Halt::Refused(_)) => Ok(submitted),
        assigned => assigned,
    }
}

/// Whether `submission` asks for what `job` was accepted for.
pub(super) fn is_repeat(scope: &Scope<'_, '_>, submission: &Submission, job: &Job) -> Result<bool, Halt> {
    Ok(job.priority == submission.priority && has_same_content(scope, submission)?)
}

/// Whether the kept job has the content of `submission`. What the software derives from the definition (its interpreter,
/// capabilities, defaults) does not count, so that a repeat through a newer node is still a repeat; nor does the site.
fn has_same_content(scope: &Scope<'_, '_>, submission: &Submission) -> Result<bool, Halt> {
    let spec = jobs::spec(scope.transaction, submission.job)?;
    let input = jobs::input(scope.transaction, submission.job)?;
    let asked = &submission.spec;
    Ok(spec.is_some_and(|spec| {
        (&spec.definition, &spec.workflow, &spec.tags, &spec.retry_of)
            == (&asked.definition, &asked.workflow, &asked.tags, &asked.retry_of)
    }) && input.as_ref() == Some(&submission.input))
}

/// Stores a definition that no kept job has yet. The digest is checked where the bytes are here; those of a blob were
/// checked by whoever stored it.
fn store_definition(scope: &mut Scope<'_, '_>, digest: Digest, content: Option<&Content>) -> Result<(), Halt> {
    let content = content.ok_or(Refusal::DefinitionMissing(digest))?;
    let found = match content {
        Content::Inline(payload) => Digest::of(payload.as_slice()),
        Content::Blob { digest, .. } => *digest,
    };
    if found != digest {
        return Err(Refusal::DefinitionMismatch(digest).into());
    }
    scope.transaction.put(&DEFINITIONS, &digest, content)?;
    Ok(scope.count_blob(content)?)
}
