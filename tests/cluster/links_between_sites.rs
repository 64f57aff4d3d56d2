//! The link between two sites with real processes: made from the side that can dial, used by both, made anew by whoever
//! leads, and told of plainly while it is down.

use std::time::Duration;

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::{ErrorKind, JobId};

use crate::harness::cluster::Cluster;
use crate::harness::{wait, workflows};

/// Generous: a bound for a loaded machine, not a measurement.
const BOUND: Duration = Duration::from_secs(60);

/// The nodes of `site` as `asked` tells of them.
async fn names(asked: &FleetClient, site: &str) -> Result<Vec<String>, fleet_core::Error> {
    let nodes = asked.at_site(site).expect("it is a name").list_nodes(v1::ListNodesRequest {}).await?.nodes;
    Ok(nodes.into_iter().map(|node| node.name).collect())
}

/// Waits until the node at `asked` tells of the nodes of `site`.
async fn until_told(cluster: &Cluster, asked: usize, site: &str, expected: &[&str]) {
    let client = cluster.client_of(&[asked]);
    wait::until(&format!("node {asked} tells of site {site}"), BOUND, || {
        let client = client.clone();
        async move {
            match names(&client, site).await {
                Ok(names) if names == expected => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }
    })
    .await;
}

/// Waits until the node at `asked` says that `site` is cut off; what it says.
async fn until_cut_off(cluster: &Cluster, asked: usize, site: &str) -> String {
    let client = cluster.client_of(&[asked]);
    wait::until(&format!("node {asked} misses site {site}"), BOUND, || {
        let client = client.clone();
        async move {
            match names(&client, site).await {
                Err(error) if error.kind == ErrorKind::Unavailable && error.message.contains("last heard") => {
                    Ok(error.message)
                }
                other => Err(format!("{other:?}")),
            }
        }
    })
    .await
}

/// Waits until the node at `asked` says `expected` of its link to the plant; what it says, and what to do.
async fn until_diagnosed(cluster: &Cluster, asked: usize, expected: &str, needles: &[&str]) -> v1::Check {
    let client = cluster.client_of(&[asked]);
    wait::until(&format!("doctor of node {asked} says {expected} with {needles:?}"), BOUND, || {
        let client = client.clone();
        async move {
            let request = v1::RunDoctorRequest { local_only: true };
            let checks = client.run_doctor(request).await.map_err(|error| error.to_string())?.checks;
            let found = checks.into_iter().find(|check| check.name == "link to plant");
            let is_it = |check: &v1::Check| {
                check.result == expected && needles.iter().all(|needle| check.detail.contains(needle))
            };
            found.clone().filter(is_it).ok_or(format!("{found:?}"))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_can_only_dial_out_asks_and_is_asked_over_the_link_it_made() {
    let mut cluster = Cluster::start("link-out", 1, 4).await;
    // Nobody answers where the plant says it does, neither TCP nor UDP: all that reaches it comes over its own link.
    let plant = cluster.add_node(&["--site", "plant", "--advertise", "127.0.0.1:1"]).await;
    until_told(&cluster, 0, "plant", &["node-2"]).await;
    until_told(&cluster, plant, "default", &["node-1"]).await;

    let job = JobId::generate();
    let submit = v1::SubmitRequest {
        job_id: job.as_bytes().to_vec(),
        workflow: workflows::set_only(),
        ..v1::SubmitRequest::default()
    };
    cluster.client_of(&[plant]).submit(submit).await.expect("the plant takes work");
    let elsewhere = cluster.client_of(&[0]).at_site("plant").expect("it is a name");
    let seen = wait::until("the job is seen from the first site", BOUND, || {
        let (client, job) = (elsewhere.clone(), job.to_string());
        async move {
            let request = v1::GetJobRequest { job, ..v1::GetJobRequest::default() };
            let job = client.get_job(request).await.map_err(|error| error.to_string())?;
            if job.ended_ms > 0 { Ok(job) } else { Err(job.state) }
        }
    })
    .await;
    assert_eq!((seen.state.as_str(), seen.site.as_str()), ("completed", "plant"));
    until_diagnosed(&cluster, 0, "ok", &["dialled from there", "round trip", "its clock is at", "catalogs compared"])
        .await;
    let refusal = elsewhere.create_token(v1::CreateTokenRequest::default()).await.expect_err("not for another site");
    assert_eq!(refusal.kind, ErrorKind::Unsupported);

    cluster.nodes[plant].kill();
    let told = until_cut_off(&cluster, 0, "plant").await;
    assert!(told.contains("site plant was last heard"), "{told}");
    let check = until_diagnosed(&cluster, 0, "warn", &["no link, last heard", "127.0.0.1:1 was dialled"]).await;
    assert!(check.next_step.contains("Open TCP from this node to 127.0.0.1:1, or from a node there to"), "{check:?}");
    // It is remembered over a restart, too.
    cluster.nodes[0].terminate(BOUND).await;
    cluster.start_node(0);
    cluster.wait_until_answers(0).await;
    until_cut_off(&cluster, 0, "plant").await;
    cluster.start_node(plant);
    cluster.wait_until_answers(plant).await;
    until_told(&cluster, 0, "plant", &["node-2"]).await;
    until_told(&cluster, plant, "default", &["node-1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_makes_the_link_anew_and_every_node_of_both_sites_uses_it() {
    let mut cluster = Cluster::start("link-leader", 1, 4).await;
    let mut plant = Vec::new();
    for _ in 0..3 {
        plant.push(cluster.add_node(&["--site", "plant"]).await);
    }
    cluster.wait_for_voters_at(&plant, 3).await;
    let all = ["node-2", "node-3", "node-4"];
    until_told(&cluster, 0, "plant", &all).await;
    for index in &plant {
        until_told(&cluster, *index, "default", &["node-1"]).await;
    }
    let leader = cluster.leader(&plant).await;
    cluster.nodes[leader].kill();
    plant.retain(|index| *index != leader);
    cluster.leader(&plant).await;
    for index in &plant {
        until_told(&cluster, *index, "default", &["node-1"]).await;
    }
    until_told(&cluster, 0, "plant", &all).await;
}
