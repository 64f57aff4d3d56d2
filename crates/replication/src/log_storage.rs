//! openraft's log on our store: entries as bytes, votes synced, what is committed only queued.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use fleet_core::GroupId;
use fleet_store::{LogFact, Store};
use openraft::storage::{LogFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{AnyError, ErrorSubject, ErrorVerb, OptionalSend, RaftLogId, StorageIOError, Vote};

use serde::de::DeserializeOwned;

use crate::consensus::{self, Entry, LogId, StorageError, StoredError, TypeConfig, VoterId};

/// Most bytes of entries that travel in one append. openraft gives an append one heartbeat interval, payload included.
const APPEND_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of each entry in the log, so that bytes and not counts decide when to purge.
#[derive(Debug, Default)]
struct LogSizes {
    first: u64,
    sizes: VecDeque<u32>,
    total: u64,
}

impl LogSizes {
    fn append(&mut self, index: u64, bytes: usize) {
        if self.sizes.is_empty() {
            self.first = index;
        }
        self.truncate(index);
        let size = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.sizes.push_back(size);
        self.total += u64::from(size);
    }

    fn truncate(&mut self, from: u64) {
        while self.first + self.sizes.len() as u64 > from {
            match self.sizes.pop_back() {
                Some(size) => self.total -= u64::from(size),
                None => return,
            }
        }
    }

    fn purge(&mut self, through: u64) {
        while self.first <= through {
            match self.sizes.pop_front() {
                Some(size) => self.total -= u64::from(size),
                None => return,
            }
            self.first += 1;
        }
    }

    /// The greatest index whose purge leaves at least `keep_bytes` of entries.
    fn purge_point(&self, keep_bytes: u64) -> Option<u64> {
        let mut left = self.total;
        let mut point = None;
        for (index, size) in (self.first..).zip(&self.sizes) {
            left -= u64::from(*size);
            if left < keep_bytes {
                break;
            }
            point = Some(index);
        }
        point
    }
}

/// How large the log is; shared with whoever decides to purge.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogMeter(Arc<Mutex<LogSizes>>);

impl LogMeter {
    fn with<T>(&self, work: impl FnOnce(&mut LogSizes) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes of all entries.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.with(|sizes| sizes.total)
    }

    /// The greatest index whose purge leaves at least `keep_bytes` of entries.
    pub(crate) fn purge_point(&self, keep_bytes: u64) -> Option<u64> {
        self.with(|sizes| sizes.purge_point(keep_bytes))
    }
}

/// The log of one group.
#[derive(Clone, Debug)]
pub struct LogStorage {
    store: Store,
    group: GroupId,
    meter: LogMeter,
}

impl LogStorage {
    /// The log of `group` in `store`.
    pub fn new(store: Store, group: GroupId) -> Self {
        Self { store, group, meter: LogMeter::default() }
    }

    pub(crate) fn meter(&self) -> LogMeter {
        self.meter.clone()
    }

    fn fact<T: DeserializeOwned>(&self, fact: LogFact, name: &'static str) -> Result<Option<T>, StoredError> {
        let bytes = self.store.log_fact(self.group, fact)?;
        Ok(bytes.map(|bytes| consensus::decode(name, &bytes)).transpose()?)
    }

    fn read(&self, start: u64, end: u64, bytes_max: usize) -> Result<Vec<Entry>, StoredError> {
        let rows = self.store.read_log(self.group, start..end, bytes_max)?;
        rows.iter().map(|bytes| Ok(consensus::decode("log entry", bytes)?)).collect()
    }

    fn state(&self) -> Result<LogState<TypeConfig>, StoredError> {
        let purged: Option<LogId> = self.fact(LogFact::Purged, "purged log id")?;
        let extent = self.store.log_extent(self.group)?;
        self.meter.with(|sizes| {
            sizes.first = extent.first;
            sizes.total = extent.sizes.iter().map(|size| u64::from(*size)).sum();
            sizes.sizes = extent.sizes.into();
            // Rows that an interrupted purge left behind are no part of the log.
            if let Some(purged) = purged {
                sizes.purge(purged.index);
            }
        });
        let last = match extent.last {
            Some((index, bytes)) if purged.is_none_or(|purged| purged.index < index) => {
                let entry: Entry = consensus::decode("log entry", &bytes)?;
                Some(entry.log_id)
            }
            _ => purged,
        };
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }
}

/// `error`, met while doing `verb` to the log.
fn log_error(verb: ErrorVerb, error: &(impl std::error::Error + 'static)) -> StorageError {
    StorageIOError::new(ErrorSubject::Logs, verb, AnyError::new(error)).into()
}

impl RaftLogReader<TypeConfig> for LogStorage {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        self.read(start, end, usize::MAX).map_err(|error| log_error(ErrorVerb::Read, &error))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.read(start, end, APPEND_BYTES_MAX).map_err(|error| log_error(ErrorVerb::Read, &error))
    }
}

impl RaftLogStorage<TypeConfig> for LogStorage {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        self.state().map_err(|error| log_error(ErrorVerb::Read, &error))
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<VoterId>) -> Result<(), StorageError> {
        let fail = |error: &dyn std::error::Error| {
            StorageError::from(StorageIOError::new(ErrorSubject::Vote, ErrorVerb::Write, AnyError::error(error)))
        };
        let bytes = consensus::encode("vote", vote).map_err(|error| fail(&error))?;
        self.store.put_log_fact(self.group, LogFact::Vote, bytes).await.map_err(|error| fail(&error))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<VoterId>>, StorageError> {
        self.fact(LogFact::Vote, "vote").map_err(|error| log_error(ErrorVerb::Read, &error))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        if let Some(committed) = committed {
            let bytes = consensus::encode("committed log id", &committed)
                .map_err(|error| log_error(ErrorVerb::Write, &error))?;
            self.store.save_committed(self.group, bytes);
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        self.fact(LogFact::Committed, "committed log id").map_err(|error| log_error(ErrorVerb::Read, &error))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut rows = Vec::new();
        for entry in entries {
            let bytes = consensus::encode("log entry", &entry).map_err(|error| log_error(ErrorVerb::Write, &error))?;
            self.meter.with(|sizes| sizes.append(entry.get_log_id().index, bytes.len()));
            rows.push((entry.get_log_id().index, Bytes::from(bytes)));
        }
        self.store.append_log(self.group, rows, move |result| {
            callback.log_io_completed(result.map_err(std::io::Error::other));
        });
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.meter.with(|sizes| sizes.truncate(log_id.index));
        let truncated = self.store.truncate_log(self.group, log_id.index).await;
        truncated.map_err(|error| log_error(ErrorVerb::Delete, &error))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let bytes =
            consensus::encode("purged log id", &log_id).map_err(|error| log_error(ErrorVerb::Delete, &error))?;
        self.meter.with(|sizes| sizes.purge(log_id.index));
        let purged = self.store.purge_log(self.group, log_id.index, bytes).await;
        purged.map_err(|error| log_error(ErrorVerb::Delete, &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_log() {
        let mut sizes = LogSizes::default();
        for index in 5..10 {
            sizes.append(index, 100);
        }
        assert_eq!((sizes.total, sizes.purge_point(300)), (500, Some(6)));
        sizes.append(8, 50);
        assert_eq!((sizes.total, sizes.sizes.len()), (350, 4), "an append over a suffix replaces it");
        sizes.purge(6);
        assert_eq!((sizes.first, sizes.total, sizes.purge_point(200)), (7, 150, None));
        sizes.purge(100);
        assert_eq!(sizes.total, 0);
    }
}
