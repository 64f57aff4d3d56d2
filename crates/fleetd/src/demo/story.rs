//! The demo, scene by scene.

use std::path::Path;
use std::time::{Duration, Instant};

use fleet_api::pb::v1;
use fleet_api::{ClientOptions, FleetClient};
use fleet_core::{Error, ErrorKind, JobId};

use super::processes::{NodeProcess, Place, free_ports};
use super::recorder::Recorder;
use super::report;
use crate::cli::DemoFlags;

/// The workflow that is shown.
const WORKFLOW: &str = include_str!("../../../../docs/examples/demo.yaml");
const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
/// How long each step takes at the recorder: long enough to be watched and to be hit in the middle.
const STEP_DURATION: Duration = Duration::from_millis(1_200);
const SLOTS: u32 = 2;
/// Steps that must have finished before the kill.
const STEPS_BEFORE_KILL: usize = 2;
const START_BOUND: Duration = Duration::from_secs(30);
const JOB_BOUND: Duration = Duration::from_secs(45);
const STOP_BOUND: Duration = Duration::from_secs(5);
/// How often the demo looks at the fleet while it waits.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Tells the story to standard output, with the seconds since it began.
struct Teller {
    began: Instant,
}

impl Teller {
    #[expect(clippy::print_stdout, reason = "the demo's output is for people at a terminal")]
    fn say(&self, text: &str) {
        println!("{:6.1} s  {text}", self.began.elapsed().as_secs_f64());
    }
}

/// Runs the demo. `true` means that every promise it shows was kept.
///
/// # Errors
/// If a node cannot be started or reached; every process is ended in any case.
pub async fn run_demo(flags: &DemoFlags) -> Result<bool, Error> {
    let failed =
        |source: std::io::Error| Error::new(ErrorKind::Internal, "make a temporary directory").with_source(source);
    let root = tempfile::Builder::new().prefix("fleet-demo-").tempdir().map_err(failed)?;
    let teller = Teller { began: Instant::now() };
    let outcome = tokio::select! {
        outcome = tell(root.path(), &teller) => outcome,
        _ = tokio::signal::ctrl_c() => Err(Error::new(ErrorKind::Unavailable, "the demo was interrupted")),
    };
    if flags.keep {
        teller.say(&format!("Data and logs are kept in {}.", root.keep().display()));
    }
    outcome
}

async fn tell(root: &Path, teller: &Teller) -> Result<bool, Error> {
    let mut nodes = start_nodes(root, teller).await?;
    let recorder = Recorder::start(STEP_DURATION)
        .await
        .map_err(|source| Error::new(ErrorKind::Unavailable, "start the demo's recorder").with_source(source))?;
    let verdict = run_job(&mut nodes, &recorder, teller).await;
    for node in &mut nodes {
        node.stop(STOP_BOUND).await;
    }
    verdict
}

/// Starts the three nodes and waits until all of them vote.
async fn start_nodes(root: &Path, teller: &Teller) -> Result<Vec<NodeProcess>, Error> {
    let ports = free_ports(2 * NAMES.len())?;
    let places: Vec<Place> = NAMES
        .iter()
        .enumerate()
        .map(|(number, name)| Place::new(root, name, ports[2 * number], ports[2 * number + 1]))
        .collect();
    let seed = places[0].endpoint();
    let mut nodes: Vec<NodeProcess> = Vec::with_capacity(places.len());
    for place in places {
        let line = if nodes.is_empty() { "founds a fleet" } else { "joins" };
        teller.say(&format!("Node {} {line} ({}).", place.name, place.endpoint()));
        let is_founder = nodes.is_empty();
        nodes.push(NodeProcess::start(place, (!is_founder).then_some(seed.as_str()), SLOTS)?);
        if is_founder {
            wait_for_voters(&mut nodes, 1).await?;
        }
    }
    wait_for_voters(&mut nodes, NAMES.len()).await?;
    teller.say("All three vote: any one of them may die.");
    Ok(nodes)
}

