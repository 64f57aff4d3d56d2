//! Who wants to know when a job changes. One task follows what is applied and wakes those it concerns, however many wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, watch};

use fleet_core::JobId;
use fleet_replication::AppliedEntry;
use fleet_replication::fsm::Event;

/// The jobs that somebody watches. A sender counts changes.
type Watched = HashMap<JobId, watch::Sender<u64>>;

/// The changes of one job. Whoever is woken reads the state: several changes may wake once.
#[derive(Debug)]
pub struct JobChanges {
    watchers: Watchers,
    job: JobId,
    changes: watch::Receiver<u64>,
}

impl JobChanges {
    /// Completes when the job or its journal changed since the last call; `false` once nothing more will be told.
    pub async fn changed(&mut self) -> bool {
        self.changes.changed().await.is_ok()
    }
}

impl Drop for JobChanges {
    fn drop(&mut self) {
        self.watchers.forget(self.job);
    }
}

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
    pub(crate) fn watch(&self, job: JobId) -> JobChanges {
        let changes = self.lock().entry(job).or_insert_with(|| watch::channel(0).0).subscribe();
        JobChanges { watchers: self.clone(), job, changes }
    }

    /// Nobody needs to be told about `job` if its last watcher is gone.
    fn forget(&self, job: JobId) {
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
            if let Event::JobChanged { job, .. } | Event::JournalAppended { job, .. } | Event::MirrorChanged { job } =
                event
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

#[cfg(test)]
mod tests {
    use super::*;

    fn appended(job: JobId) -> Arc<AppliedEntry> {
        let events = vec![Event::JournalAppended { job, from: 0, length: 1 }];
        Arc::new(AppliedEntry { index: 1, events })
    }

    #[tokio::test]
    async fn only_the_watchers_of_the_job_are_woken_and_none_is_kept() {
        let (one, other) = (JobId::from_bytes([1; 16]), JobId::from_bytes([2; 16]));
        let watchers = Watchers::default();
        let (entries, applied) = broadcast::channel(4);
        tokio::spawn(watchers.clone().follow(applied));
        let (mut first, mut second, unmoved) = (watchers.watch(one), watchers.watch(one), watchers.watch(other));
        entries.send(appended(one)).unwrap();
        assert!(first.changed().await && second.changed().await);
        assert!(!unmoved.changes.has_changed().unwrap());
        drop((first, second, unmoved));
        assert!(watchers.lock().is_empty());
    }
}
