//! Jobs as people see them: read from the applied state, their tasks by replaying the journal.

use std::sync::Arc;

use fleet_core::{JobId, NodeId};
use fleet_store::StateReader;
use fleet_store::record::{Content, Ending, Job, JobSpec, JobState, Payload};
use fleet_store::state::listing::{Filter, Found, find, list};
use fleet_store::state::{jobs, members};
use fleet_workflow::machine::TaskReport;
use fleet_workflow::machine::event::{ErrorObject, Event};
use tokio::sync::watch;

use crate::Error;
use crate::handle::Node;
use crate::ports::Interpreter;
use crate::watch::Watchers;

/// Records read from the store at a time.
const RECORDS_PER_READ: usize = 256;

/// A job.
#[derive(Clone, Debug)]
pub struct JobView {
    /// Its id.
    pub job: JobId,
    /// How it stands.
    pub row: Job,
    /// What was asked for.
    pub spec: JobSpec,
    /// Name of the node that has or last had it.
    pub node_name: Option<String>,
    /// Why it is in its state.
    pub reason: Option<String>,
    /// Its input, JSON; only in a full view.
    pub input: Option<Payload>,
    /// Its output, JSON; only in a full view.
    pub output: Option<Payload>,
    /// Its error, RFC 7807 as JSON.
    pub error: Option<Payload>,
    /// What became of its tasks; only in a full view.
    pub tasks: Vec<TaskView>,
}

/// A task of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskView {
    /// What became of it.
    pub report: TaskReport,
    /// Name of the node that ran it last.
    pub node_name: Option<String>,
}

/// A page of jobs, newest first.
#[derive(Clone, Debug, Default)]
pub struct JobPage {
    /// The jobs, briefly.
    pub jobs: Vec<JobView>,
    /// Where the next page begins; `None` if there is none.
    pub next: Option<u64>,
}

/// One record of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// Its position.
    pub position: u32,
    /// Name of the node that wrote it; `None` if the group did.
    pub node_name: Option<String>,
    /// The event, JSON.
    pub event: Payload,
}

/// How much of a job to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Without input, output and tasks.
    Brief,
    /// Everything.
    Full,
}

/// The changes of one job.
pub struct JobWatch {
    node: Node,
    watchers: Watchers,
    job: JobId,
    changes: watch::Receiver<u64>,
    last: Option<Job>,
}

impl JobWatch {
    /// The job now, then after each change; `None` once its end was told.
    pub async fn next(&mut self) -> Result<Option<JobView>, Error> {
        loop {
            if self.last.as_ref().is_some_and(|last| last.state.is_ended()) {
                return Ok(None);
            }
            let view = self.node.read_job(self.job, Detail::Brief).await?;
            if self.last.as_ref() != Some(&view.row) {
                self.last = Some(view.row.clone());
                return Ok(Some(view));
            }
            if self.changes.changed().await.is_err() {
                return Ok(None);
            }
        }
    }
}

impl Drop for JobWatch {
    fn drop(&mut self) {
        self.watchers.forget(self.job);
    }
}

impl Node {
    /// The id of the job that `text` names: an id, or a unique prefix of one.
    pub fn find_job(&self, text: &str) -> Result<JobId, Error> {
        match find(&self.group().reader()?, text).map_err(Error::store("find a job"))? {
            Found::One(job) => Ok(job),
            Found::None => Err(Error::JobUnknown(text.to_owned())),
            Found::Several => Err(Error::JobAmbiguous(text.to_owned())),
        }
    }

    /// A job. On the leader a queued one says why it is on no robot.
    pub async fn job(&self, job: JobId, detail: Detail) -> Result<JobView, Error> {
        let mut view = self.read_job(job, detail).await?;
        if view.row.state == JobState::Queued
            && let Some(reason) = self.explain(job).await
        {
            view.reason = Some(reason);
        }
        Ok(view)
    }

    async fn read_job(&self, job: JobId, detail: Detail) -> Result<JobView, Error> {
        let reader = self.group().reader()?;
        let row = jobs::job(&reader, job).map_err(Error::store("read a job"))?;
        let spec = jobs::spec(&reader, job).map_err(Error::store("read a job"))?;
        let (Some(row), Some(spec)) = (row, spec) else { return Err(Error::JobUnknown(job.to_string())) };
        let mut view = brief(&reader, job, row, spec)?;
        let ending = jobs::ending(&reader, job).map_err(Error::store("read a job's end"))?;
        if let Some(Ending::Error(error)) = &ending {
            view.error = Some(self.group().read_content(error.clone()).await?);
        }
        if detail == Detail::Brief {
            return Ok(view);
        }
        if let Some(Ending::Output(output)) = ending {
            view.output = Some(self.group().read_content(output).await?);
        }
        self.fill_in(reader, &mut view).await?;
        Ok(view)
    }

