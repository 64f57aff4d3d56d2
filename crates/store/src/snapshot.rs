//! Moving the whole state of a group to another node: rows in pieces out of one read, spooled beside the state, and
//! installed in one transaction.
//!
//! A spool is never mixed up with the state: until it is installed the old state stands, and what a crash leaves of one is
//! discarded when the store is opened again.

use std::ops::Bound;

use fleet_core::GroupId;
use redb::ReadableTable;
use serde::{Deserialize, Serialize};

use crate::codec::Record;
use crate::database::{SPOOL, Tables};
use crate::pending::Pending;
use crate::transaction::{APPLIED_NUMBER, RawRow, StateRead, StateReader, StateTransaction, end_of_prefix};
use crate::writer::Urgency;
use crate::{Error, Store};

/// Rows read in one step while a state is moved within this node.
const ROWS_PER_STEP: usize = 1_024;

/// A piece of a state: rows without their group, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChunk {
    /// Key (table number first) and record of each row.
    pub rows: Vec<RawRow>,
}

impl Record for StateChunk {
    const NAME: &'static str = "piece of a snapshot";
}

/// Where an installed state comes from.
#[derive(Debug)]
pub enum SnapshotSource {
    /// What was spooled for the group.
    Spool,
    /// Another read of a state.
    Reader(StateReader),
}

impl StateReader {
    /// The rows behind the key `after` (all if `None`), about `bytes_max` of them; empty at the end.
    pub fn chunk(&self, after: Option<&[u8]>, bytes_max: usize) -> Result<StateChunk, Error> {
        let prefix = self.group().as_bytes().to_vec();
        let end = end_of_prefix(&prefix).unwrap_or_default();
        // Row 0 says what is applied; it travels with the snapshot's own description instead.
        let mut from = [prefix.as_slice(), &[APPLIED_NUMBER + 1]].concat();
        let mut exclusive = false;
        if let Some(key) = after {
            from = [prefix.as_slice(), key].concat();
            exclusive = true;
        }
        let mut chunk = StateChunk::default();
        let mut bytes = 0;
        while bytes < bytes_max {
            let bound = if exclusive { Bound::Excluded(from.as_slice()) } else { Bound::Included(from.as_slice()) };
            let rows = self.raw_range(bound, &end, 64, false)?;
            let Some((last, _)) = rows.last() else { break };
            from.clone_from(last);
            exclusive = true;
            for (key, value) in rows {
                bytes += key.len() + value.len();
                chunk.rows.push((key.get(prefix.len()..).unwrap_or_default().to_vec(), value));
            }
        }
        Ok(chunk)
    }
}

fn spool_key(group: GroupId, key: &[u8]) -> Vec<u8> {
    [group.as_bytes().as_slice(), key].concat()
}

impl Store {
    /// Forgets what was spooled for `group`.
    pub fn discard_spool(&self, group: GroupId) -> Pending<()> {
        self.submit("discard a spooled snapshot", Urgency::Readable, 0, move |tables| clear(tables, group))
    }

    /// Adds `chunk` to what is spooled for `group`.
    pub fn spool(&self, group: GroupId, chunk: StateChunk) -> Pending<()> {
        let bytes = chunk.rows.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.submit("spool a piece of a snapshot", Urgency::Readable, bytes, move |tables| {
            let mut spool = tables.other(SPOOL)?;
            for (key, value) in &chunk.rows {
                spool
                    .insert(spool_key(group, key).as_slice(), value.as_slice())
                    .map_err(|error| Error::database("spool a piece of a snapshot", error))?;
            }
            Ok(())
        })
    }

    /// Replaces the state of `group` by that of `source`, applied up to what `applied` says. Done when it is on the disk.
    pub fn install_snapshot(&self, group: GroupId, source: SnapshotSource, applied: Vec<u8>) -> Pending<()> {
        self.submit("install a snapshot", Urgency::Synced, 0, move |tables| {
            tables.state(group)?.clear()?;
            match source {
                SnapshotSource::Spool => install_spool(tables, group)?,
                SnapshotSource::Reader(reader) => install_rows(tables.state(group)?, &reader)?,
            }
            tables.state(group)?.put_applied(&applied)
        })
    }
}

