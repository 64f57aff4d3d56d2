//! Mirrors of jobs that live at other sites: what reports of those sites change here.
//!
//! Invariants: a report counts only for the move and the generation by which the job went, and only if it is newer than the
//! last one heard; so reports may come twice, late and in any order. An ended mirror changes no more.

use fleet_core::JobId;
use fleet_store::record::{Ending, Mirror, Move, Peer};
use fleet_store::state::index::mirror_key;
use fleet_store::state::moves;
use fleet_store::state::tables::{CANCELS, JOB_ENDINGS, MIRRORS_BY_STATE, MOVES, PEERS};

use super::Event;
use super::scope::{Halt, Scope};
use crate::command::{Outcome, Refusal, Report};

/// Hears how a job stands that went to another site.
pub(super) fn hear(scope: &mut Scope<'_, '_>, report: &Report) -> Result<Outcome, Halt> {
    let id = report.job;
    let moved = moves::of_job(scope.transaction, id)?.filter(|moved| {
        (moved.to.group, moved.number, moved.generation) == (report.from, report.number, report.generation)
    });
    let Some(mut moved) = moved else { return count_stale(scope, report) };
    let Some(mut mirror) = moved.mirror.take() else { return Err(Refusal::MoveUnsettled(report.number).into()) };
    if mirror.standing.state.is_ended() || mirror.heard >= Some(report.serial) {
        return Ok(Outcome::Unchanged);
    }
    let key = mirror_key(&mirror);
    mirror.standing = report.standing.clone();
    mirror.heard = Some(report.serial);
    if mirror.standing.state.is_ended() {
        let ended_at = mirror.standing.ended_at.unwrap_or(scope.now);
        mirror.standing.ended_at = Some(ended_at);
        // How long it is kept must not follow from the other site's clock, nor from how long the report was under way.
        mirror.ended_here = Some(scope.now);
        scope.transaction.remove(&CANCELS, &(report.from, report.number))?;
        if let Some(ending) = &report.ending {
            let (Ending::Output(content) | Ending::Error(content)) = ending;
            scope.count_blob(content)?;
            scope.transaction.put(&JOB_ENDINGS, &id, ending)?;
        }
    }
    if mirror_key(&mirror) != key {
        scope.transaction.remove(&MIRRORS_BY_STATE, &key)?;
        scope.transaction.put(&MIRRORS_BY_STATE, &mirror_key(&mirror), &id)?;
    }
    moved.mirror = Some(mirror);
    scope.transaction.put(&MOVES, &id, &moved)?;
    scope.emit(Event::MirrorChanged { job: id });
    Ok(Outcome::Done)
}

/// The job is back, gone on, or forgotten: the report changes nothing, and is counted.
fn count_stale(scope: &mut Scope<'_, '_>, report: &Report) -> Result<Outcome, Halt> {
    if let Some(peer) = moves::peer(scope.transaction, report.from)? {
        let peer = Peer { reports_refused: peer.reports_refused + 1, ..peer };
        scope.transaction.put(&PEERS, &report.from, &peer)?;
    }
    Ok(Outcome::ReportStale)
}

/// Takes the mirror of `id` out of every index; the row of the move is the caller's.
pub(super) fn remove(scope: &mut Scope<'_, '_>, id: JobId, moved: &Move, mirror: &Mirror) -> Result<(), Halt> {
    let found = scope.transaction.remove(&MIRRORS_BY_STATE, &mirror_key(mirror))?;
    debug_assert!(found, "job {id}: its mirror is in no index");
    scope.transaction.remove(&CANCELS, &(moved.to.group, moved.number))?;
    Ok(())
}
