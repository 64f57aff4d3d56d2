//! The catalog on real processes: deployed on one node, run by name on another, over kills and absences.

use std::io::Write;
use std::process::{Command, Output};
use std::time::Duration;

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::ErrorKind;
use serde_json::Value;

use crate::harness::cluster::Cluster;
use crate::harness::node::binary;
use crate::harness::raw::metric;
use crate::harness::wait::until;

/// How long news may take to the other nodes of a site, on a busy machine.
const SPREAD_BOUND: Duration = Duration::from_secs(15);
/// How long a node that comes back may take until it is as the others.
const CATCH_UP_BOUND: Duration = Duration::from_secs(40);

fn workflow(version: &str, answer: u32) -> Vec<u8> {
    let document = format!("document: {{dsl: '1.0.3', namespace: shop, name: count, version: '{version}'}}");
    format!("{document}\ndo:\n  - it:\n      set:\n        answer: {answer}\n").into_bytes()
}

async fn deploy(client: &FleetClient, version: &str, answer: u32) -> Result<v1::DeployResponse, fleet_core::Error> {
    client.deploy(v1::DeployRequest { files: vec![workflow(version, answer)] }).await
}

async fn delete(client: &FleetClient, version: &str) {
    let part = |text: &str| text.to_owned();
    let request = v1::DeleteWorkflowRequest { namespace: part("shop"), name: part("count"), version: part(version) };
    client.delete_workflow(request).await.expect("it is there");
}

async fn versions(cluster: &Cluster, index: usize) -> Vec<String> {
    let list = cluster.client_of(&[index]).list_workflows(v1::ListWorkflowsRequest::default()).await;
    list.expect("any node answers").workflows.into_iter().map(|one| one.version).collect()
}

async fn wait_for(cluster: &Cluster, index: usize, expected: &[&str], bound: Duration) {
    until(&format!("node {index} to know {expected:?}"), bound, || async {
        let known = versions(cluster, index).await;
        if known == expected { Ok(()) } else { Err(format!("{known:?}")) }
    })
    .await;
}

fn fleetctl(cluster: &Cluster, index: usize, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary("fleetctl"));
    command.args(arguments).args(["--endpoint", &cluster.nodes[index].endpoint()]);
    command.env_remove("FLEET_CREDENTIAL").env("HOME", cluster.nodes[index].data_dir.clone());
    command.output().expect("the binary that this build made can be run")
}

