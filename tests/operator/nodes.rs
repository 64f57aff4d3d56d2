//! Nodes, tokens, and the state of things.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::cluster::Cluster;
use crate::harness::wait::until;
use crate::tool::{Operator, keys, text};

const BOUND: Duration = Duration::from_secs(60);
const NODE_KEYS: &str = "nodeId name site state leader voter tags slots slotsBusy version";
const STATUS_KEYS: &str = "fleetId health node version dev checks site otherSites nodes jobs";

async fn node_is(operator: &Operator, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    until(&format!("{name} to be {what}"), BOUND, || async {
        let node = operator.json(&["node", "get", name]).await;
        if is(&node) { Ok(node) } else { Err(node.to_string()) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_listed_drained_resumed_and_shown_as_they_came_back() {
    let mut cluster = Cluster::start("op-nodes", 2, 4).await;
    let operator = Operator::at(cluster.nodes[0].endpoint());
    node_is(&operator, "node-2", "alive with its version", |node| {
        node["state"] == "alive" && node["version"] == env!("CARGO_PKG_VERSION")
    })
    .await;
    let list = operator.json(&["node", "list"]).await;
    assert_eq!(keys(&list), "nodes");
    let nodes = list["nodes"].as_array().expect("nodes are a list");
    assert_eq!(nodes.iter().map(keys).collect::<Vec<_>>(), [NODE_KEYS, NODE_KEYS]);
    let node = operator.json(&["node", "get", "node-1"]).await;
    assert_eq!((keys(&node).as_str(), &node["leader"], &node["slots"]), (NODE_KEYS, &json!(true), &json!(4)));
    assert_eq!(operator.run(&["node", "get", "nobody"]).await.code, Some(3));

    let drained = operator.json(&["node", "drain", "node-2", "--deadline", "0s"]).await;
    assert_eq!(text(&drained["state"]), "draining");
    operator.json(&["node", "resume", "node-2"]).await;
    node_is(&operator, "node-2", "alive", |node| node["state"] == "alive").await;

    cluster.nodes[1].kill();
    cluster.slots = 7;
    cluster.start_node(1);
    cluster.wait_until_answers(1).await;
    node_is(&operator, "node-2", "back with 7 slots", |node| node["slots"] == 7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_top_doctor_and_tokens_say_what_scripts_read() {
    let cluster = Cluster::start("op-state", 2, 4).await;
    let operator = Operator::at(cluster.nodes[0].endpoint());
    let status = operator.json(&["status"]).await;
    assert_eq!(keys(&status), STATUS_KEYS);
    let checks = status["checks"].as_array().expect("checks are a list");
    assert_eq!(checks.iter().map(|check| text(&check["name"])).collect::<Vec<_>>(), ["disk", "group", "store"]);
    assert!(operator.run(&["status"]).await.stdout.contains("checks"));

    let top = operator.json(&["top"]).await;
    assert_eq!(keys(&top), "at status nodes jobs");
    assert_eq!((keys(&top["status"]).as_str(), keys(&top["nodes"][0]).as_str()), (STATUS_KEYS, NODE_KEYS));

    let doctor = until("doctor to find nothing that fails", BOUND, || async {
        let said = operator.run(&["doctor", "-o", "json"]).await;
        if said.code == Some(0) { Ok(said.json(0)) } else { Err(said.stdout) }
    })
    .await;
    assert_eq!(keys(&doctor), "checks");
    let checks = doctor["checks"].as_array().expect("checks are a list");
    for node in ["node-1", "node-2"] {
        let of_node = checks.iter().filter(|check| check["node"] == node).map(|check| text(&check["name"]));
        let names: Vec<String> = of_node.collect();
        for name in ["quorum", "disk space", "disk sync", "certificate", "clock rate", "clock offset", "tcp", "udp"] {
            assert!(names.iter().any(|has| has == name), "{node} did not check {name}: {names:?}");
        }
        assert!(names.iter().any(|has| has == "versions") && names.iter().any(|has| has == "python3"), "{names:?}");
    }
    assert!(checks.iter().all(|check| keys(check) == "name node result detail nextStep"));
    assert!(checks.iter().all(|check| check["result"] == "ok" || check["nextStep"].is_string()), "{doctor:#}");

    let created = operator.json(&["token", "create", "--ttl", "5m", "--uses", "2"]).await;
    assert_eq!(keys(&created), "token expiresAt");
    assert_eq!(operator.run(&["token", "create", "--ttl", "0s"]).await.code, Some(2));
    let list = operator.json(&["token", "list"]).await;
    assert_eq!(
        (keys(&list).as_str(), keys(&list["tokens"][0]).as_str()),
        ("tokens", "tokenId site usesLeft expiresAt")
    );
    let token = text(&list["tokens"][0]["tokenId"]);
    let revoked = operator.json(&["token", "revoke", &token]).await;
    assert_eq!(keys(&revoked), "tokenId");
    assert_eq!(operator.json(&["token", "list"]).await, json!({ "tokens": [] }));
    assert_eq!(operator.run(&["token", "revoke", "nonsense"]).await.code, Some(3));
}
