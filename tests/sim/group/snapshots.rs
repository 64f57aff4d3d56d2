//! Snapshots of the state, made and installed by the production store.

use std::sync::Arc;

use fleet_core::NodeId;
use fleet_store::state::tables::ARRIVALS;
use fleet_store::{SnapshotSource, StateChunk};

use super::{GroupPart, Notice};
use crate::applying::applied_to;
use crate::bugs::PlantedBug;
use crate::consensus::{Input, Request, Snapshot};
use crate::message::{Fact, Situation, Step};

/// Entries of a log past which those go that are applied; small, so that logs are purged often.
const LOG_ENTRIES_MAX: u64 = 48;
/// Bytes of a piece of a snapshot; small, so that there are several.
const CHUNK_BYTES: usize = 2_048;

impl GroupPart {
    /// Lets the beginning of the log go where it is long.
    pub(super) fn purge(&mut self, step: &mut Step<'_>) {
        if self.consensus.purgeable(self.applied) > LOG_ENTRIES_MAX {
            step.fact(Fact::Seen(Situation::LogPurged));
            let snapshot = Arc::new(self.snapshot());
            self.take(step, Input::Purge(snapshot));
        }
    }

    /// The state as it is now.
    fn snapshot(&self) -> Snapshot {
        let reader = self.reader();
        let mut chunks: Vec<StateChunk> = Vec::new();
        loop {
            let after = chunks.last().and_then(|chunk| chunk.rows.last()).map(|(key, _)| key.as_slice());
            let chunk = reader.chunk(after, CHUNK_BYTES).expect("the state can be read");
            if chunk.rows.is_empty() {
                break;
            }
            chunks.push(chunk);
        }
        let place = self.consensus.place_of(self.applied);
        Snapshot { place, members: self.consensus.members_at(self.applied), chunks }
    }

    pub(super) fn send_snapshot(&mut self, step: &mut Step<'_>, to: NodeId, term: u64) {
        let snapshot = Arc::new(self.snapshot());
        self.call_log(step, to, Request::Install { term, snapshot }, None);
    }

    /// The leader's snapshot is on the disk, and is the state from now on.
    pub(super) fn take_snapshot(&mut self, step: &mut Step<'_>, snapshot: &Snapshot) {
        let mut snapshot = snapshot.clone();
        if step.has(PlantedBug::SnapshotLacksArrivals) {
            let is_arrival = |key: &[u8]| key.first() == Some(&ARRIVALS.number());
            snapshot.chunks.iter_mut().for_each(|chunk| chunk.rows.retain(|(key, _)| !is_arrival(key)));
        }
        self.install(&snapshot);
        step.fact(Fact::Installed { node: self.node, place: snapshot.place });
        self.own_entry = None;
        // What came of what was under way is not known any more.
        let replies = self.under_way.take().map(|entry| entry.replies).unwrap_or_default();
        self.notices.extend(replies.into_iter().map(|reply| Notice::Proposed(reply, None)));
    }

    pub(super) fn install(&mut self, snapshot: &Snapshot) {
        for chunk in &snapshot.chunks {
            self.store.spool(self.id, chunk.clone()).wait().expect("a store in memory takes a piece of a snapshot");
        }
        let installed = self.store.install_snapshot(self.id, SnapshotSource::Spool, applied_to(snapshot.place));
        installed.wait().expect("a store in memory takes a snapshot");
        self.applied = snapshot.place.1;
        self.told_committed = self.told_committed.max(self.applied);
    }
}
