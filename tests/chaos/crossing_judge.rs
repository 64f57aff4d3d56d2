//! Where jobs that cross ran, and what both sites tell of them: the part of the judgement that only two sites have.

use std::collections::{BTreeMap, BTreeSet};

use fleet_api::pb::v1;
use fleet_core::JobId;
use fleet_core::invariant::Invariant;

use crate::harness::history::{History, read_jobs};
use crate::harness::judge::{Violation, violation};
use crate::stage::Stage;

/// What is broken of: every job ended at the site that it was sent to, was done by nodes of that site only, and both sites
/// tell the same of it. One that a client cancelled or called back may end so, at one of the two sites. Of both pairs the
/// first is of where jobs were submitted, the second of where they were sent.
pub(crate) async fn judge_places(
    stage: &Stage,
    history: &History,
    nodes: [&[usize]; 2],
    sites: [&str; 2],
) -> Vec<Violation> {
    let jobs = read_jobs(&stage.cluster.client_of(nodes[0]), history).await;
    let jobs_there = read_jobs(&stage.cluster.client_of(nodes[1]), history).await;
    let names = nodes.map(|nodes| nodes.iter().map(|node| stage.cluster.nodes[*node].name.clone()).collect());
    let mut actors: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for request in stage.recorder.requests() {
        let job = request.key.get(..JobId::generate().to_string().len()).unwrap_or_default().to_owned();
        actors.entry(job).or_default().insert(request.node);
    }
    let mut broken = Vec::new();
    for (id, job) in &jobs {
        let acted = actors.get(&id.to_string()).cloned().unwrap_or_default();
        let is_changed = history.changed.contains(id);
        broken.extend(judge_place(*id, job, jobs_there.get(id), &acted, &names, sites, is_changed));
    }
    let count = |is_so: fn(&v1::Job) -> bool| jobs.values().filter(|job| is_so(job)).count();
    eprintln!(
        "figure {} jobs for {}, {} of them assigned more than once, {} cancelled, {} of {} changed ones came back",
        jobs.len(),
        sites[1],
        count(|job| job.attempt > 1),
        count(|job| job.state == "cancelled"),
        jobs.values().filter(|job| job.site == sites[0]).count(),
        history.changed.len(),
    );
    if jobs.len() != history.submits.len() {
        let detail = format!("{} submits were accepted and there are {} jobs", history.submits.len(), jobs.len());
        broken.push(violation(Invariant::DurableAccept, detail));
    }
    broken
}

fn judge_place(
    id: JobId,
    job: &v1::Job,
    there: Option<&v1::Job>,
    acted: &BTreeSet<String>,
    names: &[BTreeSet<String>; 2],
    [own, target]: [&str; 2],
    is_changed: bool,
) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut breaks = |invariant, detail| broken.push(violation(invariant, detail));
    let is_back = job.site == own;
    let place = if is_back { &names[0] } else { &names[1] };
    if !acted.is_subset(place) || (acted.is_empty() && job.state == "completed") {
        breaks(
            Invariant::AtMostOneActor,
            format!("job {id} for {target} is at {} and {acted:?} acted for it", job.site),
        );
    }
    let may_end_so = job.state == "completed" || (is_changed && job.state == "cancelled");
    let may_be_there = job.site == target || (is_changed && is_back);
    if !may_end_so || !may_be_there {
        let detail = format!("job {id} for {target} is {} at {} ({})", job.state, job.site, job.reason);
        breaks(Invariant::EveryJobEndsOrSaysWhyNot, detail);
    }
    let told = |job: &v1::Job| (job.state.clone(), job.node.clone(), job.attempt);
    // What came back, or was cancelled before it arrived, the other site need not know.
    let must_know = !(is_back || (is_changed && acted.is_empty() && there.is_none()));
    if must_know && there.map(told) != Some(told(job)) {
        breaks(Invariant::GossipLeadsLogGuards, format!("job {id} is told of as {job:?} and at its site as {there:?}"));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: &str, site: &str) -> v1::Job {
        v1::Job { state: state.to_owned(), site: site.to_owned(), ..v1::Job::default() }
    }

    fn judged(job: &v1::Job, there: Option<&v1::Job>, acted: &[&str], is_changed: bool) -> Vec<Invariant> {
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let names = [set(&["a"]), set(&["x", "y"])];
        let broken = judge_place(JobId::generate(), job, there, &set(acted), &names, ["default", "plant"], is_changed);
        broken.into_iter().map(|violation| violation.invariant).collect()
    }

    #[test]
    fn a_job_runs_where_it_was_sent_and_is_told_of_alike() {
        let done = job("completed", "plant");
        assert_eq!(judged(&done, Some(&done), &["x", "y"], false), []);
        assert_eq!(judged(&done, Some(&done), &["a", "x"], false), [Invariant::AtMostOneActor]);
        assert_eq!(judged(&done, Some(&done), &[], false), [Invariant::AtMostOneActor]);
        assert_eq!(judged(&done, None, &["x"], false), [Invariant::GossipLeadsLogGuards]);
        let running = job("running", "plant");
        assert_eq!(judged(&done, Some(&running), &["x"], false), [Invariant::GossipLeadsLogGuards]);
        let back = job("completed", "default");
        assert_eq!(judged(&back, None, &["a"], false), [Invariant::EveryJobEndsOrSaysWhyNot], "nobody wanted it back");
    }

    #[test]
    fn a_job_that_was_called_back_or_cancelled_ends_at_one_site() {
        let (back, cancelled) = (job("completed", "default"), job("cancelled", "plant"));
        assert_eq!(judged(&back, None, &["a"], true), []);
        assert_eq!(judged(&back, None, &["a", "x"], true), [Invariant::AtMostOneActor]);
        assert_eq!(judged(&cancelled, Some(&cancelled), &["x"], true), []);
        assert_eq!(judged(&cancelled, None, &[], true), [], "it never arrived");
        assert_eq!(judged(&cancelled, Some(&cancelled), &["x"], false), [Invariant::EveryJobEndsOrSaysWhyNot]);
    }
}
