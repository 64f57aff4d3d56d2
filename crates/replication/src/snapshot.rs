//! A group's state on its way to another node.
//!
//! The state itself lies in the store, so a snapshot is only a read of it: nothing is copied until somebody needs it.

use fleet_core::GroupId;
use fleet_store::{SnapshotSource, StateRead, StateReader, Store};
use openraft::EmptyNode;
use openraft::storage::{Snapshot, SnapshotMeta};

use crate::consensus::{self, AppliedTo, StoredError, TypeConfig, VoterId};

/// Description of a snapshot.
pub(crate) type Meta = SnapshotMeta<VoterId, EmptyNode>;

/// What openraft hands around as the content of a snapshot.
#[derive(Debug)]
pub enum SnapshotData {
    /// A read of this node's state.
    Outgoing(StateReader),
    /// The pieces spooled in this node's store.
    Incoming,
}

impl SnapshotData {
    pub(crate) fn into_source(self) -> SnapshotSource {
        match self {
            Self::Outgoing(reader) => SnapshotSource::Reader(reader),
            Self::Incoming => SnapshotSource::Spool,
        }
    }
}

/// Up to where the state that `reader` sees is applied.
pub(crate) fn applied_to(reader: &StateReader) -> Result<AppliedTo, StoredError> {
    match reader.applied()? {
        Some(bytes) => Ok(consensus::decode("applied log id", &bytes)?),
        None => Ok(AppliedTo::default()),
    }
}

/// The state of `group` as of now.
pub(crate) fn take(store: &Store, group: GroupId) -> Result<Snapshot<TypeConfig>, StoredError> {
    let reader = store.reader(group)?;
    let AppliedTo { last, membership } = applied_to(&reader)?;
    let snapshot_id = match last {
        Some(last) => format!("{}-{}", last.leader_id.term, last.index),
        None => "empty".to_owned(),
    };
    let meta = Meta { last_log_id: last, last_membership: membership, snapshot_id };
    Ok(Snapshot { meta, snapshot: Box::new(SnapshotData::Outgoing(reader)) })
}
