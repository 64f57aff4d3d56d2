//! Nodes are taken out of the fleet, quickly and carelessly: the group keeps its quorum whatever the operator does.

use std::time::Duration;

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::ErrorKind;

use crate::harness::cluster::Cluster;
use crate::harness::history::{History, Told};
use crate::harness::recorder::Recorder;
use crate::harness::{wait, workflows};
use crate::life::steps;

const BOUND: Duration = Duration::from_secs(60);

async fn remove(client: &FleetClient, name: &str) -> Result<(), fleet_core::Error> {
    client.remove_node(v1::RemoveNodeRequest { node: name.to_owned() }).await.map(drop)
}

async fn until_state(client: &FleetClient, name: &str, state: &str) {
    wait::until(&format!("{name} to be {state}"), BOUND, || async {
        let nodes = client.list_nodes(v1::ListNodesRequest {}).await.map_err(|error| error.to_string())?.nodes;
        let is_so = nodes.iter().any(|node| node.name == name && node.state == state);
        if is_so { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removals_never_cost_the_group_its_quorum() {
    let mut cluster = Cluster::start("removing", 3, 2).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    let [first, second]: [usize; 2] = (0..3).filter(|index| *index != leader).collect::<Vec<_>>().try_into().unwrap();
    let names: Vec<String> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let client = cluster.client_of(&[leader]);

    // One voter is down: a live one cannot be spared, the dead one can.
    cluster.nodes[first].kill();
    until_state(&client, &names[first], "down").await;
    let refused = remove(&client, &names[second]).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::FailedPrecondition, "{refused}");
    assert!(refused.to_string().contains("too few voters answer"), "{refused}");
    assert!(cluster.nodes[second].is_running());
    remove(&client, &names[first]).await.expect("a dead node can be removed");

    // Its seat is given away: with it the other node loses its vote too, and can be spared then, but not before.
    wait::until("the last follower to be removed", BOUND, || async {
        match remove(&client, &names[second]).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind == ErrorKind::Unavailable => Err(error.to_string()),
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    assert_eq!(cluster.nodes[second].exit_code(BOUND).await, Some(5), "{}", cluster.nodes[second].log_tail());

    let (recorder, mut history) = (Recorder::start().await, History::default());
    let (job, told) =
        history.submit(&client, workflows::calls(&recorder.url(), "after-", 2, 20), steps("after-", 2)).await;
    assert_eq!(told, Told::Accepted, "the leader goes on alone");
    wait::until("the job to complete", BOUND, || async {
        let request = v1::GetJobRequest { job: job.to_string(), brief: true, ..v1::GetJobRequest::default() };
        let job = client.get_job(request).await.map_err(|error| error.to_string())?;
        if job.state == "completed" { Ok(()) } else { Err(job.state) }
    })
    .await;
}
