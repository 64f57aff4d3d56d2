//! Purging the beginning of a log, and taking a snapshot in where entries are gone.

use std::sync::Arc;

use fleet_core::{BootInstant, NodeId};

use super::{Base, Consensus, DiskRecord, Effect, Response, Snapshot};

/// How many entries stay when others go, so that a member that lags a little needs no snapshot.
const ENTRIES_KEPT: u64 = 12;

impl Consensus {
    /// How many entries the log has that are applied and could go.
    pub(crate) fn purgeable(&self, applied: u64) -> u64 {
        applied.saturating_sub(self.base.purged.1)
    }

    /// Lets entries go that the state of `state` has.
    pub(super) fn purge(&mut self, state: Arc<Snapshot>) {
        let through = state.place.1.saturating_sub(ENTRIES_KEPT);
        let Some(purged) = self.place_at(through).filter(|_| through > self.base.purged.1) else { return };
        let members = self.members_at(through);
        self.rebase(Base { purged, members, state });
    }

    fn rebase(&mut self, base: Base) {
        self.log.retain(|entry| entry.place.1 > base.purged.1);
        self.writes.push(DiskRecord::Base(base.clone()));
        self.base = base;
    }

    /// Takes the leader's snapshot in, unless this node has got as far.
    pub(super) fn install(&mut self, now: BootInstant, from: NodeId, term: u64, snapshot: Arc<Snapshot>) -> Response {
        if !self.hear(now, from, term) {
            return Response::Higher(self.vote.term);
        }
        let place = snapshot.place;
        if place.1 <= self.committed {
            return Response::Appended(place.1);
        }
        if self.place_at(place.1).is_some_and(|own| own != place) {
            self.log.retain(|entry| entry.place.1 < place.1);
            self.writes.push(DiskRecord::Truncate(place.1));
        }
        self.rebase(Base { purged: place, members: snapshot.members.clone(), state: Arc::clone(&snapshot) });
        self.find_members();
        self.committed = place.1;
        self.effects.push(Effect::Install(snapshot));
        Response::Appended(place.1)
    }
}