    /// Input and tasks of a job.
    async fn fill_in(&self, reader: StateReader, view: &mut JobView) -> Result<(), Error> {
        let input = jobs::input(&reader, view.job).map_err(Error::store("read a job's input"))?;
        let definition = jobs::definition(&reader, view.spec.definition).map_err(Error::store("read a definition"))?;
        let (Some(input), Some(definition)) = (input, definition) else { return Ok(()) };
        let input = self.group().read_content(input).await?;
        let definition = self.group().read_content(definition).await?;
        let records = self.read_journal(&reader, view.job, 0).await?;
        let writers: Vec<Option<NodeId>> = records.iter().map(|(writer, _)| *writer).collect();
        let (job, interpreter) = (view.job, Arc::clone(self.interpreter()));
        let shown = input.clone();
        let replayed = self.thinker().run(move || replay(&*interpreter, job, &definition, &input, &records)).await;
        let reports = match replayed {
            Some(Ok(reports)) => reports,
            Some(Err(error)) => {
                tracing::warn!(%job, ?error, "a job's tasks cannot be shown");
                Vec::new()
            }
            None => return Err(Error::Actor(format!("show the tasks of job {job}: the interpreter panicked"))),
        };
        view.input = Some(shown);
        for report in reports {
            let event = report.last_event.and_then(|event| usize::try_from(event).ok());
            let writer = event.and_then(|event| writers.get(event).copied().flatten());
            view.tasks.push(TaskView { report, node_name: name_of(&reader, writer)? });
        }
        Ok(())
    }

    /// A page of jobs, newest first: those that `filter` wants, with numbers below `below`.
    pub fn jobs(&self, filter: &Filter, below: Option<u64>, limit: usize) -> Result<JobPage, Error> {
        let reader = self.group().reader()?;
        let page = list(&reader, filter, below, limit).map_err(Error::store("list jobs"))?;
        let views = page.jobs.into_iter().map(|(job, row, spec)| brief(&reader, job, row, spec));
        Ok(JobPage { jobs: views.collect::<Result<_, _>>()?, next: page.next })
    }

    /// The records of a job's journal from position `from`, and how many it has.
    pub async fn journal(&self, job: JobId, from: u32) -> Result<(Vec<JournalEntry>, u32), Error> {
        let reader = self.group().reader()?;
        let row = jobs::job(&reader, job).map_err(Error::store("read a job"))?;
        let total = row.ok_or_else(|| Error::JobUnknown(job.to_string()))?.journal_length;
        let mut entries = Vec::new();
        for (position, (writer, event)) in (from..).zip(self.read_journal(&reader, job, from).await?) {
            entries.push(JournalEntry { position, node_name: name_of(&reader, writer)?, event });
        }
        Ok((entries, total))
    }

    async fn read_journal(
        &self,
        reader: &StateReader,
        job: JobId,
        from: u32,
    ) -> Result<Vec<(Option<NodeId>, Payload)>, Error> {
        let mut records = Vec::new();
        let mut position = from;
        loop {
            let page =
                jobs::journal(reader, job, position, RECORDS_PER_READ).map_err(Error::store("read a journal"))?;
            let is_last = page.len() < RECORDS_PER_READ;
            position = position.saturating_add(u32::try_from(page.len()).unwrap_or(u32::MAX));
            for record in page {
                let event = match record.event {
                    Content::Inline(payload) => payload,
                    blob => self.group().read_content(blob).await?,
                };
                records.push((record.node, event));
            }
            if is_last {
                return Ok(records);
            }
        }
    }

    /// Follows a job.
    pub fn watch(&self, job: JobId) -> JobWatch {
        let watchers = self.watchers().clone();
        let changes = watchers.watch(job);
        JobWatch { node: self.clone(), watchers, job, changes, last: None }
    }
}

fn brief(reader: &StateReader, job: JobId, row: Job, spec: JobSpec) -> Result<JobView, Error> {
    let node_name = name_of(reader, row.node)?;
    let reason = row.reason.as_ref().map(ToString::to_string);
    Ok(JobView { job, row, spec, node_name, reason, input: None, output: None, error: None, tasks: Vec::new() })
}

/// The name of a node; its id if the site does not know it any more.
fn name_of(reader: &StateReader, node: Option<NodeId>) -> Result<Option<String>, Error> {
    let Some(node) = node else { return Ok(None) };
    let record = members::node(reader, node).map_err(Error::store("read a node"))?;
    Ok(Some(record.map_or_else(|| node.to_string(), |record| record.profile.name)))
}

fn replay(
    interpreter: &dyn Interpreter,
    job: JobId,
    definition: &Payload,
    input: &Payload,
    records: &[(Option<NodeId>, Payload)],
) -> Result<Vec<TaskReport>, ErrorObject> {
    let mut machine = interpreter.begin(job, definition.as_slice(), input.as_slice())?;
    for (_, record) in records {
        let event: Event = serde_json::from_slice(record.as_slice())
            .map_err(|error| ErrorObject::standard("runtime", 500, "journal damaged", error.to_string()))?;
        machine.apply(&event);
    }
    Ok(machine.tasks())
}
