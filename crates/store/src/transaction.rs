//! The replicated state of one group as typed rows: what the state machine writes in a transaction and readers read.
//!
//! All state of all groups lies in one redb table, `state`, under `group ‖ table number ‖ key`. So a snapshot is one
//! range of rows, nothing that the state machine writes can be forgotten in it, and a commit touches few pages.
//! Whoever reads or writes sees only its own group. Scans are in key order and bounded by a limit.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Bound;

use fleet_core::GroupId;
use redb::{ReadOnlyTable, ReadableTable, Table};

use crate::Error;
use crate::codec::{self, Record};
use crate::key::StateKey;

/// A row as it lies in the file: key without group and table number, and the record's bytes.
pub type RawRow = (Vec<u8>, Vec<u8>);
/// The redb table that holds the state rows, opened for writing.
pub(crate) type StateRows<'txn> = Table<'txn, &'static [u8], &'static [u8]>;

/// A kind of rows: keys `K`, records `V`. Declared as a constant; the number is its place in the file, for ever.
#[derive(Debug)]
pub struct StateTable<K, V> {
    number: u8,
    name: &'static str,
    content: PhantomData<fn() -> (K, V)>,
}

impl<K: StateKey, V: Record> StateTable<K, V> {
    /// The table with `number`, unique in the state and never reused, called `name` in errors.
    pub const fn new(number: u8, name: &'static str) -> Self {
        Self { number, name, content: PhantomData }
    }

    /// The table's number.
    pub const fn number(&self) -> u8 {
        self.number
    }

    /// The table's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Where the row `key` of `group` lies.
    fn locate(&self, group: GroupId, key: &impl StateKey) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(48);
        bytes.extend_from_slice(group.as_bytes());
        bytes.push(self.number);
        key.encode_into(&mut bytes);
        bytes
    }

    fn decode_row(&self, (key, value): &RawRow) -> Result<(K, V), Error> {
        let mut rest = key.get(GROUP_AND_NUMBER_BYTES..).unwrap_or_default();
        match (K::decode_from(&mut rest), rest.is_empty()) {
            (Some(key), true) => Ok((key, codec::decode(value)?)),
            _ => Err(Error::corrupt(self.name, "a key is malformed")),
        }
    }
}

/// Number of the one row that says up to which log entry the state is applied; no table may have it.
pub(crate) const APPLIED_NUMBER: u8 = 0;

fn applied_key(group: GroupId) -> Vec<u8> {
    let mut key = group.as_bytes().to_vec();
    key.push(APPLIED_NUMBER);
    key
}

/// Bytes before a row's own key.
const GROUP_AND_NUMBER_BYTES: usize = 17;

/// The smallest byte string greater than every one that starts with `prefix`; `None` if there is none.
pub(crate) fn end_of_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// Reading the state of one group: shared by a write transaction, which sees its own writes, and a reader.
pub trait StateRead {
    /// The group whose rows are seen.
    fn group(&self) -> GroupId;
    /// The bytes of one row.
    fn raw_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;
    /// At most `limit` rows from `from` up to but not including `to`, the last ones if `backwards` (greatest first).
    fn raw_range(&self, from: Bound<&[u8]>, to: &[u8], limit: usize, backwards: bool) -> Result<Vec<RawRow>, Error>;

    /// Up to which log entry the state is applied, as [`StateTransaction::put_applied`] wrote it.
    fn applied(&self) -> Result<Option<Vec<u8>>, Error> {
        self.raw_get(&applied_key(self.group()))
    }

    /// The record under `key`.
    fn get<K: StateKey, V: Record>(&self, table: &StateTable<K, V>, key: &K) -> Result<Option<V>, Error> {
        self.raw_get(&table.locate(self.group(), key))?.map(|bytes| codec::decode(&bytes)).transpose()
    }

    /// At most `limit` rows whose keys start with `prefix` (a leading part of the key's tuple, or `()` for all), in key
    /// order, those after `after` if given.
    fn scan<K: StateKey, V: Record>(
        &self,
        table: &StateTable<K, V>,
        prefix: &impl StateKey,
        after: Option<&K>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        let start = table.locate(self.group(), prefix);
        let end = end_of_prefix(&start).unwrap_or_default();
        let after = after.map(|key| table.locate(self.group(), key));
        let from = match &after {
            Some(key) if *key >= start => Bound::Excluded(key.as_slice()),
            _ => Bound::Included(start.as_slice()),
        };
        self.raw_range(from, &end, limit, false)?.iter().map(|row| table.decode_row(row)).collect()
    }

