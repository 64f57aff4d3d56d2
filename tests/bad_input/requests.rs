//! Fields of requests, one method after the other, as a program may send them.

use fleet_api::pb::v1;
use fleet_core::ErrorKind::{Conflict, FailedPrecondition, InvalidInput, NotFound};
use fleet_core::{ErrorKind, JobId};

use crate::harness::workflows;
use crate::stage::{Answer, Stage};

fn submit() -> v1::SubmitRequest {
    let job_id = JobId::generate().as_bytes().to_vec();
    v1::SubmitRequest { job_id, workflow: workflows::set_only(), ..v1::SubmitRequest::default() }
}

pub(crate) async fn judge(stage: &mut Stage) {
    judge_submits(stage).await;
    judge_reads(stage).await;
    judge_control(stage).await;
    judge_nodes(stage).await;
    judge_tokens(stage).await;
}

async fn judge_submits(stage: &mut Stage) {
    let ended = stage.ended_job.as_bytes().to_vec();
    let other = workflows::wait_then_call("http://127.0.0.1:9", "x", 1);
    let rows: [(&str, v1::SubmitRequest, ErrorKind, &str); 8] = [
        ("without an id", v1::SubmitRequest { job_id: Vec::new(), ..submit() }, InvalidInput, "16 bytes"),
        ("with a short id", v1::SubmitRequest { job_id: vec![7; 15], ..submit() }, InvalidInput, "16 bytes"),
        (
            "an id that is taken",
            v1::SubmitRequest { job_id: ended, workflow: other, ..submit() },
            Conflict,
            "other content",
        ),
        ("without a workflow", v1::SubmitRequest { workflow: Vec::new(), ..submit() }, InvalidInput, "empty"),
        ("an input cut off", v1::SubmitRequest { input: b"[1,".to_vec(), ..submit() }, InvalidInput, "not JSON"),
        (
            "a priority of 4 billion",
            v1::SubmitRequest { priority: Some(u32::MAX), ..submit() },
            InvalidInput,
            "priority",
        ),
        (
            "65 tags",
            v1::SubmitRequest { tags: (0..65).map(|n| format!("t{n}")).collect(), ..submit() },
            InvalidInput,
            "tags",
        ),
        ("another site", v1::SubmitRequest { site: "mars".to_owned(), ..submit() }, NotFound, "mars"),
    ];
    for (name, request, kind, word) in rows {
        let answer = stage.operator.submit(request).await;
        stage.row(&format!("submit: {name}"), answer, kind, word).await;
    }
}

async fn judge_reads(stage: &mut Stage) {
    let unknown = JobId::generate().to_string();
    for (name, job, word) in [
        ("no id", "", "job ``"),
        ("an unknown id", unknown.as_str(), unknown.as_str()),
        ("an id that is none", "no-such-job", "no-such-job"),
        ("an id too long", &"0".repeat(40), "does not exist"),
    ] {
        let job = job.to_owned();
        let answer = stage
            .operator
            .get_job(v1::GetJobRequest { job: job.clone(), brief: false, ..v1::GetJobRequest::default() })
            .await;
        stage.row(&format!("get job: {name}"), answer, NotFound, word).await;
        let answer = stage.operator.watch_job(v1::WatchJobRequest { job, ..v1::WatchJobRequest::default() }).await;
        stage.row(&format!("watch job: {name}"), answer, NotFound, word).await;
    }
    let request = v1::GetJournalRequest { job: unknown.clone(), from: u32::MAX };
    let answer = stage.operator.get_journal(request).await;
    stage.row("get journal: an unknown id", answer, NotFound, &unknown).await;
    let answer =
        stage.operator.get_logs(v1::GetLogsRequest { job: unknown.clone(), ..v1::GetLogsRequest::default() }).await;
    stage.row("get logs: an unknown id", answer, NotFound, &unknown).await;
    let base = v1::ListJobsRequest::default;
    for (name, request, word) in [
        ("an unknown state", v1::ListJobsRequest { states: vec!["asleep".to_owned()], ..base() }, "asleep"),
        ("a page too large", v1::ListJobsRequest { limit: 1_001, ..base() }, "1000"),
        ("a page that is none", v1::ListJobsRequest { page: "last".to_owned(), ..base() }, "last"),
    ] {
        let answer = stage.operator.list_jobs(request).await;
        stage.row(&format!("list jobs: {name}"), answer, InvalidInput, word).await;
    }
}

