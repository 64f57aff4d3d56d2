//! Robots cut off from their leader with a job that they may finish (`onDisconnect: finish`): every other node is stopped
//! by SIGSTOP, so nobody answers, and wakes with a fleet to agree with again.

use std::time::{Duration, Instant};

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::JobId;
use fleet_core::timing::Timing;

use crate::harness::cluster::Cluster;
use crate::harness::history::History;
use crate::harness::judge::finish_and_judge;
use crate::harness::recorder::{Recorder, Request};
use crate::harness::{wait, workflows};
use crate::life::steps;

const JOB_BOUND: Duration = Duration::from_secs(60);
/// What the recorder and a busy machine may add.
const LATE: Duration = Duration::from_millis(500);
/// How long the loop may be finished cut off, seconds.
const LOOP_WITHIN_SECONDS: u32 = 8;

async fn job_of(client: &FleetClient, job: JobId) -> Result<v1::Job, String> {
    let request = v1::GetJobRequest { job: job.to_string(), brief: true, ..v1::GetJobRequest::default() };
    client.get_job(request).await.map_err(|error| error.to_string())
}

async fn request_of(recorder: &Recorder, step: &str, number: usize) -> Request {
    wait::until(&format!("request {number} of {step}"), JOB_BOUND, || async {
        recorder.of_step(step).get(number).cloned().ok_or_else(|| format!("{:?}", recorder.requests()))
    })
    .await
}

/// Index of the node that has `job`.
async fn holder_of(cluster: &Cluster, job: JobId) -> usize {
    let client = cluster.client();
    let name = wait::until("the job to be on a node", JOB_BOUND, || async {
        let job = job_of(&client, job).await?;
        if job.node.is_empty() { Err(job.state) } else { Ok(job.node) }
    })
    .await;
    cluster.index_of(&name)
}

fn freeze_all_but(cluster: &Cluster, history: &mut History, holder: usize) {
    for (_, node) in cluster.nodes.iter().enumerate().filter(|(index, _)| *index != holder) {
        node.freeze();
        history.note_disturbance(&node.name);
    }
}

fn thaw_all_but(cluster: &Cluster, holder: usize) {
    for (_, node) in cluster.nodes.iter().enumerate().filter(|(index, _)| *index != holder) {
        node.thaw();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_robot_cut_off_finishes_and_nothing_is_done_twice_after_healing() {
    const CALLS: usize = 10;
    let cluster = Cluster::start("cut-off", 3, 2).await;
    let recorder = Recorder::start().await;
    let mut history = History::default();
    let workflow = workflows::calls_finished_cut_off(&recorder.url(), "call", CALLS, 600, 600);
    let (job, _) = history.submit(&cluster.client(), workflow, steps("call", CALLS)).await;
    request_of(&recorder, "call1", 0).await;
    let holder = holder_of(&cluster, job).await;
    freeze_all_but(&cluster, &mut history, holder);
    let cut_at = Instant::now();
    let last = request_of(&recorder, &format!("call{}", CALLS - 1), 0).await;
    let after = last.arrived.saturating_duration_since(cut_at);
    assert!(after > Timing::LAN.robot_lease * 3 / 2, "the last call came {after:?} after the cut: within the lease");
    thaw_all_but(&cluster, holder);
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
    let job = job_of(&cluster.client(), job).await.expect("it exists");
    assert_eq!((job.state.as_str(), job.attempt), ("completed", 1), "{} {}", job.node, job.reason);
    let seen: Vec<usize> = (0..CALLS).map(|step| recorder.of_step(&format!("call{step}")).len()).collect();
    assert_eq!(seen, [1; CALLS]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_robot_that_dies_cut_off_delivers_what_it_did_when_it_is_back() {
    const CALLS: usize = 12;
    let mut cluster = Cluster::start("cut-off-dies", 3, 2).await;
    let recorder = Recorder::start().await;
    let mut history = History::default();
    let workflow = workflows::calls_finished_cut_off(&recorder.url(), "call", CALLS, 600, 600);
    let (job, _) = history.submit(&cluster.client(), workflow, steps("call", CALLS)).await;
    request_of(&recorder, "call1", 0).await;
    let holder = holder_of(&cluster, job).await;
    freeze_all_but(&cluster, &mut history, holder);
    request_of(&recorder, "call8", 0).await;
    history.note_disturbance(&cluster.nodes[holder].name.clone());
    cluster.nodes[holder].kill();
    thaw_all_but(&cluster, holder);
    cluster.start_node(holder);
    cluster.wait_until_answers(holder).await;
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
    let job = job_of(&cluster.client(), job).await.expect("it exists");
    assert_eq!(job.state, "completed", "{} {}", job.node, job.reason);
    let seen: Vec<usize> = (0..CALLS).map(|step| recorder.of_step(&format!("call{step}")).len()).collect();
    assert_eq!(seen, [1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1], "only the call in flight was made twice");
}

/// A process of such a job has the bound for its guard's deadline, not the lease of the robot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_cut_off_goes_on_past_the_lease_and_is_silent_after_its_bound() {
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: python3 is not installed");
        return;
    }
    let cluster = Cluster::start("cut-off-loop", 3, 2).await;
    let recorder = Recorder::start().await;
    let mut history = History::default();
    let workflow = workflows::shell_loop(&recorder.url(), "beat");
    let workflow = workflows::finished_cut_off(&workflow, LOOP_WITHIN_SECONDS);
    let (job, _) = history.submit(&cluster.client(), workflow, Vec::new()).await;
    let first = request_of(&recorder, "beat", 0).await;
    let holder = cluster.index_of(&first.node);
    freeze_all_but(&cluster, &mut history, holder);
    let cut_at = Instant::now();
    let within = Duration::from_secs(u64::from(LOOP_WITHIN_SECONDS));
    wait::until("the bound to be over by far", JOB_BOUND, || async {
        let elapsed = cut_at.elapsed();
        if elapsed > within + 4 * LATE { Ok(()) } else { Err(format!("{elapsed:?}")) }
    })
    .await;
    let last = recorder.of_step("beat").pop().expect("it posted");
    history.note_disturbance(&first.node);
    thaw_all_but(&cluster, holder);
    let cancel = v1::ControlJobRequest {
        job: job.to_string(),
        action: v1::JobAction::Cancel.into(),
        ..v1::ControlJobRequest::default()
    };
    cluster.client().control_job(cancel).await.expect("a running job can be cancelled");
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
    let went_on = last.arrived.saturating_duration_since(cut_at);
    assert!(went_on > Timing::LAN.robot_lease * 2, "it went on for {went_on:?} only: the lease of the robot ended it");
    assert!(went_on <= within + LATE, "it went on for {went_on:?}");
}
