//! Durable submits and whole jobs through real `fleetd` processes, beside a same-minute fdatasync loop.
//!
//! `cargo build --release -p fleetd && cargo bench --bench jobs -- --json`. Method: `docs/performance.md`.

#[path = "../tests/harness/mod.rs"]
mod harness;
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::JobId;
use harness::cluster::Cluster;
use serde_json::json;
use support::{Figure, fdatasync_loop, null_server, percentile};

/// Jobs of one throughput run, per client, at least [`JOBS_MIN`].
const JOBS_PER_CLIENT: usize = 60;
const JOBS_MIN: usize = 300;
const SLOTS: u32 = 128;
/// A run that takes longer is a failed one.
const RUN_BOUND: Duration = Duration::from_secs(120);

#[derive(Clone, Copy)]
enum Shape {
    Calls(usize),
    Sets(usize),
}

impl Shape {
    fn name(self) -> String {
        match self {
            Self::Calls(tasks) => format!("{tasks}-call"),
            Self::Sets(tasks) => format!("{tasks}-set"),
        }
    }

    fn workflow(self, server: &str) -> Vec<u8> {
        let (tasks, body) = match self {
            Self::Calls(tasks) => (
                tasks,
                json!({ "call": "http", "with": { "method": "post", "endpoint": format!("http://{server}/") } }),
            ),
            Self::Sets(tasks) => (tasks, json!({ "set": { "answer": 42 } })),
        };
        let list: Vec<_> = (0..tasks).map(|task| json!({ format!("task{task}"): body })).collect();
        json!({
            "document": { "dsl": "1.0.3", "namespace": "bench", "name": self.name(), "version": "1.0.0" },
            "do": list,
        })
        .to_string()
        .into_bytes()
    }
}

fn request(workflow: &[u8]) -> v1::SubmitRequest {
    v1::SubmitRequest {
        job_id: JobId::generate().as_bytes().to_vec(),
        workflow: workflow.to_vec(),
        ..v1::SubmitRequest::default()
    }
}

async fn completed(client: &FleetClient) -> u64 {
    let status = client.get_status(v1::GetStatusRequest {}).await.expect("the fleet answers");
    status.jobs.get("completed").copied().unwrap_or(0)
}

/// `clients` submit until `jobs` are in; answers with the rates of accepting and of completing, and the submit times.
async fn throughput(cluster: &Cluster, workflow: Vec<u8>, clients: usize, jobs: usize) -> (f64, f64, Vec<Duration>) {
    let observer = cluster.client();
    let before = completed(&observer).await;
    let (workflow, left) = (Arc::new(workflow), Arc::new(AtomicUsize::new(jobs)));
    let started = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (client, workflow, left) = (cluster.client(), Arc::clone(&workflow), Arc::clone(&left));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    let call = Instant::now();
                    client.submit(request(&workflow)).await.expect("accepted");
                    times.push(call.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("a client does not panic"));
    }
    let accepted = jobs as f64 / started.elapsed().as_secs_f64();
    while completed(&observer).await < before + jobs as u64 {
        assert!(started.elapsed() < RUN_BOUND, "the jobs did not complete within {RUN_BOUND:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (accepted, jobs as f64 / started.elapsed().as_secs_f64(), times)
}

/// One client: from submit to the completion it sees.
async fn latency(cluster: &Cluster, workflow: &[u8], rounds: usize) -> Vec<Duration> {
    let client = cluster.client();
    let mut times = Vec::new();
    for _ in 0..rounds {
        let started = Instant::now();
        let job = client.submit(request(workflow)).await.expect("accepted").job_id;
        let id = uuid::Uuid::from_slice(&job).expect("an id").to_string();
        let mut watch = client
            .watch_job(v1::WatchJobRequest { job: id, ..v1::WatchJobRequest::default() })
            .await
            .expect("it can be watched");
        while let Some(change) = watch.next().await.expect("the watch goes on") {
            if change.job.is_some_and(|job| job.ended_ms != 0) {
                break;
            }
        }
        times.push(started.elapsed());
    }
    times
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

async fn measure(nodes: usize) {
    let cluster = Cluster::start("bench", nodes, SLOTS).await;
    let server = null_server().await.to_string();
    let (fdatasync_per_second, fdatasync) = fdatasync_loop(Duration::from_secs(1));
    let figure = |name: String, value: f64, unit: &'static str, clients: usize| {
        Figure { name, value, unit, clients, nodes, fdatasync_per_second }.print();
    };
    figure("fdatasync p50".to_owned(), millis(fdatasync), "ms", 1);
    let mut seen = latency(&cluster, &Shape::Calls(1).workflow(&server), 200).await;
    figure("1-call submit to completion p50".to_owned(), millis(percentile(&mut seen, 50)), "ms", 1);
    figure("1-call submit to completion p99".to_owned(), millis(percentile(&mut seen, 99)), "ms", 1);
    for shape in [Shape::Sets(1), Shape::Calls(1), Shape::Calls(5)] {
        for clients in [1, 16, 128] {
            let jobs = (clients * JOBS_PER_CLIENT).max(JOBS_MIN);
            let workflow = shape.workflow(&server);
            let (accepted, done, mut times) = throughput(&cluster, workflow, clients, jobs).await;
            figure(format!("{} submits", shape.name()), accepted, "1/s", clients);
            figure(format!("{} submit p50", shape.name()), millis(percentile(&mut times, 50)), "ms", clients);
            figure(format!("{} submit p99", shape.name()), millis(percentile(&mut times, 99)), "ms", clients);
            figure(format!("{} jobs", shape.name()), done, "1/s", clients);
        }
    }
}

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        measure(1).await;
        measure(3).await;
    });
}
