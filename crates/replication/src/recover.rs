//! Founding a group anew from one replica, after a majority was lost for good.
//!
//! The new epoch's first state is that of the chosen replica; entries of its log that it had not applied yet follow, so
//! that as little as possible is lost, up to a change of membership, which would call back the lost voters. The node
//! becomes the only voter. Everything happens in one transaction. The log up to the state goes with the old epoch: a member
//! of the new one starts from a snapshot, and never meets the voters of old in an entry of their time.
//!
//! Members of the old epoch that live learn of the new one, give up what they have, and come to it as strangers.

use std::collections::BTreeSet;

use fleet_core::GroupId;
use fleet_store::{LogFact, Refounding, StateTransaction, Store};
use openraft::{EmptyNode, EntryPayload, Membership, StoredMembership, Vote};

use crate::command::{Batch, Command};
use crate::consensus::{self, AppliedTo, Entry, VoterId};
use crate::error::Error;
use crate::snapshot;

/// What a recovery did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The new epoch.
    pub epoch: u64,
    /// Index of the last entry whose effect is in the state.
    pub applied_index: u64,
    /// Index of the last entry that is kept; those behind `applied_index` are applied when the group opens.
    pub kept_index: u64,
}

/// A fact about the node, by name, that is written in the same transaction.
pub type NodeFact = (String, Vec<u8>);

/// Founds `group` anew in `store`, in the epoch after its present one, with this node as its only voter. `prepare` writes
/// what the state must say from the first moment on, such as that dispatch is held; `facts` are written with it. The group
/// must not be open.
pub async fn recover(
    store: &Store,
    group: GroupId,
    facts: Vec<NodeFact>,
    prepare: impl FnOnce(&mut StateTransaction<'_>) -> Result<(), fleet_store::Error> + Send + 'static,
) -> Result<Recovered, Error> {
    let operation = "found the group anew";
    let damaged = |error: &dyn std::error::Error| Error::consensus(operation, error);
    let reader = store.reader(group).map_err(Error::store(operation))?;
    let AppliedTo { last, .. } = snapshot::applied_to(&reader).map_err(|error| damaged(&error))?;
    drop(reader);
    let Some(last) = last else {
        return Err(Error::Refused("found the group anew: this replica has no state"));
    };
    let epoch = stored_epoch(store, group)?.unwrap_or(1) + 1;
    let vote: Vote<VoterId> = match store.log_fact(group, LogFact::Vote).map_err(Error::store(operation))? {
        Some(bytes) => consensus::decode("vote", &bytes).map_err(|error| damaged(&error))?,
        None => Vote::default(),
    };
    let own = VoterId(store.node_id());
    let voters = Membership::new(vec![BTreeSet::from([own])], None);
    let to =
        AppliedTo { last: Some(last), membership: StoredMembership::<VoterId, EmptyNode>::new(Some(last), voters) };
    let kept_index = last_kept(store, group, last.index)?;
    let encode =
        |what, result: Result<Vec<u8>, consensus::CodecError>| result.map_err(|error| Error::consensus(what, &error));
    let refounding = Refounding {
        applied: encode(operation, consensus::encode("applied log id", &to))?,
        vote: encode(operation, consensus::encode("vote", &Vote::new(vote.leader_id.term + 1, own)))?,
        committed: encode(operation, consensus::encode("committed log id", &last))?,
        epoch: epoch.to_be_bytes().to_vec(),
        purged: encode(operation, consensus::encode("purged log id", &last))?,
        purge_through: last.index,
        truncate_from: kept_index + 1,
        facts,
    };
    store.refound(group, refounding, prepare).await.map_err(Error::store(operation))?;
    Ok(Recovered { epoch, applied_index: last.index, kept_index })
}

/// Gives up what `store` has of `group`, so that this node can become a member in `epoch` from nothing. `facts` are written
/// in the same transaction. The group must not be open. Does nothing but that in an epoch that is not before `epoch`.
pub async fn rejoin(store: &Store, group: GroupId, epoch: u64, facts: Vec<NodeFact>) -> Result<(), Error> {
    let operation = "give up the old epoch of the group";
    let (current, mut facts) = (stored_epoch(store, group)?.unwrap_or(1), facts);
    if current < epoch {
        let forgotten = store.forget_group(group, epoch.to_be_bytes().to_vec(), facts);
        return forgotten.await.map_err(Error::store(operation));
    }
    // Whatever was voted in the present epoch must never be forgotten.
    while let Some((name, value)) = facts.pop() {
        store.put_meta(name, value).await.map_err(Error::store(operation))?;
    }
    Ok(())
}

/// The commands of entries that `store` has and that are not in its state, by index of their entry: they may have been
/// committed, and nobody applied them here. The group must not be open.
pub fn unapplied(store: &Store, group: GroupId) -> Result<Vec<(u64, Command)>, Error> {
    let operation = "read the log of the group";
    let damaged = |error: &dyn std::error::Error| Error::consensus(operation, error);
    let reader = store.reader(group).map_err(Error::store(operation))?;
    let applied = snapshot::applied_to(&reader).map_err(|error| damaged(&error))?;
    let (mut next, mut commands) = (applied.last.map_or(0, |last| last.index + 1), Vec::new());
    loop {
        let rows = store.read_log(group, next..u64::MAX, 1024 * 1024).map_err(Error::store(operation))?;
        if rows.is_empty() {
            return Ok(commands);
        }
        for row in rows {
            let entry: Entry = consensus::decode("log entry", &row).map_err(|error| damaged(&error))?;
            next = entry.log_id.index + 1;
            if let EntryPayload::Normal(data) = entry.payload {
                let batch = Batch::decode(&data.0).map_err(|error| damaged(&error))?;
                commands.extend(batch.commands.into_iter().map(|command| (entry.log_id.index, command)));
            }
        }
    }
}

/// Index of the last entry behind `applied` before one that changes the membership.
fn last_kept(store: &Store, group: GroupId, applied: u64) -> Result<u64, Error> {
    let operation = "read the log of the group";
    let mut kept = applied;
    loop {
        let rows = store.read_log(group, kept + 1..u64::MAX, 1024 * 1024).map_err(Error::store(operation))?;
        if rows.is_empty() {
            return Ok(kept);
        }
        for row in rows {
            let entry: Entry =
                consensus::decode("log entry", &row).map_err(|error| Error::consensus(operation, &error))?;
            if entry.log_id.index != kept + 1 || matches!(entry.payload, EntryPayload::Membership(_)) {
                return Ok(kept);
            }
            kept += 1;
        }
    }
}

/// The epoch that `store` remembers for `group`.
pub(crate) fn stored_epoch(store: &Store, group: GroupId) -> Result<Option<u64>, Error> {
    let operation = "read the group's epoch";
    let bytes = store.log_fact(group, LogFact::Epoch).map_err(Error::store(operation))?;
    bytes
        .map(|bytes| {
            let array = bytes.try_into().map_err(|_| Error::Refused("read the group's epoch: it is not 8 bytes"))?;
            Ok(u64::from_be_bytes(array))
        })
        .transpose()
}
