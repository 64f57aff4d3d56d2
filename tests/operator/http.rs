//! `/health`, `/ready` and `/metrics`: keys and names as probes and dashboards know them.

use std::time::Duration;

use crate::harness::cluster::Cluster;
use crate::harness::recorder::Recorder;
use crate::harness::wait::until;
use crate::harness::workflows;
use crate::tool::{Operator, get, get_json, keys};

const BOUND: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_dashboards_find_what_they_know() {
    let cluster = Cluster::start("op-http", 1, 4).await;
    let (port, operator) = (cluster.nodes[0].http_port, Operator::at(cluster.nodes[0].endpoint()));
    let recorder = Recorder::start().await;
    let health = until("the node to be healthy", BOUND, || async {
        let (status, health) = get_json(port, "/health").await?;
        if (status, &health["status"]) == (200, &"healthy".into()) { Ok(health) } else { Err(health.to_string()) }
    })
    .await;
    assert_eq!(keys(&health), "status database queue robots_online timestamp checks");
    assert_eq!((&health["database"], &health["queue"]), (&"connected".into(), &"active".into()));
    assert_eq!(health["robots_online"], 1);
    assert_eq!(keys(&health["checks"]), "disk group store", "checks are found by name");
    assert_eq!(health["checks"]["store"]["status"], "ok");
    let (status, ready) = get_json(port, "/ready").await.expect("it answers");
    assert_eq!((status, &ready["ready"]), (200, &true.into()));
    assert_eq!(get(port, "/nothing").await.expect("it answers").0, 404);

    let done = operator.run_with(&["submit", "-", "--wait"], &workflows::set_only()).await;
    let id = operator.submit(&workflows::calls(&recorder.url(), "m", 1, 30_000)).await;
    operator.json(&["job", "cancel", &id]).await;
    assert_eq!(done.code, Some(0));
    until("both jobs to be counted", BOUND, || async {
        let (_, metrics) = get(port, "/metrics").await?;
        let named = [
            "casare_workflows_total{status=\"success\"} 1",
            "casare_workflows_total{status=\"failed\"} 1",
            "casare_jobs_queue_depth 0",
            "casare_robots_active 1",
            "casare_api_requests_total{",
        ];
        let missing: Vec<_> =
            named.iter().filter(|name| !metrics.lines().any(|line| line.starts_with(**name))).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?} not in\n{metrics}")) }
    })
    .await;
}

/// How often this node's store was read so far, as it says itself.
async fn reads(port: u16) -> Result<u64, String> {
    let (_, metrics) = get(port, "/metrics").await?;
    let value = metrics.lines().find_map(|line| line.strip_prefix("fleet_store_reads_total "));
    value.and_then(|value| value.parse().ok()).ok_or(format!("no count of reads in\n{metrics}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_at_rest_reads_next_to_nothing() {
    let cluster = Cluster::start("op-rest", 2, 4).await;
    for node in &cluster.nodes {
        until(&format!("{} to be at rest", node.name), BOUND, || async {
            // Each look at the metrics reads once itself; once a minute, what is long over is looked for.
            let before = reads(node.http_port).await?;
            tokio::time::sleep(Duration::from_secs(2)).await;
            let read = reads(node.http_port).await? - before;
            if read <= 2 { Ok(()) } else { Err(format!("the store was read {read} times in 2 s")) }
        })
        .await;
    }
}
