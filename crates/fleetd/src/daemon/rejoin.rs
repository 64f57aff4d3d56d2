//! Coming back to a group that was founded anew elsewhere: this node writes what it had to a file, gives it up, and is
//! admitted again as a node that never was a member.
//!
//! As with a recovery, learning of the later epoch only leaves a mark and sends the node through a stop and a start; the
//! start does the work before the group is opened. The file comes first, so that a crash in between loses nothing.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use fleet_core::{Error, ErrorKind, GroupId, JobId};
use fleet_replication::command::{Action, Command};
use fleet_replication::{rejoin, unapplied};
use fleet_store::record::{Content, Ending, Job, JobSpec};
use fleet_store::state::jobs;
use fleet_store::state::listing::{Filter, Listed, list};
use fleet_store::{StateReader, Store};
use serde_json::{Value, json};

use super::recovery;
use crate::platform;

/// Name of the store's row that says which epoch to come back to at the next start.
const MARK: &str = "rejoin";
const DONE: &[u8] = b"done";
/// Jobs read at a time.
const PAGE: usize = 1_000;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Leaves the mark, durably.
pub(super) async fn mark(store: &Store, epoch: u64) -> Result<(), Error> {
    store
        .put_meta(MARK, epoch.to_be_bytes().to_vec())
        .await
        .map_err(|source| Error::new(source.kind(), "mark the node for the later epoch").with_source(source))
}

/// Gives up what the node has of `group`, if the mark asks for it. The group must not be open.
pub(super) async fn carry_out(store: &Store, group: GroupId, directory: &Path) -> Result<(), Error> {
    let failed = |source: fleet_store::Error| Error::new(source.kind(), "read the mark").with_source(source);
    let mark = store.meta(MARK).map_err(failed)?.and_then(|bytes| bytes.try_into().ok());
    let Some(epoch) = mark.map(u64::from_be_bytes) else { return Ok(()) };
    let path = directory.join(format!("before-epoch-{epoch}.jsonl"));
    let file = {
        let (store, path) = (store.clone(), path.clone());
        tokio::task::spawn_blocking(move || export(&store, group, epoch, &path)).await
    };
    file.map_err(|source| Error::new(ErrorKind::Internal, "write down the old epoch").with_source(source))??;
    // A recovery that was asked for before must not found a third group from nothing.
    let facts = [(MARK, DONE), (recovery::MARK, recovery::DONE)].map(|(name, value)| (name.to_owned(), value.to_vec()));
    rejoin(store, group, epoch, facts.to_vec()).await.map_err(|source| {
        Error::new(source.kind(), format!("give up the group's state for epoch {epoch}")).with_source(source)
    })?;
    tracing::warn!(
        epoch,
        file = %path.display(),
        "the site was recovered elsewhere: what this node had is in the file, and it comes back as a new member"
    );
    Ok(())
}

/// Writes every job of `group` to `path`, a line each, and behind them the commands that were not applied here.
fn export(store: &Store, group: GroupId, epoch: u64, path: &Path) -> Result<PathBuf, Error> {
    let failed = |source: AnyError| {
        Error::new(ErrorKind::Internal, format!("write down the old epoch in {}", path.display()))
            .with_next_step("Check the disk and its free space, then start fleetd again; nothing was given up yet.")
            .with_source(source)
    };
    let unfinished = path.with_extension("partial");
    let file = platform::create_secret(&unfinished, true).map_err(|source| failed(source.into()))?;
    write_lines(store, group, epoch, file)
        .and_then(|()| std::fs::rename(&unfinished, path).map_err(Into::into))
        .map_err(failed)?;
    Ok(path.to_owned())
}

fn write_lines(store: &Store, group: GroupId, epoch: u64, file: File) -> Result<(), AnyError> {
    let mut out = BufWriter::new(file);
    let reader = store.reader(group)?;
    let site = jobs::site(&reader)?;
    let leadership = site.leadership.map(|known| json!({"node": known.node.to_string(), "term": known.term}));
    let head = json!({
        "group": group.to_string(), "supersededBy": epoch, "site": site.founding.map(|known| known.site.to_string()),
        "lastLeader": leadership, "latestTime": site.latest.0,
    });
    writeln!(out, "{head}")?;
    let mut below = None;
    loop {
        let page = list(&reader, &Filter::default(), below, PAGE)?;
        for (id, listed, spec) in &page.jobs {
            // A job at another site is that site's to tell of.
            if let Listed::Here(job) = listed {
                writeln!(out, "{}", job_line(&reader, *id, job, spec)?)?;
            }
        }
        match page.next {
            Some(next) => below = Some(next),
            None => break,
        }
    }
    for (index, command) in unapplied(store, group)? {
        if let Some(line) = command_line(index, &command) {
            writeln!(out, "{line}")?;
        }
    }
    out.into_inner().map_err(|error| error.into_error())?.sync_all()?;
    Ok(())
}

