//! A site that was removed from the fleet: in every group what went there or came from there is let go of, piece by piece.
//!
//! Invariants: a removed site's group never comes back, whoever has its name since, so nothing new begins with it once its
//! row is there; a job that the site is not known to have accepted is queued here under a higher generation, and one that it
//! accepted stays what it was last heard to be until an operator gives it up: it may have run.

use fleet_core::{GroupId, JobId};
use fleet_store::record::{Move, MoveWish, PeerSite, RemovedSite, Serial, Sweep};
use fleet_store::state::tables::{ARRIVALS, CANCELS, MOVES, ORIGINS, REMOVED_SITES, REPORTS, SITES};
use fleet_store::state::{moves, sites};
use fleet_store::{Error, StateRead};

use super::Event;
use super::scope::{Halt, Scope};
use crate::command::{Outcome, Refusal};

/// Rows looked at by one command.
const ROWS_PER_COMMAND: usize = 256;

/// Refuses what would begin something with a site that was removed.
pub(super) fn check_not_removed(scope: &Scope<'_, '_>, site: &PeerSite) -> Result<(), Halt> {
    match sites::removed(scope.transaction, site.group)? {
        Some(_) => Err(Refusal::SiteRemoved(site.site.clone()).into()),
        None => Ok(()),
    }
}

/// Takes `site` from the other sites, and a bounded number of rows about it. It is over when no more are said to be left.
pub(super) fn expel(scope: &mut Scope<'_, '_>, site: &PeerSite) -> Result<Outcome, Halt> {
    if scope.site.founding.as_ref().is_some_and(|founding| founding.group == site.group) {
        return Err(Refusal::SiteOwn(site.site.clone()).into());
    }
    let row = match sites::removed(scope.transaction, site.group)? {
        Some(row) if row.sweep == Sweep::Over => return Ok(Outcome::Unchanged),
        Some(row) => row,
        None => begin(scope, site)?,
    };
    let (sweep, jobs) = sweep(scope, site.group, row.sweep)?;
    scope.transaction.put(&REMOVED_SITES, &site.group, &RemovedSite { sweep, ..row })?;
    Ok(Outcome::Forgotten { jobs, more: sweep != Sweep::Over })
}

fn begin(scope: &mut Scope<'_, '_>, site: &PeerSite) -> Result<RemovedSite, Halt> {
    if sites::all_removed(scope.transaction)?.len() >= sites::REMOVED_SITES_MAX {
        return Err(Refusal::TooManySites(sites::REMOVED_SITES_MAX as u64).into());
    }
    let known = sites::site(scope.transaction, &site.site)?;
    if known.is_some_and(|known| known.group == site.group) {
        scope.transaction.remove(&SITES, &site.site.to_string())?;
    }
    scope.emit(Event::SitesChanged);
    Ok(RemovedSite { site: site.site.clone(), at: scope.now, sweep: Sweep::Moves(None) })
}

/// Looks at the next rows; what comes after them, and how many jobs were queued or marked.
fn sweep(scope: &mut Scope<'_, '_>, group: GroupId, sweep: Sweep) -> Result<(Sweep, u32), Halt> {
    match sweep {
        Sweep::Moves(after) => {
            let rows = moves::after(scope.transaction, after, ROWS_PER_COMMAND)?;
            let next = more(&rows).map_or(Sweep::Origins(None), |(job, _)| Sweep::Moves(Some(*job)));
            let mut jobs = 0;
            for (job, moved) in rows.into_iter().filter(|(_, moved)| moved.to.group == group) {
                give_back(scope, job, moved)?;
                jobs += 1;
            }
            Ok((next, jobs))
        }
        Sweep::Origins(after) => {
            let rows = scope.transaction.scan(&ORIGINS, &(), after.as_ref(), ROWS_PER_COMMAND)?;
            let next = more(&rows).map_or(Sweep::Arrivals, |(key, _)| Sweep::Origins(Some(*key)));
            for (key, origin) in rows.into_iter().filter(|((_, source), _)| *source == group) {
                scope.transaction.remove(&ORIGINS, &key)?;
                if let Some(pending) = origin.pending {
                    scope.transaction.remove(&REPORTS, &(group, pending))?;
                }
            }
            Ok((next, 0))
        }
        Sweep::Arrivals => {
            let keys = arrivals(scope, group)?;
            let next = more(&keys).map_or(Sweep::Over, |_| Sweep::Arrivals);
            for key in keys {
                scope.transaction.remove(&ARRIVALS, &key)?;
            }
            Ok((next, 0))
        }
        Sweep::Over => Ok((Sweep::Over, 0)),
    }
}

/// The last of `rows`, if there may be more after them.
fn more<T>(rows: &[T]) -> Option<&T> {
    rows.last().filter(|_| rows.len() == ROWS_PER_COMMAND)
}

fn arrivals(scope: &Scope<'_, '_>, group: GroupId) -> Result<Vec<(GroupId, Serial)>, Error> {
    let rows = scope.transaction.scan(&ARRIVALS, &group, None, ROWS_PER_COMMAND)?;
    Ok(rows.into_iter().map(|(key, _)| key).collect())
}

/// Queues a job here that the site is not known to have, ends one that was to end, and says of any other what is the matter.
fn give_back(scope: &mut Scope<'_, '_>, id: JobId, mut moved: Move) -> Result<(), Halt> {
    let is_to_end = moved.wish == Some(MoveWish::Cancel);
    let Some(mirror) = moved.mirror.as_mut().filter(|mirror| mirror.standing.state.is_ended() || !is_to_end) else {
        return super::moves::abandon(scope, id, moved.generation).map(drop);
    };
    if mirror.standing.state.is_ended() {
        return Ok(());
    }
    mirror.standing.reason = format!(
        "site {} was removed from the fleet; if the job is to run here, give it up there: fleetctl outbox abandon",
        moved.to.site
    );
    scope.transaction.remove(&CANCELS, &(moved.to.group, moved.number))?;
    scope.transaction.put(&MOVES, &id, &moved)?;
    scope.emit(Event::MirrorChanged { job: id });
    Ok(())
}
