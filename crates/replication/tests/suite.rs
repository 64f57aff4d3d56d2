//! openraft's own storage suite on our store.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use fleet_core::GroupId;
use fleet_replication::command::Command;
use fleet_replication::fsm::{Applied, EntryPosition};
use fleet_replication::{LogStorage, StateMachine, TypeConfig, VoterId};
use fleet_store::{StateTransaction, Store};
use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};

struct OnDisk;

fn apply_nothing(
    _state: &mut StateTransaction<'_>,
    _entry: EntryPosition,
    _commands: &[Command],
) -> Result<Vec<Applied>, fleet_store::Error> {
    Ok(Vec::new())
}

impl StoreBuilder<TypeConfig, LogStorage, StateMachine, tempfile::TempDir> for OnDisk {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStorage, StateMachine), StorageError<VoterId>> {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("fleet.redb")).unwrap();
        let group = GroupId::from_bytes([1; 16]);
        let watchers = tokio::sync::broadcast::Sender::new(16);
        let machine = StateMachine::new(store.clone(), group, 1, apply_nothing, watchers);
        Ok((folder, LogStorage::new(store, group), machine))
    }
}

#[test]
fn the_store_passes_openrafts_suite() {
    Suite::test_all(OnDisk).unwrap();
}
