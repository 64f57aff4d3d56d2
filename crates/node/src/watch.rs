//! Who wants to know when a job changes. One task follows what is applied and wakes those it concerns, however many wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, watch};

use fleet_core::JobId;
use fleet_replication::AppliedEntry;
use fleet_replication::fsm::Event;

/// The jobs that somebody watches. A sender counts changes.
type Watched = HashMap<JobId, watch::Sender<u64>>;

/// Wakes the watchers of jobs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watchers {
    watched: Arc<Mutex<Watched>>,
}

impl Watchers {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes of `job` from now on.
    pub(crate) fn watch(&self, job: JobId) -> watch::Receiver<u64> {
        self.lock().entry(job).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    /// Nobody needs to be told about `job` if its last watcher is gone.
    pub(crate) fn forget(&self, job: JobId) {
        let mut watched = self.lock();
        if watched.get(&job).is_some_and(|sender| sender.receiver_count() <= 1) {
            watched.remove(&job);
        }
    }

    /// Follows what is applied until the group ends.
    pub(crate) async fn follow(self, mut applied: broadcast::Receiver<Arc<AppliedEntry>>) {
        loop {
            match applied.recv().await {
                Ok(entry) => self.wake(&entry.events),
                Err(broadcast::error::RecvError::Lagged(_)) => self.wake_all(),
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    fn wake(&self, events: &[Event]) {
        let watched = self.lock();
        for event in events {
            if let Event::JobChanged { job, .. } | Event::JournalAppended { job, .. } = event
                && let Some(sender) = watched.get(job)
            {
                sender.send_modify(|changes| *changes += 1);
            }
        }
    }

    fn wake_all(&self) {
        for sender in self.lock().values() {
            sender.send_modify(|changes| *changes += 1);
        }
    }
}
