//! Watchers of a job while its leader goes away: at whichever node they ask, they see the job end.

use std::time::Duration;

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use serde_json::json;

use crate::harness::cluster::Cluster;
use crate::harness::history::{History, Told};

const BOUND: Duration = Duration::from_secs(60);

/// Follows `job` to its end; its last state.
async fn watched(client: FleetClient, job: String) -> Result<String, fleet_core::Error> {
    let mut watch = client.watch_job(v1::WatchJobRequest { job, ..v1::WatchJobRequest::default() }).await?;
    let mut last = String::new();
    while let Some(change) = watch.next().await? {
        last = change.job.map_or(last, |job| job.state);
    }
    Ok(last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_see_a_job_end_though_the_leader_is_killed() {
    let mut cluster = Cluster::start("watching", 3, 2).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    let others: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    let workflow = json!({
        "document": { "dsl": "1.0.3", "namespace": "test", "name": "wait", "version": "1.0.0" },
        "do": [{ "pause": { "wait": { "seconds": 8 } } }, { "after": { "set": { "done": true } } }],
    });
    let mut history = History::default();
    let client = cluster.client_of(&others);
    let (job, told) = history.submit(&client, workflow.to_string().into_bytes(), Vec::new()).await;
    assert_eq!(told, Told::Accepted);

    let asked = [vec![others[0]], vec![others[1]], vec![leader, others[0]]];
    let watchers: Vec<_> =
        asked.iter().map(|asked| tokio::spawn(watched(cluster.client_of(asked), job.to_string()))).collect();
    crate::harness::wait::until("the job to wait", BOUND, || async {
        let request = v1::GetJobRequest { job: job.to_string(), brief: true, ..v1::GetJobRequest::default() };
        let job = client.get_job(request).await.map_err(|error| error.to_string())?;
        if job.state == "waiting" { Ok(()) } else { Err(job.state) }
    })
    .await;
    cluster.nodes[leader].kill();
    for (watcher, asked) in watchers.into_iter().zip(asked) {
        let ended = tokio::time::timeout(BOUND, watcher).await.expect("it ends in time").expect("no panic");
        assert_eq!(ended.map_err(|error| error.to_string()), Ok("completed".to_owned()), "asked {asked:?}");
    }
}
