//! The judge: holds what clients were told, what was done, and what the outside saw against the promises 1 to 4 and 8 to
//! 10 of `docs/guarantees.md`. Pure, but for [`finish`] and those named after it, which wait for the end of a run first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::JobId;
use fleet_core::invariant::Invariant;

use super::cluster::Cluster;
use super::history::{History, Holding, Told, View, read_jobs, read_outputs, read_view};
use super::recorder::{Recorder, Request};
use super::wait::until;

/// A disturbance this long before a job was seen may still move it: the holder's death was not known yet.
const DISTURBANCE_LASTS: Duration = Duration::from_secs(15);
/// How long nodes may take to agree once all jobs have ended.
const AGREEMENT_BOUND: Duration = Duration::from_secs(20);

/// How often a job's robot may be lost before the job is given up, unless its workflow says otherwise (`maxLost`).
const LOST_MAX: u32 = 5;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How.
    pub detail: String,
}

/// The promise `invariant` is broken, as `detail` says.
pub fn violation(invariant: Invariant, detail: String) -> Violation {
    Violation { invariant, detail }
}

/// Waits until every job of `history` that exists has ended and the running nodes agree, then judges.
pub async fn finish_and_judge(cluster: &Cluster, history: &History, recorder: &Recorder, bound: Duration) {
    finish_and_judge_site(cluster, &cluster.up(), history, recorder, bound).await;
}

/// The same for the jobs of one site, which has the nodes `asked`.
pub async fn finish_and_judge_site(
    cluster: &Cluster,
    asked: &[usize],
    history: &History,
    recorder: &Recorder,
    bound: Duration,
) {
    let violations = finish(cluster, asked, history, recorder, bound).await;
    assert!(violations.is_empty(), "broken promises: {violations:#?}");
}

/// The same, and gives what is broken.
pub async fn finish(
    cluster: &Cluster,
    asked: &[usize],
    history: &History,
    recorder: &Recorder,
    bound: Duration,
) -> Vec<Violation> {
    let client = cluster.client_of(asked);
    let jobs = until("every job to end", bound, || {
        let client = client.clone();
        async move {
            let jobs = read_jobs(&client, history).await;
            let open: Vec<String> = jobs
                .iter()
                .filter(|(_, job)| job.ended_ms == 0)
                .map(|(id, job)| {
                    format!("{id} {} on `{}`, assignment {} ({})", job.state, job.node, job.attempt, job.reason)
                })
                .collect();
            if open.is_empty() { Ok(jobs) } else { Err(open.join(", ")) }
        }
    })
    .await;
    let mut jobs = jobs;
    read_outputs(&client, history, &mut jobs).await;
    let mut history = history.clone();
    history.views.extend(settled_views(cluster, asked).await);
    judge(&history, &jobs, &recorder.requests())
}

/// What the running nodes say, as soon as they agree; what they say last, if they do not.
async fn settled_views(cluster: &Cluster, asked: &[usize]) -> Vec<View> {
    let clients: Vec<FleetClient> = asked.iter().map(|index| cluster.client_of(&[*index])).collect();
    let deadline = Instant::now() + AGREEMENT_BOUND;
    until("every node to say how it sees its site", AGREEMENT_BOUND * 2, || {
        let clients = clients.clone();
        async move {
            let mut views = Vec::new();
            for client in &clients {
                views.push(read_view(client).await?);
            }
            let is_settled = judge_views(&views).is_none() || Instant::now() > deadline;
            if is_settled { Ok(views) } else { Err(format!("{views:?}")) }
        }
    })
    .await
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
        violations.extend(judge_repeats(*job_id, job, steps, &own));
        violations.extend(judge_commits(*job_id, job, &own));
        violations.extend(judge_turns(*job_id, job, &own));
        violations.extend(history.outputs.get(job_id).and_then(|output| judge_output(*job_id, job, output)));
    }
    violations.extend(history.holdings.iter().filter_map(|holding| judge_blink(history, holding, jobs)));
    violations.extend(judge_views(&history.views));
    violations
}

