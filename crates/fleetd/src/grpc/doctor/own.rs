//! The checks that a node makes of itself.

use std::time::{Duration, Instant};

use fleet_api::identity::CertificateFacts;
use fleet_api::pb::v1;
use fleet_api::tls::CertificateCell;
use fleet_core::{Clock, NodeId, SystemClock, Timestamp};
use fleet_membership::{Member, View};
use fleet_node::links::Links;
use fleet_store::Store;

use super::check;
use crate::platform;
use crate::site::Site;
use crate::trust::renewal::renewal_in;

/// An fdatasync slower than this on an idle node is worth a warning.
const SYNC_WARN: Duration = Duration::from_millis(50);
/// Free space below which a warning is given, bytes.
const FREE_WARN_BYTES: u64 = 1 << 30;
/// How long the lease clock is measured.
const RATE_SPAN: Duration = Duration::from_millis(200);
/// Readings of both clocks, of which the closest counts.
const RATE_TRIES: u32 = 16;
/// Half the margin of 1 % between the two clocks of a lease, parts per million.
const RATE_WARN_PPM: f64 = 5_000.0;

pub(super) fn quorum(site: &Site) -> v1::Check {
    let status = site.group().status().borrow().clone();
    let result = if status.leader.is_some() { "ok" } else { "fail" };
    let voters = status.voters().len();
    let leader = status.leader.map_or_else(|| "no leader".to_owned(), |leader| format!("led by {leader}"));
    check("quorum", result, format!("{voters} voters, {leader}"), "Bring voters back until a majority is up.")
}

pub(super) fn actor_links(links: Option<&Links>, are_wanted: bool, view: &View, site_name: &str) -> v1::Check {
    let next_step =
        "Nothing waits for them, what is shown of other nodes is only older. Check 7000/tcp between the nodes.";
    let Some(links) = links else {
        if !are_wanted {
            return check("actor links", "ok", "turned off by actors.links".to_owned(), "");
        }
        return check("actor links", "warn", "they could not be started".to_owned(), next_step);
    };
    let is_of_site =
        |peer: &&Member| peer.metadata.as_ref().is_some_and(|metadata| metadata.site.as_str() == site_name);
    let alive: Vec<NodeId> = view.active_peers().filter(is_of_site).map(|peer| peer.node).collect();
    let linked = links.linked();
    let reached = alive.iter().filter(|node| linked.contains(node)).count();
    let result = if reached == alive.len() { "ok" } else { "warn" };
    check("actor links", result, format!("linked to {reached} of {} alive peers", alive.len()), next_step)
}

pub(super) fn free_space(store: &Store) -> v1::Check {
    match store.free_bytes() {
        Ok(Some(free)) => {
            let result = if free < FREE_WARN_BYTES { "warn" } else { "ok" };
            check("disk space", result, format!("{} MiB free", free >> 20), "Free space, or move the data directory.")
        }
        Ok(None) => check("disk space", "ok", "in memory".to_owned(), ""),
        Err(error) => check("disk space", "fail", error.to_string(), "Check the disk of the data directory."),
    }
}

pub(super) async fn sync_time(store: &Store) -> v1::Check {
    let began = Instant::now();
    match store.put_meta("doctor", b"probe".to_vec()).await {
        Ok(()) => {
            let took = began.elapsed();
            let result = if took > SYNC_WARN { "warn" } else { "ok" };
            let detail = format!("a durable write took {:.1} ms", took.as_secs_f64() * 1_000.0);
            check("disk sync", result, detail, "Use a faster disk, or one with less other load.")
        }
        Err(error) => check("disk sync", "fail", error.to_string(), "Check the disk of the data directory."),
    }
}

pub(super) fn certificate(cell: &CertificateCell) -> v1::Check {
    let current = cell.current();
    let facts = current
        .cert
        .first()
        .ok_or("there is none".to_owned())
        .and_then(|leaf| CertificateFacts::read(leaf).map_err(|error| error.to_string()));
    match facts {
        Ok(facts) => validity(facts.not_after, SystemClock.now()),
        Err(error) => check("certificate", "fail", error, "Join again with an empty data directory."),
    }
}

