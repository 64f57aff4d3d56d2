//! The target's side of a move: the job is taken over, declined, or recalled by its source; once, whatever comes again.
//!
//! Invariants: the first decision of a move is kept in `ARRIVALS` until the source's watermark has passed it, never for a
//! time; after that every move below the watermark is refused. A refusal because of a full queue decides nothing.

use fleet_core::limits::{ARRIVALS_PASSED_PER_ENTRY_MAX, PRIORITY_MAX, QUEUE_JOBS_MAX};
use fleet_core::{GroupId, JobId};
use fleet_store::StateRead;
use fleet_store::record::{Arrival, Job, JobSpec, JobState, Origin, Peer, PeerSite, Serial, StopCause, Verdict};
use fleet_store::state::tables::{ARRIVALS, ORIGINS, PEERS};
use fleet_store::state::{jobs, moves};

use super::expulsion::check_not_removed;
use super::scope::{Halt, Scope};
use super::submit::{is_repeat, store_contents};
use super::transition::Transition;
use super::{control, reports};
use crate::command::{Arriving, LINKS_VERSION, Outcome, Refusal};

/// Longest that a robot may run a job on while cut off, milliseconds: what the language allows.
const FINISH_WITHIN_MS_MAX: u64 = 24 * 60 * 60 * 1_000;

/// Takes a job over, unless its move is decided already.
pub(super) fn accept(scope: &mut Scope<'_, '_>, arriving: &Arriving) -> Result<Outcome, Halt> {
    let Arriving { source, number, generation, created_at, submission } = arriving;
    let id = submission.job;
    check_not_removed(scope, source)?;
    if let Some(verdict) = decided(scope, source.group, *number, id)? {
        return Ok(Outcome::Decided(verdict));
    }
    if moves::of_job(scope.transaction, id)?.is_some() {
        // The same job went from here to a third site: the source's copy must not run as well.
        return keep(scope, source, *number, Verdict::Conflict);
    }
    if let Some(job) = jobs::job(scope.transaction, id)? {
        return match is_repeat(scope, submission, &job)? {
            true => adopt(scope, arriving),
            false if *number < passed(scope, source.group)? => Err(Refusal::MovePassed(*number).into()),
            false => keep(scope, source, *number, Verdict::Conflict),
        };
    }
    if let Some(why) = why_never(arriving) {
        return keep(scope, source, *number, Verdict::Declined(why));
    }
    let queued = scope.site.counters.jobs_in(JobState::Queued);
    if queued >= QUEUE_JOBS_MAX {
        return Err(Refusal::QueueFull(queued).into());
    }
    let site = scope.site.founding.as_ref().map(|founding| founding.site.clone()).ok_or(Refusal::NotFounded)?;
    let spec = JobSpec { site, ..submission.spec.clone() };
    store_contents(scope, submission, &spec)?;
    scope.site.counters.submitted += 1;
    let mut job = Job::queued(scope.site.counters.submitted, submission.priority, scope.now.min(*created_at));
    job.generation = *generation;
    Transition::create(id, job).save(scope)?;
    note_origin(scope, arriving)?;
    keep(scope, source, *number, Verdict::Accepted)
}

/// Why a job is never taken over as it comes: it breaks a bound that its own site should have kept.
fn why_never(arriving: &Arriving) -> Option<String> {
    let Arriving { generation, submission, .. } = arriving;
    if *generation == 0 {
        return Some("it comes by a move without a generation".to_owned());
    }
    if submission.priority > PRIORITY_MAX {
        return Some(format!("its priority is {}, the highest is {PRIORITY_MAX}", submission.priority));
    }
    let within_ms = submission.spec.finish_within_ms.filter(|within_ms| *within_ms > FINISH_WITHIN_MS_MAX)?;
    Some(format!("it may go on cut off for {within_ms} ms, the longest is {FINISH_WITHIN_MS_MAX} ms"))
}

/// The job is here already, accepted under the same key: the source is told how it goes.
fn adopt(scope: &mut Scope<'_, '_>, arriving: &Arriving) -> Result<Outcome, Halt> {
    let id = arriving.submission.job;
    let known = jobs::job(scope.transaction, id)?.ok_or(Refusal::JobUnknown(id))?;
    let generation = known.generation.max(arriving.generation);
    scope.transaction.put(&fleet_store::state::tables::JOBS, &id, &Job { generation, ..known })?;
    note_origin(scope, arriving)?;
    reports::note_change(scope, id)?;
    if arriving.number < passed(scope, arriving.source.group)? {
        // What its source has settled has no row, and gets none.
        return Ok(Outcome::Decided(Verdict::Accepted));
    }
    keep(scope, &arriving.source, arriving.number, Verdict::Accepted)
}

