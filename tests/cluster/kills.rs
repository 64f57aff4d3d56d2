//! Kills: the leader, a follower, the robot's node, all at once; frozen nodes; at least twenty in the gate's run.

use std::time::{Duration, Instant};

use fleet_api::pb::v1;

use crate::harness::cluster::Cluster;
use crate::harness::history::{History, Told};
use crate::harness::recorder::Recorder;
use crate::harness::{wait, workflows};
use crate::life::{finish_and_judge, steps};

/// Enough for a lease, an election and the work on a busy machine.
const JOB_BOUND: Duration = Duration::from_secs(60);

/// How many rounds of kills this run makes.
fn rounds() -> usize {
    match std::env::var("FLEET_TEST_SIZE").as_deref() {
        Ok("ci") => 7,
        Ok("long") => 40,
        _ => 1,
    }
}

async fn submit_many(cluster: &Cluster, history: &mut History, recorder: &Recorder, round: &str, count: usize) {
    let client = cluster.client();
    for number in 0..count {
        let prefix = format!("{round}-{number}-");
        let workflow = workflows::calls(&recorder.url(), &prefix, 3, 150);
        history.submit(&client, workflow, steps(&prefix, 3)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_survives_the_death_of_leader_follower_and_all() {
    let mut cluster = Cluster::start("kills", 3, 4).await;
    let recorder = Recorder::start().await;
    let mut history = History::default();
    for round in 0..rounds() {
        submit_many(&cluster, &mut history, &recorder, &format!("r{round}a"), 3).await;
        let leader = cluster.leader(&[0, 1, 2]).await;
        cluster.nodes[leader].kill();
        submit_many(&cluster, &mut history, &recorder, &format!("r{round}b"), 3).await;
        cluster.start_node(leader);
        cluster.wait_until_answers(leader).await;

        let leader = cluster.leader(&[0, 1, 2]).await;
        let follower = (leader + 1) % 3;
        cluster.nodes[follower].kill();
        submit_many(&cluster, &mut history, &recorder, &format!("r{round}c"), 3).await;
        cluster.start_node(follower);
        cluster.wait_until_answers(follower).await;

        submit_many(&cluster, &mut history, &recorder, &format!("r{round}d"), 2).await;
        for node in &mut cluster.nodes {
            node.kill();
        }
        for index in 0..3 {
            cluster.start_node(index);
        }
        cluster.leader(&[0, 1, 2]).await;
    }
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
    let accepted = history.submits.iter().filter(|(_, told, _)| *told == Told::Accepted).count();
    assert!(accepted * 10 >= history.submits.len() * 9, "only {accepted} of {} were accepted", history.submits.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_on_other_robots_is_undisturbed_when_the_leader_dies() {
    let mut cluster = Cluster::start("blink", 3, 4).await;
    let recorder = Recorder::start().await;
    let mut history = History::default();
    let client = cluster.client();
    for number in 0..6 {
        let prefix = format!("long{number}-");
        let workflow = workflows::calls(&recorder.url(), &prefix, 1, 6_000);
        history.submit(&client, workflow, steps(&prefix, 1)).await;
    }
    wait::until("all six effects to begin", JOB_BOUND, || async {
        let seen = recorder.requests().len();
        if seen == 6 { Ok(()) } else { Err(format!("{seen} began")) }
    })
    .await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    let leader_name = cluster.nodes[leader].name.clone();
    let mut elsewhere = Vec::new();
    for (job, _, _) in &history.submits {
        let job = client
            .get_job(v1::GetJobRequest { job: job.to_string(), brief: true, ..v1::GetJobRequest::default() })
            .await
            .expect("it exists");
        if job.node != leader_name {
            elsewhere.push(job);
        }
    }
    assert!(!elsewhere.is_empty(), "every job runs on the leader: nothing can be shown");
    cluster.nodes[leader].kill();
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
    for before in elsewhere {
        let id = uuid::Uuid::from_slice(&before.job_id).expect("an id").to_string();
        let after = client
            .get_job(v1::GetJobRequest { job: id.clone(), brief: true, ..v1::GetJobRequest::default() })
            .await
            .expect("it exists");
        assert_eq!((after.node, after.attempt), (before.node, before.attempt), "job {id} was disturbed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_lets_go_and_starts_nothing_when_it_wakes() {
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        eprintln!("skipped: python3 is not installed");
        return;
    }
    let cluster = Cluster::start("frozen", 3, 2).await;
    let recorder = Recorder::start().await;
    let client = cluster.client();
    let request = v1::SubmitRequest {
        job_id: fleet_core::JobId::generate().as_bytes().to_vec(),
        workflow: workflows::shell_loop(&recorder.url(), "beat"),
        ..v1::SubmitRequest::default()
    };
    let job = client.submit(request).await.expect("accepted").job_id;
    let id = uuid::Uuid::from_slice(&job).expect("an id").to_string();
    let first = wait::until("the first post", JOB_BOUND, || async {
        recorder.of_step("beat").first().cloned().ok_or_else(|| "nothing yet".to_owned())
    })
    .await;
    let frozen = cluster.index_of(&first.node);
    cluster.nodes[frozen].freeze();
    let frozen_at = Instant::now();
    wait::until("a post from another node", JOB_BOUND, || async {
        let nodes: Vec<String> = recorder.of_step("beat").into_iter().map(|request| request.node).collect();
        if nodes.iter().any(|node| *node != first.node) { Ok(()) } else { Err(format!("{} posts", nodes.len())) }
    })
    .await;
    let last_of_frozen = recorder.of_step("beat").into_iter().rfind(|request| request.node == first.node);
    let after_freeze = last_of_frozen.map(|request| request.arrived.saturating_duration_since(frozen_at));
    assert!(after_freeze <= Some(Duration::from_millis(2_500)), "posts went on for {after_freeze:?} after the freeze");
    cluster.nodes[frozen].thaw();
    let survivors: Vec<usize> = (0..3).filter(|index| *index != frozen).collect();
    let living = cluster.client_of(&survivors);
    let cancel =
        v1::ControlJobRequest { job: id.clone(), action: v1::JobAction::Cancel.into(), request_id: Vec::new() };
    living.control_job(cancel).await.expect("a running job can be cancelled");
    wait::until("the job to be cancelled", JOB_BOUND, || {
        let (living, id) = (living.clone(), id.clone());
        async move {
            let request = v1::GetJobRequest { job: id, brief: true, ..v1::GetJobRequest::default() };
            let job = living.get_job(request).await.map_err(|error| error.to_string())?;
            if job.state == "cancelled" { Ok(()) } else { Err(job.state) }
        }
    })
    .await;
    let violations = crate::harness::history::judge(&History::default(), &Default::default(), &recorder.requests());
    assert!(violations.is_empty(), "{violations:#?}");
}
