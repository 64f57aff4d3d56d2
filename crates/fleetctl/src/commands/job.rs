//! `job`: what became of what was submitted, and how to steer it.

use clap::{Args, Subcommand};
use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::JobId;
use serde_json::{Value, json};

use crate::commands::follow::{Shown, completed, follow, why};
use crate::commands::{outbox, paging};
use crate::error::Failure;
use crate::session::Session;
use crate::{render, view};

/// States a job can be in.
const STATES: [&str; 12] = [
    "queued",
    "assigned",
    "running",
    "waiting",
    "suspended",
    "stopping",
    "transferring",
    "completed",
    "failed",
    "cancelled",
    "timed_out",
    "dead_lettered",
];

/// The job that a verb is about.
#[derive(Args, Debug)]
pub(crate) struct Which {
    /// Id, or a unique beginning of it
    job: String,
    /// The site to ask; no need for it where the job was submitted [default: that of the node asked]
    #[arg(long)]
    site: Option<String>,
}

impl Which {
    /// The client for calls about the job.
    fn client(&self, session: &Session) -> Result<FleetClient, Failure> {
        Ok(session.client_at(self.site.as_deref())?)
    }
}

/// Verbs of `job`. A job is named by its id or any unique beginning of it.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Jobs, newest first
    List {
        /// Only jobs in this state; may be repeated
        #[arg(long = "state", value_parser = STATES)]
        states: Vec<String>,
        /// Only jobs of this workflow
        #[arg(long, value_name = "NAMESPACE/NAME[:VERSION]")]
        workflow: Option<String>,
        /// At most this many, 1 to 1000
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Go on where a list ended: its `next`
        #[arg(long, value_name = "NEXT")]
        page: Option<String>,
        /// The site [default: that of the node asked]
        #[arg(long)]
        site: Option<String>,
    },
    /// One job with its tasks
    Get(Which),
    /// Show each change until the job ends; exit 1 if it did not complete
    Watch {
        /// The job
        #[command(flatten)]
        job: Which,
        /// Show the tasks too
        #[arg(short, long)]
        verbose: bool,
    },
    /// What the processes of a job printed: the last 64 KiB of each, and where all of it is
    Logs(Which),
    /// The durable record of what happened
    Journal(Which),
    /// End a job
    Cancel(Which),
    /// Ask for a job back that is under way to another site
    Recall {
        /// Id, or a unique beginning of it
        job: String,
    },
    /// Run an ended job's workflow and input again, as a new job
    Retry(Which),
    /// Stop a job before its next effect
    Pause(Which),
    /// Let a paused job go on
    Resume(Which),
}

pub(crate) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { states, workflow, limit, page, site } => {
            let (workflow, page) = (workflow.unwrap_or_default(), page.unwrap_or_default());
            let client = session.client_at(site.as_deref())?;
            list(session, &client, v1::ListJobsRequest { states, workflow, limit, page }).await
        }
        Command::Get(which) => {
            let client = which.client(session)?;
            let job = session.ask(paging::whole_job(&client, which.job)).await?;
            Ok(render::data(session.format, &view::job(&job), || details(&job))?)
        }
        Command::Watch { job, verbose } => {
            let client = job.client(session)?;
            let job = follow(session, &client, &job.job, Shown { changes: true, tasks: verbose }, None).await?;
            completed(&job)
        }
        Command::Recall { job } => outbox::recall(session, job).await,
        Command::Logs(which) => logs(session, which).await,
        Command::Journal(which) => journal(session, which).await,
        Command::Cancel(which) => control(session, which, v1::JobAction::Cancel).await,
        Command::Pause(which) => control(session, which, v1::JobAction::Pause).await,
        Command::Resume(which) => control(session, which, v1::JobAction::Resume).await,
        Command::Retry(which) => {
            let client = which.client(session)?;
            let new_job_id = JobId::generate().as_bytes().to_vec();
            let request = v1::RetryJobRequest { job: which.job, new_job_id };
            let response = session.ask(client.retry_job(request)).await?;
            let job_id = view::job_id(&response.job_id).unwrap_or_default();
            Ok(render::data(session.format, &json!({"jobId": job_id}), || job_id.clone())?)
        }
    }
}

