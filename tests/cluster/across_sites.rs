//! What people ask of jobs and nodes of another site than that of the node they ask: answered as if they had asked there,
//! and refused plainly where it cannot be.

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::{ErrorKind, JobId};

use crate::harness::cluster::Cluster;
use crate::harness::recorder::Recorder;
use crate::harness::{wait, workflows};
use crate::transfers::{BOUND, get, submit, two_sites, until_state};

async fn control(client: &FleetClient, job: &str, action: v1::JobAction) -> v1::Job {
    let request_id = JobId::generate().as_bytes().to_vec();
    let request = v1::ControlJobRequest { job: job.to_owned(), action: action.into(), request_id };
    client.control_job(request).await.unwrap_or_else(|error| panic!("{action:?} of {job}: {error}"))
}

async fn journal(client: &FleetClient, job: &str) -> Result<Vec<v1::JournalRecord>, fleet_core::Error> {
    let request = v1::GetJournalRequest { job: job.to_owned(), from: 0 };
    Ok(client.get_journal(request).await?.records)
}

/// Follows `job` to its end; the states and the tasks that were told.
async fn watched(client: &FleetClient, job: &str) -> (Vec<String>, Vec<String>) {
    let request = v1::WatchJobRequest { job: job.to_owned(), tasks: true };
    let mut watch = client.watch_job(request).await.expect("it can be followed");
    let (mut states, mut tasks) = (Vec::new(), Vec::new());
    while let Some(change) = watch.next().await.expect("the watch goes on to the end") {
        states.extend(change.job.map(|job| job.state));
        tasks.extend(change.tasks.into_iter().map(|task| format!("{} {}", task.name, task.state)));
    }
    (states, tasks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_went_to_another_site_is_steered_and_looked_into_from_where_it_was_submitted() {
    let mut cluster = two_sites("across").await;
    let recorder = Recorder::start().await;
    let (here, there) = (cluster.client_of(&[0]), cluster.client_of(&[1]));
    let waits = submit(&here, workflows::wait_then_call(&recorder.url(), "w", 600_000), "plant", &[]).await;
    until_state(&there, &waits, "waiting").await;
    until_state(&here, &waits, "waiting").await;
    assert_eq!(control(&here, &waits, v1::JobAction::Pause).await.state, "suspended");
    until_state(&there, &waits, "suspended").await;
    control(&here, &waits, v1::JobAction::Resume).await;
    until_state(&there, &waits, "waiting").await;
    let records = journal(&here, &waits).await.expect("the other site has it");
    assert!(!records.is_empty() && records == journal(&there, &waits).await.expect("it has it"));
    let logs = v1::GetLogsRequest { job: waits.clone(), from: 0 };
    here.get_logs(logs).await.expect("the other site has them");

    let watching = tokio::spawn({
        let (here, waits) = (here.clone(), waits.clone());
        async move { watched(&here, &waits).await }
    });
    control(&here, &waits, v1::JobAction::Cancel).await;
    let (states, tasks) = watching.await.expect("it does not panic");
    assert_eq!(states.last().map(String::as_str), Some("cancelled"), "{states:?}");
    assert!(!tasks.is_empty(), "its tasks are at the other site, and told");
    let again = JobId::generate();
    let request = v1::RetryJobRequest { job: waits.clone(), new_job_id: again.as_bytes().to_vec() };
    here.retry_job(request).await.expect("it goes there again");
    until_state(&there, &again.to_string(), "waiting").await;

    cluster.nodes[1].kill();
    let told = wait::until("the plant to be missed", BOUND, || async {
        match journal(&here, &again.to_string()).await {
            Err(error) if error.kind == ErrorKind::Unavailable && error.message.contains("last heard") => Ok(error),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(told.message.contains("site plant"), "{told}");
    let seen = get(&here, &again.to_string()).await.expect("what was heard of it is here");
    assert!(seen.reason.contains("ago, when plant was last heard"), "{}", seen.reason);
    let asleep = submit(&here, workflows::set_only(), "plant", &[]).await;
    let seen = get(&here, &asleep).await.expect("it is here");
    assert!(seen.reason.contains("it goes by itself when there is a link"), "{}", seen.reason);
    let outbox = here.list_outbox(v1::ListOutboxRequest::default()).await.expect("it answers");
    assert!(outbox.jobs.iter().all(|job| job.reason.contains("last heard")), "{outbox:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_and_nodes_of_another_site_are_asked_for_there() {
    let cluster = two_sites("across-named").await;
    let recorder = Recorder::start().await;
    let there = cluster.client_of(&[1]);
    let plant = cluster.client_of(&[0]).at_site("plant").expect("a name");
    let job = submit(&there, workflows::calls(&recorder.url(), "c", 3, 1_500), "", &[]).await;
    let (states, tasks) = watched(&plant, &job).await;
    assert_eq!(states.last().map(String::as_str), Some("completed"), "{states:?}");
    let ended = tasks.iter().filter(|task| task.ends_with("completed")).count();
    assert!(ended >= 3, "each task's end is told: {tasks:?}");
    let unknown = v1::WatchJobRequest { job: JobId::generate().to_string(), tasks: false };
    let refusal = plant.watch_job(unknown).await.expect_err("there is no such job");
    assert_eq!(refusal.kind, ErrorKind::NotFound);

    let drain = |drain| v1::DrainNodeRequest { node: "node-2".to_owned(), drain, deadline_ms: None };
    assert_eq!(plant.drain_node(drain(true)).await.expect("it is drained").state, "draining");
    assert_eq!(plant.drain_node(drain(false)).await.expect("it is back").state, "alive");
    let request = v1::RemoveNodeRequest { node: "node-2".to_owned() };
    let refusal = plant.remove_node(request).await.expect_err("not from another site");
    assert_eq!(refusal.kind, ErrorKind::Unsupported);
    assert!(refusal.message.contains("who belongs to that site"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_is_one_job_of_a_site_whichever_node_of_the_fleet_is_asked() {
    let cluster = two_sites("across-keys").await;
    let (here, there) = (cluster.client_of(&[0]), cluster.client_of(&[1]));
    let keyed = |client: FleetClient, key: &'static str, input: &'static [u8]| async move {
        let request = v1::SubmitRequest {
            workflow: workflows::set_only(),
            input: input.to_vec(),
            site: "plant".to_owned(),
            idempotency_key: key.to_owned(),
            ..v1::SubmitRequest::default()
        };
        wait::until(&format!("an answer to {key}"), BOUND, || async {
            match client.submit(request.clone()).await {
                Err(error) if error.kind.is_retryable() => Err(error.to_string()),
                answer => Ok(answer.map(|answer| JobId::from_slice(&answer.job_id).expect("an id").to_string())),
            }
        })
        .await
    };
    for (key, first, second) in [("across first", &here, &there), ("there first", &there, &here)] {
        let job = keyed(first.clone(), key, b"1").await.expect("it is accepted");
        until_state(first, &job, "completed").await;
        assert_eq!(keyed(second.clone(), key, b"1").await.expect("it is known"), job, "{key}");
        assert_eq!(until_state(&here, &job, "completed").await.site, "plant", "{key}");
        let other = keyed(there.clone(), key, b"2").await.expect_err("other content");
        assert_eq!(other.kind, ErrorKind::Conflict, "{key}: {other}");
        let other = keyed(here.clone(), key, b"2").await.expect_err("other content");
        assert_eq!(other.kind, ErrorKind::Conflict, "{key}: {other}");
    }
    // What only the other site knows is found out there.
    let job = keyed(there.clone(), "only there", b"1").await.expect("it is accepted");
    until_state(&there, &job, "completed").await;
    assert_eq!(keyed(here.clone(), "only there", b"2").await.expect("nobody knows better here"), job);
    let failed = until_state(&here, &job, "failed").await;
    assert!(failed.reason.contains("another job of this id"), "{}", failed.reason);
    assert_eq!(get(&there, &job).await.expect("it stays").state, "completed");
    let elsewhere = v1::SubmitRequest {
        workflow: workflows::set_only(),
        idempotency_key: "only there".to_owned(),
        ..v1::SubmitRequest::default()
    };
    let own = here.submit(elsewhere).await.expect("it is accepted").job_id;
    assert_ne!(JobId::from_slice(&own).expect("an id").to_string(), job, "the same key at two sites is two jobs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_goes_to_no_site_whose_robots_may_not_call_its_host() {
    let mut cluster = Cluster::start_secured("across-hosts", 1, 4).await;
    let recorder = Recorder::start().await;
    let config = cluster.write_config("robot: { allow: { http: [\"*.example\"] } }\n");
    let token = cluster.token_for("plant", 2).await;
    for _ in 0..2 {
        let index = cluster.prepare_node(Some(token.clone()));
        let arguments = ["--site", "plant", "--tag", "press", "--config", &config];
        cluster.nodes[index].extra_arguments = arguments.map(str::to_owned).to_vec();
        cluster.start_node_by(index, &[0]);
        cluster.wait_until_answers(index).await;
    }
    let here = cluster.client_of(&[0]);
    let sent = submit(&here, workflows::calls(&recorder.url(), "s", 1, 0), "plant", &[]).await;
    assert_eq!(until_state(&here, &sent, "completed").await.site, "default", "it came back");
    // The plant is linked and has told what its robots may do: this stays here.
    let tagged = submit(&here, workflows::calls(&recorder.url(), "t", 1, 0), "", &["press"]).await;
    let seen = until_state(&here, &tagged, "queued").await;
    assert_eq!(seen.site, "default");
    assert!(seen.reason.contains("no robot has the tag `press`"), "{}", seen.reason);
}
