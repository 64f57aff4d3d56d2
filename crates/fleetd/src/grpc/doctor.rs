//! The node's own checks: store, disk, quorum, certificate, interpreters. Each is ok, warn or fail, with the next step.

use std::time::{Duration, Instant};

use fleet_api::identity::CertificateFacts;
use fleet_api::pb::v1;
use fleet_api::tls::CertificateCell;
use fleet_core::{Clock, SystemClock};
use fleet_store::Store;

use crate::site::Site;
use crate::trust::renewal::renewal_in;

/// An fdatasync slower than this on an idle node is worth a warning.
const SYNC_WARN: Duration = Duration::from_millis(50);
/// Free space below which a warning is given, bytes.
const FREE_WARN_BYTES: u64 = 1 << 30;

/// Runs the checks of this node, called `name`.
pub(super) async fn run(name: &str, site: &Site, certificate: &CertificateCell) -> Vec<v1::Check> {
    let mut checks = vec![quorum(site), free_space(site.store()), sync_time(site.store()).await, age(certificate)];
    checks.extend(["sh", "python3", "node"].map(interpreter));
    for check in &mut checks {
        name.clone_into(&mut check.node);
    }
    checks
}

fn check(name: &str, result: &str, detail: String, next_step: &str) -> v1::Check {
    v1::Check {
        name: name.to_owned(),
        node: String::new(),
        result: result.to_owned(),
        detail,
        next_step: if result == "ok" { String::new() } else { next_step.to_owned() },
    }
}

fn quorum(site: &Site) -> v1::Check {
    let status = site.group().status().borrow().clone();
    let result = if status.leader.is_some() { "ok" } else { "fail" };
    let voters = status.voters().len();
    let leader = status.leader.map_or_else(|| "no leader".to_owned(), |leader| format!("led by {leader}"));
    check("quorum", result, format!("{voters} voters, {leader}"), "Bring voters back until a majority is up.")
}

fn free_space(store: &Store) -> v1::Check {
    match store.free_bytes() {
        Ok(Some(free)) => {
            let result = if free < FREE_WARN_BYTES { "warn" } else { "ok" };
            check("disk space", result, format!("{} MiB free", free >> 20), "Free space, or move the data directory.")
        }
        Ok(None) => check("disk space", "ok", "in memory".to_owned(), ""),
        Err(error) => check("disk space", "fail", error.to_string(), "Check the disk of the data directory."),
    }
}

async fn sync_time(store: &Store) -> v1::Check {
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

fn age(certificate: &CertificateCell) -> v1::Check {
    let current = certificate.current();
    let facts = current
        .cert
        .first()
        .ok_or("there is none".to_owned())
        .and_then(|leaf| CertificateFacts::read(leaf).map_err(|error| error.to_string()));
    match facts {
        Ok(facts) => {
            let overdue = renewal_in(facts.not_after, SystemClock.now()).is_zero();
            let detail = format!("valid until {}", facts.not_after);
            check(
                "certificate",
                if overdue { "warn" } else { "ok" },
                detail,
                "It is renewed by the leader: check the link to it.",
            )
        }
        Err(error) => check("certificate", "fail", error, "Join again with an empty data directory."),
    }
}

/// Whether an interpreter is on this process's path; a robot needs it only for what its configuration allows.
fn interpreter(program: &str) -> v1::Check {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file());
    match found {
        Some(file) => check(program, "ok", file.display().to_string(), ""),
        None => check(program, "warn", "not found".to_owned(), "Install it if jobs on this node need it."),
    }
}
