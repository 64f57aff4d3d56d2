//! Jobs as people see them, read from the state: the row, what was asked for and what came of it, the journal, the logs.
//! Every answer stops at the bound of a page and says where the next one begins.

use fleet_api::pb::v1;
use fleet_core::{Error, ErrorKind, JobId, SiteName, Timestamp};
use fleet_store::StateReader;
use fleet_store::record::{Content, Ending, Job, JobSpec, JobState, Mirror, Reason};
use fleet_store::state::jobs as state;
use fleet_store::state::listing::{Filter, Found, Listed, find, list, listed};
use fleet_workflow::machine::event::{ErrorObject, Event};
use prost::Message;

use super::contents::{Contents, Names, Records};
use super::page::{Room, page_items};
use super::tasks::Replay;
use crate::ports::{InterpreterPort, job_logs};
use crate::site::{Site, not_found, read_failed};

/// Jobs of one page if nobody said how many.
const PAGE_DEFAULT: u32 = 50;
/// Bytes of a journal looked through for one page of logs, so that a journal without any is not read in one go.
const LOGS_READ_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Characters of an error that serve as a job's reason; the whole is in `error`.
const REASON_CHARACTERS_MAX: usize = 500;

/// Reads jobs of one site.
#[derive(Clone)]
pub(super) struct Jobs {
    contents: Contents,
    interpreter: InterpreterPort,
}

/// A job's row and what was asked for, as of one reader.
pub(super) struct Rows {
    pub(super) id: JobId,
    /// As it stands; for a job at another site, as that was last heard.
    pub(super) job: Job,
    pub(super) spec: JobSpec,
    /// Where it is, if it is at another site.
    elsewhere: Option<Elsewhere>,
}

/// Where a job is that went to another site.
struct Elsewhere {
    site: SiteName,
    node: String,
}

impl Rows {
    /// The other site that has the job, if one has.
    pub(super) fn other_site(&self) -> Option<&SiteName> {
        self.elsewhere.as_ref().map(|elsewhere| &elsewhere.site)
    }
}

/// A listed job as its row would be here, and where it is.
fn seen(listed: Listed) -> (Job, Option<Elsewhere>) {
    match listed {
        Listed::Here(job) => (job, None),
        Listed::Elsewhere(moved, Mirror { number, priority, created_at, standing, .. }) => {
            let reason = match standing.reason.as_str() {
                "" if standing.state.is_ended() => None,
                "" => Some(format!("at site {}", moved.to.site)),
                told => Some(told.to_owned()),
            };
            let job = Job {
                state: standing.state,
                generation: moved.generation,
                attempt: standing.attempt,
                started_at: standing.started_at,
                ended_at: standing.ended_at,
                reason: reason.map(Reason::Text),
                ..Job::queued(number, priority, created_at)
            };
            (job, Some(Elsewhere { site: moved.to.site, node: standing.node }))
        }
    }
}

