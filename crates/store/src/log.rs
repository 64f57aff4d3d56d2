//! The log of a group: entries as opaque bytes under their index, the vote, and what is committed and purged.
//!
//! Entries are readable as soon as [`Store::append_log`] returns, from a bounded memory cache, and synced when its
//! callback hears so. What an entry means is not known here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use fleet_core::GroupId;
use redb::ReadableTable;

use crate::database::{self, LOG, LOG_FACTS, Tables};
use crate::pending::{self, Pending};
use crate::snapshot;
use crate::transaction::StateTransaction;
use crate::writer::Urgency;
use crate::{Error, Store};

/// Bytes of recent entries kept in memory for replication and apply.
const CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most entries removed from the log in one operation, so that a purge holds nobody up.
const PURGE_ENTRIES_MAX: usize = 1_024;

/// A small fact about a group's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFact {
    /// The last vote.
    Vote = 1,
    /// The last entry known to be committed.
    Committed = 2,
    /// The last entry that was purged.
    Purged = 3,
    /// The group's epoch.
    Epoch = 4,
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogExtent {
    /// Index and bytes of the last entry.
    pub last: Option<(u64, Bytes)>,
    /// Index of the first row.
    pub first: u64,
    /// Bytes of each entry, from the first on.
    pub sizes: Vec<u32>,
}

#[derive(Debug)]
struct CachedEntry {
    bytes: Bytes,
    /// Which append wrote it.
    append: u64,
    synced: bool,
}

#[derive(Debug, Default)]
struct Cache {
    entries: BTreeMap<(GroupId, u64), CachedEntry>,
    bytes: usize,
    appends: u64,
}

impl Cache {
    fn insert(&mut self, group: GroupId, entries: &[(u64, Bytes)]) -> u64 {
        self.appends += 1;
        for (index, bytes) in entries {
            let entry = CachedEntry { bytes: bytes.clone(), append: self.appends, synced: false };
            self.bytes += bytes.len();
            if let Some(old) = self.entries.insert((group, *index), entry) {
                self.bytes -= old.bytes.len();
            }
        }
        self.appends
    }

    /// Marks what `append` wrote as synced, and lets go of the oldest synced entries past the bound.
    fn synced(&mut self, group: GroupId, range: Range<u64>, append: u64) {
        for (_, entry) in self.entries.range_mut((group, range.start)..(group, range.end)) {
            entry.synced |= entry.append == append;
        }
        while self.bytes > CACHE_BYTES_MAX {
            match self.entries.first_entry() {
                Some(first) if first.get().synced => self.bytes -= first.remove().bytes.len(),
                _ => return,
            }
        }
    }

    fn remove(&mut self, group: GroupId, range: Range<u64>) {
        let gone: Vec<_> = self.entries.range((group, range.start)..(group, range.end)).map(|(key, _)| *key).collect();
        for key in gone {
            if let Some(entry) = self.entries.remove(&key) {
                self.bytes -= entry.bytes.len();
            }
        }
    }
}

/// The recent entries of all logs, shared by the clones of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogCache(Arc<Mutex<Cache>>);

impl LogCache {
    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_key(group: GroupId, index: u64) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(group.as_bytes());
    key[16..].copy_from_slice(&index.to_be_bytes());
    key
}

fn index_of(key: &[u8]) -> Result<u64, Error> {
    key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes)).ok_or_else(|| Error::corrupt("log key", "too short"))
}

fn fact_key(group: GroupId, fact: LogFact) -> [u8; 17] {
    let mut key = [0; 17];
    key[..16].copy_from_slice(group.as_bytes());
    key[16] = fact as u8;
    key
}

fn put_fact(tables: &mut Tables<'_>, group: GroupId, fact: LogFact, value: &[u8]) -> Result<(), Error> {
    let facts = tables.log_facts()?;
    facts
        .insert(fact_key(group, fact).as_slice(), value)
        .map_err(|error| Error::database("write a fact of the log", error))?;
    Ok(())
}