fn judge_acceptance(job_id: JobId, told: Told, job: Option<&v1::Job>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut broken = |invariant, detail: String| violations.push(violation(invariant, detail));
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
            violations.push(violation(Invariant::NoFinishedEffectRunsAgain, detail));
        }
    }
    if job.is_some_and(|job| job.state == "completed") {
        for step in steps.iter().filter(|step| !own.iter().any(|request| request.step == **step)) {
            let detail = format!("job {job_id} completed and nobody saw {step}");
            violations.push(violation(Invariant::NoFinishedEffectRunsAgain, detail));
        }
    }
    violations
}

/// Promise 9 by effects: whoever acts does so by a committed assignment, so the log knows the job of every effect, and
/// assigned it at least as often as there were nodes that acted for it.
fn judge_commits(job_id: JobId, job: Option<&v1::Job>, own: &[&Request]) -> Option<Violation> {
    let first = own.first()?;
    let Some(job) = job else {
        let detail = format!("{} was seen and the log has no job {job_id}", first.key);
        return Some(violation(Invariant::GossipLeadsLogGuards, detail));
    };
    let actors: BTreeSet<&str> =
        own.iter().map(|request| request.node.as_str()).filter(|node| !node.is_empty()).collect();
    let needed = actors.len().max(1);
    if (job.attempt as usize) < needed {
        let detail = format!("job {job_id} was assigned {} times and {actors:?} acted for it", job.attempt);
        return Some(violation(Invariant::GossipLeadsLogGuards, detail));
    }
    None
}

/// Where requests say which node sent them: a node that acts after another one had taken over does so by an assignment of
/// its own, so there were at least as many assignments as turns.
fn judge_turns(job_id: JobId, job: Option<&v1::Job>, own: &[&Request]) -> Option<Violation> {
    let mut turns: Vec<&str> =
        own.iter().map(|request| request.node.as_str()).filter(|node| !node.is_empty()).collect();
    turns.dedup();
    let assigned = job?.attempt as usize;
    let detail = format!("job {job_id} was assigned {assigned} times, and in turn {turns:?} acted for it");
    let is_former = turns.iter().enumerate().any(|(turn, node)| turns[..turn].contains(node));
    (is_former && turns.len() > assigned).then(|| violation(Invariant::AtMostOneActor, detail))
}

/// Steps that run in a row are made once each, and each assignment that was lost leaves one of them in flight.
fn judge_repeats(job_id: JobId, job: Option<&v1::Job>, steps: &[String], own: &[&Request]) -> Option<Violation> {
    let lost = (job?.attempt as usize).saturating_sub(1);
    if steps.is_empty() || own.len() <= steps.len() + lost {
        return None;
    }
    let seen: Vec<(&str, &str)> = own.iter().map(|request| (request.step.as_str(), request.node.as_str())).collect();
    let detail = format!("job {job_id} has {} steps and lost {lost} assignments; seen: {seen:?}", steps.len());
    Some(violation(Invariant::NoFinishedEffectRunsAgain, detail))
}

fn judge_output(job_id: JobId, job: Option<&v1::Job>, expected: &serde_json::Value) -> Option<Violation> {
    let job = job?;
    let output: Option<serde_json::Value> = serde_json::from_slice(&job.output).ok();
    // A job whose robot was lost too often says so: that is an end that it may have.
    let is_given_up = job.state == "dead_lettered" && job.attempt > LOST_MAX;
    if is_given_up || job.state == "completed" && output.as_ref() == Some(expected) {
        return None;
    }
    let (error, output) = (String::from_utf8_lossy(&job.error), String::from_utf8_lossy(&job.output));
    let detail = format!("job {job_id} is {} with `{output}` instead of {expected} ({error})", job.state);
    Some(violation(Invariant::EveryJobEndsOrSaysWhyNot, detail))
}