impl Jobs {
    pub(super) fn new(site: Site, interpreter: InterpreterPort) -> Self {
        Self { contents: Contents::new(site), interpreter }
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

    pub(super) fn rows(&self, reader: &StateReader, id: JobId) -> Result<Rows, Error> {
        let unknown = || not_found("job", &id.to_string());
        let (job, elsewhere) = seen(listed(reader, id).map_err(read_failed)?.ok_or_else(unknown)?);
        let spec = state::spec(reader, id).map_err(read_failed)?.ok_or_else(unknown)?;
        Ok(Rows { id, job, spec, elsewhere })
    }

    /// The job without input, output and tasks.
    pub(super) async fn brief(&self, reader: &StateReader, rows: &Rows) -> Result<v1::Job, Error> {
        let mut view = row(rows.id, &rows.job, &rows.spec, rows.elsewhere.as_ref(), &self.contents.names()?);
        if let Some(Ending::Error(error)) = state::ending(reader, rows.id).map_err(read_failed)? {
            view.error = self.contents.read(error).await?;
            explain(&mut view);
        }
        Ok(view)
    }

    /// The job with its output, if it has one, and without input and tasks.
    pub(super) async fn result(&self, reader: &StateReader, rows: &Rows) -> Result<v1::Job, Error> {
        let mut view = self.brief(reader, rows).await?;
        if let Some(Ending::Output(output)) = state::ending(reader, rows.id).map_err(read_failed)? {
            view.output = self.contents.read(output).await?;
        }
        Ok(view)
    }

    /// The job as `request` asks for it: brief, whole with its first tasks, or with a later page of them.
    pub(super) async fn view(
        &self,
        reader: &StateReader,
        id: JobId,
        request: &v1::GetJobRequest,
    ) -> Result<v1::Job, Error> {
        let rows = self.rows(reader, id)?;
        if request.brief {
            return self.brief(reader, &rows).await;
        }
        let mut view = if request.tasks_from.is_some() {
            self.brief(reader, &rows).await?
        } else {
            let mut view = self.result(reader, &rows).await?;
            if let Some(input) = state::input(reader, id).map_err(read_failed)?.filter(|_| !request.outline) {
                view.input = self.contents.read(input).await?;
            }
            view
        };
        if rows.elsewhere.is_some() {
            // Only the site that has its journal knows its tasks.
            return Ok(view);
        }
        let mut replay = self.replay(reader, &rows).await?;
        let mut tasks = self.tasks(reader, &rows, &mut replay).await?;
        if request.outline {
            for task in &mut tasks {
                (task.input, task.output) = (Vec::new(), Vec::new());
            }
        }
        // A job's first word may wait for the end of its first effect.
        let first = tasks.iter().map(|task| task.started_ms).filter(|ms| *ms > 0).min();
        view.started_ms = first.map_or(view.started_ms, |first| first.min(view.started_ms));
        let from = request.tasks_from.unwrap_or(0);
        let skipped = tasks.len().min(usize::try_from(from).unwrap_or(usize::MAX));
        // A later page always has a task, or its reader would ask for it for ever.
        let mut room = Room::beside(if request.tasks_from.is_some() { 0 } else { view.encoded_len() });
        let taken = tasks.iter().skip(skipped).take_while(|task| room.takes(task.encoded_len())).count();
        view.tasks_next = (skipped + taken < tasks.len()).then(|| position(skipped + taken));
        view.tasks = tasks.drain(skipped..skipped + taken).collect();
        Ok(view)
    }

    /// The interpreter of a job before its first record.
    pub(super) async fn replay(&self, reader: &StateReader, rows: &Rows) -> Result<Replay, Error> {
        Replay::begin(&self.contents, &self.interpreter, reader, rows.id, &rows.spec).await
    }

    /// The tasks of a job by its `replay`, which is brought up to date.
    pub(super) async fn tasks(
        &self,
        reader: &StateReader,
        rows: &Rows,
        replay: &mut Replay,
    ) -> Result<Vec<v1::Task>, Error> {
        replay.tasks(&self.contents, reader, &rows.job, &self.names()?).await
    }

    fn names(&self) -> Result<Names, Error> {
        self.contents.names()
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
        let limit = page_items(request.limit, PAGE_DEFAULT, "jobs").map_err(refused)?;
        let workflow = (!request.workflow.is_empty()).then(|| request.workflow.clone());
        if let Some(wanted) = workflow.as_deref().filter(|wanted| !is_workflow_name(wanted)) {
            return Err(refused(format!("`{wanted}` is not NAMESPACE/NAME or NAMESPACE/NAME:VERSION")));
        }
        let filter = Filter { states, workflow };
        let page = list(reader, &filter, below, limit).map_err(read_failed)?;
        let names = self.names()?;
        let mut jobs = Vec::with_capacity(page.jobs.len());
        for (id, listed, spec) in page.jobs {
            let (job, elsewhere) = seen(listed);
            let mut view = row(id, &job, &spec, elsewhere.as_ref(), &names);
            // A list must not wait for blobs of other nodes: an error as large as that is left to `job get`.
            if let (None, Some(Ending::Error(Content::Inline(error)))) =
                (&job.reason, state::ending(reader, id).map_err(read_failed)?)
            {
                view.error = error.as_slice().to_vec();
                explain(&mut view);
                view.error.clear();
            }
            jobs.push(view);
        }
        Ok(v1::ListJobsResponse { jobs, next: page.next.map(|next| next.to_string()).unwrap_or_default() })
    }

    /// The records of the journal of a job that is here, from position `from`.
    pub(super) async fn journal(
        &self,
        reader: &StateReader,
        id: JobId,
        from: u32,
    ) -> Result<v1::GetJournalResponse, Error> {
        let job = self.rows(reader, id)?.job;
        let names = self.names()?;
        let (mut records, mut room) = (Vec::new(), Room::beside(0));
        let mut journal = Records::from(reader, id, from);
        loop {
            let more = journal.more()?;
            if more.is_empty() {
                return Ok(v1::GetJournalResponse { records, total: job.journal_length });
            }
            for (position, record) in more {
                let node = names.of_some(record.node);
                let record = v1::JournalRecord { position, node, event: self.contents.read(record.event).await? };
                if !room.takes(record.encoded_len()) {
                    return Ok(v1::GetJournalResponse { records, total: job.journal_length });
                }
                records.push(record);
            }
        }
    }

    /// What the processes of a job that is here printed, from position `from` of its journal.
    pub(super) async fn logs(&self, reader: &StateReader, id: JobId, from: u32) -> Result<v1::GetLogsResponse, Error> {
        let names = self.names()?;
        let (mut chunks, mut room, mut read_bytes) = (Vec::new(), Room::beside(0), 0);
        let mut journal = Records::from(reader, id, from);
        loop {
            let more = journal.more()?;
            if more.is_empty() {
                return Ok(v1::GetLogsResponse { chunks, next: None });
            }
            for (position, record) in more {
                if read_bytes > LOGS_READ_BYTES_MAX {
                    return Ok(v1::GetLogsResponse { chunks, next: Some(position) });
                }
                read_bytes += record.event.length();
                let node = names.of_some(record.node);
                let mut printed = printed(id, self.contents.event(record).await?, &node);
                if !room.takes(printed.iter().map(Message::encoded_len).sum()) {
                    return Ok(v1::GetLogsResponse { chunks, next: Some(position) });
                }
                chunks.append(&mut printed);
            }
        }
    }
}

/// What the effect of `job` printed that `event` tells the end of.
fn printed(job: JobId, event: Event, node: &str) -> Vec<v1::LogChunk> {
    let Event::EffectEnded { path, at_ms, stdout_tail, stderr_tail, .. } = event else { return Vec::new() };
    [("stdout", stdout_tail), ("stderr", stderr_tail)]
        .into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(stream, text)| v1::LogChunk {
            task: path.0.clone(),
            file: job_logs::file_of(job, &path.0, stream),
            stream: stream.to_owned(),
            text,
            at_ms,
            node: node.to_owned(),
        })
        .collect()
}