/// The check of a certificate that is valid until `not_after`.
fn validity(not_after: Timestamp, now: Timestamp) -> v1::Check {
    let next_step = "It is renewed by the leader: check the link to it.";
    if now >= not_after {
        return check("certificate", "fail", format!("it expired at {not_after}"), next_step);
    }
    let result = if renewal_in(not_after, now).is_zero() { "warn" } else { "ok" };
    check("certificate", result, format!("valid until {not_after}"), next_step)
}

/// Whether the clock that leases are counted by runs as fast as the hardware says. Two of them, one at each end of a
/// lease, may differ by no more than the margin.
pub(super) async fn clock_rate() -> v1::Check {
    let (boot_from, raw_from) = both_clocks();
    tokio::time::sleep(RATE_SPAN).await;
    let (boot_to, raw_to) = both_clocks();
    rate(boot_to.saturating_sub(boot_from), raw_to.saturating_sub(raw_from))
}

fn rate(boot: Duration, raw: Duration) -> v1::Check {
    let ppm = (boot.as_secs_f64() / raw.as_secs_f64().max(f64::MIN_POSITIVE) - 1.0) * 1e6;
    let result = if ppm.abs() > RATE_WARN_PPM { "warn" } else { "ok" };
    let next_step = "Something slews the clock: let the time service step it once, or correct it more slowly.";
    check("clock rate", result, format!("the lease clock is off by {ppm:.0} ppm"), next_step)
}

/// The lease clock and the raw one at the same moment, as close as a few tries get: a process that is interrupted between
/// two readings would see a rate that is not there.
fn both_clocks() -> (Duration, Duration) {
    let reading = || {
        let before = platform::raw_time();
        let boot = SystemClock.boot_now().0;
        let after = platform::raw_time();
        (after.saturating_sub(before), boot, before)
    };
    let readings = (0..RATE_TRIES).map(|_| reading());
    let (took, boot, before) = readings.min_by_key(|(took, _, _)| *took).unwrap_or_default();
    (boot, before + took / 2)
}

/// Whether an interpreter is on this process's path. It counts only where the robot may run what needs it.
pub(super) fn interpreter(program: &str, is_allowed: bool) -> v1::Check {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file());
    match found {
        Some(file) => check(program, "ok", file.display().to_string(), ""),
        None if !is_allowed => check(program, "ok", "not found, and not needed: no job may run it here".to_owned(), ""),
        None => {
            let next_step = "Install it, or take it out of `robot.allow`, so that jobs that need it go elsewhere.";
            check(program, "warn", "not found".to_owned(), next_step)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    #[test]
    fn an_expired_certificate_fails_and_one_to_be_renewed_warns() {
        let now = Timestamp(100 * DAY_MS);
        for (valid_days, result) in [(30, "ok"), (5, "warn"), (0, "fail")] {
            assert_eq!(validity(Timestamp(now.0 + valid_days * DAY_MS), now).result, result, "{valid_days} days left");
        }
        let expired = validity(Timestamp(now.0 - 1), now);
        assert!(expired.result == "fail" && !expired.next_step.is_empty());
    }

    #[test]
    fn a_clock_that_is_slewed_fast_warns() {
        let second = Duration::from_secs(1);
        assert_eq!(rate(second + Duration::from_micros(500), second).result, "ok", "time services slew by 500 ppm");
        assert_eq!(rate(second + Duration::from_millis(8), second).result, "warn");
        assert_eq!(rate(second - Duration::from_millis(8), second).result, "warn");
    }

    #[tokio::test]
    async fn this_machines_clock_is_measured() {
        assert_ne!(clock_rate().await.result, "fail");
    }

    #[test]
    fn a_missing_interpreter_matters_only_where_it_may_run() {
        assert_eq!(interpreter("no-such-program", false).result, "ok");
        assert_eq!(interpreter("no-such-program", true).result, "warn");
    }
}
