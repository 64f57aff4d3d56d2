//! Removal: a node that is taken out while it runs stops and stays out, and the rest shut it out of gossip and go on, with
//! who was off meanwhile. However carelessly nodes are removed, the group keeps its quorum.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::ErrorKind;

use crate::harness::cluster::Cluster;
use crate::harness::history::{History, Told};
use crate::harness::judge::finish_and_judge;
use crate::harness::node::TestNode;
use crate::harness::recorder::Recorder;
use crate::harness::{wait, workflows};
use crate::life::steps;

const JOB_BOUND: Duration = Duration::from_secs(60);
/// How long a node may take to learn that it was removed, and to stop.
const EXPULSION_BOUND: Duration = Duration::from_secs(90);
/// How long a rotation of the gossip keys may take: two of its steps are given half a minute to reach everybody.
const ROTATION_BOUND: Duration = Duration::from_secs(150);
/// What a node ends with that is not permitted.
const NOT_PERMITTED: i32 = 5;

/// The gossip keys that `node` has on its disk.
fn gossip_keys(node: &TestNode) -> Result<Vec<serde_json::Value>, String> {
    let file = node.data_dir.join("identity.json");
    let text = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let identity: serde_json::Value = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    identity["gossipKeys"].as_array().cloned().ok_or_else(|| format!("{} has no keys", node.name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_follower_stops_and_stays_out_and_the_rest_go_on_with_other_keys() {
    let mut cluster = Cluster::start_secured("removal", 4, 2).await;
    let recorder = Recorder::start().await;
    let mut history = History::default();
    let leader = cluster.leader(&[0, 1, 2, 3]).await;
    let nodes = cluster.client_of(&[0]).list_nodes(v1::ListNodesRequest {}).await.expect("it answers").nodes;
    let votes = |index: &usize| nodes.iter().any(|node| node.voter && node.name == cluster.nodes[*index].name);
    let away = (0..4).find(|index| !votes(index)).expect("three of four vote");
    let removed = (1..4).find(|index| *index != leader && *index != away).expect("two of three do not lead");
    let rest: Vec<usize> = (0..4).filter(|index| *index != away && *index != removed).collect();
    let before = &gossip_keys(&cluster.nodes[removed]).expect("a node that joined has keys");
    let name = cluster.nodes[removed].name.clone();

    history.note_disturbance(&name);
    history.note_disturbance(&cluster.nodes[away].name.clone());
    assert_eq!(cluster.nodes[away].terminate(EXPULSION_BOUND).await, Some(0), "it is told to stop");
    let old_copy = cluster.nodes[away].data_dir.with_extension("old");
    copy_directory(&cluster.nodes[away].data_dir, &old_copy);
    let request = v1::RemoveNodeRequest { node: name.clone() };
    cluster.client_of(&rest).remove_node(request).await.expect("an operator may remove a follower");
    let node = &mut cluster.nodes[removed];
    let ended = node.exit_code(EXPULSION_BOUND).await;
    assert_eq!(ended, Some(NOT_PERMITTED), "it stops by itself: {}", node.log_tail());
    assert!(node.log().contains("was removed from the fleet"), "{}", node.log_tail());
    cluster.start_node(removed);
    let node = &mut cluster.nodes[removed];
    let ended = node.exit_code(EXPULSION_BOUND).await;
    assert_eq!(ended, Some(NOT_PERMITTED), "its directory is refused: {}", node.log_tail());

    wait::until("other gossip keys on the rest", ROTATION_BOUND, || {
        let kept: Result<Vec<_>, String> = rest.iter().map(|index| gossip_keys(&cluster.nodes[*index])).collect();
        async move {
            let kept = kept?;
            let is_over = kept.iter().all(|keys| keys.len() == 1 && !before.contains(&keys[0])) && kept[0] == kept[1];
            let ids = kept.iter().map(|keys| keys.iter().map(|key| key["keyId"].clone()).collect::<Vec<_>>());
            if is_over { Ok(()) } else { Err(format!("{:?}", ids.collect::<Vec<_>>())) }
        }
    })
    .await;
    // It has none of the keys that the others use.
    cluster.start_node(away);
    cluster.wait_until_answers(away).await;
    let rest = [rest[0], rest[1], away];
    for index in rest {
        let client = cluster.client_of(&[index]);
        let names: BTreeSet<_> = rest.iter().map(|index| cluster.nodes[*index].name.clone()).collect();
        wait::until("the rest to see each other and nobody else", JOB_BOUND, || async {
            let nodes = client.list_nodes(v1::ListNodesRequest {}).await.map_err(|error| error.to_string())?.nodes;
            let alive: BTreeSet<_> =
                nodes.iter().filter(|node| node.state == "alive").map(|node| node.name.clone()).collect();
            if alive == names { Ok(()) } else { Err(format!("node {index} sees {nodes:?}")) }
        })
        .await;
        let prefix = format!("n{index}-");
        let workflow = workflows::calls(&recorder.url(), &prefix, 2, 20);
        let (_, told) = history.submit(&client, workflow, steps(&prefix, 2)).await;
        assert_eq!(told, Told::Accepted, "submit to node {index}");
    }
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;

    // A group founded anew from a copy that knows neither the removal nor the keys of after gets everybody back.
    for index in rest {
        cluster.nodes[index].kill();
    }
    std::fs::remove_dir_all(&cluster.nodes[away].data_dir).expect("its node is dead");
    copy_directory(&old_copy, &cluster.nodes[away].data_dir);
    cluster.start_node(away);
    cluster.wait_until_answers(away).await;
    recover_from(&cluster.client_of(&[away]), &name).await;
    let client = cluster.client_of(&[away]);
    let lost: Vec<usize> = rest.into_iter().filter(|index| *index != away).collect();
    for index in &lost {
        until_state(&client, &cluster.nodes[*index].name, "down").await;
    }
    for index in lost {
        cluster.start_node(index);
    }
    wait::until("all to vote in the new epoch", ROTATION_BOUND, || async {
        let site = client.get_status(v1::GetStatusRequest {}).await.map_err(|error| error.to_string())?.site;
        let site = site.ok_or_else(|| "no site".to_owned())?;
        let is_whole = site.epoch == 2 && site.voters.len() == 3 && !site.held;
        if is_whole { Ok(()) } else { Err(format!("{site:?}")) }
    })
    .await;
}

fn copy_directory(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "{} to {}", from.display(), to.display());
}

/// Founds the group anew from the only node there is, and removes `removed` again, which its copy has as a member.
async fn recover_from(client: &FleetClient, removed: &str) {
    wait::until("the recovery to be taken", JOB_BOUND, || async {
        let request = v1::RecoverSiteRequest { site: "default".to_owned(), accept_loss: true, release_hold: false };
        client.recover_site(request).await.map_err(|error| error.to_string())
    })
    .await;
    wait::until("the removed node to be removed again", JOB_BOUND, || async {
        remove(client, removed).await.map_err(|error| error.to_string())
    })
    .await;
}

async fn remove(client: &FleetClient, name: &str) -> Result<(), fleet_core::Error> {
    client.remove_node(v1::RemoveNodeRequest { node: name.to_owned() }).await.map(drop)
}

async fn until_state(client: &FleetClient, name: &str, state: &str) {
    wait::until(&format!("{name} to be {state}"), JOB_BOUND, || async {
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
    wait::until("the last follower to be removed", JOB_BOUND, || async {
        match remove(&client, &names[second]).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind == ErrorKind::Unavailable => Err(error.to_string()),
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    assert_eq!(
        cluster.nodes[second].exit_code(JOB_BOUND).await,
        Some(NOT_PERMITTED),
        "{}",
        cluster.nodes[second].log_tail()
    );

    let (recorder, mut history) = (Recorder::start().await, History::default());
    let (job, told) =
        history.submit(&client, workflows::calls(&recorder.url(), "after-", 2, 20), steps("after-", 2)).await;
    assert_eq!(told, Told::Accepted, "the leader goes on alone");
    wait::until("the job to complete", JOB_BOUND, || async {
        let request = v1::GetJobRequest { job: job.to_string(), brief: true, ..v1::GetJobRequest::default() };
        let job = client.get_job(request).await.map_err(|error| error.to_string())?;
        if job.state == "completed" { Ok(()) } else { Err(job.state) }
    })
    .await;
}
