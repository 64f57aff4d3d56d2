//! Actor links between real nodes, as `doctor` tells of them from anywhere; and a fleet that is told to have none.

use std::time::Duration;

use fleet_api::pb::v1;

use crate::harness::cluster::Cluster;
use crate::harness::history::History;
use crate::harness::judge::finish_and_judge;
use crate::harness::node::actor_links_are_wanted;
use crate::harness::recorder::Recorder;
use crate::harness::{raw, wait, workflows};
use crate::life::steps;

/// Enough for gossip to settle and a few dials on a busy machine.
const LINK_BOUND: Duration = Duration::from_secs(60);

/// The gauge of the links that a node has taken.
const LINKS: &str = "fleet_listener_connections{protocol=\"actors\"}";

/// What the check `name` says, by node.
fn found(checks: &[v1::Check], name: &str) -> Vec<(String, String, String)> {
    let named = checks.iter().filter(|check| check.name == name);
    named.map(|check| (check.node.clone(), check.result.clone(), check.detail.clone())).collect()
}

async fn wait_until_found(cluster: &Cluster, asked: usize, name: &str, expected: &[(&str, &str, &str)]) {
    let client = cluster.client_of(&[asked]);
    let expected: Vec<_> = expected
        .iter()
        .map(|(node, result, detail)| (node.to_string(), result.to_string(), detail.to_string()))
        .collect();
    wait::until(&format!("`{name}` to be {expected:?}"), LINK_BOUND, || {
        let (client, expected) = (client.clone(), expected.clone());
        async move {
            let request = v1::RunDoctorRequest { local_only: false };
            let checks = client.run_doctor(request).await.map_err(|error| error.to_string())?.checks;
            let found = found(&checks, name);
            if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_linked_to_every_other_and_a_dead_one_is_missed() {
    if !actor_links_are_wanted() {
        eprintln!("skipped: this run is without actor links");
        return;
    }
    let mut cluster = Cluster::start("links", 3, 1).await;
    let linked = "linked to 2 of 2 alive peers";
    // Each node's own checks come first, then those of the others by name.
    let all = [("node-2", "ok", linked), ("node-1", "ok", linked), ("node-3", "ok", linked)];
    wait_until_found(&cluster, 1, "actor links", &all).await;

    let mut taken = 0.0;
    for node in &cluster.nodes {
        taken += raw::metric(node.http_port, LINKS).await.expect("a node tells its metrics");
    }
    assert!(taken >= 3.0, "three pairs have a link: {taken}");

    let local = cluster.client_of(&[1]).run_doctor(v1::RunDoctorRequest { local_only: true }).await;
    let local = local.expect("it answers").checks;
    assert!(local.iter().all(|check| check.node == "node-2"), "only its own: {local:?}");

    cluster.nodes[2].kill();
    wait_until_found(&cluster, 1, "answers", &[("node-3", "warn", "gossip holds it down")]).await;
    let rest = "linked to 1 of 1 alive peers";
    wait_until_found(&cluster, 1, "actor links", &[("node-2", "ok", rest), ("node-1", "ok", rest)]).await;

    cluster.start_node(2);
    cluster.wait_until_answers(2).await;
    wait_until_found(&cluster, 1, "actor links", &all).await;
}

/// `actors.links: false` on every node: none is dialled, one that is dialled is not taken, and nothing waits for any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_is_told_to_have_no_links_has_none_and_works() {
    let mut cluster = Cluster::new("linkless", 2);
    let config = cluster.write_config("actors: {links: false}\n");
    for _ in 0..3 {
        cluster.add_node(&["--config", &config]).await;
    }
    cluster.wait_for_voters(3).await;
    let off = "turned off by actors.links";
    let all = [("node-1", "ok", off), ("node-2", "ok", off), ("node-3", "ok", off)];
    wait_until_found(&cluster, 0, "actor links", &all).await;

    let (recorder, mut history) = (Recorder::start().await, History::default());
    for asked in 0..3 {
        let prefix = format!("n{asked}-");
        let workflow = workflows::calls(&recorder.url(), &prefix, 2, 100);
        history.submit(&cluster.client_of(&[asked]), workflow, steps(&prefix, 2)).await;
    }
    assert_eq!(history.accepted(), 3, "{history:?}");
    finish_and_judge(&cluster, &history, &recorder, LINK_BOUND).await;
    for node in &cluster.nodes {
        assert_eq!(raw::metric(node.http_port, LINKS).await, Ok(0.0), "{} took a link", node.name);
    }
}
