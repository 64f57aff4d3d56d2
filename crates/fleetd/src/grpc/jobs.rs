//! Jobs as people see them, read from the state: the row, what was asked for, and the tasks by replaying the journal.

use std::collections::BTreeMap;

use fleet_api::pb::v1;
use fleet_core::{Error, ErrorKind, JobId, NodeId, Timestamp};
use fleet_store::record::{Content, Ending, Job, JobSpec, JobState, JournalRecord};
use fleet_store::state::jobs as state;
use fleet_store::state::listing::{Filter, Found, find, list};
use fleet_store::{StateRead, StateReader};
use fleet_workflow::machine::event::Event;
use fleet_workflow::machine::{Machine, TaskReport, TaskState, on_big_stack};

use crate::ports::InterpreterPort;
use crate::site::{Site, not_found, read_failed};

/// Jobs of one page if nobody said how many.
const PAGE_DEFAULT: u32 = 50;
/// Most jobs of one page.
const PAGE_MAX: u32 = 1_000;
/// Journal records read at a time.
const RECORDS_PER_READ: usize = 256;

/// Reads jobs of one site.
#[derive(Clone)]
pub(super) struct Jobs {
    site: Site,
    interpreter: InterpreterPort,
}

impl Jobs {
    pub(super) fn new(site: Site, interpreter: InterpreterPort) -> Self {
        Self { site, interpreter }
    }

    /// The id that `text` names: a whole id or a unique prefix.
    pub(super) fn id(&self, reader: &StateReader, text: &str) -> Result<JobId, Error> {
        match find(reader, text).map_err(read_failed)? {
            Found::One(job) => Ok(job),
            Found::None => Err(not_found("job", text)),
            Found::Several => {
                Err(Error::new(ErrorKind::InvalidInput, format!("more than one job begins with `{text}`"))
                    .with_next_step("Give more of the id."))
            }
        }
    }

    /// The job, without input, output and tasks if `brief`.
    pub(super) async fn view(&self, reader: &StateReader, id: JobId, brief: bool) -> Result<v1::Job, Error> {
        let job = state::job(reader, id).map_err(read_failed)?.ok_or_else(|| not_found("job", &id.to_string()))?;
        let spec = state::spec(reader, id).map_err(read_failed)?.ok_or_else(|| not_found("job", &id.to_string()))?;
        let names = self.names()?;
        let mut view = row(id, &job, &spec, &names);
        if let Some(Ending::Error(error)) = state::ending(reader, id).map_err(read_failed)? {
            view.error = self.read(error).await?;
        }
        if brief {
            return Ok(view);
        }
        if let Some(Ending::Output(output)) = state::ending(reader, id).map_err(read_failed)? {
            view.output = self.read(output).await?;
        }
        if let Some(input) = state::input(reader, id).map_err(read_failed)? {
            view.input = self.read(input).await?;
        }
        view.tasks = self.tasks(reader, id, &spec, &view.input, &names).await?;
        Ok(view)
    }

    /// A page of jobs, newest first.
    pub(super) fn list(
        &self,
        reader: &StateReader,
        request: &v1::ListJobsRequest,
    ) -> Result<v1::ListJobsResponse, Error> {
        let refused = |message: String| Error::new(ErrorKind::InvalidInput, format!("list jobs: {message}"));
        let states = request
            .states
            .iter()
            .map(|word| JobState::from_word(word).ok_or_else(|| refused(format!("`{word}` is not a state"))))
            .collect::<Result<Vec<_>, _>>()?;
        let below = match request.page.as_str() {
            "" => None,
            page => Some(page.parse().map_err(|_| refused(format!("`{page}` is not a page")))?),
        };
        let limit = if request.limit == 0 { PAGE_DEFAULT } else { request.limit };
        if limit > PAGE_MAX {
            return Err(refused(format!("a page has at most {PAGE_MAX} jobs")));
        }
        let workflow = (!request.workflow.is_empty()).then(|| request.workflow.clone());
        let filter = Filter { states, workflow };
        let page = list(reader, &filter, below, limit as usize).map_err(read_failed)?;
        let names = self.names()?;
        Ok(v1::ListJobsResponse {
            jobs: page.jobs.iter().map(|(id, job, spec)| row(*id, job, spec, &names)).collect(),
            next: page.next.map(|next| next.to_string()).unwrap_or_default(),
        })
    }