fn job_line(reader: &StateReader, id: JobId, job: &Job, spec: &JobSpec) -> Result<Value, AnyError> {
    let (output, error) = match jobs::ending(reader, id)? {
        Some(Ending::Output(content)) => (Some(content), None),
        Some(Ending::Error(content)) => (None, Some(content)),
        None => (None, None),
    };
    let show = |content: Option<Content>| content.as_ref().map(shown);
    Ok(json!({
        "jobId": id.to_string(), "state": job.state.as_str(), "workflow": spec.workflow.to_string(),
        "definition": spec.definition.to_string(), "priority": job.priority, "attempt": job.attempt,
        "node": job.node.map(|node| node.to_string()), "createdAt": job.created_at.0,
        "endedAt": job.ended_at.map(|at| at.0), "journalRecords": job.journal_length,
        "input": show(jobs::input(reader, id)?), "output": show(output), "error": show(error),
    }))
}

/// A command that was not applied, as far as it says something of a job.
fn command_line(index: u64, command: &Command) -> Option<Value> {
    let line = |kind: &str, job: &JobId, input: Option<&Content>, records: Option<usize>| {
        json!({
            "unappliedAt": index, "command": kind, "jobId": job.to_string(), "time": command.at.0,
            "input": input.map(shown), "records": records,
        })
    };
    match &command.action {
        Action::Submit(submission) | Action::SubmitAssigned { submission, .. } => {
            Some(line("submit", &submission.job, Some(&submission.input), None))
        }
        Action::Record(records) => Some(line("record", &records.job, None, Some(records.records.len()))),
        _ => None,
    }
}

/// JSON as it is; what is no JSON as text; a blob by its name, for blobs stay in the store.
fn shown(content: &Content) -> Value {
    match content {
        Content::Inline(payload) => serde_json::from_slice(payload.as_slice())
            .unwrap_or_else(|_| String::from_utf8_lossy(payload.as_slice()).into_owned().into()),
        Content::Blob { digest, length } => json!({"blob": digest.to_string(), "bytes": length}),
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::{Digest, SiteName, Timestamp};
    use fleet_replication::command::Submission;
    use fleet_replication::fsm::{self, EntryPosition};
    use fleet_store::record::{CommandId, Founding, WorkflowName};

    use super::super::trust_tests::admission;
    use super::*;

    const GROUP: GroupId = GroupId::from_bytes([3; 16]);
    const DEFINITION: &str = "{}";

    fn submission(job: JobId) -> Action {
        let workflow =
            WorkflowName { namespace: "shop".to_owned(), name: "count".to_owned(), version: "1.0.0".to_owned() };
        let spec = JobSpec {
            workflow,
            definition: Digest::of(DEFINITION.as_bytes()),
            interpreter: 1,
            site: SiteName::default(),
            tags: Vec::new(),
            capabilities: Vec::new(),
            lost_max: 5,
            finish_within_ms: None,
            retry_of: None,
        };
        let definition = Some(Content::inline(DEFINITION));
        let input = Content::inline(r#"{"shelf":7}"#);
        Action::Submit(Box::new(Submission { job, spec, priority: 10, input, definition }))
    }

    #[tokio::test]
    async fn what_the_node_had_is_in_the_file_before_it_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::in_memory().unwrap();
        let job = JobId::generate();
        let founding = Founding {
            fleet: fleet_core::FleetId::generate(),
            site: SiteName::default(),
            group: GROUP,
            founder: store.node_id(),
            dev: false,
        };
        let actions = [Action::Found(founding), admission(store.node_id(), "node-1"), submission(job)];
        let commands: Vec<Command> =
            (1..).zip(actions).map(|(id, action)| Command { id: CommandId(id), at: Timestamp(9), action }).collect();
        let position = EntryPosition { epoch: 1, term: 1, index: 1 };
        store.apply(GROUP, move |state| fsm::apply(state, position, &commands).map(drop)).wait().unwrap();
        recovery::ask(&store).await.unwrap();

        carry_out(&store, GROUP, directory.path()).await.unwrap();
        assert!(jobs::job(&store.reader(GROUP).unwrap(), job).unwrap().is_some(), "nobody asked");
        mark(&store, 2).await.unwrap();
        carry_out(&store, GROUP, directory.path()).await.unwrap();

        let text = std::fs::read_to_string(directory.path().join("before-epoch-2.jsonl")).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[0]["supersededBy"]), (2, &json!(2)));
        assert_eq!(lines[1]["jobId"], job.to_string());
        assert_eq!((&lines[1]["state"], &lines[1]["input"]), (&json!("queued"), &json!({"shelf": 7})));
        assert!(jobs::job(&store.reader(GROUP).unwrap(), job).unwrap().is_none());
        assert_eq!(
            store.meta(recovery::MARK).unwrap().as_deref(),
            Some(recovery::DONE),
            "it founds nothing from nothing"
        );
        carry_out(&store, GROUP, directory.path()).await.unwrap();
    }
}
