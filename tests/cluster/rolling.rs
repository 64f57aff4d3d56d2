//! A rolling restart under load: each node in turn is told to stop and started again while clients go on submitting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleet_api::FleetClient;
use fleet_api::pb::v1;

use crate::harness::cluster::Cluster;
use crate::harness::history::{History, Told};
use crate::harness::judge::finish_and_judge;
use crate::harness::recorder::Recorder;
use crate::harness::seed::sized;
use crate::harness::{wait, workflows};
use crate::life::steps;

/// Enough for an election and the work on a busy machine.
const JOB_BOUND: Duration = Duration::from_secs(60);
/// How long a node may take to stop: its grace for running jobs, and the rest.
const STOP_BOUND: Duration = Duration::from_secs(25);
const CLIENTS: usize = 3;

/// Submits one job after the other, each once the one before has ended, until told to stop.
async fn keep_submitting(client: FleetClient, recorder: Recorder, number: usize, stop: Arc<AtomicBool>) -> History {
    let mut history = History::default();
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let prefix = format!("c{number}-{round}-");
        let workflow = workflows::calls(&recorder.url(), &prefix, 2, 50);
        let (job, told) = history.submit(&client, workflow, steps(&prefix, 2)).await;
        if told != Told::Accepted {
            continue;
        }
        wait::until(&format!("job {job} to end"), JOB_BOUND, || async {
            let request = v1::GetJobRequest { job: job.to_string(), brief: true, ..v1::GetJobRequest::default() };
            let job = client.get_job(request).await.map_err(|error| error.to_string())?;
            if job.ended_ms > 0 { Ok(()) } else { Err(format!("{} on `{}`", job.state, job.node)) }
        })
        .await;
    }
    history
}

/// Waits until every node sees all three alive: the next may be stopped.
async fn all_are_back(cluster: &Cluster) {
    cluster.leader(&[0, 1, 2]).await;
    for index in 0..3 {
        let client = cluster.client_of(&[index]);
        wait::until("three nodes to be alive", JOB_BOUND, || async {
            let nodes = client.list_nodes(v1::ListNodesRequest {}).await.map_err(|error| error.to_string())?.nodes;
            let alive = nodes.iter().filter(|node| node.state == "alive").count();
            if alive == 3 { Ok(()) } else { Err(format!("{nodes:?}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_nothing() {
    let mut cluster = Cluster::start("rolling", 3, 4).await;
    let recorder = Recorder::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(keep_submitting(cluster.client(), recorder.clone(), number, Arc::clone(&stop))))
        .collect();
    for index in (0..sized(1, 3, 20)).flat_map(|_| 0..3) {
        let code = cluster.nodes[index].terminate(STOP_BOUND).await;
        assert_eq!(code, Some(0), "{}", cluster.nodes[index].log_tail());
        cluster.start_node(index);
        cluster.wait_until_answers(index).await;
        all_are_back(&cluster).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut history = History::default();
    for client in clients {
        history.merge(client.await.expect("a client does not panic"));
    }
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
    let (accepted, all) = (history.accepted(), history.submits.len());
    assert!(all >= CLIENTS * 3, "only {all} submits: this was no load");
    assert!(accepted * 20 >= all * 19, "only {accepted} of {all} were accepted");
}
