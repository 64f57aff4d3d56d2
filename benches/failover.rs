//! How long a killed leader keeps submits waiting, and how long the jobs of a killed robot stand still, on three real
//! `fleetd` processes.
//!
//! `cargo build --release -p fleetd && cargo bench -p fleet --bench failover -- --json`. Method: `docs/performance.md`.

#[path = "../tests/harness/mod.rs"]
mod harness;
mod support;

use std::time::{Duration, Instant};

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::JobId;
use harness::cluster::{Cluster, START_BOUND};
use harness::recorder::Recorder;
use harness::wait::until;
use harness::workflows::{calls, set_only};
use support::load::{as_new_job, request};
use support::options::Options;
use support::report::Report;
use support::{millis, percentile, runtime};

const NODES: usize = 3;
/// Fewer than the jobs of a round, so that each node has some, and enough that two nodes can take all.
const SLOTS: u32 = 8;
const JOBS: usize = 12;
/// Longer than a round: an effect that is under way stays so until its node is killed or its job cancelled.
const EFFECT_MS: u64 = 60_000;
const ROUNDS_DEFAULT: usize = 20;
const ROUND_BOUND: Duration = Duration::from_secs(30);

/// Waits until every node is well, sees all others, and names the same leader; answers with it.
async fn until_well(cluster: &Cluster) -> usize {
    let clients: Vec<FleetClient> = (0..NODES).map(|index| cluster.client_of(&[index])).collect();
    until("every node to be well", START_BOUND, || {
        let clients = clients.clone();
        async move {
            for client in clients {
                let status = client.get_status(v1::GetStatusRequest {}).await.map_err(|error| error.to_string())?;
                let alive = status.nodes.get("alive").copied().unwrap_or(0) as usize;
                let voters = status.site.as_ref().map_or(0, |site| site.voters.len());
                if status.health != "healthy" || alive != NODES || voters != NODES {
                    return Err(format!("{status:?}"));
                }
            }
            Ok(())
        }
    })
    .await;
    cluster.leader(&[0, 1, 2]).await
}

/// Kills the leader; the time until its client, which knows all nodes, has the next submit accepted.
async fn leader_round(cluster: &mut Cluster) -> Duration {
    let leader = until_well(cluster).await;
    let mut order: Vec<usize> = (0..NODES).collect();
    order.rotate_left(leader);
    let client = cluster.client_of(&order);
    let job = request(set_only());
    client.submit(as_new_job(&job)).await.expect("a fleet that is well accepts");
    let killed = Instant::now();
    cluster.nodes[leader].kill();
    let job = as_new_job(&job);
    while let Err(error) = client.submit(job.clone()).await {
        assert!(killed.elapsed() < ROUND_BOUND, "no submit was accepted after the leader's death: {error}");
    }
    let took = killed.elapsed();
    cluster.start_node(leader);
    took
}

/// Jobs under way, each one long effect whose step is its name for the outside.
struct Running {
    client: FleetClient,
    jobs: Vec<(String, String)>,
}

impl Running {
    /// Submits the jobs of `round` and waits until the outside has seen each of them.
    async fn start(cluster: &Cluster, recorder: &Recorder, round: usize) -> Self {
        let client = cluster.client();
        let mut jobs = Vec::new();
        for number in 0..JOBS {
            let prefix = format!("r{round}-j{number}-");
            let workflow = calls(&recorder.url(), &prefix, 1, EFFECT_MS);
            let id = JobId::generate();
            let request = v1::SubmitRequest { job_id: id.as_bytes().to_vec(), ..request(workflow) };
            client.submit(request).await.expect("a fleet that is well accepts");
            jobs.push((id.to_string(), format!("{prefix}0")));
        }
        until("all jobs to run", ROUND_BOUND, || {
            let seen = jobs.iter().filter(|(_, step)| !recorder.of_step(step).is_empty()).count();
            async move { if seen == JOBS { Ok(()) } else { Err(format!("{seen} of {JOBS}")) } }
        })
        .await;
        Self { client, jobs }
    }

