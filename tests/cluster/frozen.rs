//! Robots that lose their node in the middle of an effect, by SIGKILL or SIGSTOP: what must not come out of them once
//! their lease has ended, and what they must not start when they wake.
//!
//! A node that wakes is held back several times over: a next effect waits for a commit, which the leader refuses it; its
//! robot finds the session over and aborts; guards look at the clock. So no test here can show that the looks at the lease
//! right before an effect are there, except for the first effect of a job, which waits for nothing. Tests that stop an
//! execution at each step, without any of the rest, are in `crates/node/src/execution/frozen_tests.rs` and in
//! `crates/effects/src/effects.rs`.

use std::time::{Duration, Instant};

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::JobId;
use fleet_core::timing::Timing;

use crate::harness::cluster::Cluster;
use crate::harness::history::History;
use crate::harness::judge::finish_and_judge;
use crate::harness::node::TestNode;
use crate::harness::recorder::{Recorder, Request};
use crate::harness::{processes, wait, workflows};
use crate::life::steps;

/// Enough for a lease, an election and the work on a busy machine.
const JOB_BOUND: Duration = Duration::from_secs(60);
/// The last moment at which something may still arrive: the lease, and what the recorder itself may be late.
const SILENT_AFTER: Duration = Timing::LAN.robot_lease.saturating_add(Duration::from_millis(500));
/// How long the kernel may take to clear away processes that were ended.
const CLEARED_AFTER: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Blow {
    Kill,
    Freeze,
}

fn python_is_missing() -> bool {
    let is_missing = std::process::Command::new("python3").arg("--version").output().is_err();
    if is_missing {
        eprintln!("skipped: python3 is not installed");
    }
    is_missing
}

async fn job_of(client: &FleetClient, job: JobId) -> Result<v1::Job, String> {
    client
        .get_job(v1::GetJobRequest { job: job.to_string(), brief: true, ..v1::GetJobRequest::default() })
        .await
        .map_err(|error| error.to_string())
}

async fn request_number(recorder: &Recorder, step: &str, number: usize) -> Request {
    wait::until(&format!("request {number} of {step}"), JOB_BOUND, || async {
        recorder.of_step(step).get(number).cloned().ok_or_else(|| format!("{:?}", recorder.requests()))
    })
    .await
}

/// Strikes the node that posts in a loop, waits until another one took over, and looks what came from the first.
async fn the_loop_falls_silent(name: &str, blow: Blow) {
    if python_is_missing() {
        return;
    }
    let mut cluster = Cluster::start(name, 3, 2).await;
    let recorder = Recorder::start().await;
    let mut history = History::default();
    let workflow = workflows::shell_loop(&recorder.url(), "beat");
    let (job, _) = history.submit(&cluster.client(), workflow, Vec::new()).await;
    let first = request_number(&recorder, "beat", 0).await;
    let struck = cluster.index_of(&first.node);
    history.note_disturbance(&first.node);
    match blow {
        Blow::Kill => cluster.nodes[struck].kill(),
        Blow::Freeze => cluster.nodes[struck].freeze(),
    }
    let struck_at = Instant::now();
    wait::until("a post from another node", JOB_BOUND, || async {
        let nodes: Vec<String> = recorder.of_step("beat").into_iter().map(|request| request.node).collect();
        if nodes.iter().any(|node| *node != first.node) { Ok(()) } else { Err(format!("{} posts", nodes.len())) }
    })
    .await;
    no_process_is_left(&first.node, &recorder).await;
    match blow {
        Blow::Kill => {
            cluster.start_node(struck);
            cluster.wait_until_answers(struck).await;
        }
        Blow::Freeze => cluster.nodes[struck].thaw(),
    }
    let survivors: Vec<usize> = (0..3).filter(|index| *index != struck).collect();
    cancel(&cluster.client_of(&survivors), job).await;
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
    let last = recorder.of_step("beat").into_iter().rfind(|request| request.node == first.node).expect("it posted");
    let went_on = last.arrived.saturating_duration_since(struck_at);
    assert!(went_on <= SILENT_AFTER, "{} went on posting for {went_on:?}", first.node);
    for node in &cluster.nodes {
        no_process_is_left(&node.name, &recorder).await;
    }
}

async fn no_process_is_left(node: &str, recorder: &Recorder) {
    if !processes::can_be_listed() {
        eprintln!("not looked at: this machine does not list its processes");
        return;
    }
    wait::until(&format!("the processes of {node} to be gone"), CLEARED_AFTER, || async {
        let left = processes::of_effects(node, &recorder.url());
        if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
    })
    .await;
}