fn note_origin(scope: &mut Scope<'_, '_>, arriving: &Arriving) -> Result<(), Halt> {
    let Arriving { source, number, generation, submission, .. } = arriving;
    let known = moves::origin(scope.transaction, submission.job, source.group)?;
    let pending = known.and_then(|known| known.pending);
    let origin = Origin { number: *number, generation: *generation, pending };
    Ok(scope.transaction.put(&ORIGINS, &(submission.job, source.group), &origin)?)
}

/// Decides a move without its job: it is declined, or its source has recalled it.
pub(super) fn decide(
    scope: &mut Scope<'_, '_>,
    source: &PeerSite,
    number: Serial,
    verdict: &Verdict,
) -> Result<Outcome, Halt> {
    if *verdict == Verdict::Accepted {
        return Err(Refusal::MoveEmpty(number).into());
    }
    check_not_removed(scope, source)?;
    if let Some(known) = moves::arrival(scope.transaction, source.group, number)? {
        return Ok(Outcome::Decided(known.verdict));
    }
    if number < passed(scope, source.group)? {
        return Err(Refusal::MovePassed(number).into());
    }
    keep(scope, source, number, verdict.clone())
}

/// What was decided of the move `number` of `job`, if it was.
fn decided(scope: &Scope<'_, '_>, source: GroupId, number: Serial, job: JobId) -> Result<Option<Verdict>, Halt> {
    if let Some(known) = moves::arrival(scope.transaction, source, number)? {
        return Ok(Some(known.verdict));
    }
    if number >= passed(scope, source)? {
        return Ok(None);
    }
    // A source that was recovered may ask again for what it had settled: as long as the job's row says so, it is answered.
    match moves::origin(scope.transaction, job, source)? {
        Some(origin) if origin.number == number => Ok(Some(Verdict::Accepted)),
        // It ran here, and the source knew: it is told again how the job ended.
        None if scope.site.gate >= LINKS_VERSION && jobs::job(scope.transaction, job)?.is_some() => Ok(None),
        _ => Err(Refusal::MovePassed(number).into()),
    }
}

fn passed(scope: &Scope<'_, '_>, source: GroupId) -> Result<Serial, Halt> {
    Ok(moves::peer(scope.transaction, source)?.map(|peer| peer.passed).unwrap_or_default())
}

fn keep(scope: &mut Scope<'_, '_>, source: &PeerSite, number: Serial, verdict: Verdict) -> Result<Outcome, Halt> {
    if moves::peer(scope.transaction, source.group)?.is_none() {
        scope.transaction.put(&PEERS, &source.group, &Peer::new(source.site.clone()))?;
    }
    let arrival = Arrival { verdict: verdict.clone(), at: scope.now };
    scope.transaction.put(&ARRIVALS, &(source.group, number), &arrival)?;
    Ok(Outcome::Decided(verdict))
}

/// Forgets the decided moves that `source` has settled. The watermark moves only as far as rows are gone, so that none is
/// left below it.
pub(super) fn pass(scope: &mut Scope<'_, '_>, source: &PeerSite, watermark: Serial) -> Result<Outcome, Halt> {
    let known = moves::peer(scope.transaction, source.group)?;
    let mut peer = known.unwrap_or_else(|| Peer::new(source.site.clone()));
    if watermark <= peer.passed {
        return Ok(Outcome::Unchanged);
    }
    let limit = ARRIVALS_PASSED_PER_ENTRY_MAX + 1;
    let from = (source.group, Serial::default());
    let mut rows = scope.transaction.range(&ARRIVALS, &from, &(source.group, watermark), limit)?;
    let more = rows.len() == limit;
    let reached = rows.pop_if(|_| more).map_or(watermark, |((_, number), _)| number);
    let count = rows.len();
    for (key, _) in rows {
        scope.transaction.remove(&ARRIVALS, &key)?;
    }
    peer.passed = reached;
    scope.transaction.put(&PEERS, &source.group, &peer)?;
    Ok(Outcome::Forgotten { jobs: u32::try_from(count).unwrap_or(u32::MAX), more })
}

/// Stops a job for the operator of the site that it came from.
pub(super) fn stop(scope: &mut Scope<'_, '_>, source: GroupId, number: Serial, job: JobId) -> Result<Outcome, Halt> {
    let origin = moves::origin(scope.transaction, job, source)?;
    if origin.is_none_or(|origin| origin.number != number) {
        return Err(Refusal::MoveStale { job, number }.into());
    }
    control::stop(scope, job, StopCause::Cancel)
}