impl Store {
    /// Appends `entries` to the log of `group`. They are readable at once; `done` hears, on the writer's thread, when
    /// they are on the disk.
    pub fn append_log(
        &self,
        group: GroupId,
        entries: Vec<(u64, Bytes)>,
        done: impl FnOnce(Result<(), Error>) + Send + 'static,
    ) {
        let (Some((first, _)), Some((last, _))) = (entries.first(), entries.last()) else {
            return done(Ok(()));
        };
        let range = *first..last.saturating_add(1);
        let cache = self.log_cache().clone();
        let append = cache.lock().insert(group, &entries);
        let bytes = entries.iter().map(|(_, bytes)| bytes.len()).sum();
        let work = move |tables: &mut Tables<'_>| {
            let log = tables.log()?;
            for (index, entry) in &entries {
                log.insert(log_key(group, *index).as_slice(), entry.as_ref())
                    .map_err(|error| Error::database("append to the log", error))?;
            }
            Ok(())
        };
        self.submit_with("append to the log", Urgency::Synced, bytes, work, move |result| {
            if result.is_ok() {
                cache.lock().synced(group, range, append);
            }
            done(result);
        });
    }

    /// Removes the entries from `from` on. Done when that is on the disk.
    pub fn truncate_log(&self, group: GroupId, from: u64) -> Pending<()> {
        self.log_cache().lock().remove(group, from..u64::MAX);
        self.submit("truncate the log", Urgency::Synced, 0, move |tables| {
            let (start, end) = (log_key(group, from), log_key(group, u64::MAX));
            tables
                .log()?
                .retain_in::<&[u8], _>(start.as_slice()..=end.as_slice(), |_, _| false)
                .map_err(|error| Error::database("truncate the log", error))
        })
    }

    /// Removes the entries up to and including `through`, remembering `purged` as the last of them. Done when the log
    /// counts as purged; the rows go step by step.
    pub fn purge_log(&self, group: GroupId, through: u64, purged: Vec<u8>) -> Pending<()> {
        let (delivery, pending) = pending::pending("purge the log");
        self.log_cache().lock().remove(group, 0..through.saturating_add(1));
        let store = self.clone();
        let work = move |tables: &mut Tables<'_>| {
            put_fact(tables, group, LogFact::Purged, &purged)?;
            remove_purged(tables, group, through)
        };
        self.submit_with("purge the log", Urgency::Synced, 0, work, move |result| {
            if matches!(result, Ok(true)) {
                store.purge_rest(group, through);
            }
            delivery.fill(result.map(drop));
        });
        pending
    }

    /// Goes on with a purge until no row is left; a crash in between leaves rows that the next purge takes.
    fn purge_rest(&self, group: GroupId, through: u64) {
        let store = self.clone();
        let work = move |tables: &mut Tables<'_>| remove_purged(tables, group, through);
        self.submit_with("purge the log", Urgency::Whenever, 0, work, move |result| {
            if matches!(result, Ok(true)) {
                store.purge_rest(group, through);
            }
        });
    }

    /// The entries with indices in `range` that exist, in order and without a gap; fewer where the next one would make
    /// more than `bytes_max` of them (one is always there).
    pub fn read_log(&self, group: GroupId, range: Range<u64>, bytes_max: usize) -> Result<Vec<Bytes>, Error> {
        let cached: BTreeMap<u64, Bytes> = {
            let cache = self.log_cache().lock();
            let rows = cache.entries.range((group, range.start)..(group, range.end.max(range.start)));
            let mut bytes = 0;
            rows.take_while(|(_, entry)| {
                let fits = bytes == 0 || bytes + entry.bytes.len() <= bytes_max;
                bytes += entry.bytes.len();
                fits
            })
            .map(|((_, index), entry)| (*index, entry.bytes.clone()))
            .collect()
        };
        let mut entries = Vec::new();
        let oldest_cached = cached.keys().next().copied().unwrap_or(range.end);
        let mut next = oldest_cached;
        if range.start < oldest_cached
            && let Some(first) = self.read_stored(group, range.start..oldest_cached, bytes_max, &mut entries)?
        {
            next = first + entries.len() as u64;
        }
        let mut bytes: usize = entries.iter().map(Bytes::len).sum();
        for (index, entry) in cached {
            if index != next || (bytes > 0 && bytes + entry.len() > bytes_max) {
                break;
            }
            bytes += entry.len();
            entries.push(entry);
            next += 1;
        }
        Ok(entries)
    }

    /// Reads entries from the file into `entries`; tells the index of the first.
    fn read_stored(
        &self,
        group: GroupId,
        range: Range<u64>,
        bytes_max: usize,
        entries: &mut Vec<Bytes>,
    ) -> Result<Option<u64>, Error> {
        let fail = |error| Error::database("read the log", error);
        let log = database::read_table(&*self.database("read the log")?, LOG)?;
        let (start, end) = (log_key(group, range.start), log_key(group, range.end));
        let (mut bytes, mut first) = (0, None);
        for row in log.range::<&[u8]>(start.as_slice()..end.as_slice()).map_err(fail)? {
            let (key, value) = row.map_err(fail)?;
            let (index, length) = (index_of(key.value())?, value.value().len());
            let wanted = *first.get_or_insert(index) + entries.len() as u64;
            if index != wanted || (bytes > 0 && bytes + length > bytes_max) {
                break;
            }
            bytes += length;
            entries.push(Bytes::copy_from_slice(value.value()));
        }
        Ok(first)
    }

    /// The last entry of the log of `group` on the disk, and how many bytes each takes.
    pub fn log_extent(&self, group: GroupId) -> Result<LogExtent, Error> {
        let fail = |error| Error::database("measure the log", error);
        let log = database::read_table(&*self.database("measure the log")?, LOG)?;
        let (start, end) = (log_key(group, 0), log_key(group, u64::MAX));
        let mut extent = LogExtent::default();
        for row in log.range::<&[u8]>(start.as_slice()..=end.as_slice()).map_err(fail)? {
            let (key, value) = row.map_err(fail)?;
            if extent.sizes.is_empty() {
                extent.first = index_of(key.value())?;
            }
            extent.sizes.push(u32::try_from(value.value().len()).unwrap_or(u32::MAX));
        }
        let last = log.range::<&[u8]>(start.as_slice()..=end.as_slice()).map_err(fail)?.next_back();
        if let Some(row) = last {
            let (key, value) = row.map_err(fail)?;
            extent.last = Some((index_of(key.value())?, Bytes::copy_from_slice(value.value())));
        }
        Ok(extent)
    }

    /// A fact about the log of `group`.
    pub fn log_fact(&self, group: GroupId, fact: LogFact) -> Result<Option<Vec<u8>>, Error> {
        let facts = database::read_table(&*self.database("read a fact of the log")?, LOG_FACTS)?;
        let key = fact_key(group, fact);
        let row = facts.get(key.as_slice()).map_err(|error| Error::database("read a fact of the log", error))?;
        Ok(row.map(|value| value.value().to_vec()))
    }

    /// Stores a fact about the log of `group`. Done when it is on the disk.
    pub fn put_log_fact(&self, group: GroupId, fact: LogFact, value: Vec<u8>) -> Pending<()> {
        self.submit("write a fact of the log", Urgency::Synced, 0, move |tables| put_fact(tables, group, fact, &value))
    }

    /// Stores what is committed. Only queued: it rides with a later commit, and losing it costs time, not data.
    pub fn save_committed(&self, group: GroupId, committed: Vec<u8>) {
        let work = move |tables: &mut Tables<'_>| put_fact(tables, group, LogFact::Committed, &committed);
        self.submit_with("save what is committed", Urgency::Whenever, 0, work, |result| {
            if let Err(error) = result {
                tracing::debug!(%error, "what is committed was not saved");
            }
        });
    }
}

