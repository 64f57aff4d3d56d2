//! Jobs: submitted, followed, looked into, steered, repeated.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::cluster::Cluster;
use crate::harness::recorder::Recorder;
use crate::harness::wait::until;
use crate::harness::workflows;
use crate::tool::{Operator, keys, text};

const BOUND: Duration = Duration::from_secs(60);
const JOB_KEYS: &str =
    "jobId retryOf workflow site state reason node attempt createdAt startedAt endedAt input output error tasks";
const TASK_KEYS: &str = "task name state runs attempt node startedAt endedAt input output error";

/// A workflow with one task that fails.
fn failing(recorder: &str) -> Vec<u8> {
    let endpoint = format!("{recorder}/fail/x");
    let call = json!({ "call": "http", "with": { "method": "post", "endpoint": endpoint } });
    document("failing", &json!([{ "x": call }, { "never": { "set": { "a": 1 } } }]))
}

/// A workflow of shell commands, each run in its own task.
pub(crate) fn shells(commands: &[String]) -> Vec<u8> {
    let task = |(position, command): (usize, &String)| {
        let name = format!("s{position}");
        json!({ name: { "run": { "shell": { "command": command }, "return": "none" } } })
    };
    document("shells", &commands.iter().enumerate().map(task).collect::<Value>())
}

pub(crate) fn document(name: &str, tasks: &Value) -> Vec<u8> {
    let document = json!({ "dsl": "1.0.3", "namespace": "test", "name": name, "version": "1.0.0" });
    json!({ "document": document, "do": tasks }).to_string().into_bytes()
}

/// Waits until job `id` is in one of `states`; the job.
async fn reaches(operator: &Operator, id: &str, states: &[&str]) -> Value {
    until(&format!("job {id} to be one of {states:?}"), BOUND, || async {
        let job = operator.json(&["job", "get", id]).await;
        if states.contains(&text(&job["state"]).as_str()) { Ok(job) } else { Err(job.to_string()) }
    })
    .await
}

