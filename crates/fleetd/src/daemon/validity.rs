//! What a node remembers of the time, so that a box whose clock starts at the epoch after each boot still judges
//! certificates by the last time it knew. From this node's own clock only: a wrong clock elsewhere changes nothing here.
//!
//! Invariant: only a time that the clock has held for a whole interval is stored, because a stored one is never taken back.

use std::time::Duration;

use fleet_api::ValidityClock;
use fleet_core::{Clock, Error, SystemClock, Timestamp};
use fleet_store::Store;

/// Name of the store's row.
const ROW: &str = "validity";
/// Version of the row's format, its first byte.
const FORMAT: u8 = 1;
/// How often the time is stored.
const STORED_EVERY: Duration = Duration::from_secs(3_600);

/// The clock that judges certificates, not earlier than the last time stored.
///
/// # Errors
/// If the store cannot be read.
pub(super) fn load(store: &Store) -> Result<ValidityClock, Error> {
    let row = store
        .meta(ROW)
        .map_err(|source| Error::new(source.kind(), "read the last time that this node knew").with_source(source))?;
    let floor = row.as_deref().and_then(decode).unwrap_or_else(|| {
        if row.is_some() {
            tracing::warn!("the last time that this node knew is not readable: the system's clock alone is believed");
        }
        Timestamp(0)
    });
    let clock = SystemClock.now();
    if clock < floor {
        tracing::warn!(%clock, last_known = %floor, "the system's clock is behind: certificates are judged by the last known time");
    }
    Ok(ValidityClock::new(super::clock(), floor))
}

/// Stores the time now and then, for as long as the node runs.
pub(super) async fn run(store: Store, validity: ValidityClock) {
    let (mut at, mut since) = (SystemClock.now(), SystemClock.boot_now());
    loop {
        tokio::time::sleep(STORED_EVERY).await;
        let (now, boot_now) = (SystemClock.now(), SystemClock.boot_now());
        let floor = proven(at, boot_now.saturating_since(since), now);
        (at, since) = (now, boot_now);
        validity.raise(floor);
        // What is not stored is stored next time; the store's own failure is told elsewhere.
        if let Err(error) = store.put_meta(ROW, encode(floor)).await {
            tracing::debug!(%error, "the time was not stored");
        }
    }
}

/// The time that a clock has proved which showed `at`, and `now` after `elapsed`: one that was set forward meanwhile has to
/// hold the new time first.
fn proven(at: Timestamp, elapsed: Duration, now: Timestamp) -> Timestamp {
    at.saturating_add(elapsed).min(now)
}

fn encode(floor: Timestamp) -> Vec<u8> {
    let mut row = vec![FORMAT];
    row.extend_from_slice(&floor.0.to_be_bytes());
    row
}

fn decode(row: &[u8]) -> Option<Timestamp> {
    let (format, time) = row.split_first()?;
    (*format == FORMAT).then_some(Timestamp(u64::from_be_bytes(time.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_clock_that_jumps_is_believed_only_when_it_holds() {
        let (before, after) = (Timestamp(1_000_000_000_000), Timestamp(2_000_000_000_000));
        let hour = |at: Timestamp| at.saturating_add(HOUR);
        assert_eq!(proven(before, HOUR, hour(before)), hour(before), "an hour in which nothing happened");
        assert_eq!(proven(before, HOUR, after), hour(before), "set forward within the hour");
        assert_eq!(proven(after, HOUR, hour(after)), hour(after), "an hour later it still says so");
        assert_eq!(proven(after, HOUR, before), before, "set back: the floor, which only rises, stays");
    }

    #[tokio::test]
    async fn the_last_time_known_is_read_at_the_next_start() {
        let store = Store::in_memory().unwrap();
        let system = SystemClock.now();
        assert!(load(&store).unwrap().now() >= system);
        let later = system.saturating_add(Duration::from_secs(30 * 86_400));
        store.put_meta(ROW, encode(later)).await.unwrap();
        assert_eq!(load(&store).unwrap().now(), later, "the clock lost its time");
        store.put_meta(ROW, vec![9, 9]).await.unwrap();
        assert!(load(&store).unwrap().now() < later, "a format that is not known is no time");
    }
}