    /// The records of a journal from position `from`.
    pub(super) async fn journal(
        &self,
        reader: &StateReader,
        id: JobId,
        from: u32,
    ) -> Result<v1::GetJournalResponse, Error> {
        let job = state::job(reader, id).map_err(read_failed)?.ok_or_else(|| not_found("job", &id.to_string()))?;
        let names = self.names()?;
        let mut records = Vec::new();
        for (position, record) in (from..).zip(self.records(reader, id, from)?) {
            records.push(v1::JournalRecord {
                position,
                node: record.node.map(|node| name(&names, node)).unwrap_or_default(),
                event: self.read(record.event).await?,
            });
        }
        Ok(v1::GetJournalResponse { records, total: job.journal_length })
    }

    /// What the processes of a job printed, from its journal.
    pub(super) async fn logs(&self, reader: &StateReader, id: JobId) -> Result<v1::GetLogsResponse, Error> {
        let names = self.names()?;
        let mut chunks = Vec::new();
        for record in self.records(reader, id, 0)? {
            let node = record.node.map(|node| name(&names, node)).unwrap_or_default();
            let Event::EffectEnded { path, at_ms, stdout_tail, stderr_tail, .. } = self.event(record).await? else {
                continue;
            };
            for (stream, text) in [("stdout", stdout_tail), ("stderr", stderr_tail)] {
                if !text.is_empty() {
                    let (task, stream, node) = (path.0.clone(), stream.to_owned(), node.clone());
                    chunks.push(v1::LogChunk { task, stream, text, at_ms, node });
                }
            }
        }
        Ok(v1::GetLogsResponse { chunks })
    }

    fn records(&self, reader: &StateReader, id: JobId, from: u32) -> Result<Vec<JournalRecord>, Error> {
        let mut records = Vec::new();
        loop {
            let next = from.saturating_add(u32::try_from(records.len()).unwrap_or(u32::MAX));
            let more = state::journal(reader, id, next, RECORDS_PER_READ).map_err(read_failed)?;
            let is_last = more.len() < RECORDS_PER_READ;
            records.extend(more);
            if is_last {
                return Ok(records);
            }
        }
    }

    async fn event(&self, record: JournalRecord) -> Result<Event, Error> {
        serde_json::from_slice(&self.read(record.event).await?)
            .map_err(|source| Error::new(ErrorKind::Internal, "read a record of a journal").with_source(source))
    }

    /// What the tasks came to, by replaying the journal; which node ran one is in the record that moved it last.
    async fn tasks(
        &self,
        reader: &StateReader,
        id: JobId,
        spec: &JobSpec,
        input: &[u8],
        names: &BTreeMap<NodeId, String>,
    ) -> Result<Vec<v1::Task>, Error> {
        let definition = state::definition(reader, spec.definition).map_err(read_failed)?;
        let Some(definition) = definition else { return Ok(Vec::new()) };
        let definition = self.read(definition).await?;
        let (mut nodes, mut events) = (Vec::new(), Vec::new());
        for record in self.records(reader, id, 0)? {
            nodes.push(record.node);
            events.push(self.event(record).await?);
        }
        let (interpreter, input) = (self.interpreter.clone(), input.to_vec());
        let replay = move || {
            on_big_stack(|| interpreter.machine(id, &definition, &input).map(|machine| reports(machine, &events)))
        };
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(ErrorKind::Internal, format!("replay job {id}")).with_source(source)
        };
        let replayed = tokio::task::spawn_blocking(replay).await.map_err(|source| failed(source.into()))?;
        let Ok(reports) = replayed.map_err(|source| failed(source.into()))? else { return Ok(Vec::new()) };
        Ok(reports.into_iter().map(|report| task(report, &nodes, names)).collect())
    }

    async fn read(&self, content: Content) -> Result<Vec<u8>, Error> {
        match content {
            Content::Inline(payload) => Ok(payload.as_slice().to_vec()),
            Content::Blob { digest, .. } => {
                let blob = self.site.group().blob(digest).await.map_err(|error| self.site.explain(error))?;
                let missing = || Error::new(ErrorKind::Unavailable, format!("read blob {digest}: nobody has it now"));
                Ok(blob.ok_or_else(missing)?.to_vec())
            }
        }
    }

    fn names(&self) -> Result<BTreeMap<NodeId, String>, Error> {
        let nodes = fleet_store::state::members::nodes(&self.site.reader()?).map_err(read_failed)?;
        Ok(nodes.into_iter().map(|node| (node.id, node.profile.name)).collect())
    }
}