pub(crate) fn clear(tables: &mut Tables<'_>, group: GroupId) -> Result<(), Error> {
    let start = group.as_bytes().to_vec();
    let end = end_of_prefix(&start).unwrap_or_default();
    tables
        .other(SPOOL)?
        .retain_in::<&[u8], _>(start.as_slice()..end.as_slice(), |_, _| false)
        .map_err(|error| Error::database("discard a spooled snapshot", error))
}

fn install_spool(tables: &mut Tables<'_>, group: GroupId) -> Result<(), Error> {
    let fail = |error| Error::database("install a snapshot", error);
    let start = group.as_bytes().to_vec();
    let end = end_of_prefix(&start).unwrap_or_default();
    let spool = tables.other(SPOOL)?;
    let state = tables.state(group)?;
    for row in spool.range::<&[u8]>(start.as_slice()..end.as_slice()).map_err(fail)? {
        let (key, value) = row.map_err(fail)?;
        state.put_raw(key.value().get(start.len()..).unwrap_or_default(), value.value())?;
    }
    drop(spool);
    clear(tables, group)
}

fn install_rows(state: &mut StateTransaction<'_>, reader: &StateReader) -> Result<(), Error> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let chunk = reader.chunk(after.as_deref(), ROWS_PER_STEP * 64)?;
        let Some((last, _)) = chunk.rows.last() else { return Ok(()) };
        after = Some(last.clone());
        for (key, value) in &chunk.rows {
            state.put_raw(key, value)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StateTable;

    const NUMBERS: StateTable<u64, u64> = StateTable::new(201, "numbers");

    impl Record for u64 {
        const NAME: &'static str = "number";
    }

    fn fill(store: &Store, group: GroupId, count: u64) {
        let work = store.apply(group, move |state| {
            for number in 0..count {
                state.put(&NUMBERS, &number, &(number * 3))?;
            }
            state.put_applied(b"here")
        });
        work.wait().unwrap();
    }

    #[test]
    fn what_a_crash_left_of_a_transfer_is_gone_when_the_store_opens() {
        let disk = crate::MemoryDisk::new();
        let group = GroupId::from_bytes([7; 16]);
        let store = disk.open().unwrap();
        let rows = vec![(vec![201, 1], vec![1, 2])];
        store.spool(group, StateChunk { rows }).wait().unwrap();
        store.put_meta("synced", Vec::new()).wait().unwrap();
        store.close();
        let store = disk.lose_power().open().unwrap();
        store.install_snapshot(group, SnapshotSource::Spool, b"nothing".to_vec()).wait().unwrap();
        let reader = store.reader(group).unwrap();
        assert!(
            reader.chunk(None, 1_000).unwrap().rows.is_empty(),
            "rows of a transfer that never ended were installed"
        );
    }

    #[test]
    fn a_state_moves_whole_and_replaces_what_was_there() {
        let (from, to) = (Store::in_memory().unwrap(), Store::in_memory().unwrap());
        let (group, other) = (GroupId::from_bytes([7; 16]), GroupId::from_bytes([8; 16]));
        fill(&from, group, 5_000);
        fill(&to, other, 3);
        to.apply(group, |state| state.put(&NUMBERS, &9_999_999, &1)).wait().unwrap();

        let reader = from.reader(group).unwrap();
        let mut after = None;
        loop {
            let chunk = reader.chunk(after.as_deref(), 10_000).unwrap();
            let Some((last, _)) = chunk.rows.last() else { break };
            after = Some(last.clone());
            to.spool(group, chunk).wait().unwrap();
        }
        to.install_snapshot(group, SnapshotSource::Spool, b"there".to_vec()).wait().unwrap();

        let installed = to.reader(group).unwrap();
        assert_eq!(installed.scan(&NUMBERS, &(), None, 10_000).unwrap().len(), 5_000);
        assert_eq!(installed.get(&NUMBERS, &4_999).unwrap(), Some(14_997));
        assert_eq!(installed.applied().unwrap(), Some(b"there".to_vec()));
        assert_eq!(to.reader(other).unwrap().scan(&NUMBERS, &(), None, 10).unwrap().len(), 3);
    }
}