    /// At most `limit` rows with `from <= key < to`, in key order. The bounds may be leading parts of the key's tuple.
    fn range<K: StateKey, V: Record>(
        &self,
        table: &StateTable<K, V>,
        from: &impl StateKey,
        to: &impl StateKey,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        let (start, end) = (table.locate(self.group(), from), table.locate(self.group(), to));
        let rows = self.raw_range(Bound::Included(&start), &end, limit, false)?;
        rows.iter().map(|row| table.decode_row(row)).collect()
    }

    /// At most `limit` rows with `from <= key < to`, greatest key first. The bounds may be leading parts of the key's tuple.
    fn range_back<K: StateKey, V: Record>(
        &self,
        table: &StateTable<K, V>,
        from: &impl StateKey,
        to: &impl StateKey,
        limit: usize,
    ) -> Result<Vec<(K, V)>, Error> {
        let (start, end) = (table.locate(self.group(), from), table.locate(self.group(), to));
        let rows = self.raw_range(Bound::Included(&start), &end, limit, true)?;
        rows.iter().map(|row| table.decode_row(row)).collect()
    }

    /// The row with the greatest key that starts with `prefix`.
    fn last<K: StateKey, V: Record>(
        &self,
        table: &StateTable<K, V>,
        prefix: &impl StateKey,
    ) -> Result<Option<(K, V)>, Error> {
        let start = table.locate(self.group(), prefix);
        let end = end_of_prefix(&start).unwrap_or_default();
        self.raw_range(Bound::Included(&start), &end, 1, true)?.first().map(|row| table.decode_row(row)).transpose()
    }
}

fn read_row(rows: &impl ReadableTable<&'static [u8], &'static [u8]>, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let found = rows.get(key).map_err(|error| Error::database("read a state row", error))?;
    Ok(found.map(|value| value.value().to_vec()))
}

fn read_range(
    rows: &impl ReadableTable<&'static [u8], &'static [u8]>,
    from: Bound<&[u8]>,
    to: &[u8],
    limit: usize,
    backwards: bool,
) -> Result<Vec<RawRow>, Error> {
    let fail = |error| Error::database("read a range of state rows", error);
    let start = match from {
        Bound::Included(key) | Bound::Excluded(key) => key,
        Bound::Unbounded => &[],
    };
    if start >= to {
        return Ok(Vec::new());
    }
    let range = rows.range::<&[u8]>((from, Bound::Excluded(to))).map_err(fail)?;
    let take = |row: Result<_, redb::StorageError>| -> Result<RawRow, Error> {
        let (key, value): (redb::AccessGuard<'_, &'static [u8]>, redb::AccessGuard<'_, &'static [u8]>) =
            row.map_err(fail)?;
        Ok((key.value().to_vec(), value.value().to_vec()))
    };
    if backwards { range.rev().take(limit).map(take).collect() } else { range.take(limit).map(take).collect() }
}

/// The state of one group, open for writing. Only the store's writer makes one, inside an `apply` operation.
pub struct StateTransaction<'txn> {
    group: GroupId,
    rows: StateRows<'txn>,
}

impl fmt::Debug for StateTransaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateTransaction").field("group", &self.group).finish_non_exhaustive()
    }
}

impl fmt::Debug for StateReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateReader").field("group", &self.group).finish_non_exhaustive()
    }
}

impl<'txn> StateTransaction<'txn> {
    pub(crate) fn new(group: GroupId, rows: StateRows<'txn>) -> Self {
        Self { group, rows }
    }

    /// The same open rows, for `group`.
    pub(crate) fn into_group(self, group: GroupId) -> Self {
        Self { group, ..self }
    }

    /// Writes `record` under `key`, over whatever was there.
    pub fn put<K: StateKey, V: Record>(&mut self, table: &StateTable<K, V>, key: &K, record: &V) -> Result<(), Error> {
        let bytes = codec::encode(record)?;
        self.rows
            .insert(table.locate(self.group, key).as_slice(), bytes.as_slice())
            .map_err(|error| Error::database("write a state row", error))?;
        Ok(())
    }

    /// Writes up to which log entry the state is applied. In the same transaction as the state itself, always.
    pub fn put_applied(&mut self, applied: &[u8]) -> Result<(), Error> {
        self.put_raw(&[APPLIED_NUMBER], applied)
    }

