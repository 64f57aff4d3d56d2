//! Following a job to its end, and what a person is shown meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::{Clock, Error, ErrorKind, SystemClock};
use serde_json::Value;

use crate::error::Failure;
use crate::session::Session;
use crate::{progress, render, view};

/// What to show while a job goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Each change, as data.
    pub(crate) changes: bool,
    /// Each change of a task, as talk.
    pub(crate) tasks: bool,
}

/// Follows `job` (an id or a unique prefix) until it has ended; gives it as it ended. Past `timeout` the job goes on
/// without us.
pub(crate) async fn follow(
    session: &Session,
    client: &FleetClient,
    job: &str,
    shown: Shown,
    timeout: Option<Duration>,
) -> Result<v1::Job, Failure> {
    let following = follow_to_end(session, client, job, shown);
    let Some(timeout) = timeout else { return following.await };
    tokio::time::timeout(timeout, following).await.unwrap_or_else(|_| {
        let error = Error::new(ErrorKind::DeadlineExceeded, format!("job {job} did not end within {timeout:?}"));
        Err(error.with_next_step(format!("It goes on: `fleetctl job watch {job}` follows it.")).into())
    })
}

async fn follow_to_end(session: &Session, client: &FleetClient, job: &str, shown: Shown) -> Result<v1::Job, Failure> {
    let request = v1::WatchJobRequest { job: job.to_owned(), tasks: shown.tasks };
    let mut watch = session.ask(client.watch_job(request)).await?;
    let mut tasks = TaskChanges::default();
    let mut last = None;
    loop {
        let change = if shown.changes || shown.tasks {
            watch.next().await?
        } else {
            progress::during(&format!("waiting for job {job}"), watch.next()).await?
        };
        let Some(change) = change else { break };
        if shown.tasks {
            tasks.lines(&change.tasks).iter().for_each(|line| render::say(line));
        }
        let Some(job) = change.job else { continue };
        if shown.changes {
            render::item(session.format, &view::job(&job), || line(&job))?;
        }
        last = Some(job);
    }
    last.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no job `{job}`")).into())
}

/// An error unless `job` completed; for exit codes.
pub(crate) fn completed(job: &v1::Job) -> Result<(), Failure> {
    if job.state == "completed" {
        return Ok(());
    }
    let id = view::job_id(&job.job_id).unwrap_or_default();
    let mut message = format!("job {id} ended as {}", job.state);
    if let Some(why) = why(job) {
        message.push_str(": ");
        message.push_str(&why);
    }
    let error = Error::new(ErrorKind::FailedPrecondition, render::plain(&message));
    Err(error
        .with_next_step(format!("`fleetctl job get {id}` shows its tasks, `job logs {id}` what they printed."))
        .into())
}

/// Why a job is as it is: its error, else its reason.
pub(crate) fn why(job: &v1::Job) -> Option<String> {
    let error = view::document(&job.error);
    let parts: Vec<&str> =
        ["title", "detail"].iter().filter_map(|key| error.get(key).and_then(Value::as_str)).collect();
    if !parts.is_empty() {
        return Some(parts.join(": "));
    }
    (!job.reason.is_empty()).then(|| job.reason.clone())
}

fn line(job: &v1::Job) -> String {
    let mut line = format!("{} {:<13}", SystemClock.now(), job.state);
    if !job.node.is_empty() {
        line.push_str(&format!(" on {}", job.node));
    }
    if let Some(why) = why(job) {
        line.push_str(&format!(" ({why})"));
    }
    render::plain(&line)
}

/// Which tasks changed since the last look.
#[derive(Debug, Default)]
struct TaskChanges {
    seen: BTreeMap<String, (String, String, u32, u32)>,
}

impl TaskChanges {
    /// One line for each of `tasks` that is not as it was.
    fn lines(&mut self, tasks: &[v1::Task]) -> Vec<String> {
        let mut lines = Vec::new();
        for task in tasks {
            let now = (task.state.clone(), task.node.clone(), task.runs, task.attempt);
            if self.seen.get(&task.task) == Some(&now) || task.state == "pending" {
                continue;
            }
            let round = if task.attempt > 1 { format!(" (round {})", task.attempt) } else { String::new() };
            let place = if task.node.is_empty() { String::new() } else { format!(" on {}", task.node) };
            lines.push(render::plain(&format!("  {:<10} {}{round}{place}", task.state, task.task)));
            self.seen.insert(task.task.clone(), now);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_of_a_task_is_told_once() {
        let task =
            |state: &str| v1::Task { task: "/do/0/a".to_owned(), state: state.to_owned(), ..v1::Task::default() };
        let mut changes = TaskChanges::default();
        assert!(changes.lines(&[task("pending")]).is_empty());
        assert_eq!(changes.lines(&[task("running")]), ["  running    /do/0/a"]);
        assert!(changes.lines(&[task("running")]).is_empty());
        assert_eq!(changes.lines(&[task("completed")]).len(), 1);
    }

    #[test]
    fn a_job_that_did_not_complete_is_an_error_that_says_why() {
        let mut job = v1::Job { state: "completed".to_owned(), ..v1::Job::default() };
        assert!(completed(&job).is_ok());
        job.state = "failed".to_owned();
        job.error = br#"{"type":"x","status":500,"title":"boom","detail":"it broke"}"#.to_vec();
        let Err(Failure::Error(error)) = completed(&job) else { panic!("it must fail") };
        assert!(error.message.ends_with("ended as failed: boom: it broke"), "{}", error.message);
        assert_eq!(error.kind.exit_code(), 1);
    }
}
