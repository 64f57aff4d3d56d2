//! What became of a job's tasks: its journal replayed by the interpreter, and what only the job's row knows laid over it.
//!
//! The interpreter knows nothing of operators, leases and lost robots: for it a task of a cancelled job still runs.

use fleet_api::pb::v1;
use fleet_core::{Error, ErrorKind, JobId, NodeId};
use fleet_store::StateReader;
use fleet_store::record::{Job, JobSpec, JobState};
use fleet_store::state::jobs as state;
use fleet_workflow::machine::event::Event;
use fleet_workflow::machine::{Machine, TaskReport, TaskState, on_big_stack};

use super::contents::{Contents, Names, Records};
use crate::ports::InterpreterPort;
use crate::site::read_failed;

/// A job's interpreter, as far as the journal was applied.
pub(super) struct Replay {
    job: JobId,
    /// Absent if this version cannot read the definition: then the job has no tasks to show.
    machine: Option<Machine>,
    /// The node that wrote each record applied so far.
    nodes: Vec<Option<NodeId>>,
}

impl Replay {
    /// The interpreter of `job` before its first record.
    pub(super) async fn begin(
        contents: &Contents,
        interpreter: &InterpreterPort,
        reader: &StateReader,
        job: JobId,
        spec: &JobSpec,
    ) -> Result<Self, Error> {
        let definition = state::definition(reader, spec.definition).map_err(read_failed)?;
        let input = state::input(reader, job).map_err(read_failed)?;
        let (Some(definition), Some(input)) = (definition, input) else {
            return Ok(Self { job, machine: None, nodes: Vec::new() });
        };
        let (definition, input) = (contents.read(definition).await?, contents.read(input).await?);
        let interpreter = interpreter.clone();
        let machine = with_big_stack(job, move || interpreter.machine(job, &definition, &input).ok()).await?;
        Ok(Self { job, machine, nodes: Vec::new() })
    }

    /// Applies what was journaled since the last time, and gives the tasks of the job whose row is `row`.
    pub(super) async fn tasks(
        &mut self,
        contents: &Contents,
        reader: &StateReader,
        row: &Job,
        names: &Names,
    ) -> Result<Vec<v1::Task>, Error> {
        let from = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let mut records = Records::from(reader, self.job, from);
        loop {
            let more = records.more()?;
            if more.is_empty() {
                break;
            }
            let (mut nodes, mut events) = (Vec::new(), Vec::new());
            for (_, record) in more {
                nodes.push(record.node);
                events.push(contents.event(record).await?);
            }
            self.apply(events).await?;
            self.nodes.append(&mut nodes);
        }
        let reports = self.machine.as_ref().map(Machine::tasks).unwrap_or_default();
        Ok(reports.into_iter().map(|report| task(report, &self.nodes, row, names)).collect())
    }

    async fn apply(&mut self, events: Vec<Event>) -> Result<(), Error> {
        let Some(mut machine) = self.machine.take() else { return Ok(()) };
        let applied = with_big_stack(self.job, move || {
            for event in &events {
                machine.apply(event);
            }
            machine
        });
        self.machine = Some(applied.await?);
        Ok(())
    }
}

/// Runs the interpreter of `job` where it has all the stack it may need.
async fn with_big_stack<T: Send + 'static>(job: JobId, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Internal, format!("replay job {job}")).with_source(source)
    };
    let done = tokio::task::spawn_blocking(move || on_big_stack(work)).await;
    done.map_err(|source| failed(source.into()))?.map_err(|source| failed(source.into()))
}

/// A task's phase by the job's `row`: what runs or waits for the interpreter is held with its job, and ends with it.
fn phase(state: TaskState, row: &Job) -> TaskState {
    match state {
        TaskState::Running | TaskState::Waiting if row.state.is_ended() => TaskState::Cancelled,
        TaskState::Running | TaskState::Waiting if row.state == JobState::Suspended => TaskState::Suspended,
        state => state,
    }
}

fn task(report: TaskReport, nodes: &[Option<NodeId>], row: &Job, names: &Names) -> v1::Task {
    let json = |value: Option<serde_json::Value>| value.map(|value| value.to_string().into_bytes()).unwrap_or_default();
    let event = report.last_event.and_then(|event| usize::try_from(event).ok());
    let recorded = event.and_then(|event| nodes.get(event).copied().flatten());
    // The journal tells who moved a task last; whoever runs it now is the one that has the job.
    let node = if report.state == TaskState::Running { row.node.or(recorded) } else { recorded };
    let state = phase(report.state, row);
    let cut_off = row.ended_at.filter(|_| state != report.state).map(|at| at.0);
    v1::Task {
        task: report.pointer,
        name: report.name,
        state: state.as_str().to_owned(),
        runs: u32::try_from(report.runs).unwrap_or(u32::MAX),
        attempt: report.attempt,
        node: names.of_some(node),
        started_ms: report.started_ms.unwrap_or(0),
        ended_ms: report.ended_ms.or(cut_off).unwrap_or(0),
        input: json(report.input),
        output: json(report.output),
        error: report.error.and_then(|error| serde_json::to_vec(&error).ok()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::Timestamp;

    use super::*;

    const US: NodeId = NodeId::from_bytes([1; 16]);

    fn report(state: TaskState) -> TaskReport {
        TaskReport {
            pointer: "/do/0/a".to_owned(),
            name: "a".to_owned(),
            state,
            runs: 0,
            attempt: 1,
            number: None,
            started_ms: Some(1),
            ended_ms: None,
            input: None,
            output: None,
            error: None,
            last_event: Some(0),
        }
    }

    fn shown(state: TaskState, job: JobState) -> v1::Task {
        let ended_at = job.is_ended().then_some(Timestamp(9));
        let row = Job { state: job, ended_at, node: Some(US), ..Job::queued(1, 10, Timestamp(1)) };
        task(report(state), &[None], &row, &Names::default())
    }

    #[test]
    fn no_task_of_an_ended_or_paused_job_seems_to_run() {
        for job in [JobState::Cancelled, JobState::TimedOut, JobState::DeadLettered, JobState::Failed] {
            for state in [TaskState::Running, TaskState::Waiting] {
                let task = shown(state, job);
                assert_eq!((task.state.as_str(), task.ended_ms), ("cancelled", 9), "{state:?} of {job:?}");
            }
            assert_eq!(shown(TaskState::Completed, job).state, "completed");
            assert_eq!(shown(TaskState::Pending, job).state, "pending");
        }
        let task = shown(TaskState::Running, JobState::Suspended);
        assert_eq!((task.state.as_str(), task.ended_ms), ("suspended", 0));
        assert_eq!(shown(TaskState::Waiting, JobState::Waiting).state, "waiting");
    }

    #[test]
    fn whoever_has_the_job_runs_what_runs() {
        assert_eq!(shown(TaskState::Running, JobState::Running).node, US.to_string());
        assert_eq!(shown(TaskState::Completed, JobState::Running).node, "", "the journal's node counts for what ended");
    }
}
