//! The site itself: its founding, its leaders, the gate of versions, and the hold after a recovery.

use fleet_core::{NodeId, SiteName};
use fleet_store::record::{Founding, Hold, Leadership};

use super::Event;
use super::scope::{Halt, Scope};
use crate::command::{FIRST_VERSION, Outcome, Refusal};

/// Refuses what is meant for another site.
pub(super) fn check_site(scope: &Scope<'_, '_>, site: &SiteName) -> Result<(), Refusal> {
    match &scope.site.founding {
        Some(founding) if founding.site == *site => Ok(()),
        Some(_) => Err(Refusal::SiteMismatch(site.clone())),
        None => Err(Refusal::NotFounded),
    }
}

/// Says what the site is, once.
pub(super) fn found(scope: &mut Scope<'_, '_>, founding: &Founding) -> Result<Outcome, Halt> {
    match &scope.site.founding {
        Some(known) if known == founding => Ok(Outcome::Unchanged),
        Some(_) => Err(Refusal::FoundedOtherwise.into()),
        None => {
            scope.site.founding = Some(founding.clone());
            // Not the newest that this program knows: every program must come to the same state.
            scope.site.gate = FIRST_VERSION;
            Ok(Outcome::Done)
        }
    }
}

/// Notes who leads in the term of this entry.
pub(super) fn lead(scope: &mut Scope<'_, '_>, node: NodeId) -> Outcome {
    let (epoch, term) = (scope.entry.epoch, scope.entry.term);
    if scope.site.leadership.is_some_and(|known| (known.node, known.epoch, known.term) == (node, epoch, term)) {
        return Outcome::Unchanged;
    }
    scope.site.leadership = Some(Leadership { node, epoch, term, since: scope.now });
    scope.emit(Event::LeaderChanged { node, term });
    Outcome::Done
}

/// Lets commands up to `version` be proposed.
pub(super) fn raise_gate(scope: &mut Scope<'_, '_>, version: u32) -> Outcome {
    if version <= scope.site.gate {
        return Outcome::Unchanged;
    }
    scope.site.gate = version;
    scope.emit(Event::GateRaised { version });
    Outcome::Done
}

/// Holds all dispatch until `awaited` have reconciled. With nobody to wait for, only the operator ends it.
pub(super) fn hold(scope: &mut Scope<'_, '_>, awaited: &[NodeId]) -> Outcome {
    let mut awaited = awaited.to_vec();
    awaited.sort_unstable();
    awaited.dedup();
    match &mut scope.site.hold {
        Some(hold) if hold.awaited == awaited => return Outcome::Unchanged,
        Some(hold) => hold.awaited = awaited,
        None => {
            scope.site.hold = Some(Hold { awaited, since: scope.now });
            scope.emit(Event::HoldChanged { held: true });
        }
    }
    Outcome::Done
}

/// Waits for `node` no more; the last one ends the hold.
pub(super) fn reconciled(scope: &mut Scope<'_, '_>, node: NodeId) -> Outcome {
    let Some(hold) = &mut scope.site.hold else {
        return Outcome::Unchanged;
    };
    let Ok(position) = hold.awaited.binary_search(&node) else {
        return Outcome::Unchanged;
    };
    hold.awaited.remove(position);
    if hold.awaited.is_empty() { end_hold(scope) } else { Outcome::Done }
}

/// Dispatches again.
pub(super) fn end_hold(scope: &mut Scope<'_, '_>) -> Outcome {
    if scope.site.hold.take().is_none() {
        return Outcome::Unchanged;
    }
    scope.emit(Event::HoldChanged { held: false });
    Outcome::Done
}