/// Promise 8: a job is assigned anew only if the node that had it was itself disturbed.
fn judge_blink(history: &History, holding: &Holding, jobs: &BTreeMap<JobId, v1::Job>) -> Option<Violation> {
    let job = jobs.get(&holding.job)?;
    let ended = holding.seen + Duration::from_millis(job.ended_ms.saturating_sub(holding.seen_ms));
    let while_it_ran = |at: Instant| at + DISTURBANCE_LASTS >= holding.seen && at <= ended;
    let is_excused = history.disturbances.iter().any(|(node, at)| *node == holding.node && while_it_ran(*at));
    if is_excused || (job.attempt == holding.attempt && job.node == holding.node) {
        return None;
    }
    let detail = format!(
        "job {} was on {} (assignment {}) {:.1?} before the end, which nobody touched, and ended on {} (assignment {})",
        holding.job,
        holding.node,
        holding.attempt,
        holding.seen.elapsed(),
        job.node,
        job.attempt
    );
    Some(violation(Invariant::ControlBlinkRestartsNothing, detail))
}

/// Promise 9 by state: what nodes have applied comes from one log, so once healed they say the same.
fn judge_views(views: &[View]) -> Option<Violation> {
    let first = views.first()?;
    let unlike = views.iter().find(|view| View { node: first.node.clone(), ..(*view).clone() } != *first)?;
    Some(violation(Invariant::GossipLeadsLogGuards, format!("nodes disagree: {first:?} and {unlike:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(job: JobId, step: &str, node: &str, at_ms: u64, start: Instant) -> Request {
        Request {
            step: step.to_owned(),
            key: format!("{job}/{step}"),
            node: node.to_owned(),
            arrived: start + Duration::from_millis(at_ms),
            answered: None,
        }
    }

    fn ended(state: &str, attempt: u32) -> v1::Job {
        v1::Job { state: state.to_owned(), ended_ms: 1, attempt, node: "x".to_owned(), ..v1::Job::default() }
    }

    fn names(violations: &[Violation]) -> Vec<Invariant> {
        violations.iter().map(|violation| violation.invariant).collect()
    }

    fn accepted(job: JobId) -> History {
        let steps = vec!["a".to_owned(), "b".to_owned()];
        History { submits: vec![(job, Told::Accepted, steps)], ..History::default() }
    }

    #[test]
    fn the_judge_sees_each_kind_of_fault_and_nothing_else() {
        let (job, start) = (JobId::generate(), Instant::now());
        let history = accepted(job);
        let good = BTreeMap::from([(job, ended("completed", 2))]);
        let in_order =
            [request(job, "a", "", 0, start), request(job, "a", "", 5, start), request(job, "b", "", 9, start)];
        assert_eq!(judge(&history, &good, &in_order), Vec::new(), "a step may run again before the next began");

        assert_eq!(names(&judge(&history, &BTreeMap::new(), &[])), [Invariant::DurableAccept]);
        let running = v1::Job { state: "running".to_owned(), attempt: 2, ..v1::Job::default() };
        let running = BTreeMap::from([(job, running)]);
        assert_eq!(names(&judge(&history, &running, &in_order)), [Invariant::EveryJobEndsOrSaysWhyNot]);
        let again = [request(job, "a", "", 0, start), request(job, "b", "", 5, start), request(job, "a", "", 9, start)];
        assert_eq!(names(&judge(&history, &good, &again)), [Invariant::NoFinishedEffectRunsAgain]);
        let unseen = [request(job, "a", "", 0, start)];
        assert_eq!(names(&judge(&history, &good, &unseen)), [Invariant::NoFinishedEffectRunsAgain]);
        let thrice = [("a", 0), ("a", 5), ("a", 7), ("b", 9)].map(|(step, at)| request(job, step, "", at, start));
        assert_eq!(names(&judge(&history, &good, &thrice)), [Invariant::NoFinishedEffectRunsAgain]);
        let refused = Told::Refused(fleet_core::ErrorKind::InvalidInput);
        let refused = History { submits: vec![(job, refused, Vec::new())], ..History::default() };
        assert_eq!(names(&judge(&refused, &good, &[])), [Invariant::BadInputIsRefusedWhole]);
    }

    #[test]
    fn a_node_acts_again_only_by_an_assignment_of_its_own() {
        let (job, start) = (JobId::generate(), Instant::now());
        let mut history = accepted(job);
        history.submits[0].2.clear();
        let turns = ["x", "y", "x"].map(|node| request(job, "a", node, 0, start));
        let judged = |attempt| judge(&history, &BTreeMap::from([(job, ended("completed", attempt))]), &turns);
        assert_eq!(judged(3), Vec::new());
        assert_eq!(names(&judged(2)), [Invariant::AtMostOneActor]);
    }

    #[test]
    fn a_job_gives_what_it_must() {
        let job = JobId::generate();
        let mut history = accepted(job);
        history.submits[0].2.clear();
        history.outputs.insert(job, serde_json::json!(["a", "b"]));
        let judged = |state: &str, output: &str| {
            let job_now = v1::Job { output: output.into(), ..ended(state, 1) };
            names(&judge(&history, &BTreeMap::from([(job, job_now)]), &[]))
        };
        assert_eq!(judged("completed", r#"["a","b"]"#), []);
        for (state, output) in [("completed", r#"["b"]"#), ("completed", ""), ("failed", "")] {
            assert_eq!(judged(state, output), [Invariant::EveryJobEndsOrSaysWhyNot]);
        }
        assert_eq!(judged("dead_lettered", "").len(), 1, "its robot was never lost");
        let given_up = BTreeMap::from([(job, ended("dead_lettered", 6))]);
        assert_eq!(judge(&history, &given_up, &[]), []);
    }

    #[test]
    fn work_that_moves_without_its_nodes_fault_breaks_promise_8() {
        let (job, start) = (JobId::generate(), Instant::now());
        let seen = start + Duration::from_secs(60);
        let mut history = accepted(job);
        history.submits[0].2.clear();
        history.holdings.push(Holding { job, node: "x".to_owned(), attempt: 1, seen, seen_ms: 0 });
        history.disturbances.push(("the leader".to_owned(), seen));
        history.disturbances.push(("x".to_owned(), start));
        let undisturbed = BTreeMap::from([(job, ended("completed", 1))]);
        assert_eq!(judge(&history, &undisturbed, &[]), Vec::new());
        let moved = BTreeMap::from([(job, v1::Job { ended_ms: 5_000, ..ended("completed", 2) })]);
        assert_eq!(names(&judge(&history, &moved, &[])), [Invariant::ControlBlinkRestartsNothing]);
        history.disturbances.push(("x".to_owned(), seen + Duration::from_secs(6)));
        assert_eq!(names(&judge(&history, &moved, &[])).len(), 1, "it had ended by then");
        for excuse in [seen + Duration::from_secs(1), seen - Duration::from_secs(1)] {
            let mut excused = history.clone();
            excused.disturbances.push(("x".to_owned(), excuse));
            assert_eq!(judge(&excused, &moved, &[]), Vec::new(), "its own node was disturbed");
        }
    }

    #[test]
    fn acting_or_knowing_beside_the_log_breaks_promise_9() {
        let (job, start) = (JobId::generate(), Instant::now());
        let unknown = History { submits: vec![(job, Told::Unknown, Vec::new())], ..History::default() };
        let acted = [request(job, "a", "x", 0, start), request(job, "b", "y", 5, start)];
        let guards = [Invariant::GossipLeadsLogGuards];
        assert_eq!(names(&judge(&unknown, &BTreeMap::new(), &acted)), guards, "an effect of a job nobody committed");
        let once = BTreeMap::from([(job, ended("completed", 1))]);
        assert_eq!(names(&judge(&unknown, &once, &acted)), guards, "two nodes acted by one assignment");
        assert_eq!(judge(&unknown, &once, &acted[..1]), Vec::new());
        let twice = BTreeMap::from([(job, ended("completed", 2))]);
        assert_eq!(judge(&unknown, &twice, &acted), Vec::new());

        let view = View { node: "x".to_owned(), epoch: 1, ..View::default() };
        let same = View { node: "y".to_owned(), ..view.clone() };
        let other = View { jobs: BTreeMap::from([("completed".to_owned(), 1)]), ..same.clone() };
        let seen = |views: [View; 2]| History { views: views.to_vec(), ..History::default() };
        assert_eq!(judge(&seen([view.clone(), same]), &BTreeMap::new(), &[]), Vec::new());
        assert_eq!(names(&judge(&seen([view, other]), &BTreeMap::new(), &[])), guards);
    }
}
