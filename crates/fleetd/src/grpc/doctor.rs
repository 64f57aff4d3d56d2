//! `doctor`: the checks of each node of the site, of itself, of its links to every other and of those to other sites,
//! asked of each by gRPC. Each is ok, warn or fail, with the next step.

mod own;
mod pairs;
mod sites;

use std::time::Duration;

use fleet_api::pb::v1;
use fleet_api::status::error_of;
use fleet_api::tls::CertificateCell;
use fleet_core::{Error, NodeId};
use fleet_membership::{Membership, View};
use fleet_node::catalog::Between;
use fleet_node::links::Links;
use fleet_store::record::NodeRecord;
use futures_util::{StreamExt, stream};

use super::forward::fleet_client;
use crate::ports::Purpose;
use crate::site::Site;
use crate::sites::SiteLinks;

/// How long another node may take over its checks.
const OTHER_PATIENCE: Duration = Duration::from_secs(4);
/// Nodes asked at once.
const ASKED_AT_ONCE_MAX: usize = 64;
/// The programs that jobs may need, with the capability under which a robot runs them.
const INTERPRETERS: [(&str, &str); 3] = [("sh", "shell"), ("python3", "script:python"), ("node", "script:js")];

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
    /// Whether there should be any.
    pub(super) links_wanted: bool,
    /// Its gossip.
    pub(super) membership: &'a Membership,
    /// Its links to other sites.
    pub(super) other_sites: &'a SiteLinks,
    /// Its catalog beside those of other sites.
    pub(super) catalogs: &'a Between,
    /// Where others reach it.
    pub(super) own_address: &'a str,
}

/// Runs the checks of this node: of itself, and of its ways to every other.
pub(super) async fn run(parts: OwnParts<'_>) -> Vec<v1::Check> {
    let OwnParts { name, site, certificate, links, links_wanted, membership, .. } = parts;
    let view = membership.current_view();
    let (sync_time, clock_rate, pairs) =
        tokio::join!(own::sync_time(site.store()), own::clock_rate(), pairs::run(site, membership));
    let mut checks = vec![own::quorum(site), own::free_space(site.store()), sync_time, own::certificate(certificate)];
    checks.push(clock_rate);
    checks.extend(pairs);
    checks.push(own::actor_links(links, links_wanted, &view, site.name()));
    checks.extend(sites::run(site, parts.other_sites, parts.catalogs, parts.own_address));
    let nodes = site.nodes().unwrap_or_default();
    let profile = nodes.iter().find(|node| node.id == site.group().node()).map(|node| &node.profile);
    let may =
        |capability: &str| profile.is_some_and(|profile| profile.capabilities.iter().any(|has| has == capability));
    checks.extend(INTERPRETERS.map(|(program, capability)| own::interpreter(program, may(capability))));
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
