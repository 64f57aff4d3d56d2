//! The handshakes under way, bounded: a new one takes the place of the oldest. So clients that say nothing cannot keep
//! others out, since an honest handshake is over long before it is the oldest.
//!
//! Invariant: never more than the bound are under way.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

/// The places for handshakes. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    places: Arc<Mutex<Places>>,
    max: usize,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    taken: BTreeMap<u64, oneshot::Sender<()>>,
}

/// Why a handshake did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It took too long.
    TimedOut,
    /// A newer one took its place.
    Evicted,
}

/// A place for one handshake, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pending: Pending,
    number: u64,
    evicted: oneshot::Receiver<()>,
    deadline: Instant,
}

impl Pending {
    pub(crate) fn new(max: usize) -> Self {
        Self { places: Arc::default(), max }
    }

    /// A place for a handshake that must be over by `deadline`; if all are taken, the oldest one's.
    pub(crate) fn enter(&self, deadline: Instant) -> Place {
        let (evict, evicted) = oneshot::channel();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        while places.taken.len() >= self.max.max(1) {
            places.taken.pop_first();
        }
        let number = places.next;
        places.next += 1;
        places.taken.insert(number, evict);
        Place { pending: self.clone(), number, evicted, deadline }
    }

    pub(crate) fn count(&self) -> usize {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).taken.len()
    }
}

impl Place {
    /// The outcome of `step`, unless time or place is lost first.
    pub(crate) async fn hold<T>(&mut self, step: impl Future<Output = T>) -> Result<T, Ended> {
        tokio::select! {
            biased;
            _ = &mut self.evicted => Err(Ended::Evicted),
            outcome = tokio::time::timeout_at(self.deadline, step) => outcome.map_err(|_| Ended::TimedOut),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.places.lock().unwrap_or_else(PoisonError::into_inner).taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_is_over_at_the_deadline() {
        let places = Pending::new(2);
        let mut place = places.enter(Instant::now() + Duration::from_secs(5));
        assert_eq!(place.hold(async { 7 }).await, Ok(7));
        assert_eq!(place.hold(pending::<()>()).await, Err(Ended::TimedOut));
        drop(place);
        assert_eq!(places.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_gives_its_place() {
        let places = Pending::new(2);
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut oldest = places.enter(deadline);
        let mut second = places.enter(deadline);
        let mut newest = places.enter(deadline);
        assert_eq!(places.count(), 2);
        assert_eq!(oldest.hold(pending::<()>()).await, Err(Ended::Evicted));
        assert_eq!(second.hold(async {}).await, Ok(()));
        assert_eq!(newest.hold(async {}).await, Ok(()));
        drop(oldest);
        assert_eq!(places.count(), 2, "who was evicted gives no place back");
    }
}
