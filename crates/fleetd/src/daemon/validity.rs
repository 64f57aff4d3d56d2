//! What a node remembers of the time, so that a box whose clock starts at the epoch after each boot still judges
//! certificates by the last time it knew. From this node's own clock only: a wrong clock elsewhere changes nothing here.
//!
//! Invariants: only a time that the clock has held for a whole interval is stored, because a stored one is never taken back;
//! and never one by which the certificates of nodes that renew as they should have ended, however long the clock holds it.

use std::time::Duration;

use fleet_api::ValidityClock;
use fleet_core::{Clock, Error, SystemClock, Timestamp};
use fleet_store::Store;
use fleet_store::record::{NodeRecord, NodeStanding};

use crate::site::Site;
use crate::trust::authority::NODE_LIFETIME;
use crate::trust::renewal::RENEWAL_AGE;

/// Name of the store's row.
const ROW: &str = "validity";
/// Version of the row's format, its first byte.
const FORMAT: u8 = 1;
/// How often the time is stored.
const STORED_EVERY: Duration = Duration::from_secs(3_600);

/// The clock that judges certificates, not earlier than the last time stored, as far as the certificates of `nodes` bear
/// it out.
///
/// # Errors
/// If the store cannot be read.
pub(super) fn load(store: &Store, nodes: &[NodeRecord]) -> Result<ValidityClock, Error> {
    let row = store
        .meta(ROW)
        .map_err(|source| Error::new(source.kind(), "read the last time that this node knew").with_source(source))?;
    let floor = row.as_deref().and_then(decode).unwrap_or_else(|| {
        if row.is_some() {
            tracing::warn!("the last time that this node knew is not readable: the system's clock alone is believed");
        }
        Timestamp(0)
    });
    let floor = latest(nodes).map_or(floor, |latest| floor.min(latest));
    let clock = SystemClock.now();
    if clock < floor {
        tracing::warn!(%clock, last_known = %floor, "the system's clock is behind: certificates are judged by the last known time");
    }
    Ok(ValidityClock::new(super::clock(), floor))
}

/// Stores the time now and then, for as long as the node runs.
pub(super) async fn run(site: Site, validity: ValidityClock) {
    let (mut at, mut since) = (SystemClock.now(), SystemClock.boot_now());
    loop {
        tokio::time::sleep(STORED_EVERY).await;
        let (now, boot_now) = (SystemClock.now(), SystemClock.boot_now());
        let floor = proven(at, boot_now.saturating_since(since), now);
        (at, since) = (now, boot_now);
        // Where it is not known what the certificates say, no time is stored: it is only for a clock that lost its own.
        let Some(latest) = site.nodes().ok().and_then(|nodes| latest(&nodes)) else { continue };
        let floor = floor.min(latest);
        validity.raise(floor);
        // What is not stored is stored next time; the store's own failure is told elsewhere.
        if let Err(error) = site.store().put_meta(ROW, encode(floor)).await {
            tracing::debug!(%error, "the time was not stored");
        }
    }
}

/// The time that a clock has proved which showed `at`, and `now` after `elapsed`: one that was set forward meanwhile has to
/// hold the new time first.
fn proven(at: Timestamp, elapsed: Duration, now: Timestamp) -> Timestamp {
    at.saturating_add(elapsed).min(now)
}

/// The latest time that the newest certificates of `nodes` bear out: when the one in their middle is to be renewed. Nodes
/// renew long before the end, so by that time hardly any certificate in use has ended, and a node whose clock was wrong for
/// a day believes the others again once it is right. The one in the middle, because a leader signs by its own clock: if
/// that is wrong, its own certificate says nothing, nor do the few that it signs meanwhile.
fn latest(nodes: &[NodeRecord]) -> Option<Timestamp> {
    let members = nodes.iter().filter(|node| node.standing != NodeStanding::Removed);
    let mut ends: Vec<Timestamp> = members.filter_map(|node| Some(node.certificate.as_ref()?.not_after)).collect();
    ends.sort_unstable();
    let middle = ends.get(ends.len().checked_sub(1)? / 2)?;
    let unused = u64::try_from((NODE_LIFETIME - RENEWAL_AGE).as_millis()).ok()?;
    Some(Timestamp(middle.0.saturating_sub(unused)))
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
    use fleet_core::NodeId;
    use fleet_store::record::NodeCertificate;

    use super::*;
    use crate::daemon::trust_tests::profile;

    const HOUR: Duration = Duration::from_secs(3_600);
    const DAY_MS: u64 = 86_400_000;

    /// A node whose certificate ends at `not_after`.
    fn node(not_after: Option<Timestamp>) -> NodeRecord {
        NodeRecord {
            id: NodeId::generate(),
            profile: profile("robot"),
            certificate: not_after.map(|not_after| NodeCertificate { serial: "01".to_owned(), not_after }),
            standing: NodeStanding::Active,
            joined_at: Timestamp(0),
        }
    }

    #[test]
    fn no_time_is_kept_by_which_the_others_certificates_have_ended() {
        let issued = |day: u64| node(Some(Timestamp(day * DAY_MS).saturating_add(NODE_LIFETIME)));
        assert_eq!(latest(&[]), None);
        assert_eq!(latest(&[node(None)]), None, "a development fleet may have none");
        assert_eq!(latest(&[issued(500)]), Some(Timestamp(510 * DAY_MS)));
        let wrong = 90_000;
        assert_eq!(
            latest(&[issued(wrong), issued(500)]),
            Some(Timestamp(510 * DAY_MS)),
            "it leads and its clock is wrong"
        );
        assert_eq!(latest(&[issued(3), issued(wrong), issued(500)]), Some(Timestamp(510 * DAY_MS)));
        let removed = NodeRecord { standing: NodeStanding::Removed, ..issued(3) };
        assert_eq!(latest(&[removed, issued(500)]), Some(Timestamp(510 * DAY_MS)));
    }

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
        assert!(load(&store, &[]).unwrap().now() >= system);
        let later = system.saturating_add(Duration::from_secs(30 * 86_400));
        store.put_meta(ROW, encode(later)).await.unwrap();
        assert_eq!(load(&store, &[]).unwrap().now(), later, "the clock lost its time");
        let issued = |days: u64| Timestamp(system.0 - days * DAY_MS).saturating_add(NODE_LIFETIME);
        let judged = load(&store, &[node(Some(issued(1)))]).unwrap().now();
        assert!(
            judged < system.saturating_add(Duration::from_secs(9 * 86_400 + 60)),
            "stored by a clock that was wrong"
        );
        store.put_meta(ROW, vec![9, 9]).await.unwrap();
        assert!(load(&store, &[]).unwrap().now() < later, "a format that is not known is no time");
    }
}
