//! openraft's state machine on our store: committed entries go to the deterministic `fsm` inside one transaction of the
//! store's writer, together with the row that says how far the state is applied.
//!
//! Invariant: the state is always an exact prefix of the log. An error ends the group; it never skips an entry.

use std::sync::Arc;

use fleet_core::GroupId;
use fleet_store::{SnapshotSource, StateTransaction, Store};
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{
    AnyError, EmptyNode, EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, RaftSnapshotBuilder, StorageIOError,
    StoredMembership,
};
use tokio::sync::broadcast;

use crate::command::{Batch, Command};
use crate::consensus::{self, AppliedTo, Entry, EntryOutcome, LogId, StorageError, StoredError, TypeConfig, VoterId};
use crate::fsm::{Applied as CommandApplied, EntryPosition, Event};
use crate::snapshot::{self, Meta, SnapshotData};

/// Applies the commands of one entry: deterministic, and the only thing that changes a state.
pub type ApplyCommands =
    fn(&mut StateTransaction<'_>, EntryPosition, &[Command]) -> Result<Vec<CommandApplied>, fleet_store::Error>;

/// What one entry changed, for watchers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedEntry {
    /// Index of the entry.
    pub index: u64,
    /// What happened, in the order of the commands.
    pub events: Vec<Event>,
}

/// The state of one group.
#[derive(Clone, Debug)]
pub struct StateMachine {
    store: Store,
    group: GroupId,
    epoch: u64,
    apply_commands: ApplyCommands,
    watchers: broadcast::Sender<Arc<AppliedEntry>>,
}

impl StateMachine {
    /// The state of `group` in `store`, changed by `apply_commands`. Watchers hear of every entry on `watchers`.
    pub fn new(
        store: Store,
        group: GroupId,
        epoch: u64,
        apply_commands: ApplyCommands,
        watchers: broadcast::Sender<Arc<AppliedEntry>>,
    ) -> Self {
        Self { store, group, epoch, apply_commands, watchers }
    }

    fn current(&self) -> Result<AppliedTo, StoredError> {
        snapshot::applied_to(&self.store.reader(self.group)?)
    }
}

/// `error`, met while doing `verb` to the state.
fn state_error(verb: ErrorVerb, error: &(impl std::error::Error + 'static)) -> StorageError {
    StorageIOError::new(ErrorSubject::StateMachine, verb, AnyError::new(error)).into()
}

/// Applies `entries` in order. Their events come back with the results.
fn apply_entries(
    state: &mut StateTransaction<'_>,
    entries: Vec<Entry>,
    epoch: u64,
    apply_commands: ApplyCommands,
) -> Result<Vec<(EntryOutcome, Vec<Event>)>, fleet_store::Error> {
    let damaged = |error: &dyn std::error::Error| fleet_store::Error::corrupt("log entry", error.to_string());
    let mut to: AppliedTo = match fleet_store::StateRead::applied(state)? {
        Some(bytes) => consensus::decode("applied log id", &bytes).map_err(|error| damaged(&error))?,
        None => AppliedTo::default(),
    };
    let mut results = Vec::with_capacity(entries.len());
    for entry in entries {
        let index = entry.log_id.index;
        let mut applied = EntryOutcome { index, outcomes: Vec::new() };
        let mut events = Vec::new();
        match entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Membership(membership) => {
                to.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            EntryPayload::Normal(data) => {
                let batch = Batch::decode(&data.0).map_err(|error| damaged(&error))?;
                let position = EntryPosition { epoch, term: entry.log_id.leader_id.term, index };
                for changed in apply_commands(state, position, &batch.commands)? {
                    applied.outcomes.push(changed.outcome);
                    events.extend(changed.events);
                }
            }
        }
        to.last = Some(entry.log_id);
        results.push((applied, events));
    }
    state.put_applied(&consensus::encode("applied log id", &to).map_err(|error| damaged(&error))?)?;
    Ok(results)
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership<VoterId, EmptyNode>), StorageError> {
        let current = self.current().map_err(|error| state_error(ErrorVerb::Read, &error));
        let AppliedTo { last, membership } = current?;
        Ok((last, membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<EntryOutcome>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let (epoch, apply_commands) = (self.epoch, self.apply_commands);
        let work = self.store.apply(self.group, move |state| apply_entries(state, entries, epoch, apply_commands));
        let results = work.await.map_err(|error| state_error(ErrorVerb::Write, &error))?;
        let mut answers = Vec::with_capacity(results.len());
        for (applied, events) in results {
            if !events.is_empty() {
                // Nobody watching is fine.
                let _ = self.watchers.send(Arc::new(AppliedEntry { index: applied.index, events }));
            }
            answers.push(applied);
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<SnapshotData>, StorageError> {
        Ok(Box::new(SnapshotData::Incoming))
    }

    async fn install_snapshot(&mut self, meta: &Meta, snapshot: Box<SnapshotData>) -> Result<(), StorageError> {
        let to = AppliedTo { last: meta.last_log_id, membership: meta.last_membership.clone() };
        let applied =
            consensus::encode("applied log id", &to).map_err(|error| state_error(ErrorVerb::Write, &error))?;
        let source: SnapshotSource = snapshot.into_source();
        let installed = self.store.install_snapshot(self.group, source, applied).await;
        installed.map_err(|error| state_error(ErrorVerb::Write, &error))
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let taken = snapshot::take(&self.store, self.group).map_err(|error| state_error(ErrorVerb::Read, &error))?;
        Ok(Some(taken).filter(|snapshot| snapshot.meta.last_log_id.is_some()))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        snapshot::take(&self.store, self.group).map_err(|error| state_error(ErrorVerb::Read, &error))
    }
}
