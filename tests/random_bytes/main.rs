//! Random and damaged bytes at every door of a node: gossip, TLS (before, in and after the handshake), HTTP, and every
//! gRPC method of clients and nodes. The process must live, answer, and still run a job. Seeded: see `harness::seed`.

#[path = "../harness/mod.rs"]
mod harness;

mod doors;
mod methods;

use std::time::Duration;

use fleet_api::pb::v1;

use harness::cluster::Cluster;
use harness::history::History;
use harness::seed::{Random, seed, sized};
use harness::{raw, wait, workflows};

const JOB_BOUND: Duration = Duration::from_secs(30);

/// The node answers, is well, and has not panicked.
async fn is_well(cluster: &mut Cluster, after: &str) {
    let node = &mut cluster.nodes[0];
    assert!(node.is_running(), "after {after} the process is gone:\n{}", node.log_tail());
    let panics: Vec<String> = node.log().lines().filter(|line| line.contains("panicked")).map(str::to_owned).collect();
    assert!(panics.is_empty(), "after {after}: {panics:#?}");
    let port = node.http_port;
    wait::until(&format!("a healthy node after {after}"), JOB_BOUND, || async move {
        let (code, text) = raw::http_get(port, "/health").await?;
        if code == 200 && text.contains("\"healthy\"") { Ok(()) } else { Err(format!("{code} {text}")) }
    })
    .await;
}

async fn runs_a_job(cluster: &Cluster) {
    let client = cluster.client();
    let (job, _) = History::default().submit(&client, workflows::set_only(), Vec::new()).await;
    wait::until("a job to complete", JOB_BOUND, || async {
        let request = v1::GetJobRequest { job: job.to_string(), brief: true, ..v1::GetJobRequest::default() };
        let job = client.get_job(request).await.map_err(|error| error.to_string())?;
        if job.state == "completed" { Ok(()) } else { Err(format!("{} {}", job.state, job.reason)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_bytes_at_every_door_end_nothing() {
    let mut cluster = Cluster::start("random-bytes", 1, 2).await;
    let (seed, throws) = (seed(), sized(60, 500, 10_000));
    let random = |door: u64| Random::new(seed.wrapping_add(door));
    doors::gossip(&cluster, &mut random(1), throws * 10).await;
    is_well(&mut cluster, "packets at the gossip port").await;
    doors::tls(&cluster, &mut random(2), throws).await;
    is_well(&mut cluster, "bytes at the TLS port").await;
    doors::inside_tls(&cluster, &mut random(3), throws).await;
    is_well(&mut cluster, "bytes inside TLS").await;
    doors::http(&cluster, &mut random(4), throws).await;
    is_well(&mut cluster, "bytes at the HTTP port").await;
    methods::of_clients(&cluster, &mut random(5), throws / 3).await;
    is_well(&mut cluster, "messages to the methods of clients").await;
    methods::of_nodes(&cluster, &mut random(6), throws / 3).await;
    is_well(&mut cluster, "messages to the methods of nodes").await;
    runs_a_job(&cluster).await;
}