/// Removes some entries up to and including `through`; tells whether more are left.
fn remove_purged(tables: &mut Tables<'_>, group: GroupId, through: u64) -> Result<bool, Error> {
    let fail = |error| Error::database("purge the log", error);
    let log = tables.log()?;
    let (start, end) = (log_key(group, 0), log_key(group, through));
    let first = match log.range::<&[u8]>(start.as_slice()..=end.as_slice()).map_err(fail)?.next() {
        Some(row) => index_of(row.map_err(fail)?.0.value())?,
        None => return Ok(false),
    };
    let stop = first.saturating_add(PURGE_ENTRIES_MAX as u64 - 1).min(through);
    log.retain_in::<&[u8], _>(start.as_slice()..=log_key(group, stop).as_slice(), |_, _| false).map_err(fail)?;
    Ok(stop < through)
}

/// What a group that is founded anew starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refounding {
    /// The row beside the state.
    pub applied: Vec<u8>,
    /// The first vote.
    pub vote: Vec<u8>,
    /// What is committed.
    pub committed: Vec<u8>,
    /// The epoch.
    pub epoch: Vec<u8>,
    /// The last entry whose effect is in the state, as a log id. It and all before it are removed, so that nobody learns
    /// of the old group from the new one's log.
    pub purged: Vec<u8>,
    /// The index of that entry.
    pub purge_through: u64,
    /// Entries from here on are removed.
    pub truncate_from: u64,
    /// Facts about the node that change with it, by name.
    pub facts: Vec<(String, Vec<u8>)>,
}

