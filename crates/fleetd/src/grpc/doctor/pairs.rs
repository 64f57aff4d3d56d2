//! The checks of the ways from this node to every other one: TCP, UDP, clocks, versions. Each node makes them, so all pairs
//! are covered.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fleet_api::pb::v1;
use fleet_core::{Clock, NodeId, SystemClock};
use fleet_membership::Membership;
use futures_util::{StreamExt, stream};

use super::{ASKED_AT_ONCE_MAX, check};
use crate::grpc::forward::fleet_client;
use crate::ports::Purpose;
use crate::site::Site;

/// How long another node may take to answer over either transport.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// A clock that is off by more confuses whoever reads times of two nodes.
pub(super) const OFFSET_WARN: Duration = Duration::from_millis(500);
/// A clock that is off by more is not believed: certificates seem not valid yet, writes to the catalog are refused.
pub(super) const OFFSET_FAIL: Duration = Duration::from_secs(600);
/// Names told in one check; the rest is counted.
const NAMES_MAX: usize = 10;

/// What was found of another node.
#[derive(Clone, Debug)]
struct Found {
    name: String,
    /// Whether it answered over UDP.
    udp: bool,
    /// What it answered over TCP.
    answer: Option<Answer>,
}

#[derive(Clone, Debug)]
struct Answer {
    version: String,
    /// Its clock less ours, milliseconds.
    offset_ms: i64,
    /// How far that may be wrong.
    doubt_ms: u64,
}

/// Checks the ways to every node of the site that gossip holds alive. One that is down has nothing to answer with.
pub(super) async fn run(site: &Site, membership: &Membership) -> Vec<v1::Check> {
    let (view, own) = (membership.current_view(), site.group().node());
    let others = site.nodes().unwrap_or_default().into_iter().filter(|node| node.id != own && view.is_active(node.id));
    let asked = others.map(|node| {
        let address = view.get(node.id).map(|member| member.address);
        look(site, membership, node.id, node.profile.name, address)
    });
    let mut found: Vec<Found> = stream::iter(asked).buffer_unordered(ASKED_AT_ONCE_MAX).collect().await;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    judge(&found)
}

async fn look(site: &Site, membership: &Membership, node: NodeId, name: String, address: Option<SocketAddr>) -> Found {
    let udp = async {
        match address {
            Some(address) => membership.probe(node, address, PATIENCE).await.is_some(),
            None => false,
        }
    };
    let tcp = async { tokio::time::timeout(PATIENCE, ask(site, node)).await.ok().flatten() };
    let (udp, answer) = tokio::join!(udp, tcp);
    Found { name, udp, answer }
}

async fn ask(site: &Site, node: NodeId) -> Option<Answer> {
    let channel = site.peers().channel(node, Purpose::Forward).ok()?;
    let mut client = fleet_client(channel);
    // The first call may include the connecting; only the second one is a measurement.
    client.get_status(v1::GetStatusRequest {}).await.ok()?;
    let (sent_at, sent) = (SystemClock.now(), Instant::now());
    let status = client.get_status(v1::GetStatusRequest {}).await.ok()?.into_inner();
    let half_ms = u64::try_from(sent.elapsed().as_millis() / 2).unwrap_or(u64::MAX);
    let midpoint = i64::try_from(sent_at.0.saturating_add(half_ms)).unwrap_or(i64::MAX);
    let offset_ms = i64::try_from(status.now_ms).unwrap_or(i64::MAX).saturating_sub(midpoint);
    Some(Answer { version: status.version, offset_ms, doubt_ms: half_ms + 1 })
}

fn judge(found: &[Found]) -> Vec<v1::Check> {
    vec![
        reached("tcp", found, |node| node.answer.is_some(), "Check 7000/tcp between the nodes, in both directions."),
        reached("udp", found, |node| node.udp, "Check 7000/udp between the nodes, in both directions."),
        clocks(found),
        versions(found),
    ]
}

fn reached(name: &str, found: &[Found], answers: impl Fn(&Found) -> bool, next_step: &str) -> v1::Check {
    let silent: Vec<&str> = found.iter().filter(|node| !answers(node)).map(|node| node.name.as_str()).collect();
    if silent.is_empty() {
        return check(name, "ok", format!("{} of {} other nodes answer", found.len(), found.len()), "");
    }
    check(name, "fail", format!("no answer from {}", names(&silent)), next_step)
}

fn clocks(found: &[Found]) -> v1::Check {
    let name = "clock offset";
    let answers = found.iter().filter_map(|node| node.answer.as_ref().map(|answer| (node, answer)));
    let surely =
        |answer: &Answer| Duration::from_millis(answer.offset_ms.unsigned_abs().saturating_sub(answer.doubt_ms));
    let Some((node, worst)) = answers.max_by_key(|(_, answer)| surely(answer)) else {
        return check(name, "ok", "no other node to compare with".to_owned(), "");
    };
    let result = match surely(worst) {
        off if off > OFFSET_FAIL => "fail",
        off if off > OFFSET_WARN => "warn",
        _ => "ok",
    };
    let detail = format!("{} is at {:+} ms (± {}), the most of all", node.name, worst.offset_ms, worst.doubt_ms);
    check(name, result, detail, "Let a time service set the clock that is wrong; leases do not depend on it.")
}

fn versions(found: &[Found]) -> v1::Check {
    let own = env!("CARGO_PKG_VERSION");
    let others: Vec<String> = found
        .iter()
        .filter_map(|node| node.answer.as_ref().map(|answer| (node, answer)))
        .filter(|(_, answer)| answer.version != own)
        .map(|(node, answer)| format!("{} ({})", node.name, answer.version))
        .collect();
    if others.is_empty() {
        return check("versions", "ok", format!("all that answer run {own}"), "");
    }
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let detail = format!("this node runs {own}, others {}", names(&others));
    check("versions", "warn", detail, "Finish the upgrade: what is new is used once all nodes know it.")
}

fn names(all: &[&str]) -> String {
    let shown = all.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
    if all.len() > NAMES_MAX { format!("{shown} and {} more", all.len() - NAMES_MAX) } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, udp: bool, offset_ms: i64, version: &str) -> Found {
        let answer = Answer { version: version.to_owned(), offset_ms, doubt_ms: 5 };
        Found { name: name.to_owned(), udp, answer: Some(answer) }
    }

    fn results(found: &[Found]) -> Vec<String> {
        judge(found).into_iter().map(|check| check.result).collect()
    }

    #[test]
    fn each_fault_between_two_nodes_shows_in_its_check() {
        let own = env!("CARGO_PKG_VERSION");
        assert_eq!(results(&[]), ["ok", "ok", "ok", "ok"], "a node alone is well");
        assert_eq!(results(&[node("b", true, 3, own), node("c", true, -400, own)]), ["ok", "ok", "ok", "ok"]);
        assert_eq!(results(&[node("b", false, 0, own)]), ["ok", "fail", "ok", "ok"]);
        assert_eq!(results(&[node("b", true, -900, own)]), ["ok", "ok", "warn", "ok"]);
        assert_eq!(results(&[node("b", true, 700_000, own), node("c", true, 0, own)]), ["ok", "ok", "fail", "ok"]);
        assert_eq!(results(&[node("b", true, 0, "0.0.0")]), ["ok", "ok", "ok", "warn"]);
        let silent = Found { answer: None, ..node("b", true, 0, own) };
        assert_eq!(results(std::slice::from_ref(&silent)), ["fail", "ok", "ok", "ok"]);
        let check = &judge(&[silent])[0];
        assert!(check.detail.contains("from b") && !check.next_step.is_empty(), "{check:?}");
    }
}
