//! Jobs whose tasks, journal and logs are larger than any message: each must still be looked at whole.

use serde_json::{Value, json};

use crate::harness::cluster::Cluster;
use crate::jobs::{document, shells};
use crate::tool::Operator;

const TASKS: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_with_more_tasks_than_a_message_takes_is_waited_for_and_shown_whole() {
    let cluster = Cluster::start("op-tasks", 1, 4).await;
    let operator = Operator::at(cluster.nodes[0].endpoint());
    let task = |position: usize| json!({ format!("t{position}"): { "set": { "text": "${ .text }" } } });
    let workflow = document("large", &(0..TASKS).map(task).collect::<Value>());
    let file = cluster.nodes[0].data_dir.join("input.json");
    std::fs::write(&file, json!({ "text": "x".repeat(60_000) }).to_string()).expect("it can be written");
    let input = format!("@{}", file.display());
    let said = operator.run_with(&["submit", "-", "--input", &input, "--wait", "-v", "-o", "json"], &workflow).await;
    assert_eq!(said.json(0)["text"].as_str().map(str::len), Some(60_000));
    let told = said.stderr.lines().filter(|line| line.contains("completed")).count();
    assert_eq!(told, TASKS, "each task is told: {}", said.stderr);
    let id = said.stderr.lines().find_map(|line| line.strip_prefix("job ")).expect("the id is told").to_owned();
    let job = operator.json(&["job", "get", &id]).await;
    let tasks = job["tasks"].as_array().expect("tasks are a list");
    assert_eq!(tasks.len(), TASKS);
    let names: Vec<String> = (0..TASKS).map(|position| format!("t{position}")).collect();
    assert_eq!(tasks.iter().map(|task| task["name"].as_str().unwrap_or_default()).collect::<Vec<_>>(), names);
    assert!(tasks.iter().all(|task| task["output"]["text"].is_string()), "no output is lost between pages");
    assert!(job.to_string().len() > 6 * 1024 * 1024, "it would not fit into one message");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_and_journal_larger_than_a_message_are_read_whole() {
    let cluster = Cluster::start("op-large", 1, 4).await;
    let operator = Operator::at(cluster.nodes[0].endpoint());
    let command = "yes out | head -c 65536; yes err | head -c 65536 >&2".to_owned();
    let said = operator.run_with(&["submit", "-", "--wait"], &shells(&vec![command; TASKS])).await;
    assert_eq!(said.code, Some(0), "{said:#?}");
    let id = said.stderr.lines().find_map(|line| line.strip_prefix("job ")).expect("the id is told").to_owned();
    let logs = operator.json(&["job", "logs", &id]).await;
    let chunks = logs["chunks"].as_array().expect("chunks are a list");
    assert_eq!(chunks.len(), 2 * TASKS);
    assert!(chunks.iter().all(|chunk| chunk["text"].as_str().map(str::len) == Some(65_536)));
    let journal = operator.json(&["job", "journal", &id]).await;
    assert_eq!(journal["records"].as_array().map(Vec::len), Some(TASKS + 1));
    assert_eq!(journal["total"], TASKS + 1);
}