async fn wait_for_voters(nodes: &mut [NodeProcess], wanted: usize) -> Result<(), Error> {
    let client = client(&[nodes[0].place.endpoint()], Duration::from_secs(2))?;
    let deadline = Instant::now() + START_BOUND;
    loop {
        let status = client.get_status(v1::GetStatusRequest {}).await;
        let voters = status.as_ref().ok().and_then(|status| status.site.as_ref()).map_or(0, |site| site.voters.len());
        if voters >= wanted {
            return Ok(());
        }
        if let Some(ended) = nodes.iter_mut().find_map(|node| node.has_ended().then_some(&*node)) {
            let message = format!("node {} ended:\n{}", ended.place.name, ended.log_tail());
            return Err(Error::new(ErrorKind::Internal, message));
        }
        if Instant::now() > deadline {
            let last = status.map_or_else(|error| error.to_string(), |_| format!("{voters} voters"));
            let message = format!("wait for {wanted} voters: {last}\n{}", nodes[0].log_tail());
            return Err(Error::new(ErrorKind::DeadlineExceeded, message));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Submits the workflow, kills its node in the middle, and judges the end.
async fn run_job(nodes: &mut [NodeProcess], recorder: &Recorder, teller: &Teller) -> Result<bool, Error> {
    let endpoints: Vec<String> = nodes.iter().map(|node| node.place.endpoint()).collect();
    let all = client(&endpoints, Duration::from_secs(20))?;
    let job_id = JobId::generate();
    let request = v1::SubmitRequest {
        job_id: job_id.as_bytes().to_vec(),
        workflow: WORKFLOW.as_bytes().to_vec(),
        input: serde_json::json!({ "recorder": recorder.url() }).to_string().into_bytes(),
        ..v1::SubmitRequest::default()
    };
    all.submit(request).await?;
    teller.say(&format!("Job {job_id} is accepted: it is on the disks of a majority."));

    let before = follow(&all, job_id, teller, |job| finished_tasks(job).len() >= STEPS_BEFORE_KILL).await?;
    let (victim, finished) = (before.node.clone(), finished_tasks(&before));
    let Some(position) = nodes.iter().position(|node| node.place.name == victim) else {
        return Err(Error::new(ErrorKind::Internal, format!("job {job_id} runs on an unknown node `{victim}`")));
    };
    nodes[position].kill().await?;
    teller.say(&format!("Node {victim}, which runs it, is killed with SIGKILL."));

    let living: Vec<String> = endpoints
        .iter()
        .enumerate()
        .filter(|(number, _)| *number != position)
        .map(|(_, endpoint)| endpoint.clone())
        .collect();
    let all = client(&living, Duration::from_secs(20))?;
    let job = follow(&all, job_id, teller, |job| job.ended_ms != 0).await?;
    let verdict = report::judge(&job, &finished, &victim, &recorder.seen());
    teller.say(&format!("The job is {} on {}, after {} assignments.\n", job.state, job.node, job.attempt));
    print_table(&report::table(&verdict, &victim).to_string());
    for fault in &verdict.faults {
        teller.say(&format!("FAULT: {fault}"));
    }
    if verdict.faults.is_empty() {
        teller.say("No finished task ran twice.");
    }
    Ok(verdict.faults.is_empty())
}

#[expect(clippy::print_stdout, reason = "the demo's output is for people at a terminal")]
fn print_table(text: &str) {
    println!("{text}\n");
}

fn finished_tasks(job: &v1::Job) -> Vec<String> {
    job.tasks.iter().filter(|task| task.state == "completed").map(|task| task.name.clone()).collect()
}

/// Looks at the job until `done`, telling each step as it ends and each change of node.
async fn follow(
    client: &FleetClient,
    job_id: JobId,
    teller: &Teller,
    done: impl Fn(&v1::Job) -> bool,
) -> Result<v1::Job, Error> {
    let deadline = Instant::now() + JOB_BOUND;
    let mut told: Option<(String, String, usize)> = None;
    loop {
        let job = client.get_job(v1::GetJobRequest { job: job_id.to_string(), ..v1::GetJobRequest::default() }).await?;
        let finished = finished_tasks(&job);
        let now = (job.state.clone(), job.node.clone(), finished.len());
        if told.as_ref() != Some(&now) {
            let steps = if finished.is_empty() { "nothing yet".to_owned() } else { finished.join(", ") };
            let place = if job.node.is_empty() { String::new() } else { format!(" on {}", job.node) };
            teller.say(&format!("  {}{place}; finished: {steps}", job.state));
            told = Some(now);
        }
        if done(&job) {
            return Ok(job);
        }
        if Instant::now() > deadline || job.ended_ms != 0 {
            let message = format!("follow job {job_id}: it is {} ({})", job.state, job.reason);
            return Err(Error::new(ErrorKind::DeadlineExceeded, message));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A client of the demo's development fleet.
fn client(endpoints: &[String], deadline: Duration) -> Result<FleetClient, Error> {
    FleetClient::new(ClientOptions {
        endpoints: endpoints.to_vec(),
        deadline,
        try_timeout: Duration::from_secs(2),
        ..ClientOptions::default()
    })
}