async fn control(session: &Session, which: Which, action: v1::JobAction) -> Result<(), Failure> {
    let client = which.client(session)?;
    // One id for all tries of this call: the job obeys it once.
    let request_id = JobId::generate().as_bytes().to_vec();
    let request = v1::ControlJobRequest { job: which.job, action: action.into(), request_id };
    let job = session.ask(client.control_job(request)).await?;
    let text = || format!("{} {}", view::job_id(&job.job_id).unwrap_or_default(), job.state);
    Ok(render::data(session.format, &view::job(&job), text)?)
}

async fn list(session: &Session, client: &FleetClient, request: v1::ListJobsRequest) -> Result<(), Failure> {
    let response = session.ask(client.list_jobs(request)).await?;
    let next = (!response.next.is_empty()).then_some(&response.next);
    let value = json!({"jobs": response.jobs.iter().map(view::job).collect::<Vec<_>>(), "next": next});
    render::data(session.format, &value, || table(&response.jobs))?;
    if let (render::Format::Table, Some(next)) = (session.format, next) {
        render::say(&format!("There are more: --page {next}"));
    }
    Ok(())
}

/// Jobs for people; `top` shows them too.
pub(crate) fn table(jobs: &[v1::Job]) -> String {
    let rows = jobs.iter().map(|job| {
        vec![
            view::job_id(&job.job_id).unwrap_or_default(),
            job.workflow.clone(),
            job.site.clone(),
            job.state.clone(),
            job.node.clone(),
            view::time(job.created_ms).unwrap_or_default(),
            why(job).unwrap_or_default(),
        ]
    });
    render::table(&["JOB", "WORKFLOW", "SITE", "STATE", "NODE", "CREATED", "REASON"], rows)
}

fn details(job: &v1::Job) -> String {
    let mut rows = vec![
        ("job", view::job_id(&job.job_id).unwrap_or_default()),
        ("workflow", job.workflow.clone()),
        ("site", job.site.clone()),
        ("state", job.state.clone()),
    ];
    let optional = [
        ("retry of", view::job_id(&job.retry_of)),
        ("reason", why(job)),
        ("node", (!job.node.is_empty()).then(|| format!("{} (assigned {} times)", job.node, job.attempt))),
        ("created", view::time(job.created_ms)),
        ("started", view::time(job.started_ms)),
        ("ended", view::time(job.ended_ms)),
        ("input", compact(&job.input)),
        ("output", compact(&job.output)),
    ];
    rows.extend(optional.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))));
    let mut text = render::list(&rows);
    if !job.tasks.is_empty() {
        let rows = job.tasks.iter().map(|task| {
            let runs = if task.attempt > 1 {
                format!("{} (round {})", task.runs, task.attempt)
            } else {
                task.runs.to_string()
            };
            let ended = view::time(task.ended_ms).or_else(|| view::time(task.started_ms)).unwrap_or_default();
            vec![task.task.clone(), task.state.clone(), runs, task.node.clone(), ended]
        });
        text.push_str("\n\n");
        text.push_str(&render::table(&["TASK", "STATE", "RUNS", "NODE", "AT"], rows));
    }
    text
}

fn compact(bytes: &[u8]) -> Option<String> {
    match view::document(bytes) {
        Value::Null => None,
        value => Some(value.to_string()),
    }
}

async fn logs(session: &Session, which: Which) -> Result<(), Failure> {
    let client = which.client(session)?;
    let chunks = session.ask(paging::all_chunks(&client, which.job)).await?;
    let value = json!({"chunks": chunks.iter().map(view::log).collect::<Vec<_>>()});
    render::data(session.format, &value, || {
        let chunks = chunks.iter().map(|chunk| {
            let at = view::time(chunk.at_ms).unwrap_or_default();
            let end = if chunk.text.ends_with('\n') { "" } else { "\n" };
            let whole = format!("    all of it: DATA-DIR/{} on {}", chunk.file, chunk.node);
            format!("==> {} {} {at}\n{whole}\n{}{end}", chunk.task, chunk.stream, render::plain(&chunk.text))
        });
        chunks.collect()
    })?;
    Ok(())
}

async fn journal(session: &Session, which: Which) -> Result<(), Failure> {
    let client = which.client(session)?;
    let records = session.ask(paging::all_records(&client, which.job)).await?;
    let value = json!({"records": records.iter().map(view::record).collect::<Vec<_>>(), "total": records.len()});
    render::data(session.format, &value, || {
        let rows = records.iter().map(|record| {
            vec![record.position.to_string(), record.node.clone(), view::document(&record.event).to_string()]
        });
        render::table(&["#", "NODE", "EVENT"], rows)
    })?;
    Ok(())
}
