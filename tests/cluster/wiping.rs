//! A node whose disk was lost: it comes back as a new node under its old name, and what it was before has no vote left.

use std::time::{Duration, Instant};

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::timing::Timing;

use crate::harness::cluster::Cluster;
use crate::harness::history::History;
use crate::harness::judge::finish_and_judge;
use crate::harness::recorder::Recorder;
use crate::harness::{wait, workflows};
use crate::life::steps;

const JOB_BOUND: Duration = Duration::from_secs(60);
/// How long nobody may become leader: many times what an election takes.
const OBSERVED: Duration = Timing::LAN.group_lease.saturating_mul(6);
const WIPED: usize = 2;

async fn nodes(client: &FleetClient) -> Result<Vec<v1::Node>, String> {
    Ok(client.list_nodes(v1::ListNodesRequest {}).await.map_err(|error| error.to_string())?.nodes)
}

async fn leader_seen_by(client: &FleetClient) -> Result<String, String> {
    let status = client.get_status(v1::GetStatusRequest {}).await.map_err(|error| error.to_string())?;
    Ok(status.site.map(|site| site.leader).unwrap_or_default())
}

/// Waits until the site has exactly the three nodes there are as voters, and returns the id of the one called `name`.
async fn id_once_all_vote(client: &FleetClient, name: &str) -> Vec<u8> {
    wait::until("all three nodes to vote, and nobody else", JOB_BOUND, || async {
        let nodes = nodes(client).await?;
        let site = client.get_status(v1::GetStatusRequest {}).await.map_err(|error| error.to_string())?.site;
        let voters = site.map(|site| site.voters).unwrap_or_default();
        assert!(voters.len() >= 3, "the group shrank instead of replacing one for one: {voters:?}");
        let all_vote = nodes.len() == 3 && nodes.iter().all(|node| node.voter && node.state == "alive");
        match nodes.iter().find(|node| node.name == name) {
            Some(node) if all_vote && voters.len() == 3 => Ok(node.node_id.clone()),
            _ => Err(format!("voters {voters:?} of {nodes:?}")),
        }
    })
    .await
}

async fn wait_until_down(client: &FleetClient, name: &str) {
    wait::until(&format!("{name} to be held down"), JOB_BOUND, || async {
        let nodes = nodes(client).await?;
        let is_down = nodes.iter().any(|node| node.name == name && node.state == "down");
        if is_down { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
}

async fn run_a_job(cluster: &Cluster, history: &mut History, recorder: &Recorder, prefix: &str) {
    let workflow = workflows::calls(&recorder.url(), prefix, 2, 20);
    history.submit(&cluster.client_of(&cluster.up()), workflow, steps(prefix, 2)).await;
    finish_and_judge(cluster, history, recorder, JOB_BOUND).await;
}

/// With one true voter, the new node's address answered by what it was before, and nobody else: no leader may arise.
async fn nobody_leads(cluster: &Cluster) {
    let (true_voter, old_self) = (cluster.client_of(&[0]), cluster.client_of(&[WIPED]));
    let begun = Instant::now();
    wait::until("the time of watching to pass", JOB_BOUND, || async {
        for client in [&true_voter, &old_self] {
            let leader = leader_seen_by(client).await?;
            assert_eq!(leader, "", "a node that was replaced voted");
        }
        if begun.elapsed() >= OBSERVED { Ok(()) } else { Err("nobody leads".to_owned()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_is_replaced_by_itself_and_its_old_self_has_no_vote() {
    let mut cluster = Cluster::start_secured("wiped", 3, 4).await;
    let recorder = Recorder::start().await;
    let mut history = History::default();
    let client = cluster.client_of(&[0]);
    run_a_job(&cluster, &mut history, &recorder, "before").await;
    let name = cluster.nodes[WIPED].name.clone();
    let old_id = id_once_all_vote(&client, &name).await;

    cluster.nodes[WIPED].kill();
    let old_directory = cluster.wipe(WIPED);
    wait_until_down(&client, &name).await;
    cluster.nodes[WIPED].token = Some(cluster.token(1).await);
    cluster.start_node(WIPED);
    cluster.wait_until_answers(WIPED).await;
    assert_ne!(id_once_all_vote(&client, &name).await, old_id, "a wiped node is a new node");
    run_a_job(&cluster, &mut history, &recorder, "replaced").await;

    cluster.nodes[1].kill();
    cluster.nodes[WIPED].kill();
    wait::until("the only voter to be without a leader", JOB_BOUND, || async {
        let leader = leader_seen_by(&client).await?;
        if leader.is_empty() { Ok(()) } else { Err(leader) }
    })
    .await;
    let new_directory = std::mem::replace(&mut cluster.nodes[WIPED].data_dir, old_directory);
    cluster.start_node(WIPED);
    cluster.wait_until_answers(WIPED).await;
    nobody_leads(&cluster).await;

    cluster.nodes[WIPED].kill();
    cluster.nodes[WIPED].data_dir = new_directory;
    cluster.start_node(WIPED);
    cluster.start_node(1);
    cluster.leader(&[0, 1, WIPED]).await;
    run_a_job(&cluster, &mut history, &recorder, "after").await;
}
