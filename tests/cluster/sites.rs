//! Several sites in one fleet: founded by the registry once, each with a group, leader and robots of its own, each at work
//! whatever becomes of the others.

use std::time::Duration;

use fleet_api::FleetClient;
use fleet_api::pb::v1;

use crate::harness::cluster::Cluster;
use crate::harness::history::{History, Told};
use crate::harness::recorder::Recorder;
use crate::harness::{wait, workflows};
use crate::life::steps;

const JOB_BOUND: Duration = Duration::from_secs(60);
const PLANT: &[&str] = &["--site", "plant"];

/// Adds `count` nodes of site `plant`, the first of which founds it.
async fn grow_plant(cluster: &mut Cluster, count: usize) -> Vec<usize> {
    let mut plant = Vec::new();
    for _ in 0..count {
        plant.push(cluster.add_node(PLANT).await);
    }
    plant
}

/// Submits a job of two calls to one of the nodes `asked` and waits until it has completed, each call made once.
async fn run_job(cluster: &Cluster, asked: &[usize], recorder: &Recorder, prefix: &str) -> v1::Job {
    let client = cluster.client_of(asked);
    let mut history = History::default();
    let workflow = workflows::calls(&recorder.url(), prefix, 2, 20);
    let (job, told) = history.submit(&client, workflow, steps(prefix, 2)).await;
    assert_eq!(told, Told::Accepted, "submit {prefix}");
    let ended = wait::until(&format!("job {prefix}"), JOB_BOUND, || {
        let client = client.clone();
        async move {
            let request = v1::GetJobRequest { job: job.to_string(), ..v1::GetJobRequest::default() };
            let job = client.get_job(request).await.map_err(|error| error.to_string())?;
            if job.ended_ms > 0 { Ok(job) } else { Err(format!("{} ({})", job.state, job.reason)) }
        }
    })
    .await;
    assert_eq!(ended.state, "completed", "{prefix}: {ended:?}");
    for step in steps(prefix, 2) {
        assert_eq!(recorder.of_step(&step).len(), 1, "{step}");
    }
    ended
}

async fn names(client: &FleetClient) -> Vec<String> {
    let nodes = client.list_nodes(v1::ListNodesRequest {}).await.expect("it answers").nodes;
    nodes.into_iter().map(|node| node.name).collect()
}

async fn sites(client: &FleetClient) -> Vec<v1::Site> {
    client.list_sites(v1::ListSitesRequest {}).await.expect("it answers").sites
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_site_has_a_group_of_its_own_and_each_runs_jobs() {
    let mut cluster = Cluster::start("sites", 1, 4).await;
    let recorder = Recorder::start().await;
    let plant = grow_plant(&mut cluster, 3).await;
    cluster.wait_for_voters_at(&plant, 3).await;
    let at_first = run_job(&cluster, &[0], &recorder, "first").await;
    assert_eq!((at_first.site.as_str(), at_first.node.as_str()), ("default", "node-1"));
    let at_plant = run_job(&cluster, &plant[1..2], &recorder, "plant").await;
    assert_eq!(at_plant.site, "plant");
    assert_ne!(at_plant.node, "node-1");

    assert_eq!(names(&cluster.client_of(&[0])).await, ["node-1"]);
    for index in &plant {
        assert_eq!(names(&cluster.client_of(&[*index])).await, ["node-2", "node-3", "node-4"]);
    }
    let (seen_first, seen_plant) = (sites(&cluster.client_of(&[0])).await, sites(&cluster.client_of(&plant)).await);
    for seen in [&seen_first, &seen_plant] {
        assert_eq!(seen.iter().map(|site| site.name.as_str()).collect::<Vec<_>>(), ["default", "plant"]);
    }
    assert_eq!(seen_first[1].group_id, seen_plant[1].group_id, "one site, one group");
    assert_eq!(seen_first[0].group_id, seen_plant[0].group_id);
    assert_ne!(seen_first[0].group_id, seen_first[1].group_id);
}
