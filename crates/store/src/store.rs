//! The handle to a node's store: queues writes for the one writer thread, and reads beside it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use fleet_core::{GroupId, NodeId};
use redb::{Database, StorageBackend};

use crate::Error;
use crate::database::{self, STATE, Tables};
use crate::log::LogCache;
use crate::pending::{self, Pending};
use crate::sweep::UnusedBlobs;
use crate::transaction::{StateReader, StateTransaction};
use crate::writer::{self, FileSize, Operation, Queued, Urgency};

/// Cache of a node's database, bytes.
pub const CACHE_BYTES_DEFAULT: usize = 64 * 1024 * 1024;
/// Most operations that wait for the writer.
const QUEUE_OPERATIONS_MAX: usize = 1_024;

/// A node's store. Clones share it; the file is closed when the last one is dropped.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    node: NodeId,
    path: Option<PathBuf>,
    log_cache: LogCache,
    unused_blobs: UnusedBlobs,
    /// Emptied on failure, so that the file can be opened again.
    database: RwLock<Option<Arc<Database>>>,
    queue: Mutex<Option<SyncSender<Queued>>>,
    poisoned: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens the store in `path`, creating it if there is none.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::open_with_cache(path, CACHE_BYTES_DEFAULT)
    }

    /// As [`Self::open`], with a cache of `cache_bytes`.
    pub fn open_with_cache(path: &Path, cache_bytes: usize) -> Result<Self, Error> {
        let database = redb::Builder::new()
            .set_cache_size(cache_bytes)
            .create(path)
            .map_err(|error| Error::database("open the store", error))?;
        Self::start(database, Some(path.to_owned()))
    }

    /// A store in memory, gone when dropped.
    pub fn in_memory() -> Result<Self, Error> {
        Self::with_backend(redb::backends::InMemoryBackend::new())
    }

    pub(crate) fn with_backend(backend: impl StorageBackend) -> Result<Self, Error> {
        let database = redb::Builder::new()
            .set_cache_size(CACHE_BYTES_DEFAULT)
            .create_with_backend(backend)
            .map_err(|error| Error::database("open the store", error))?;
        Self::start(database, None)
    }

    fn start(database: Database, path: Option<PathBuf>) -> Result<Self, Error> {
        let node = database::prepare(&database)?;
        writer::check_readable(&database)?;
        let database = Arc::new(database);
        let poisoned = Arc::new(AtomicBool::new(false));
        let size = FileSize::of(path.clone());
        let (sender, receiver) = sync_channel(QUEUE_OPERATIONS_MAX);
        let shared = Arc::new(Shared {
            node,
            path,
            log_cache: LogCache::default(),
            unused_blobs: UnusedBlobs::default(),
            database: RwLock::new(Some(Arc::clone(&database))),
            queue: Mutex::new(Some(sender)),
            poisoned: Arc::clone(&poisoned),
            thread: Mutex::new(None),
        });
        let weak = Arc::downgrade(&shared);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                writer::run(&database, size, &receiver, |_| {
                    poisoned.store(true, Ordering::SeqCst);
                    if let Some(shared) = weak.upgrade() {
                        shared.release();
                    }
                });
            })
            .map_err(|error| Error::io("start the store's writer", error))?;
        *shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(Self { shared })
    }

    /// The id of this node, minted when its file was created.
    pub fn node_id(&self) -> NodeId {
        self.shared.node
    }

    /// Whether an earlier failure closed this handle.
    pub fn is_poisoned(&self) -> bool {
        self.shared.poisoned.load(Ordering::SeqCst)
    }

    /// The state of `group` as of the last commit.
    pub fn reader(&self, group: GroupId) -> Result<StateReader, Error> {
        metrics::counter!("fleet_store_reads_total").increment(1);
        Ok(StateReader::new(group, database::read_table(&*self.database("read the state")?, STATE)?))
    }

    /// Runs `work` on the state of `group` in the next commit; its result comes when that commit is readable (it is
    /// synced shortly after). An error of `work` poisons the store: the state must stay a prefix of the log.
    pub fn apply<T: Send + 'static>(
        &self,
        group: GroupId,
        work: impl FnOnce(&mut StateTransaction<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Pending<T> {
        self.submit("apply to the state", Urgency::Readable, 0, move |tables| work(tables.state(group)?))
    }

    /// Queues `work`; the result comes after its commit.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        operation: &'static str,
        urgency: Urgency,
        bytes: usize,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Pending<T> {
        let (delivery, pending) = pending::pending(operation);
        self.submit_with(operation, urgency, bytes, work, move |result| delivery.fill(result));
        pending
    }

    /// Queues `work`; `done` hears its result on the writer's thread, after its commit, and must not block: what it queues
    /// itself must be of [`Urgency::Whenever`]. Where the queue is full, others wait for room.
    pub(crate) fn submit_with<T: Send + 'static>(
        &self,
        operation: &'static str,
        urgency: Urgency,
        bytes: usize,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, Error> + Send + 'static,
        done: impl FnOnce(Result<T, Error>) + Send + 'static,
    ) {
        let step = Step { work: Some(work), value: None, done, operation };
        let queued = Queued { urgency, bytes, operation: Box::new(step) };
        if self.is_poisoned() {
            return queued.operation.finish(Err(Error::Poisoned { operation }));
        }
        let sender = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(sender) = sender else {
            return queued.operation.finish(Err(Error::Closed { operation }));
        };
        match sender.try_send(queued) {
            Ok(()) => {}
            Err(TrySendError::Full(queued)) if urgency > Urgency::Whenever => {
                // Whoever waits for an operation waits for room too; how many wait is bounded where they come in.
                if let Err(refused) = sender.send(queued) {
                    refused.0.operation.finish(Err(Error::Poisoned { operation }));
                }
            }
            Err(TrySendError::Full(queued)) => queued.operation.finish(Err(Error::QueueFull { operation })),
            Err(TrySendError::Disconnected(queued)) => queued.operation.finish(Err(Error::Poisoned { operation })),
        }
    }

    /// The open database, unless the store failed or was closed.
    pub(crate) fn database(&self, operation: &'static str) -> Result<Arc<Database>, Error> {
        let database = self.shared.database.read().unwrap_or_else(PoisonError::into_inner);
        database.clone().ok_or(if self.is_poisoned() {
            Error::Poisoned { operation }
        } else {
            Error::Closed { operation }
        })
    }

    /// The recent log entries.
    pub(crate) fn log_cache(&self) -> &LogCache {
        &self.shared.log_cache
    }

    /// The blobs that nothing named at the last sweep.
    pub(crate) fn unused_blobs(&self) -> &UnusedBlobs {
        &self.shared.unused_blobs
    }

    /// Where the file lies; `None` in memory.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.shared.path.as_deref()
    }

    /// Writes and syncs what is queued, and closes the file for every clone of this handle.
    pub fn close(&self) {
        self.shared.release();
        self.shared.join();
    }
}

impl Shared {
    /// Lets go of the queue and the database; the writer ends once it has done what is queued.
    fn release(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.database.write().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Waits for the writer, unless this is the writer.
    fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer panicked");
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.release();
        self.join();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("node", &self.shared.node).field("poisoned", &self.is_poisoned()).finish()
    }
}

/// One operation: what to do, then whom to tell.
struct Step<W, T, D> {
    work: Option<W>,
    value: Option<T>,
    done: D,
    operation: &'static str,
}

impl<W, T, D> Operation for Step<W, T, D>
where
    W: FnOnce(&mut Tables<'_>) -> Result<T, Error> + Send,
    T: Send,
    D: FnOnce(Result<T, Error>) + Send,
{
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), Error> {
        if let Some(work) = self.work.take() {
            self.value = Some(work(tables)?);
        }
        Ok(())
    }

    fn finish(self: Box<Self>, result: Result<(), Error>) {
        let Self { value, done, operation, .. } = *self;
        done(result.and_then(|()| value.ok_or(Error::Closed { operation })));
    }
}