    /// Writes a row of a snapshot.
    pub(crate) fn put_raw(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let key = [self.group.as_bytes().as_slice(), key].concat();
        self.rows.insert(key.as_slice(), value).map_err(|error| Error::database("write a state row", error))?;
        Ok(())
    }

    /// Removes every row of the group.
    pub(crate) fn clear(&mut self) -> Result<(), Error> {
        let start = self.group.as_bytes().to_vec();
        let end = end_of_prefix(&start).unwrap_or_default();
        self.rows
            .retain_in::<&[u8], _>(start.as_slice()..end.as_slice(), |_, _| false)
            .map_err(|error| Error::database("clear the state", error))
    }

    /// Removes the row under `key`; tells whether there was one.
    pub fn remove<K: StateKey, V: Record>(&mut self, table: &StateTable<K, V>, key: &K) -> Result<bool, Error> {
        let removed = self
            .rows
            .remove(table.locate(self.group, key).as_slice())
            .map_err(|error| Error::database("remove a state row", error))?;
        Ok(removed.is_some())
    }

    /// Removes the record under `key` and returns it.
    pub fn take<K: StateKey, V: Record>(&mut self, table: &StateTable<K, V>, key: &K) -> Result<Option<V>, Error> {
        let removed = self
            .rows
            .remove(table.locate(self.group, key).as_slice())
            .map_err(|error| Error::database("remove a state row", error))?;
        removed.map(|bytes| codec::decode(bytes.value())).transpose()
    }
}

impl StateRead for StateTransaction<'_> {
    fn group(&self) -> GroupId {
        self.group
    }

    fn raw_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        read_row(&self.rows, key)
    }

    fn raw_range(&self, from: Bound<&[u8]>, to: &[u8], limit: usize, backwards: bool) -> Result<Vec<RawRow>, Error> {
        read_range(&self.rows, from, to, limit, backwards)
    }
}

/// The state of one group as of one commit. Keep it briefly: while it lives, the pages of that commit are kept.
pub struct StateReader {
    group: GroupId,
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl StateReader {
    pub(crate) fn new(group: GroupId, rows: ReadOnlyTable<&'static [u8], &'static [u8]>) -> Self {
        Self { group, rows }
    }
}

impl StateRead for StateReader {
    fn group(&self) -> GroupId {
        self.group
    }

    fn raw_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        read_row(&self.rows, key)
    }

    fn raw_range(&self, from: Bound<&[u8]>, to: &[u8], limit: usize, backwards: bool) -> Result<Vec<RawRow>, Error> {
        read_range(&self.rows, from, to, limit, backwards)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    const NUMBERS: StateTable<(u8, u64), u32> = StateTable::new(200, "numbers");

    impl Record for u32 {
        const NAME: &'static str = "number";
    }

    fn group(byte: u8) -> GroupId {
        GroupId::from_bytes([byte; 16])
    }

    #[test]
    fn scans_are_in_key_order_within_the_group() {
        let store = Store::in_memory().unwrap();
        for byte in [1, 2] {
            let fill = store.apply(group(byte), |state| {
                for key in [(1, 9), (2, 1), (1, 3), (255, u64::MAX)] {
                    state.put(&NUMBERS, &key, &7)?;
                }
                Ok(state.scan(&NUMBERS, &(), None, 10)?.len())
            });
            assert_eq!(fill.wait().unwrap(), 4, "a transaction sees its own writes, of its group only");
        }
        let reader = store.reader(group(1)).unwrap();
        let keys = |rows: Vec<((u8, u64), u32)>| rows.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(reader.scan(&NUMBERS, &1_u8, None, 10).unwrap()), [(1, 3), (1, 9)]);
        assert_eq!(keys(reader.scan(&NUMBERS, &(), Some(&(1, 9)), 10).unwrap()), [(2, 1), (255, u64::MAX)]);
        assert_eq!(keys(reader.scan(&NUMBERS, &255_u8, None, 10).unwrap()), [(255, u64::MAX)]);
        assert_eq!(keys(reader.range(&NUMBERS, &(1_u8, 4_u64), &(2_u8, 2_u64), 10).unwrap()), [(1, 9), (2, 1)]);
        assert_eq!(reader.last(&NUMBERS, &1_u8).unwrap().unwrap().0, (1, 9));
        assert_eq!(reader.last(&NUMBERS, &3_u8).unwrap(), None);
    }

    #[test]
    fn the_end_of_a_prefix_is_behind_everything_in_it() {
        assert_eq!(end_of_prefix(&[1, 0xff]), Some(vec![2]));
        assert_eq!(end_of_prefix(&[0xff]), None);
    }
}
