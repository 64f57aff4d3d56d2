//! The ordinary life of a fleet: join, submit, finish, stop, come back.

use std::time::Duration;

use fleet_api::pb::v1;

use crate::harness::cluster::Cluster;
use crate::harness::history::{History, Told};
use crate::harness::judge::finish_and_judge;
use crate::harness::recorder::Recorder;
use crate::harness::{wait, workflows};

const JOB_BOUND: Duration = Duration::from_secs(30);

pub(crate) fn steps(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|step| format!("{prefix}{step}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_runs_a_job_and_survives_its_own_death() {
    let mut cluster = Cluster::start("one", 1, 4).await;
    let recorder = Recorder::start().await;
    let client = cluster.client();
    let mut history = History::default();
    let workflow = workflows::calls(&recorder.url(), "s", 4, 300);
    let (_, told) = history.submit(&client, workflow, steps("s", 4)).await;
    assert_eq!(told, Told::Accepted);
    wait::until("the second step", JOB_BOUND, || async {
        let seen = recorder.of_step("s1").len();
        if seen > 0 { Ok(()) } else { Err(format!("{:?}", recorder.requests())) }
    })
    .await;
    cluster.nodes[0].kill();
    cluster.start_node(0);
    cluster.wait_until_answers(0).await;
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
    assert_eq!(recorder.of_step("s0").len(), 1, "a finished step ran again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_join_and_each_takes_work() {
    let cluster = Cluster::start("three", 3, 4).await;
    let recorder = Recorder::start().await;
    let mut history = History::default();
    for index in 0..3 {
        let client = cluster.client_of(&[index]);
        let prefix = format!("n{index}-");
        let workflow = workflows::calls(&recorder.url(), &prefix, 2, 10);
        let (_, told) = history.submit(&client, workflow, steps(&prefix, 2)).await;
        assert_eq!(told, Told::Accepted, "submit to node {index}");
    }
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
    for index in 0..3 {
        let nodes = cluster.client_of(&[index]).list_nodes(v1::ListNodesRequest {}).await.expect("it answers").nodes;
        let alive = nodes.iter().filter(|node| node.state == "alive").count();
        assert_eq!(alive, 3, "node {index} sees {nodes:?}");
        assert_eq!(nodes.iter().filter(|node| node.leader).count(), 1, "node {index} sees one leader");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_hands_its_jobs_back_and_exits_zero() {
    let mut cluster = Cluster::start("stop", 3, 4).await;
    let recorder = Recorder::start().await;
    let client = cluster.client();
    let mut history = History::default();
    for number in 0..6 {
        let prefix = format!("j{number}-");
        let workflow = workflows::calls(&recorder.url(), &prefix, 3, 200);
        history.submit(&client, workflow, steps(&prefix, 3)).await;
    }
    let leader = cluster.leader(&[0, 1, 2]).await;
    let other = (leader + 1) % 3;
    let code = cluster.nodes[other].terminate(Duration::from_secs(25)).await;
    assert_eq!(code, Some(0), "{}", cluster.nodes[other].log_tail());
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_submit_again_is_the_same_job_and_other_content_conflicts() {
    let cluster = Cluster::start("again", 1, 4).await;
    let client = cluster.client();
    let request = |workflow: Vec<u8>| v1::SubmitRequest {
        workflow,
        idempotency_key: "order-7".to_owned(),
        ..v1::SubmitRequest::default()
    };
    let first = client.submit(request(workflows::set_only())).await.expect("accepted");
    let second = client.submit(request(workflows::set_only())).await.expect("accepted again");
    assert_eq!(first.job_id, second.job_id);
    let other = workflows::calls("http://127.0.0.1:9", "x", 1, 0);
    let error = client.submit(request(other)).await.expect_err("other content under the same key");
    assert_eq!(error.kind, fleet_core::ErrorKind::Conflict, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_waits_holds_no_slot_and_wakes_on_time() {
    let cluster = Cluster::start("wait", 1, 1).await;
    let recorder = Recorder::start().await;
    let client = cluster.client();
    let mut history = History::default();
    let parked = workflows::wait_then_call(&recorder.url(), "late", 3_000);
    let (job, _) = history.submit(&client, parked, steps("late", 0)).await;
    wait::until("the job to park", JOB_BOUND, || {
        let client = client.clone();
        async move {
            let request = v1::GetJobRequest { job: job.to_string(), brief: true, ..v1::GetJobRequest::default() };
            let state = client.get_job(request).await.map_err(|error| error.to_string())?.state;
            if state == "waiting" { Ok(()) } else { Err(state) }
        }
    })
    .await;
    let workflow = workflows::calls(&recorder.url(), "quick", 1, 0);
    history.submit(&client, workflow, steps("quick", 1)).await;
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
    let seen: Vec<String> = recorder.requests().into_iter().map(|request| request.step).collect();
    assert_eq!(seen, ["quick0", "late"], "the only slot was free while the first job waited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_lost_its_majority_is_recovered_and_held_until_released() {
    let mut cluster = Cluster::start("recover", 3, 4).await;
    let recorder = Recorder::start().await;
    let mut history = History::default();
    let workflow = workflows::calls(&recorder.url(), "before", 1, 0);
    history.submit(&cluster.client(), workflow, steps("before", 1)).await;
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
    let last = cluster.client_of(&[0]);
    let request = v1::RecoverSiteRequest { site: "default".to_owned(), accept_loss: true, release_hold: false };
    let refused = last.recover_site(request.clone()).await.expect_err("all three are alive");
    assert_eq!(refused.kind, fleet_core::ErrorKind::FailedPrecondition, "{refused}");

    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let recovered = wait::until("the recovery to be taken", JOB_BOUND, || {
        let (last, request) = (last.clone(), request.clone());
        async move { last.recover_site(request).await.map_err(|error| error.to_string()) }
    })
    .await;
    assert_eq!(recovered.epoch, 2);
    wait::until("the new group to hold", JOB_BOUND, || {
        let last = last.clone();
        async move {
            let site = last.get_status(v1::GetStatusRequest {}).await.map_err(|error| error.to_string())?.site;
            let site = site.ok_or_else(|| "no site".to_owned())?;
            let holds = site.epoch == 2 && site.held && site.voters.len() == 1 && !site.leader.is_empty();
            if holds { Ok(()) } else { Err(format!("{site:?}")) }
        }
    })
    .await;
    let kept = last.list_jobs(v1::ListJobsRequest::default()).await.expect("the new group answers").jobs;
    assert_eq!(kept.len(), 1, "what was on this copy is still there: {kept:?}");

    let workflow = workflows::calls(&recorder.url(), "after", 1, 0);
    let (job, _) = history.submit(&last, workflow, steps("after", 1)).await;
    let view = last
        .get_job(v1::GetJobRequest { job: job.to_string(), brief: true, ..v1::GetJobRequest::default() })
        .await
        .expect("it exists");
    assert_eq!(view.state, "queued", "nothing is dispatched while the site is held");
    let release = v1::RecoverSiteRequest { site: "default".to_owned(), accept_loss: false, release_hold: true };
    last.recover_site(release).await.expect("the hold can be ended");
    finish_and_judge(&cluster, &history, &recorder, JOB_BOUND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_alone_names_no_leader() {
    let mut cluster = Cluster::start("alone", 3, 4).await;
    let leader = cluster.leader(&[0, 1, 2]).await;
    let alone = (leader + 1) % 3;
    for index in (0..3).filter(|index| *index != alone) {
        cluster.nodes[index].kill();
    }
    let client = cluster.client_of(&[alone]);
    wait::until("the dead leader to be forgotten", JOB_BOUND, || {
        let client = client.clone();
        async move {
            let status = client.get_status(v1::GetStatusRequest {}).await.map_err(|error| error.to_string())?;
            let leader = status.site.map(|site| site.leader).unwrap_or_default();
            if leader.is_empty() && status.health == "degraded" { Ok(()) } else { Err(format!("led by `{leader}`")) }
        }
    })
    .await;
}