fn position(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn millis(at: Option<Timestamp>) -> u64 {
    at.map_or(0, |at| at.0)
}

fn row(id: JobId, job: &Job, spec: &JobSpec, elsewhere: Option<&Elsewhere>, names: &Names) -> v1::Job {
    v1::Job {
        job_id: id.as_bytes().to_vec(),
        retry_of: spec.retry_of.map(|job| job.as_bytes().to_vec()).unwrap_or_default(),
        workflow: spec.workflow.to_string(),
        site: elsewhere.map_or(&spec.site, |elsewhere| &elsewhere.site).to_string(),
        state: job.state.as_str().to_owned(),
        reason: job.reason.as_ref().map(ToString::to_string).unwrap_or_default(),
        node: elsewhere.map_or_else(|| names.of_some(job.node), |elsewhere| elsewhere.node.clone()),
        attempt: job.attempt,
        created_ms: job.created_at.0,
        started_ms: millis(job.started_at),
        ended_ms: millis(job.ended_at),
        priority: u32::from(job.priority),
        journal_length: job.journal_length,
        ..v1::Job::default()
    }
}

/// Gives a job that failed its error's title and detail as the reason, where its row has none.
fn explain(view: &mut v1::Job) {
    if !view.reason.is_empty() {
        return;
    }
    let Ok(error) = serde_json::from_slice::<ErrorObject>(&view.error) else { return };
    let words: Vec<String> =
        [error.title, error.detail].into_iter().flatten().filter(|word| !word.is_empty()).collect();
    let words = if words.is_empty() { error.type_uri } else { words.join(": ") };
    view.reason = words.chars().take(REASON_CHARACTERS_MAX).collect();
}

/// Whether `text` is `namespace/name` or `namespace/name:version`.
fn is_workflow_name(text: &str) -> bool {
    let (path, version) = text.split_once(':').map_or((text, None), |(path, version)| (path, Some(version)));
    let is_word = |word: &str| !word.is_empty() && !word.contains(['/', ':']);
    path.split_once('/').is_some_and(|(namespace, name)| is_word(namespace) && is_word(name))
        && version.is_none_or(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workflow_is_named_by_namespace_and_name_and_perhaps_a_version() {
        assert!(["a/b", "a/b:1.0.0", "a-1/b_2"].into_iter().all(is_workflow_name));
        assert!(!["", "a", "/b", "a/", "a/b:", "a/b:c:d", "a/b/c", ":1"].into_iter().any(is_workflow_name));
    }

    #[test]
    fn a_failed_job_has_its_errors_title_and_detail_as_reason_unless_its_row_has_one() {
        let error = br#"{"type":"t","status":500,"title":"boom","detail":"it broke"}"#.to_vec();
        let mut view = v1::Job { error: error.clone(), ..v1::Job::default() };
        explain(&mut view);
        assert_eq!(view.reason, "boom: it broke");
        let mut view = v1::Job { error, reason: "its time was over".to_owned(), ..v1::Job::default() };
        explain(&mut view);
        assert_eq!(view.reason, "its time was over");
        let long = format!(r#"{{"type":"t","status":500,"title":"{}"}}"#, "é".repeat(2 * REASON_CHARACTERS_MAX));
        let mut view = v1::Job { error: long.into_bytes(), ..v1::Job::default() };
        explain(&mut view);
        assert_eq!(view.reason.chars().count(), REASON_CHARACTERS_MAX);
    }
}