async fn cancel(client: &FleetClient, job: JobId) {
    let cancel = v1::ControlJobRequest {
        job: job.to_string(),
        action: v1::JobAction::Cancel.into(),
        ..v1::ControlJobRequest::default()
    };
    client.control_job(cancel).await.expect("a running job can be cancelled");
    wait::until("the job to be cancelled", JOB_BOUND, || async {
        let job = job_of(client, job).await?;
        if job.state == "cancelled" { Ok(()) } else { Err(job.state) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_of_a_frozen_node_is_silent_after_the_lease_also_when_it_wakes() {
    the_loop_falls_silent("frozen-loop", Blow::Freeze).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loop_of_a_killed_node_is_silent_after_the_lease() {
    the_loop_falls_silent("killed-loop", Blow::Kill).await;
}

/// Freezes the node that runs `workflow` in its second step until another node has begun that step anew, then wakes it.
async fn wakes_up_late(cluster: &Cluster, recorder: &Recorder, prefix: &str, workflow: Vec<u8>, count: usize) {
    let mut history = History::default();
    let client = cluster.client();
    let (job, _) = history.submit(&client, workflow, steps(prefix, count)).await;
    request_number(recorder, &format!("{prefix}0"), 0).await;
    let holder = job_of(&client, job).await.expect("it exists").node;
    let frozen = cluster.index_of(&holder);
    request_number(recorder, &format!("{prefix}1"), 0).await;
    cluster.nodes[frozen].freeze();
    history.note_disturbance(&holder);
    request_number(recorder, &format!("{prefix}1"), 1).await;
    cluster.nodes[frozen].thaw();
    finish_and_judge(cluster, &history, recorder, JOB_BOUND).await;
    let job = job_of(&client, job).await.expect("it exists");
    assert_eq!((job.state.as_str(), job.attempt), ("completed", 2), "{} {}", job.node, job.reason);
}

/// The answer of the call waits for the node when it wakes: it may begin nothing by what it hears.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_wakes_makes_no_call_by_a_lease_of_before() {
    let cluster = Cluster::start("wakes", 3, 2).await;
    let recorder = Recorder::start().await;
    let workflow = workflows::calls(&recorder.url(), "call", 5, 700);
    wakes_up_late(&cluster, &recorder, "call", workflow, 5).await;
    let seen: Vec<usize> = (0..5).map(|step| recorder.of_step(&format!("call{step}")).len()).collect();
    assert_eq!(seen, [1, 2, 1, 1, 1], "only the call in flight was made twice");
}

/// The first effect of a job waits for no commit, and an execution that thinks listens to no abort. So a node that is
/// stopped while it thinks about its first step comes to the effect with nothing but its own look at the lease before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_wakes_while_it_thinks_begins_nothing() {
    let mut cluster = Cluster::new("wakes-thinking", 2);
    for _ in 0..3 {
        cluster.add_node(&["--log-level", "info,fleet_node=debug"]).await;
    }
    cluster.wait_for_voters(3).await;
    let recorder = Recorder::start().await;
    let mut history = History::default();
    let client = cluster.client();
    let workflow = workflows::think_then_call(&recorder.url(), "thought");
    let (job, _) = history.submit(&client, workflow, vec!["thought".to_owned()]).await;
    let holder = wait::until("the job to be on a node", JOB_BOUND, || async {
        let job = job_of(&client, job).await?;
        if job.node.is_empty() { Err(job.state) } else { Ok(job.node) }
    })
    .await;
    let frozen = &cluster.nodes[cluster.index_of(&holder)];
    wait::until("the execution to begin", JOB_BOUND, || async { has_logged(frozen, "a job begins") }).await;
    frozen.freeze();
    history.note_disturbance(&holder);
    request_number(&recorder, "thought", 0).await;
    frozen.thaw();
    wait::until("the execution to end", JOB_BOUND, || async { has_logged(frozen, "a job has left its robot") }).await;
    assert!(has_logged(frozen, "an effect begins").is_err(), "it began by a lease of before:\n{}", frozen.log_tail());
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
    assert_eq!(recorder.of_step("thought").len(), 1, "only the node that took over made the call");
}

fn has_logged(node: &TestNode, message: &str) -> Result<(), String> {
    if node.log().contains(message) { Ok(()) } else { Err(node.log_tail()) }
}
