//! The one thread that writes: it takes all operations that wait, runs them in one transaction, commits once, and then
//! tells each of them. No other code begins a write transaction.
//!
//! - Operations run in the order in which they were queued, and what one wrote the next one sees.
//! - An operation is told of success only after its commit is readable, and, if it asked for it, synced.
//! - What was committed without a sync is synced within [`SYNC_DELAY_MAX`].
//! - The first failure ends the thread: its transaction is dropped, every operation then waiting fails, and the handle
//!   is poisoned. Nothing after a failure is ever acknowledged.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use redb::{Database, Durability, ReadableDatabase};

use crate::Error;
use crate::database::Tables;

/// Most operations that ride in one commit.
pub(crate) const BATCH_OPERATIONS_MAX: usize = 512;
/// Most bytes of content that ride in one commit.
pub(crate) const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest time a commit stays unsynced.
pub(crate) const SYNC_DELAY_MAX: Duration = Duration::from_millis(50);

/// Bytes of the file from which on a commit also saves which pages are free: slower commits, but a crash is then mended
/// at once instead of by reading the whole file.
const QUICK_REPAIR_BYTES: u64 = 512 * 1024 * 1024;
/// Commits between two looks at the size of the file.
const COMMITS_PER_LOOK: u32 = 64;

/// The file's size, looked at now and then.
#[derive(Debug, Default)]
pub(crate) struct FileSize {
    path: Option<PathBuf>,
    is_large: bool,
    commits: u32,
}

impl FileSize {
    /// That of the file in `path`; without one it is never large.
    pub(crate) fn of(path: Option<PathBuf>) -> Self {
        Self { path, is_large: false, commits: 0 }
    }

    /// Whether a crash at this size would be mended too slowly.
    fn is_large(&mut self) -> bool {
        if self.commits.is_multiple_of(COMMITS_PER_LOOK) {
            let size = self.path.as_deref().and_then(|path| std::fs::metadata(path).ok()).map(|file| file.len());
            self.is_large = size.is_some_and(|bytes| bytes >= QUICK_REPAIR_BYTES);
        }
        self.commits = self.commits.wrapping_add(1);
        self.is_large
    }
}

/// What an operation needs before it is told of success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// Nobody waits: it rides with the next commit, at the latest after [`SYNC_DELAY_MAX`].
    Whenever,
    /// Its commit must be readable.
    Readable,
    /// Its commit must be on the disk.
    Synced,
}

/// Something to be done in a write transaction.
pub(crate) trait Operation: Send {
    /// Does it.
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), Error>;
    /// Hears how the commit went.
    fn finish(self: Box<Self>, result: Result<(), Error>);
}

/// A queued operation with what the writer needs to know about it.
pub(crate) struct Queued {
    pub(crate) urgency: Urgency,
    pub(crate) bytes: usize,
    pub(crate) operation: Box<dyn Operation>,
}

/// The thread's body. Returns the failure that ended it, or `None` when every handle is gone.
pub(crate) fn run(database: &Arc<Database>, mut size: FileSize, queue: &Receiver<Queued>, poison: impl FnOnce(&Error)) {
    let mut unsynced_since: Option<Instant> = None;
    while let Some(batch) = next_batch(queue, &mut unsynced_since) {
        match commit(database, &mut size, batch, &mut unsynced_since) {
            Ok(()) => {}
            Err((error, failed)) => {
                tracing::error!(error = %fleet_core::error::chain(&error), "the store failed and is closed");
                poison(&error);
                for queued in failed {
                    queued.operation.finish(Err(error.clone()));
                }
                // Whoever queued before the poison was seen must hear of it too. Senders see the poison first, so this ends.
                while let Ok(queued) = queue.recv_timeout(SYNC_DELAY_MAX) {
                    queued.operation.finish(Err(Error::Poisoned { operation: "write to the store" }));
                }
                return;
            }
        }
    }
}

/// Waits for work. An empty batch means: sync what is not. `None`: every handle is gone and nothing is unsynced.
fn next_batch(queue: &Receiver<Queued>, unsynced_since: &mut Option<Instant>) -> Option<Vec<Queued>> {
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut urgency = Urgency::Whenever;
    loop {
        let next = match *unsynced_since {
            // Somebody waits, or room ran out: take what is there and go.
            _ if urgency > Urgency::Whenever => queue.try_recv().map_err(|_| RecvTimeoutError::Timeout),
            Some(since) => queue.recv_timeout(SYNC_DELAY_MAX.saturating_sub(since.elapsed())),
            None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(queued) => {
                bytes += queued.bytes;
                urgency = urgency.max(queued.urgency);
                batch.push(queued);
                unsynced_since.get_or_insert_with(Instant::now);
                if batch.len() >= BATCH_OPERATIONS_MAX || bytes >= BATCH_BYTES_MAX {
                    return Some(batch);
                }
            }
            Err(RecvTimeoutError::Timeout) => return Some(batch),
            Err(RecvTimeoutError::Disconnected) if unsynced_since.is_some() => return Some(batch),
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

/// Runs `batch` in one transaction. On failure returns the operations so that they can be told.
fn commit(
    database: &Arc<Database>,
    size: &mut FileSize,
    mut batch: Vec<Queued>,
    unsynced_since: &mut Option<Instant>,
) -> Result<(), (Error, Vec<Queued>)> {
    let overdue = unsynced_since.is_some_and(|since| since.elapsed() >= SYNC_DELAY_MAX);
    let synced = overdue || batch.is_empty() || batch.iter().any(|queued| queued.urgency == Urgency::Synced);
    let quick_repair = synced && size.is_large();
    if let Err(error) = write(database, &mut batch, synced, quick_repair) {
        return Err((error, batch));
    }
    if synced {
        *unsynced_since = None;
    }
    for queued in batch {
        queued.operation.finish(Ok(()));
    }
    Ok(())
}

fn write(database: &Database, batch: &mut [Queued], synced: bool, quick_repair: bool) -> Result<(), Error> {
    let started = Instant::now();
    let mut transaction =
        database.begin_write().map_err(|error| Error::database("begin a write transaction", error))?;
    transaction
        .set_durability(if synced { Durability::Immediate } else { Durability::None })
        .map_err(|error| Error::database("set the durability of a commit", error))?;
    transaction.set_quick_repair(quick_repair);
    let mut tables = Tables::new(&transaction);
    for queued in batch.iter_mut() {
        queued.operation.run(&mut tables)?;
    }
    drop(tables);
    transaction.commit().map_err(|error| Error::database("commit to the store", error))?;
    metrics::histogram!("fleet_store_commit_seconds").record(started.elapsed().as_secs_f64());
    metrics::histogram!("fleet_store_commit_operations").record(batch.len() as f64);
    Ok(())
}

/// Whether `database` can still begin a read; used when a handle is opened.
pub(crate) fn check_readable(database: &Database) -> Result<(), Error> {
    database.begin_read().map(drop).map_err(|error| Error::database("begin a read transaction", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_files_pay_for_a_quick_repair() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fleet.redb");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(QUICK_REPAIR_BYTES - 1).unwrap();
        let mut size = FileSize::of(Some(path));
        assert!(!size.is_large());
        file.set_len(QUICK_REPAIR_BYTES).unwrap();
        assert!((1..COMMITS_PER_LOOK).all(|_| !size.is_large()), "the size is looked at now and then only");
        assert!(size.is_large());
        assert!(!FileSize::of(None).is_large());
    }
}
