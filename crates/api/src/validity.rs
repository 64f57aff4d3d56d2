//! The time by which certificates are judged: the later of the system's time and the last time the node stored, for
//! boxes whose clock starts at the epoch after each boot. Not for leases or schedules.
//!
//! Invariant: the floor only rises.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fleet_core::{Clock, SystemClock, Timestamp};
use rustls_pki_types::UnixTime;

/// A cheap handle to the time that judges certificates.
#[derive(Clone)]
pub struct ValidityClock {
    clock: Arc<dyn Clock>,
    floor_ms: Arc<AtomicU64>,
}

impl ValidityClock {
    /// Time from `clock`, never earlier than `floor`, the last time stored.
    pub fn new(clock: Arc<dyn Clock>, floor: Timestamp) -> Self {
        Self { clock, floor_ms: Arc::new(AtomicU64::new(floor.0)) }
    }

    /// The system's time alone.
    pub fn system() -> Self {
        Self::new(Arc::new(SystemClock), Timestamp(0))
    }

    /// From now on no time before `floor`.
    pub fn raise(&self, floor: Timestamp) {
        self.floor_ms.fetch_max(floor.0, Ordering::Relaxed);
    }

    /// The time that judges a certificate now.
    pub fn now(&self) -> Timestamp {
        self.clock.now().max(Timestamp(self.floor_ms.load(Ordering::Relaxed)))
    }
}

impl std::fmt::Debug for ValidityClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ValidityClock").field(&self.now()).finish()
    }
}

/// `time` as rustls takes it.
pub fn unix_time(time: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_millis(time.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_lost_its_time_is_not_believed() {
        let far = Timestamp(SystemClock.now().0 + 1_000_000);
        let clock = ValidityClock::new(Arc::new(SystemClock), far);
        assert_eq!(clock.now(), far);
        clock.raise(Timestamp(far.0 + 5));
        clock.raise(Timestamp(1));
        assert_eq!(clock.now(), Timestamp(far.0 + 5));
    }
}
