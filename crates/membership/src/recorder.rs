//! Saves what is to be remembered, on a thread of its own: a slow disk never holds up gossip.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use crate::error::Error;
use crate::memory::{Persistence, Remembered};

/// Saves are at least this far apart.
const SAVE_EVERY: Duration = Duration::from_secs(5);

/// The gossip loop's side.
pub(crate) struct Recorder {
    queue: SyncSender<Remembered>,
    has_news: bool,
    saved: Remembered,
    saved_at: Option<Duration>,
}

impl Recorder {
    /// A recorder that saves to `persistence`, where `saved` is already.
    pub(crate) fn start(persistence: Arc<dyn Persistence>, saved: Remembered) -> Result<Self, Error> {
        let (queue, waiting) = sync_channel(1);
        std::thread::Builder::new()
            .name("fleet-remember".into())
            .spawn(move || save_all(&waiting, persistence.as_ref()))
            .map_err(|source| Error::Thread { source })?;
        Ok(Self { queue, has_news: false, saved, saved_at: None })
    }

    /// Something that may be worth saving changed.
    pub(crate) fn changed(&mut self) {
        self.has_news = true;
    }

    /// Saves if there is news and the last save is long enough ago.
    pub(crate) fn offer(&mut self, now: Duration, remembered: impl FnOnce() -> Remembered) {
        if !self.has_news || self.saved_at.is_some_and(|saved_at| now < saved_at + SAVE_EVERY) {
            return;
        }
        let remembered = remembered();
        if remembered == self.saved {
            self.has_news = false;
            return;
        }
        self.saved_at = Some(now);
        match self.queue.try_send(remembered.clone()) {
            Ok(()) => {
                self.has_news = false;
                self.saved = remembered;
            }
            Err(TrySendError::Full(_)) => tracing::debug!("remembered members are still being saved"),
            Err(TrySendError::Disconnected(_)) => tracing::debug!("remembered members are no longer saved"),
        }
    }
}

fn save_all(waiting: &Receiver<Remembered>, persistence: &dyn Persistence) {
    while let Ok(remembered) = waiting.recv() {
        if let Err(error) = persistence.save(&remembered) {
            tracing::warn!(error = %fleet_core::error::chain(error.as_ref()), "remembered members were not saved");
        }
    }
}
