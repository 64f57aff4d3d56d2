//! `top`: nodes and unfinished jobs, live on a terminal; one sample elsewhere.

use std::io::{self, IsTerminal};
use std::time::Duration;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::execute;
use crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use fleet_api::pb::v1;
use fleet_core::{Clock, Error, SystemClock, Timestamp};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use crate::commands::{job, node, status};
use crate::error::{Failure, internal};
use crate::render::{self, Format};
use crate::session::Session;
use crate::view;

/// How often the screen changes.
const PERIOD: Duration = Duration::from_secs(1);
/// Jobs shown.
const JOBS_MAX: u32 = 20;
/// The states of a job that has not ended.
const UNFINISHED: [&str; 7] = ["queued", "assigned", "running", "waiting", "suspended", "stopping", "transferring"];

/// What one look shows.
struct Sample {
    at: Timestamp,
    status: v1::Status,
    nodes: Vec<v1::Node>,
    jobs: Vec<v1::Job>,
}

pub(crate) async fn run(session: &Session) -> Result<(), Failure> {
    if session.format == Format::Table && io::stdout().is_terminal() {
        return live(session).await;
    }
    let sample = session.ask(Box::pin(look(session))).await?;
    Ok(render::data(session.format, &sample.value(), || sample.text())?)
}

async fn look(session: &Session) -> Result<Sample, Error> {
    let client = session.client();
    let request = v1::ListJobsRequest {
        states: UNFINISHED.map(str::to_owned).to_vec(),
        limit: JOBS_MAX,
        ..v1::ListJobsRequest::default()
    };
    let (status, nodes, jobs) = tokio::try_join!(
        client.get_status(v1::GetStatusRequest {}),
        client.list_nodes(v1::ListNodesRequest {}),
        client.list_jobs(request),
    )?;
    Ok(Sample { at: SystemClock.now(), status, nodes: nodes.nodes, jobs: jobs.jobs })
}

impl Sample {
    fn value(&self) -> Value {
        json!({
            "at": self.at.to_string(),
            "status": view::status(&self.status),
            "nodes": self.nodes.iter().map(view::node).collect::<Vec<_>>(),
            "jobs": self.jobs.iter().map(view::job).collect::<Vec<_>>(),
        })
    }

    fn text(&self) -> String {
        let status = status::text(&self.status);
        format!("{}\n\n{status}\n\n{}\n\n{}", self.at, node::table(&self.nodes), job::table(&self.jobs))
    }
}

/// Shows one sample after the other until Ctrl-C, and leaves the terminal as it was.
async fn live(session: &Session) -> Result<(), Failure> {
    let _screen = Screen::open()?;
    let mut tick = interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = None;
    loop {
        tokio::select! {
            stop = tokio::signal::ctrl_c() => {
                return stop.map_err(|source| internal("listen for Ctrl-C", source).into());
            }
            _ = tick.tick() => {}
        }
        let notice = tokio::select! {
            stop = tokio::signal::ctrl_c() => {
                return stop.map_err(|source| internal("listen for Ctrl-C", source).into());
            }
            sample = Box::pin(look(session)) => match sample {
                Ok(sample) => {
                    last = Some(sample);
                    String::new()
                }
                Err(error) => format!("no answer: {error}\n\n"),
            },
        };
        let text = last.as_ref().map(Sample::text).unwrap_or_default();
        draw(&format!("{notice}{text}"))?;
    }
}

fn draw(text: &str) -> Result<(), Error> {
    let height = crossterm::terminal::size().map_or(24, |(_, rows)| usize::from(rows));
    let lines: Vec<_> = text.lines().take(height.saturating_sub(1)).collect();
    execute!(io::stdout(), MoveTo(0, 0), Clear(ClearType::All)).map_err(|source| internal("draw", source))?;
    render::line(&lines.join("\n"))
}

/// The terminal's second screen, left when dropped.
struct Screen;

impl Screen {
    fn open() -> Result<Self, Error> {
        execute!(io::stdout(), EnterAlternateScreen, Hide).map_err(|source| internal("open the screen", source))?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
    }
}