fn submitted(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("an output is JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deployed_on_one_node_runs_by_name_on_another_and_outlives_them_all() {
    let mut cluster = Cluster::start("catalog", 3, 2).await;
    let first = cluster.client_of(&[0]);
    assert!(deploy(&first, "1.9.0", 1).await.expect("it is taken").workflows[0].is_new);
    deploy(&first, "1.10.0", 2).await.expect("it is taken");
    assert!(!deploy(&first, "1.9.0", 1).await.expect("the same file again").workflows[0].is_new);
    let refusal = deploy(&first, "1.9.0", 3).await.expect_err("a version never changes");
    assert_eq!(refusal.kind, ErrorKind::Conflict, "{refusal}");

    for index in [1, 2] {
        wait_for(&cluster, index, &["1.10.0", "1.9.0"], SPREAD_BOUND).await;
    }
    let named = |name: &'static str| ["submit", name, "--wait", "-o", "json", "--timeout", "60s"];
    assert_eq!(submitted(&fleetctl(&cluster, 1, &named("shop/count")))["answer"], 2, "the highest version");
    assert_eq!(submitted(&fleetctl(&cluster, 2, &named("shop/count:1.9.0")))["answer"], 1);
    assert_eq!(fleetctl(&cluster, 1, &named("shop/count:3.0.0")).status.code(), Some(3));

    cluster.nodes[2].kill();
    delete(&first, "1.9.0").await;
    deploy(&first, "2.0.0", 4).await.expect("it is taken");
    wait_for(&cluster, 1, &["2.0.0", "1.10.0"], SPREAD_BOUND).await;
    cluster.start_node(2);
    cluster.wait_until_answers(2).await;
    wait_for(&cluster, 2, &["2.0.0", "1.10.0"], CATCH_UP_BOUND).await;
    for index in 0..3 {
        let port = cluster.nodes[index].http_port;
        until(&format!("node {index} to forget the deletion"), CATCH_UP_BOUND, || async move {
            match metric(port, "fleet_catalog_deletions_waiting").await {
                Ok(0.0) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    cluster.nodes.iter_mut().for_each(|node| node.kill());
    for index in 0..3 {
        cluster.start_node(index);
    }
    for index in 0..3 {
        cluster.wait_until_answers(index).await;
        assert_eq!(versions(&cluster, index).await, ["2.0.0", "1.10.0"], "node {index} after all were killed");
    }
    cluster.wait_for_voters(3).await;

    let leader = cluster.leader(&[0, 1, 2]).await;
    let removed = (leader + 1) % 3;
    cluster.nodes[removed].kill();
    let request = v1::RemoveNodeRequest { node: cluster.nodes[removed].name.clone() };
    until("the removal to be committed", CATCH_UP_BOUND, || async {
        let removed = cluster.client_of(&[leader]).remove_node(request.clone()).await;
        removed.map(drop).map_err(|error| error.to_string())
    })
    .await;
    for index in (0..3).filter(|index| *index != removed) {
        let port = cluster.nodes[index].http_port;
        until(&format!("node {index} to have the revocation in its catalog"), CATCH_UP_BOUND, || async move {
            match metric(port, "fleet_catalog_revocations").await {
                Ok(count) if count >= 1.0 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_deploys_lists_gets_deletes_exports_and_imports() {
    let cluster = Cluster::start("catalog-tool", 1, 2).await;
    let folder = cluster.nodes[0].data_dir.clone();
    let write = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        std::fs::File::create(&path).and_then(|mut file| file.write_all(content)).expect("it can be written");
        path.to_str().expect("a plain path").to_owned()
    };
    let (one, two) = (write("one.yaml", &workflow("1.0.0", 1)), write("two.yaml", &workflow("2.0.0", 2)));
    let bad = write("bad.yaml", b"document: {dsl: '1.0.3', namespace: shop, name: bad, version: '1'}\ndo: []\n");

    let refused = fleetctl(&cluster, 0, &["workflow", "deploy", &one, &bad]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("bad.yaml:1:"), "the place is missing in {said}");
    assert!(versions(&cluster, 0).await.is_empty(), "all files or none");

    let deployed = submitted(&fleetctl(&cluster, 0, &["workflow", "deploy", &one, &two, "-o", "json"]));
    assert_eq!(deployed["workflows"][1]["workflow"], "shop/count:2.0.0");
    assert_eq!(deployed["workflows"][1]["new"], true);
    let list = submitted(&fleetctl(&cluster, 0, &["workflow", "list", "-o", "json"]));
    let row = &list["workflows"][0];
    let keys: Vec<_> = row.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["workflow", "namespace", "name", "version", "digest", "bytes", "deployedAt", "deployedBy"]);
    assert_eq!((&row["version"], &row["deployedBy"]), (&"2.0.0".into(), &"node-1".into()));

    let got = fleetctl(&cluster, 0, &["workflow", "get", "shop/count:1.0.0"]);
    assert_eq!(got.stdout, workflow("1.0.0", 1), "the file comes back as it was");
    let archive = folder.join("all.json").to_str().expect("a plain path").to_owned();
    assert!(fleetctl(&cluster, 0, &["workflow", "export", &archive]).status.success());
    assert_eq!(fleetctl(&cluster, 0, &["workflow", "delete", "shop/count"]).status.code(), Some(2));
    assert!(fleetctl(&cluster, 0, &["workflow", "delete", "shop/count:1.0.0"]).status.success());
    assert_eq!(versions(&cluster, 0).await, ["2.0.0"]);
    let imported = fleetctl(&cluster, 0, &["workflow", "import", &archive]);
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    assert_eq!(versions(&cluster, 0).await, ["2.0.0", "1.0.0"]);
    assert_eq!(fleetctl(&cluster, 0, &["workflow", "import", &one]).status.code(), Some(2));
}
