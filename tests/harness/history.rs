//! What clients were told, what was done to nodes, and what the fleet said of itself at the end: all that the judge needs
//! beside what the outside saw.
//!
//! A write whose answer never came is *unknown*: it may or may not have happened, and the judge accepts either.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::{Clock, ErrorKind, JobId, SystemClock};

/// What a client was told about a submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The job id came back.
    Accepted,
    /// An error that means nothing happened.
    Refused(ErrorKind),
    /// No answer, or one that leaves it open.
    Unknown,
}

/// A job that was seen on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The job.
    pub job: JobId,
    /// The node that had it.
    pub node: String,
    /// Its how-many-eth assignment that was.
    pub attempt: u32,
    /// When it was seen.
    pub seen: Instant,
    /// The same by the wall clock, in which the fleet tells when the job ended: milliseconds since 1970.
    pub seen_ms: u64,
}

impl Holding {
    /// `job` is on `node` now.
    pub fn now(job: JobId, node: String, attempt: u32) -> Self {
        Self { job, node, attempt, seen: Instant::now(), seen_ms: SystemClock.now().0 }
    }
}

/// What one node says of its site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The node that says so.
    pub node: String,
    /// The site's group.
    pub group: Vec<u8>,
    /// Its epoch.
    pub epoch: u64,
    /// Its voters, by name.
    pub voters: Vec<String>,
    /// Jobs by state, as this node has applied them.
    pub jobs: BTreeMap<String, u64>,
}

/// One run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Each job with what its client was told and the steps it makes, in order.
    pub submits: Vec<(JobId, Told, Vec<String>)>,
    /// What a job's output must be, where that is known beforehand; such a job may only complete.
    pub outputs: BTreeMap<JobId, serde_json::Value>,
    /// Jobs that a client cancelled or called back, or tried to: they may end so, and elsewhere.
    pub changed: BTreeSet<JobId>,
    /// Jobs seen on nodes. Only jobs that never park belong here: a parked one is assigned anew each time.
    pub holdings: Vec<Holding>,
    /// Nodes that were killed, frozen, stopped or woken, with the time.
    pub disturbances: Vec<(String, Instant)>,
    /// What each running node said once everything was healed; empty if nobody was asked.
    pub views: Vec<View>,
}

impl History {
    /// Submits `workflow`, whose effects are the calls `steps` in this order, and notes what came back.
    pub async fn submit(&mut self, client: &FleetClient, workflow: Vec<u8>, steps: Vec<String>) -> (JobId, Told) {
        let job = JobId::generate();
        let request = v1::SubmitRequest { job_id: job.as_bytes().to_vec(), workflow, ..v1::SubmitRequest::default() };
        let began = Instant::now();
        let told = match client.submit(request).await {
            Ok(_) => Told::Accepted,
            Err(error) => {
                let chain = fleet_core::error::chain(&error);
                eprintln!("job {job} was not accepted within {:?}: {chain}", began.elapsed());
                match error.kind {
                    kind @ (ErrorKind::InvalidInput | ErrorKind::ResourceExhausted) => Told::Refused(kind),
                    _ => Told::Unknown,
                }
            }
        };
        self.submits.push((job, told, steps));
        (job, told)
    }

    /// Notes which of its jobs are on which nodes now.
    pub async fn note_holdings(&mut self, client: &FleetClient) {
        for (job, row) in read_jobs(client, self).await {
            if row.state == "running" {
                self.holdings.push(Holding::now(job, row.node, row.attempt));
            }
        }
    }

    /// Notes that `node` was killed, frozen, stopped or woken just now.
    pub fn note_disturbance(&mut self, node: &str) {
        self.disturbances.push((node.to_owned(), Instant::now()));
    }

    /// How many submits were accepted.
    pub fn accepted(&self) -> usize {
        self.submits.iter().filter(|(_, told, _)| *told == Told::Accepted).count()
    }

    /// This history with that of another client.
    pub fn merge(&mut self, other: Self) {
        self.submits.extend(other.submits);
        self.outputs.extend(other.outputs);
        self.changed.extend(other.changed);
        self.holdings.extend(other.holdings);
        self.disturbances.extend(other.disturbances);
        self.views.extend(other.views);
    }
}

/// The jobs of `history` as the fleet tells them now; those it does not have are left out.
pub async fn read_jobs(client: &FleetClient, history: &History) -> BTreeMap<JobId, v1::Job> {
    let mut jobs = BTreeMap::new();
    for (job_id, _, _) in &history.submits {
        match client
            .get_job(v1::GetJobRequest { job: job_id.to_string(), brief: true, ..v1::GetJobRequest::default() })
            .await
        {
            Ok(job) => drop(jobs.insert(*job_id, job)),
            Err(error) => assert_eq!(error.kind, ErrorKind::NotFound, "read job {job_id}: {error}"),
        }
    }
    jobs
}

/// Adds to `jobs` what they gave, where `history` knows what that must be.
pub async fn read_outputs(client: &FleetClient, history: &History, jobs: &mut BTreeMap<JobId, v1::Job>) {
    for (job_id, job) in jobs.iter_mut().filter(|(job_id, _)| history.outputs.contains_key(job_id)) {
        let request = v1::GetJobRequest { job: job_id.to_string(), ..v1::GetJobRequest::default() };
        job.output = client.get_job(request).await.expect("a job that was just read is there").output;
    }
}

/// What the node behind `client` says of its site.
pub async fn read_view(client: &FleetClient) -> Result<View, String> {
    let status = client.get_status(v1::GetStatusRequest {}).await.map_err(|error| error.to_string())?;
    let site = status.site.ok_or_else(|| "no site".to_owned())?;
    let mut voters = site.voters;
    voters.sort();
    let jobs = status.jobs.into_iter().filter(|(_, count)| *count > 0).collect();
    Ok(View { node: status.node, group: site.group_id, epoch: site.epoch, voters, jobs })
}
