//! The node's own checks: store, disk, quorum, certificate, links, interpreters; and those of the other nodes, asked of
//! each by gRPC. Each check is ok, warn or fail, with the next step.

use std::time::{Duration, Instant};

use fleet_api::identity::CertificateFacts;
use fleet_api::pb::v1;
use fleet_api::status::error_of;
use fleet_api::tls::CertificateCell;
use fleet_core::{Clock, Error, NodeId, SystemClock};
use fleet_membership::{Member, View};
use fleet_node::links::Links;
use fleet_store::Store;
use fleet_store::record::NodeRecord;
use futures_util::{StreamExt, stream};

use super::forward::fleet_client;
use crate::ports::Purpose;
use crate::site::Site;
use crate::trust::renewal::renewal_in;

/// An fdatasync slower than this on an idle node is worth a warning.
const SYNC_WARN: Duration = Duration::from_millis(50);
/// Free space below which a warning is given, bytes.
const FREE_WARN_BYTES: u64 = 1 << 30;
/// How long another node may take over its checks.
const OTHER_PATIENCE: Duration = Duration::from_secs(2);
/// Nodes asked at once.
const ASKED_AT_ONCE_MAX: usize = 64;

/// What the checks of a node look at.
pub(super) struct OwnParts<'a> {
    /// The node's name.
    pub(super) name: &'a str,
    /// Its site.
    pub(super) site: &'a Site,
    /// Its certificate.
    pub(super) certificate: &'a CertificateCell,
    /// Its links, if they were started.
    pub(super) links: Option<&'a Links>,
    /// Who is alive.
    pub(super) view: &'a View,
}

/// Runs the checks of this node.
pub(super) async fn run(own: OwnParts<'_>) -> Vec<v1::Check> {
    let OwnParts { name, site, certificate, links, view } = own;
    let mut checks = vec![quorum(site), free_space(site.store()), sync_time(site.store()).await, age(certificate)];
    checks.push(actor_links(links, view, site.name()));
    checks.extend(["sh", "python3", "node"].map(interpreter));
    for check in &mut checks {
        name.clone_into(&mut check.node);
    }
    checks
}

/// The checks of every other node of the site, as each says itself, in the order of their names.
pub(super) async fn ask_others(site: &Site, view: &View) -> Vec<v1::Check> {
    let mut others = match site.nodes() {
        Ok(nodes) => nodes,
        Err(error) => return vec![check("nodes", "fail", error.to_string(), "Check the disk of the data directory.")],
    };
    others.retain(|node| node.id != site.group().node());
    others.sort_by(|a, b| a.profile.name.cmp(&b.profile.name));
    let asked = others.into_iter().map(|node| ask(site, node, view));
    stream::iter(asked).buffered(ASKED_AT_ONCE_MAX).collect::<Vec<_>>().await.concat()
}

async fn ask(site: &Site, node: NodeRecord, view: &View) -> Vec<v1::Check> {
    let unanswered = |result, detail, next_step| {
        let mut check = check("answers", result, detail, next_step);
        node.profile.name.clone_into(&mut check.node);
        vec![check]
    };
    if !view.is_active(node.id) {
        let state = view.get(node.id).map_or("unknown", |member| member.state.as_str());
        let next_step = "Start it again, or take it out with `fleetctl node remove`.";
        return unanswered("warn", format!("gossip holds it {state}"), next_step);
    }
    match tokio::time::timeout(OTHER_PATIENCE, ask_active(site, node.id)).await {
        Ok(Ok(checks)) => checks,
        Ok(Err(error)) => unanswered("fail", error.to_string(), "Check 7000/tcp between the nodes, and its log."),
        Err(_) => unanswered("fail", format!("no answer in {OTHER_PATIENCE:?}"), "Look at its load and its log."),
    }
}

async fn ask_active(site: &Site, node: NodeId) -> Result<Vec<v1::Check>, Error> {
    let channel = site.peers().channel(node, Purpose::Forward)?;
    let mut request = tonic::Request::new(v1::RunDoctorRequest { local_only: true });
    request.set_timeout(OTHER_PATIENCE);
    let answer = fleet_client(channel).run_doctor(request).await.map_err(|status| error_of(&status))?;
    Ok(answer.into_inner().checks)
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

fn actor_links(links: Option<&Links>, view: &View, site_name: &str) -> v1::Check {
    let next_step =
        "Nothing waits for them, what is shown of other nodes is only older. Check 7000/tcp between the nodes.";
    let Some(links) = links else {
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
