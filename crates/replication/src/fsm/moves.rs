//! The source's side of a move: a queued job that nobody held goes to another site, is settled by that site's answer, is
//! asked back, or the site is given up.
//!
//! Invariants: a job has a row in `MOVES` from its move until it is back or forgotten; while it is `transferring` it has its
//! row in `JOBS` and one in `OUTBOX`, afterwards a mirror and neither. Only the target's answer ends `transferring`, or the
//! operator who gives the target up.

use fleet_core::limits::OUTBOX_JOBS_MAX;
use fleet_core::{GroupId, JobId};
use fleet_store::record::{
    Ending, Job, JobState, Mirror, Move, MoveWish, Outgoing, Peer, PeerSite, Reason, Serial, Standing, Verdict, moving,
};
use fleet_store::state::tables::{CANCELS, MOVES, OUTBOX, PEERS};
use fleet_store::state::{index, moves, tables};

use super::expulsion::check_not_removed;
use super::scope::{Halt, Scope};
use super::submit::{accept_new, is_known};
use super::transition::Transition;
use super::{Event, mirrors};
use crate::command::{Outcome, Refusal, Submission};

/// Accepts `submission` for the site `to`, or answers like the first time if it was accepted before.
pub(super) fn submit_to(
    scope: &mut Scope<'_, '_>,
    submission: &Submission,
    to: &PeerSite,
    because: &str,
) -> Result<Outcome, Halt> {
    if !is_known(scope, submission.job)? {
        check_room(scope, to)?;
    }
    let outcome = accept_new(scope, submission)?;
    if matches!(outcome, Outcome::Submitted { created: true, .. }) {
        let transition = Transition::load(scope, submission.job)?;
        send(scope, transition, to, because)?;
    }
    Ok(outcome)
}

/// Sends the queued job `id`, moved `generation` times so far, to the site `to`.
pub(super) fn begin(
    scope: &mut Scope<'_, '_>,
    id: JobId,
    generation: u32,
    to: &PeerSite,
    because: &str,
) -> Result<Outcome, Halt> {
    let transition = Transition::load(scope, id)?;
    let job = &transition.job;
    if let Some(moved) = moves::of_job(scope.transaction, id)?
        && (moved.to.group, moved.generation) == (to.group, generation + 1)
    {
        return Ok(Outcome::Changed { state: job.state });
    }
    if job.generation != generation {
        return Err(Refusal::GenerationPassed { job: id, generation: job.generation }.into());
    }
    if job.state != JobState::Queued {
        return Err(Refusal::WrongState { job: id, state: job.state, wanted: JobState::Queued }.into());
    }
    // Whoever held it may have acted, and its journal and fence mean nothing elsewhere.
    if job.attempt > 0 || job.journal_length > 0 || job.inbox_length > 0 {
        return Err(Refusal::JobBegun(id).into());
    }
    if !moves::origins(scope.transaction, id)?.is_empty() {
        return Err(Refusal::JobMovedHere(id).into());
    }
    check_room(scope, to)?;
    send(scope, transition, to, because)?;
    Ok(Outcome::Changed { state: JobState::Transferring })
}

fn check_room(scope: &Scope<'_, '_>, to: &PeerSite) -> Result<(), Halt> {
    check_not_removed(scope, to)?;
    let own = scope.site.founding.as_ref().is_some_and(|founding| founding.group == to.group);
    let waiting = scope.site.counters.jobs_in(JobState::Transferring);
    match (own, waiting >= OUTBOX_JOBS_MAX) {
        (true, _) => Err(Refusal::SiteOwn(to.site.clone()).into()),
        (false, true) => Err(Refusal::OutboxFull(waiting).into()),
        (false, false) => Ok(()),
    }
}

fn send(scope: &mut Scope<'_, '_>, mut transition: Transition, to: &PeerSite, because: &str) -> Result<(), Halt> {
    let id = transition.id;
    let known = moves::peer(scope.transaction, to.group)?;
    let mut peer = known.unwrap_or_else(|| Peer::new(to.site.clone()));
    peer.moved = peer.moved.next(scope.entry.epoch);
    let number = peer.moved;
    transition.job.generation += 1;
    let generation = transition.job.generation;
    let row = Move { to: to.clone(), number, generation, since: scope.now, wish: None, mirror: None };
    transition
        .rest(JobState::Transferring, Some(Reason::Moving { site: to.site.clone(), because: because.to_owned() }));
    transition.save(scope)?;
    scope.transaction.put(&PEERS, &to.group, &peer)?;
    scope.transaction.put(&MOVES, &id, &row)?;
    scope.transaction.put(&OUTBOX, &(to.group, number), &Outgoing { job: id })?;
    scope.emit(Event::OutboxChanged { peer: to.group });
    Ok(())
}

/// Does what the target answered to the move `number`. A repeat, or an answer to a move that was given up, does nothing.
pub(super) fn settle(
    scope: &mut Scope<'_, '_>,
    target: GroupId,
    number: Serial,
    verdict: &Verdict,
) -> Result<Outcome, Halt> {
    let Some(id) = moves::unanswered(scope.transaction, target, number)? else { return Ok(Outcome::Unchanged) };
    let mut transition = Transition::load(scope, id)?;
    let Some(row) = moves::of_job(scope.transaction, id)? else { return Err(Refusal::JobNotMoving(id).into()) };
    scope.transaction.remove(&OUTBOX, &(target, number))?;
    let site = row.to.site.clone();
    let is_to_end = row.wish == Some(MoveWish::Cancel);
    match verdict {
        Verdict::Accepted => return hand_over(scope, transition, row),
        Verdict::Conflict => {
            transition.leave(scope, &Ending::Error(moving::conflict(&site)?))?;
            transition.end(scope, JobState::Failed, None);
        }
        Verdict::Declined(_) | Verdict::Recalled if is_to_end => {
            transition.end(scope, JobState::Cancelled, Some(Reason::CancelledByOperator));
        }
        Verdict::Declined(why) => {
            transition.rest(JobState::Queued, Some(Reason::Returned { site, why: why.clone() }));
        }
        Verdict::Recalled => transition.rest(JobState::Queued, Some(Reason::Recalled { site })),
    }
    scope.transaction.remove(&MOVES, &id)?;
    let state = transition.save(scope)?;
    Ok(Outcome::Changed { state })
}