    async fn job(&self, id: &str) -> v1::Job {
        let request = v1::GetJobRequest { job: id.to_owned(), brief: true, ..v1::GetJobRequest::default() };
        self.client.get_job(request).await.expect("an accepted job can be read")
    }

    /// The steps of those on `node`.
    async fn steps_on(&self, node: &str) -> Vec<String> {
        let mut steps = Vec::new();
        for (id, step) in &self.jobs {
            if self.job(id).await.node == node {
                steps.push(step.clone());
            }
        }
        steps
    }

    /// Cancels all and waits until they have ended.
    async fn end(self) {
        for (id, _) in &self.jobs {
            let cancel = v1::ControlJobRequest {
                job: id.clone(),
                action: v1::JobAction::Cancel.into(),
                ..v1::ControlJobRequest::default()
            };
            self.client.control_job(cancel).await.expect("a running job can be cancelled");
        }
        for (id, _) in &self.jobs {
            until("a cancelled job to end", ROUND_BOUND, || async {
                let job = self.job(id).await;
                if job.ended_ms == 0 { Err(job.state) } else { Ok(()) }
            })
            .await;
        }
    }
}

/// Kills a node that does not lead; the times until the outside saw each of its effects begin anew, the shortest first.
async fn robot_round(cluster: &mut Cluster, recorder: &Recorder, round: usize) -> Vec<Duration> {
    let leader = until_well(cluster).await;
    let victim = (leader + 1 + round % 2) % NODES;
    let running = Running::start(cluster, recorder, round).await;
    let steps = running.steps_on(&cluster.nodes[victim].name).await;
    assert!(!steps.is_empty(), "{} has none of {JOBS} jobs", cluster.nodes[victim].name);
    let killed = Instant::now();
    cluster.nodes[victim].kill();
    let again =
        |step: &String| recorder.of_step(step).into_iter().map(|request| request.arrived).find(|at| *at > killed);
    until("the jobs to run elsewhere", ROUND_BOUND, || {
        let seen = steps.iter().filter(|step| again(step).is_some()).count();
        let all = steps.len();
        async move { if seen == all { Ok(()) } else { Err(format!("{seen} of {all}")) } }
    })
    .await;
    let mut times: Vec<Duration> = steps.iter().filter_map(again).map(|at| at - killed).collect();
    times.sort_unstable();
    running.end().await;
    cluster.start_node(victim);
    times
}

fn print(report: &Report, name: &str, times: &mut [Duration]) {
    report.print(&format!("{name} p50"), millis(percentile(times, 50)), "ms", 1);
    report.print(&format!("{name} max"), millis(percentile(times, 100)), "ms", 1);
}

const LEADER: &str = "leader killed: next accepted submit";
const ROBOT_FIRST: &str = "robot killed: its first job runs elsewhere";
const ROBOT_ALL: &str = "robot killed: all its jobs run elsewhere";

fn names(figures: &[&str]) -> Vec<String> {
    figures.iter().flat_map(|name| [format!("{name} p50"), format!("{name} max")]).collect()
}

async fn measure(options: &Options) {
    let rounds = options.rounds.unwrap_or(ROUNDS_DEFAULT);
    let mut cluster = Cluster::start("failover", NODES, SLOTS).await;
    let recorder = Recorder::start().await;
    if options.wants_any(&names(&[LEADER])) {
        let report = Report::new(options, NODES);
        let mut times = Vec::new();
        for _ in 0..rounds {
            times.push(leader_round(&mut cluster).await);
        }
        print(&report, LEADER, &mut times);
        report.print("leader killed: kills", rounds as f64, "", 1);
    }
    if options.wants_any(&names(&[ROBOT_FIRST, ROBOT_ALL])) {
        until_well(&cluster).await;
        let report = Report::new(options, NODES);
        let (mut first, mut all) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let times = robot_round(&mut cluster, &recorder, round).await;
            first.extend(times.first());
            all.extend(times.last());
        }
        print(&report, ROBOT_FIRST, &mut first);
        print(&report, ROBOT_ALL, &mut all);
        report.print("robot killed: kills", rounds as f64, "", 1);
    }
}

fn main() {
    let options = Options::of_process();
    runtime().block_on(measure(&options));
}
