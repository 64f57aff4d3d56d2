//! Reports to the sites that jobs came from: at most one per job and origin waits, the newest, under a number of its own.
//!
//! What a report says is read from the job when it is sent; so a later change makes an earlier report unnecessary.

use fleet_core::{GroupId, JobId};
use fleet_store::Error;
use fleet_store::record::{Origin, Outgoing, Peer, Serial};
use fleet_store::state::tables::{ORIGINS, PEERS, REPORTS};
use fleet_store::state::{jobs, moves};

use super::Event;
use super::scope::{Halt, Scope};
use crate::command::Outcome;

/// The job stands otherwise now: whoever is told of it gets a report.
pub(super) fn note_change(scope: &mut Scope<'_, '_>, id: JobId) -> Result<(), Error> {
    for (group, origin) in moves::origins(scope.transaction, id)? {
        let Some(peer) = moves::peer(scope.transaction, group)? else { continue };
        if let Some(pending) = origin.pending {
            scope.transaction.remove(&REPORTS, &(group, pending))?;
        }
        let serial = peer.reported.next(scope.entry.epoch);
        scope.transaction.put(&PEERS, &group, &Peer { reported: serial, ..peer })?;
        scope.transaction.put(&REPORTS, &(group, serial), &Outgoing { job: id })?;
        scope.transaction.put(&ORIGINS, &(id, group), &Origin { pending: Some(serial), ..origin })?;
        scope.emit(Event::OutboxChanged { peer: group });
    }
    Ok(())
}

/// The source has committed these reports; a newer one of the same job still waits. Once it knows the end, nobody there
/// needs to be told any more.
pub(super) fn acknowledge(scope: &mut Scope<'_, '_>, source: GroupId, reports: &[Serial]) -> Result<Outcome, Halt> {
    let mut outcome = Outcome::Unchanged;
    for serial in reports {
        let Some(Outgoing { job }) = scope.transaction.take(&REPORTS, &(source, *serial))? else { continue };
        outcome = Outcome::Done;
        let Some(origin) = moves::origin(scope.transaction, job, source)? else { continue };
        if jobs::job(scope.transaction, job)?.is_none_or(|job| job.state.is_ended()) {
            scope.transaction.remove(&ORIGINS, &(job, source))?;
        } else {
            scope.transaction.put(&ORIGINS, &(job, source), &Origin { pending: None, ..origin })?;
        }
    }
    Ok(outcome)
}