/// Removes the log entries of `group` with indices from `from` to `through`.
fn remove_entries(tables: &mut Tables<'_>, group: GroupId, from: u64, through: u64) -> Result<(), Error> {
    let (start, end) = (log_key(group, from), log_key(group, through));
    tables
        .log()?
        .retain_in::<&[u8], _>(start.as_slice()..=end.as_slice(), |_, _| false)
        .map_err(|error| Error::database("remove log entries", error))
}

fn put_meta_rows(tables: &Tables<'_>, facts: &[(String, Vec<u8>)]) -> Result<(), Error> {
    let mut meta = tables.meta()?;
    facts.iter().try_for_each(|(name, value)| database::write_meta_row(&mut meta, name, value))
}

impl Store {
    /// Founds `group` anew from what is here, in one transaction with what `prepare` writes to the state.
    pub fn refound(
        &self,
        group: GroupId,
        refounding: Refounding,
        prepare: impl FnOnce(&mut StateTransaction<'_>) -> Result<(), Error> + Send + 'static,
    ) -> Pending<()> {
        self.log_cache().lock().remove(group, 0..u64::MAX);
        self.submit("found the group anew", Urgency::Synced, 0, move |tables| {
            remove_entries(tables, group, refounding.truncate_from, u64::MAX)?;
            remove_entries(tables, group, 0, refounding.purge_through)?;
            put_meta_rows(tables, &refounding.facts)?;
            put_fact(tables, group, LogFact::Purged, &refounding.purged)?;
            put_fact(tables, group, LogFact::Vote, &refounding.vote)?;
            put_fact(tables, group, LogFact::Committed, &refounding.committed)?;
            put_fact(tables, group, LogFact::Epoch, &refounding.epoch)?;
            let state = tables.state(group)?;
            prepare(state)?;
            state.put_applied(&refounding.applied)
        })
    }

    /// Forgets log, vote and state of `group`, in one transaction with its new `epoch` and the `facts` about the node:
    /// from then on this node is as one that never was a member. Blobs stay.
    pub fn forget_group(&self, group: GroupId, epoch: Vec<u8>, facts: Vec<(String, Vec<u8>)>) -> Pending<()> {
        self.log_cache().lock().remove(group, 0..u64::MAX);
        self.submit("forget the group", Urgency::Synced, 0, move |tables| {
            remove_entries(tables, group, 0, u64::MAX)?;
            for fact in [LogFact::Vote, LogFact::Committed, LogFact::Purged] {
                let removed = tables.log_facts()?.remove(fact_key(group, fact).as_slice());
                removed.map_err(|error| Error::database("remove a fact of the log", error))?;
            }
            put_fact(tables, group, LogFact::Epoch, &epoch)?;
            put_meta_rows(tables, &facts)?;
            snapshot::clear(tables, group)?;
            tables.state(group)?.clear()
        })
    }
}

#[cfg(test)]
#[path = "log_tests.rs"]
mod tests;
