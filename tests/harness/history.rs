//! What clients were told and what the outside saw, and a judge that holds both against the promises.
//!
//! A write whose answer never came is *unknown*: it may or may not have happened, and the judge accepts either.

use std::collections::{BTreeMap, BTreeSet};

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::invariant::Invariant;
use fleet_core::{ErrorKind, JobId};

use super::recorder::Request;

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

/// Submits of one run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Each job with what its client was told and the steps it makes, in order.
    pub submits: Vec<(JobId, Told, Vec<String>)>,
}

impl History {
    /// Submits `workflow`, whose effects are the calls `steps` in this order, and notes what came back.
    pub async fn submit(&mut self, client: &FleetClient, workflow: Vec<u8>, steps: Vec<String>) -> (JobId, Told) {
        let job = JobId::generate();
        let request = v1::SubmitRequest { job_id: job.as_bytes().to_vec(), workflow, ..v1::SubmitRequest::default() };
        let told = match client.submit(request).await {
            Ok(_) => Told::Accepted,
            Err(error) if matches!(error.kind, ErrorKind::InvalidInput | ErrorKind::ResourceExhausted) => {
                Told::Refused(error.kind)
            }
            Err(_) => Told::Unknown,
        };
        self.submits.push((job, told, steps));
        (job, told)
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How.
    pub detail: String,
}

/// Judges a run after everything was healed and had time to finish: `jobs` are the jobs as the fleet tells them now,
/// `requests` what the outside saw.
pub fn judge(history: &History, jobs: &BTreeMap<JobId, v1::Job>, requests: &[Request]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (job_id, told, steps) in &history.submits {
        let job = jobs.get(job_id);
        violations.extend(judge_acceptance(*job_id, *told, job));
        let own: Vec<&Request> =
            requests.iter().filter(|request| request.key.starts_with(&job_id.to_string())).collect();
        violations.extend(judge_effects(*job_id, job, steps, &own));
    }
    violations.extend(judge_actors(requests));
    violations
}

fn judge_acceptance(job_id: JobId, told: Told, job: Option<&v1::Job>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut broken = |invariant, detail: String| violations.push(Violation { invariant, detail });
    match (told, job) {
        (Told::Accepted, None) => broken(Invariant::DurableAccept, format!("job {job_id} was accepted and is gone")),
        (Told::Refused(kind), Some(_)) => {
            broken(Invariant::BadInputIsRefusedWhole, format!("job {job_id} was refused ({kind}) and exists"));
        }
        (_, Some(job)) if job.ended_ms == 0 => {
            let detail = format!("job {job_id} is {} on `{}` ({})", job.state, job.node, job.reason);
            broken(Invariant::EveryJobEndsOrSaysWhyNot, detail);
        }
        _ => {}
    }
    violations
}

/// Steps run in a row, so the first request of a later step proves that the earlier one was in the journal: from then on
/// the earlier one must not be seen again.
fn judge_effects(job_id: JobId, job: Option<&v1::Job>, steps: &[String], own: &[&Request]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for pair in steps.windows(2) {
        let Some(next) = own.iter().find(|request| request.step == pair[1]) else { continue };
        for late in own.iter().filter(|request| request.step == pair[0] && request.arrived > next.arrived) {
            let detail = format!("job {job_id} ran {} again after {} had begun ({})", pair[0], pair[1], late.key);
            violations.push(Violation { invariant: Invariant::NoFinishedEffectRunsAgain, detail });
        }
    }
    if job.is_some_and(|job| job.state == "completed") {
        for step in steps.iter().filter(|step| !own.iter().any(|request| request.step == **step)) {
            let detail = format!("job {job_id} completed and nobody saw {step}");
            violations.push(Violation { invariant: Invariant::NoFinishedEffectRunsAgain, detail });
        }
    }
    violations
}

/// Where requests say which node sent them: once another node acts under the same key, the earlier one must be silent.
fn judge_actors(requests: &[Request]) -> Vec<Violation> {
    let mut holder: BTreeMap<&str, &str> = BTreeMap::new();
    let mut former: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut violations = Vec::new();
    for request in requests.iter().filter(|request| !request.node.is_empty()) {
        let (key, node) = (request.key.as_str(), request.node.as_str());
        if former.contains(&(key, node)) {
            let detail = format!("{node} acts under {key} after another node took over");
            violations.push(Violation { invariant: Invariant::AtMostOneActor, detail });
        } else if let Some(previous) = holder.insert(key, node)
            && previous != node
        {
            former.insert((key, previous));
        }
    }
    violations
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn request(job: JobId, step: &str, node: &str, at_ms: u64, start: Instant) -> Request {
        Request {
            step: step.to_owned(),
            key: format!("{job}/{step}"),
            node: node.to_owned(),
            arrived: start + Duration::from_millis(at_ms),
            answered: None,
        }
    }

    fn ended(state: &str) -> v1::Job {
        v1::Job { state: state.to_owned(), ended_ms: 1, ..v1::Job::default() }
    }

    fn names(violations: &[Violation]) -> Vec<Invariant> {
        violations.iter().map(|violation| violation.invariant).collect()
    }

    #[test]
    fn the_judge_sees_each_kind_of_fault_and_nothing_else() {
        let (job, start) = (JobId::generate(), Instant::now());
        let steps = vec!["a".to_owned(), "b".to_owned()];
        let history = History { submits: vec![(job, Told::Accepted, steps)] };
        let good = BTreeMap::from([(job, ended("completed"))]);
        let in_order =
            [request(job, "a", "", 0, start), request(job, "a", "", 5, start), request(job, "b", "", 9, start)];
        assert_eq!(judge(&history, &good, &in_order), Vec::new(), "a step may run again before the next began");

        assert_eq!(names(&judge(&history, &BTreeMap::new(), &in_order)), [Invariant::DurableAccept]);
        let running = BTreeMap::from([(job, v1::Job { state: "running".to_owned(), ..v1::Job::default() })]);
        assert_eq!(names(&judge(&history, &running, &in_order)), [Invariant::EveryJobEndsOrSaysWhyNot]);
        let again = [request(job, "a", "", 0, start), request(job, "b", "", 5, start), request(job, "a", "", 9, start)];
        assert_eq!(names(&judge(&history, &good, &again)), [Invariant::NoFinishedEffectRunsAgain]);
        let unseen = [request(job, "a", "", 0, start)];
        assert_eq!(names(&judge(&history, &good, &unseen)), [Invariant::NoFinishedEffectRunsAgain]);
        let two_actors = [
            request(job, "b", "x", 0, start),
            request(job, "b", "y", 5, start),
            request(job, "b", "x", 9, start),
            request(job, "a", "", 0, start),
        ];
        assert_eq!(names(&judge(&history, &good, &two_actors)), [Invariant::AtMostOneActor]);
    }
}