async fn judge_control(stage: &mut Stage) {
    let ended = stage.ended_job.to_string();
    let control = |job: &str, action: i32| v1::ControlJobRequest {
        job: job.to_owned(),
        action,
        ..v1::ControlJobRequest::default()
    };
    let cancel = v1::JobAction::Cancel.into();
    for (name, request, kind, word) in [
        ("no action", control(&ended, 0), InvalidInput, "no action"),
        ("an unknown action", control(&ended, 77), InvalidInput, "no action"),
        ("an ended job", control(&ended, cancel), FailedPrecondition, "ended"),
        ("resume of an ended job", control(&ended, v1::JobAction::Resume.into()), FailedPrecondition, "ended"),
        ("no job", control("", cancel), NotFound, "job ``"),
    ] {
        let answer = stage.operator.control_job(request).await;
        stage.row(&format!("control job: {name}"), answer, kind, word).await;
    }
    let retry = |job: &str, new_job_id: Vec<u8>| v1::RetryJobRequest { job: job.to_owned(), new_job_id };
    let fresh = || JobId::generate().as_bytes().to_vec();
    for (name, request, kind, word) in [
        ("a short id", retry(&ended, vec![1, 2, 3]), InvalidInput, "16 bytes"),
        ("an unknown job", retry("ffffffff", fresh()), NotFound, "ffffffff"),
        ("onto itself", retry(&ended, stage.ended_job.as_bytes().to_vec()), Conflict, "other content"),
    ] {
        let answer = stage.operator.retry_job(request).await;
        stage.row(&format!("retry job: {name}"), answer, kind, word).await;
    }
}

async fn judge_nodes(stage: &mut Stage) {
    for node in ["", "node-99"] {
        let request = v1::DrainNodeRequest { node: node.to_owned(), drain: true, deadline_ms: Some(u64::MAX) };
        let answer = stage.operator.drain_node(request).await;
        stage.row(&format!("drain node `{node}`"), answer, NotFound, &format!("node `{node}`")).await;
        let answer = stage.operator.remove_node(v1::RemoveNodeRequest { node: node.to_owned() }).await;
        stage.row(&format!("remove node `{node}`"), answer, NotFound, &format!("node `{node}`")).await;
    }
    let answer = stage.operator.remove_node(v1::RemoveNodeRequest { node: "node-1".to_owned() }).await;
    stage.row("remove node: the leader", answer, FailedPrecondition, "it leads the site").await;
    let recover =
        |site: &str, accept_loss| v1::RecoverSiteRequest { site: site.to_owned(), accept_loss, release_hold: false };
    for (name, request, kind, word) in [
        ("another site", recover("mars", true), InvalidInput, "mars"),
        (
            "of a site that is well, without accepting the loss",
            recover("default", false),
            FailedPrecondition,
            "leads it",
        ),
        ("of a site that is well", recover("default", true), FailedPrecondition, "leads it"),
    ] {
        let answer = stage.operator.recover_site(request).await;
        stage.row(&format!("recover site: {name}"), answer, kind, word).await;
    }
}

async fn judge_tokens(stage: &mut Stage) {
    let create = |ttl_ms, uses, site: &str| v1::CreateTokenRequest { ttl_ms, uses, site: site.to_owned() };
    for (name, request, word) in [
        ("for ever", create(Some(u64::MAX), 1, ""), "30 days"),
        ("for no time", create(Some(0), 1, ""), "lives 0 s"),
        ("for everyone", create(None, u32::MAX, ""), "1000 nodes"),
        ("for what is no site name", create(None, 1, "Mars!"), "not a site name"),
    ] {
        let answer = stage.operator.create_token(request).await;
        stage.row(&format!("create token: {name}"), answer, InvalidInput, word).await;
    }
    for id in ["", "zzz", "0000000000000000"] {
        let answer: Answer =
            stage.operator.revoke_token(v1::RevokeTokenRequest { token_id: id.to_owned() }).await.into();
        stage.row(&format!("revoke token `{id}`"), answer, NotFound, "token").await;
    }
}