fn reports(mut machine: Machine, events: &[Event]) -> Vec<TaskReport> {
    for event in events {
        machine.apply(event);
    }
    machine.tasks().into_iter().filter(|report| report.started_ms.is_some()).collect()
}

fn name(names: &BTreeMap<NodeId, String>, node: NodeId) -> String {
    names.get(&node).cloned().unwrap_or_else(|| node.to_string())
}

fn millis(at: Option<Timestamp>) -> u64 {
    at.map_or(0, |at| at.0)
}

fn row(id: JobId, job: &Job, spec: &JobSpec, names: &BTreeMap<NodeId, String>) -> v1::Job {
    v1::Job {
        job_id: id.as_bytes().to_vec(),
        retry_of: spec.retry_of.map(|job| job.as_bytes().to_vec()).unwrap_or_default(),
        workflow: spec.workflow.to_string(),
        site: spec.site.to_string(),
        state: job.state.as_str().to_owned(),
        reason: job.reason.as_ref().map(ToString::to_string).unwrap_or_default(),
        node: job.node.map(|node| name(names, node)).unwrap_or_default(),
        attempt: job.attempt,
        created_ms: job.created_at.0,
        started_ms: millis(job.started_at),
        ended_ms: millis(job.ended_at),
        priority: u32::from(job.priority),
        ..v1::Job::default()
    }
}

fn task(report: TaskReport, nodes: &[Option<NodeId>], names: &BTreeMap<NodeId, String>) -> v1::Task {
    let json = |value: Option<serde_json::Value>| value.map(|value| value.to_string().into_bytes()).unwrap_or_default();
    let event = report.last_event.and_then(|event| usize::try_from(event).ok());
    let node = event.and_then(|event| nodes.get(event).copied().flatten());
    v1::Task {
        task: report.pointer,
        name: report.name,
        state: task_state(report.state).to_owned(),
        runs: u32::try_from(report.runs).unwrap_or(u32::MAX),
        attempt: report.attempt,
        node: node.map(|node| name(names, node)).unwrap_or_default(),
        started_ms: report.started_ms.unwrap_or(0),
        ended_ms: report.ended_ms.unwrap_or(0),
        input: json(report.input),
        output: json(report.output),
        error: report.error.and_then(|error| serde_json::to_vec(&error).ok()).unwrap_or_default(),
    }
}

/// The language's word for a task's phase.
fn task_state(state: TaskState) -> &'static str {
    match state {
        TaskState::Pending => "pending",
        TaskState::Running => "running",
        TaskState::Waiting => "waiting",
        TaskState::Suspended => "suspended",
        TaskState::Completed => "completed",
        TaskState::Faulted => "faulted",
        TaskState::Cancelled => "cancelled",
    }
}

/// Whether `reader` sees a job that has ended.
pub(super) fn has_ended(reader: &impl StateRead, id: JobId) -> Result<bool, Error> {
    Ok(state::job(reader, id).map_err(read_failed)?.is_none_or(|job| job.state.is_ended()))
}