/// The job is the target's from now on; here a mirror of it is left.
fn hand_over(scope: &mut Scope<'_, '_>, transition: Transition, mut row: Move) -> Result<Outcome, Halt> {
    let id = transition.id;
    let Job { number, priority, created_at, .. } = transition.job;
    transition.remove(scope)?;
    let mirror = Mirror { number, priority, created_at, standing: Standing::queued(), heard: None, ended_here: None };
    scope.transaction.put(&tables::MIRRORS_BY_STATE, &index::mirror_key(&mirror), &id)?;
    if row.wish == Some(MoveWish::Cancel) {
        scope.transaction.put(&CANCELS, &(row.to.group, row.number), &Outgoing { job: id })?;
        scope.emit(Event::OutboxChanged { peer: row.to.group });
    } else {
        row.wish = None;
    }
    row.mirror = Some(mirror);
    scope.transaction.put(&MOVES, &id, &row)?;
    scope.emit(Event::MirrorChanged { job: id });
    Ok(Outcome::Changed { state: JobState::Queued })
}

/// Asks for a job back that is under way. Only the target's log decides whether it comes.
pub(super) fn recall(scope: &mut Scope<'_, '_>, id: JobId, generation: u32) -> Result<Outcome, Halt> {
    load(scope, id, generation)?;
    wish(scope, id, MoveWish::Recall)
}

/// Cancels a job that is under way, or at another site; `None` if it is neither.
pub(super) fn cancel(scope: &mut Scope<'_, '_>, id: JobId) -> Result<Option<Outcome>, Halt> {
    if moves::of_job(scope.transaction, id)?.is_none() {
        return Ok(None);
    }
    wish(scope, id, MoveWish::Cancel).map(Some)
}

fn wish(scope: &mut Scope<'_, '_>, id: JobId, wish: MoveWish) -> Result<Outcome, Halt> {
    let mut row = moves::of_job(scope.transaction, id)?.ok_or(Refusal::JobNotMoving(id))?;
    let state = row.mirror.as_ref().map_or(JobState::Transferring, |mirror| mirror.standing.state);
    match (state, wish) {
        (JobState::Cancelled, MoveWish::Cancel) => return Ok(Outcome::Changed { state }),
        (state, _) if state.is_ended() => return Err(Refusal::JobEnded { job: id, state }.into()),
        (_, MoveWish::Recall) if row.mirror.is_some() => {
            return Err(Refusal::JobElsewhere { job: id, site: row.to.site }.into());
        }
        _ => {}
    }
    if row.wish < Some(wish) {
        row.wish = Some(wish);
        scope.transaction.put(&MOVES, &id, &row)?;
        if row.mirror.is_some() {
            scope.transaction.put(&CANCELS, &(row.to.group, row.number), &Outgoing { job: id })?;
        }
        scope.emit(Event::OutboxChanged { peer: row.to.group });
    }
    Ok(Outcome::Changed { state })
}

/// The target has committed that these jobs stop: it is not asked again, and its report will tell of the end.
pub(super) fn obeyed(scope: &mut Scope<'_, '_>, target: GroupId, numbers: &[Serial]) -> Result<Outcome, Halt> {
    let mut outcome = Outcome::Unchanged;
    for number in numbers {
        if scope.transaction.remove(&CANCELS, &(target, *number))? {
            outcome = Outcome::Done;
        }
    }
    Ok(outcome)
}

/// Gives the target up and queues the job here under a higher generation, so that nothing the target still says of it
/// counts. One that was to be cancelled ends.
pub(super) fn abandon(scope: &mut Scope<'_, '_>, id: JobId, generation: u32) -> Result<Outcome, Halt> {
    let row = load(scope, id, generation)?;
    let mut transition = match &row.mirror {
        None => Transition::load(scope, id)?,
        Some(mirror) if mirror.standing.state.is_ended() => {
            return Err(Refusal::JobEnded { job: id, state: mirror.standing.state }.into());
        }
        Some(mirror) => {
            mirrors::remove(scope, id, &row, mirror)?;
            Transition::create(id, Job::queued(mirror.number, mirror.priority, mirror.created_at))
        }
    };
    scope.transaction.remove(&MOVES, &id)?;
    scope.transaction.remove(&OUTBOX, &(row.to.group, row.number))?;
    transition.job.generation = row.generation + 1;
    if row.wish == Some(MoveWish::Cancel) {
        transition.end(scope, JobState::Cancelled, Some(Reason::CancelledByOperator));
    } else {
        transition.rest(JobState::Queued, Some(Reason::Abandoned { site: row.to.site }));
    }
    let state = transition.save(scope)?;
    Ok(Outcome::Changed { state })
}

/// The move by which the job got `generation`, if it is its last.
fn load(scope: &Scope<'_, '_>, id: JobId, generation: u32) -> Result<Move, Halt> {
    let row = moves::of_job(scope.transaction, id)?.ok_or(Refusal::JobNotMoving(id))?;
    if row.generation != generation {
        return Err(Refusal::GenerationPassed { job: id, generation: row.generation }.into());
    }
    Ok(row)
}
