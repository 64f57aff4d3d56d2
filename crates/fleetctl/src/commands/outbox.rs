//! `outbox`: jobs on their way to other sites, or at one.

use clap::Subcommand;
use fleet_api::pb::v1;
use serde_json::{Value, json};

use crate::commands::confirm_or_refuse;
use crate::error::Failure;
use crate::session::Session;
use crate::{render, view};

/// Jobs asked for at a time while all of a site are brought back.
const PAGE: u32 = 1_000;

/// Verbs of `outbox`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Jobs that wait for other sites, or are at one and have not ended
    List {
        /// Only jobs for this site
        #[arg(long)]
        site: Option<String>,
        /// At most this many, 1 to 1000
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Go on where a list ended: its `next`
        #[arg(long, value_name = "NEXT")]
        page: Option<String>,
    },
    /// Give up the site where a job went, because it is lost for good, and queue the job here. It may run at both.
    Abandon {
        /// Id of the job, or a unique beginning of it
        #[arg(required_unless_present = "site", conflicts_with = "site")]
        job: Option<String>,
        /// All jobs for this site
        #[arg(long)]
        site: Option<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { site, limit, page } => list(session, site, limit, page).await,
        Command::Abandon { job: Some(job), yes, .. } => {
            warn(yes, &format!("Bring job {job} back? If the other site has it, it may run at both."))?;
            let done = abandon(session, job).await?;
            let text = || format!("{} {}", view::job_id(&done.job_id).unwrap_or_default(), done.state);
            let value = json!({"jobId": view::job_id(&done.job_id), "state": done.state});
            Ok(render::data(session.format, &value, text)?)
        }
        Command::Abandon { site, yes, .. } => abandon_all(session, site.unwrap_or_default(), yes).await,
    }
}

/// `job recall`: asks for a job back that is under way.
pub(crate) async fn recall(session: &Session, job: String) -> Result<(), Failure> {
    let asked = session.ask(session.client().recall_job(v1::RecallRequest { job })).await?;
    let job_id = view::job_id(&asked.job_id).unwrap_or_default();
    let value = json!({"jobId": job_id, "state": asked.state});
    render::data(session.format, &value, || format!("{job_id} {}", asked.state))?;
    render::say("It comes back if the other site has not accepted it yet; `job get` tells once that is known.");
    Ok(())
}

async fn list(session: &Session, site: Option<String>, limit: u32, page: Option<String>) -> Result<(), Failure> {
    let after = match page {
        None => Vec::new(),
        Some(page) => {
            let parsed: Result<fleet_core::JobId, _> = page.parse();
            let parsed = parsed.map_err(|_| crate::error::invalid(format!("`{page}` is not the `next` of a list")))?;
            parsed.as_bytes().to_vec()
        }
    };
    let request = v1::ListOutboxRequest { site: site.unwrap_or_default(), limit, after };
    let response = session.ask(session.client().list_outbox(request)).await?;
    let next = view::job_id(&response.next);
    let jobs: Vec<Value> = response.jobs.iter().map(row).collect();
    let value = json!({"jobs": jobs, "waiting": response.waiting, "next": next});
    render::data(session.format, &value, || {
        let rows = response.jobs.iter().map(|job| {
            vec![
                view::job_id(&job.job_id).unwrap_or_default(),
                job.workflow.clone(),
                job.site.clone(),
                job.state.clone(),
                if job.accepted { "yes" } else { "no" }.to_owned(),
                view::time(job.since_ms).unwrap_or_default(),
                job.wish.clone(),
                job.reason.clone(),
            ]
        });
        render::table(&["JOB", "WORKFLOW", "SITE", "STATE", "ACCEPTED", "SINCE", "WISH", "REASON"], rows)
    })?;
    if let (render::Format::Table, Some(next)) = (session.format, next) {
        render::say(&format!("There are more: --page {next}"));
    }
    Ok(())
}

fn row(job: &v1::OutboxJob) -> Value {
    json!({
        "jobId": view::job_id(&job.job_id),
        "workflow": job.workflow,
        "site": job.site,
        "state": job.state,
        "accepted": job.accepted,
        "generation": job.generation,
        "since": view::time(job.since_ms),
        "wish": (!job.wish.is_empty()).then_some(&job.wish),
        "reason": (!job.reason.is_empty()).then_some(&job.reason),
    })
}

fn warn(yes: bool, question: &str) -> Result<(), Failure> {
    confirm_or_refuse(yes, question, "--yes")
}

async fn abandon(session: &Session, job: String) -> Result<v1::AbandonResponse, Failure> {
    Ok(session.ask(session.client().abandon_move(v1::AbandonRequest { job })).await?)
}

/// Brings back every job of a site that is lost.
async fn abandon_all(session: &Session, site: String, yes: bool) -> Result<(), Failure> {
    warn(yes, &format!("Bring all jobs for site {site} back? Those that it has may run at both."))?;
    let (mut done, mut after) = (0_u64, Vec::new());
    loop {
        let request = v1::ListOutboxRequest { site: site.clone(), limit: PAGE, after };
        let page = session.ask(session.client().list_outbox(request)).await?;
        for job in &page.jobs {
            abandon(session, view::job_id(&job.job_id).unwrap_or_default()).await?;
            done += 1;
        }
        after = page.next;
        if after.is_empty() {
            break;
        }
    }
    let text = || format!("{done} jobs are queued here again.");
    Ok(render::data(session.format, &json!({"site": site, "jobs": done}), text)?)
}