fn task_states(job: &Value) -> Vec<String> {
    job["tasks"].as_array().expect("tasks are a list").iter().map(|task| text(&task["state"])).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_submitted_waited_for_and_looked_into() {
    let cluster = Cluster::start("op-jobs", 1, 4).await;
    let operator = Operator::at(cluster.nodes[0].endpoint());
    let recorder = Recorder::start().await;

    let said = operator.run_with(&["submit", "-", "--wait", "-o", "json"], &workflows::set_only()).await;
    assert_eq!(said.json(0), json!({ "answer": 42 }), "only the output stands on standard output");
    let done = said.stderr.trim().strip_prefix("job ").expect("the id stands on standard error").to_owned();

    let job = operator.json(&["job", "get", &done[..30]]).await;
    assert_eq!(keys(&job), JOB_KEYS);
    assert_eq!(keys(&job["tasks"][0]), TASK_KEYS);
    assert_eq!((text(&job["state"]), text(&job["workflow"])), ("completed".into(), "test/set-only:1.0.0".into()));
    assert_eq!((&job["retryOf"], &job["reason"], &job["error"]), (&Value::Null, &Value::Null, &Value::Null));
    assert_eq!((&job["attempt"], &job["node"], &job["output"]["answer"]), (&json!(1), &json!("node-1"), &json!(42)));

    let said = operator.run_with(&["submit", "-", "--wait", "-o", "json"], &failing(&recorder.url())).await;
    assert_eq!((said.code, said.stdout.as_str()), (Some(1), ""), "{said:#?}");
    let failed = said.stderr.lines().find_map(|line| line.strip_prefix("job ")).expect("the id is told").to_owned();
    let job = operator.json(&["job", "get", &failed]).await;
    assert_eq!(text(&job["state"]), "failed");
    assert!(job["error"]["status"].is_number() && job["error"]["type"].is_string(), "{job:#}");
    let reason = text(&job["reason"]);
    assert!(reason.contains(&text(&job["error"]["title"])), "the reason is the error's title: {reason}");
    assert_eq!(task_states(&job), ["faulted", "pending"], "a task that was not reached is pending");

    assert_eq!(operator.run(&["job", "watch", &done]).await.code, Some(0));
    assert_eq!(operator.run(&["job", "watch", &failed]).await.code, Some(1));
    assert_eq!(operator.run(&["job", "get", "ffffffff-ffff-7fff-8fff-ffffffffffff"]).await.code, Some(3));
    assert_eq!(operator.run_with(&["submit", "-"], b"nonsense").await.code, Some(2));

    let list = operator.json(&["job", "list", "--limit", "1"]).await;
    assert_eq!(keys(&list), "jobs next");
    assert_eq!(keys(&list["jobs"][0]), JOB_KEYS);
    assert_eq!((text(&list["jobs"][0]["jobId"]), text(&list["jobs"][0]["reason"])), (failed, reason));
    let rest = operator.json(&["job", "list", "--page", &text(&list["next"])]).await;
    assert_eq!((text(&rest["jobs"][0]["jobId"]), &rest["next"]), (done.clone(), &Value::Null));

    let journal = operator.json(&["job", "journal", &done]).await;
    assert_eq!(keys(&journal), "records total");
    assert_eq!(keys(&journal["records"][0]), "position node event");

    let again = operator.json(&["job", "retry", &done]).await;
    assert_eq!(keys(&again), "jobId");
    let again = reaches(&operator, &text(&again["jobId"]), &["completed"]).await;
    assert_eq!(text(&again["retryOf"]), done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_paused_resumed_and_cancelled_and_no_task_seems_to_run_on() {
    let cluster = Cluster::start("op-steer", 1, 4).await;
    let operator = Operator::at(cluster.nodes[0].endpoint());
    let recorder = Recorder::start().await;

    let id = operator.submit(&workflows::calls(&recorder.url(), "p", 3, 1_000)).await;
    reaches(&operator, &id, &["running"]).await;
    let paused = operator.json(&["job", "pause", &id]).await;
    assert_eq!(keys(&paused), JOB_KEYS);
    let job = reaches(&operator, &id, &["suspended"]).await;
    let states = task_states(&job);
    assert!(states.contains(&"suspended".to_owned()) && !states.contains(&"running".to_owned()), "{states:?}");
    assert_eq!(operator.run(&["job", "retry", &id]).await.code, Some(1), "only what has ended is repeated");
    operator.json(&["job", "resume", &id]).await;
    reaches(&operator, &id, &["completed"]).await;
    assert_eq!(operator.run(&["job", "resume", &id]).await.code, Some(1));

    let id = operator.submit(&workflows::calls(&recorder.url(), "c", 2, 30_000)).await;
    reaches(&operator, &id, &["running"]).await;
    operator.json(&["job", "cancel", &id]).await;
    let job = reaches(&operator, &id, &["cancelled"]).await;
    assert_eq!(task_states(&job), ["cancelled", "pending"]);
    assert!(job["tasks"][0]["endedAt"].is_string() && job["reason"].is_string(), "{job:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_tasks_while_the_job_runs() {
    let cluster = Cluster::start("op-watch", 1, 4).await;
    let operator = Operator::at(cluster.nodes[0].endpoint());
    let recorder = Recorder::start().await;
    let id = operator.submit(&workflows::calls(&recorder.url(), "w", 3, 2_000)).await;
    let mut command = operator.command(&["job", "watch", &id, "-v"]);
    let watch = move || {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("fleetctl can be started");
        let mut lines = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
        let first = lines.find(|line| line.contains("completed") && line.contains("w0"));
        let later_steps = recorder.of_step("w2").len();
        let rest: Vec<String> = lines.collect();
        (first, later_steps, rest, child.wait().expect("it ends"))
    };
    let (first, later_steps, rest, status) = tokio::task::spawn_blocking(watch).await.expect("it does not panic");
    assert!(first.is_some_and(|line| line.contains("on node-1")), "the first step's end is told");
    assert_eq!(later_steps, 0, "and before the last step begins");
    assert!(rest.iter().any(|line| line.contains("completed") && line.contains("w2")), "{rest:?}");
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_a_job_printed_is_on_its_robot_where_its_logs_say() {
    let cluster = Cluster::start("op-logs", 1, 4).await;
    let operator = Operator::at(cluster.nodes[0].endpoint());
    let commands = ["yes out | head -c 200000".to_owned(), "echo oops >&2".to_owned()];
    let id = operator.submit(&shells(&commands)).await;
    reaches(&operator, &id, &["completed"]).await;
    let logs = operator.json(&["job", "logs", &id]).await;
    assert_eq!(keys(&logs), "chunks");
    let chunks = logs["chunks"].as_array().expect("chunks are a list");
    assert_eq!(chunks.len(), 2, "{logs:#}");
    assert_eq!(keys(&chunks[0]), "task stream at node file text");
    assert_eq!(text(&chunks[0]["text"]).len(), 64 * 1024, "the journal has the end");
    let whole = std::fs::read(cluster.nodes[0].data_dir.join(text(&chunks[0]["file"]))).expect("the file is there");
    assert_eq!(whole.len(), 200_000);
    assert_eq!((text(&chunks[1]["stream"]), text(&chunks[1]["text"])), ("stderr".into(), "oops\n".into()));
}
