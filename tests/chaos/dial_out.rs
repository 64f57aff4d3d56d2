//! Two sites, one of which can only dial out: no UDP between them, and no connection that begins at the other one. Each
//! sends the other jobs while the link is cut and lossy and leaders of both die; each job must run once, where it was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fleet_api::FleetClient;
use fleet_api::pb::v1;
use fleet_core::JobId;

use crate::harness::history::{History, read_jobs};
use crate::harness::judge::finish_and_judge_site;
use crate::harness::seed::Random;
use crate::harness::wait::until;
use crate::load::{Load, PATIENCE};
use crate::network::{Cut, Packets};
use crate::plan::{Fault, Victim};
use crate::run::{FINISH_BOUND, length, repeat};
use crate::stage::{PORTS, Stage};
use crate::stalls::Stalls;

/// Clients of each site.
const CLIENTS: usize = 2;
/// The sites, and how many nodes each has.
const SITES: [(&str, u32); 2] = [("default", 3), ("plant", 3)];
/// How many of a hundred packets a bad link loses.
const LOSS_PERCENT: u32 = 20;
/// How long the last cut holds, milliseconds.
const LAST_CUT_MS: u64 = 15_000;
/// How long a healed fleet may take until its sites see each other, and accept jobs for each other.
const HEAL_BOUND: Duration = Duration::from_secs(60);

/// No job is under way to another site.
const IS_TAKEN: fn(&v1::ListOutboxResponse) -> bool = |outbox| outbox.waiting == 0;
/// Nor open there.
const IS_EMPTY: fn(&v1::ListOutboxResponse) -> bool = |outbox| outbox.waiting == 0 && outbox.jobs.is_empty();

/// What happens to the link, or beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Nothing passes between the sites.
    Cut,
    /// Much is lost between them.
    Loss,
    /// SIGKILL to who leads this site, and a start.
    KillLeader(usize),
}

/// Troubles that begin together after a pause and are taken away together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    pause_ms: u64,
    troubles: Vec<Trouble>,
    hold_ms: u64,
}

/// The steps of `length_ms`: rounds in which each trouble comes once, now and then with a second one; then one long cut.
fn plan(random: &mut Random, length_ms: u64) -> Vec<Step> {
    const ALL: [Trouble; 4] = [Trouble::Cut, Trouble::Loss, Trouble::KillLeader(0), Trouble::KillLeader(1)];
    let mut left_ms = length_ms.saturating_sub(LAST_CUT_MS);
    let (mut steps, mut round) = (Vec::new(), Vec::new());
    loop {
        if round.is_empty() {
            round = ALL.to_vec();
        }
        let first = round.remove(random.below(round.len()));
        let second = ALL[random.below(ALL.len())];
        let troubles = if random.below(3) == 0 && second != first { vec![first, second] } else { vec![first] };
        let pause_ms = 500 + random.below(1_500) as u64;
        let hold_ms = 1_000 + random.below(7_000) as u64;
        if pause_ms + hold_ms > left_ms {
            break;
        }
        left_ms -= pause_ms + hold_ms;
        steps.push(Step { pause_ms, troubles, hold_ms });
    }
    steps.push(Step { pause_ms: 500, troubles: vec![Trouble::Cut], hold_ms: LAST_CUT_MS });
    steps
}

/// The indices of each site's nodes.
fn nodes_of_sites() -> [Vec<usize>; 2] {
    let first = SITES[0].1 as usize;
    [(0..first).collect(), (first..first + SITES[1].1 as usize).collect()]
}

/// What never passes: UDP either way, and dials to the plant.
fn walls([first, plant]: &[Vec<usize>; 2]) -> [Cut; 3] {
    let wall =
        |from: &[usize], to: &[usize], packets| Cut { from: from.to_vec(), to: to.to_vec(), percent: 100, packets };
    [wall(first, plant, Packets::Udp), wall(plant, first, Packets::Udp), wall(first, plant, Packets::Dials)]
}

/// Jobs go both ways while all this happens.
pub(crate) async fn transfers_under_faults(small_seconds: u64) {
    repeat("dial-out", async |seed| transfers_once(seed, length(small_seconds)).await).await;
}

async fn transfers_once(seed: u64, length: Duration) {
    let sites = nodes_of_sites();
    let steps = plan(&mut Random::new(seed), u64::try_from(length.as_millis()).expect("a run has an end"));
    let mut stage = Stage::of_sites("dial-out", &SITES, false, &walls(&sites)).await;
    let [first, plant] = [sites[0][0], sites[1][0]];
    let (out, inwards) = (stage.network.can_dial(plant, first, PORTS.0), stage.network.can_dial(first, plant, PORTS.0));
    assert_eq!((out, inwards), (true, false), "the plant dials out, and nobody dials in");
    eprintln!("figure dial-out sites see each other after {:.1?} from the start", sites_alive(&stage, &sites).await);
    let load_at = |own: usize, other: usize| {
        let nodes = sites[own].iter().map(|node| stage.cluster.client_with(&[*node], PATIENCE, PATIENCE)).collect();
        Load::start(SITES[own].0, SITES[other].0, nodes, stage.recorder.url(), CLIENTS, seed)
    };
    let loads = [load_at(0, 1), load_at(1, 0)];
    let stalls = Stalls::start();
    for step in &steps {
        carry_out(&mut stage, &sites, step).await;
        if step == steps.last().expect("there is one") {
            let missing = nodes_without_other_site(&stage).await;
            eprintln!(
                "figure dial-out {missing} of {} nodes hold the other site silent before the end of the last cut",
                stage.len()
            );
        }
        stage.heal().await;
    }
    measure_heal(&stage, &sites, &loads).await;
    let [first, plant] = loads;
    let histories = tokio::join!(first.finish(), plant.finish());
    let ended = Instant::now();
    for (what, is_reached) in [("taken by the other site", IS_TAKEN), ("ended, as their submitters see it,", IS_EMPTY)]
    {
        for node in 0..stage.len() {
            until_outbox(&stage, node, is_reached).await;
        }
        eprintln!("figure dial-out all jobs {what} {:.1?} after the last submit", ended.elapsed());
    }
    eprintln!("figure dial-out seed {seed}: {}", stalls.summary());
    for ((history, own), other) in [histories.0, histories.1].iter().zip([0, 1]).zip([1, 0]) {
        finish_and_judge_site(&stage.cluster, &sites[own], history, &stage.recorder, FINISH_BOUND).await;
        judge_places(&stage, history, &sites[own], &sites[other], SITES[other].0).await;
    }
    eprintln!(
        "figure dial-out seed {seed}: {} steps, {} requests outside",
        steps.len(),
        stage.recorder.requests().len()
    );
}

async fn carry_out(stage: &mut Stage, sites: &[Vec<usize>; 2], step: &Step) {
    tokio::time::sleep(Duration::from_millis(step.pause_ms)).await;
    let mut faults = Vec::new();
    for trouble in &step.troubles {
        faults.push(match trouble {
            Trouble::Cut => Fault::CutSide(sites[1].clone()),
            Trouble::Loss => Fault::LossBetween(sites[1].clone(), LOSS_PERCENT),
            Trouble::KillLeader(site) => Fault::Kill(Victim::Node(stage.leader_of(&sites[*site]).await)),
        });
    }
    stage.strike(&faults).await;
    tokio::time::sleep(Duration::from_millis(step.hold_ms)).await;
}

/// How many nodes say now that the other site is not alive.
async fn nodes_without_other_site(stage: &Stage) -> usize {
    let mut missing = 0;
    for node in 0..stage.len() {
        let client = stage.cluster.client_with(&[node], PATIENCE, PATIENCE);
        let sites = client.list_sites(v1::ListSitesRequest {}).await.expect("a node that runs answers").sites;
        missing += usize::from(sites.iter().any(|site| !site.own && site.state != "alive"));
    }
    missing
}

/// How long a healed fleet takes until its sites see each other, and until each node accepts a job for the other site.
async fn measure_heal(stage: &Stage, sites: &[Vec<usize>; 2], loads: &[Load; 2]) {
    let healed = Instant::now();
    let accepting = async |site: usize| {
        let own: Vec<usize> = (0..sites[site].len()).collect();
        loads[site].submit_to_each(0, &own, HEAL_BOUND).await;
        healed.elapsed()
    };
    let (alive, first, plant) = tokio::join!(sites_alive(stage, sites), accepting(0), accepting(1));
    eprintln!(
        "figure dial-out healed: every node of both sites sees the other site alive after {alive:.1?}; a submit for the \
         other site to each node of default after {first:.1?}, of plant after {plant:.1?}"
    );
}

/// How long it takes until every node says that the other site is alive.
async fn sites_alive(stage: &Stage, sites: &[Vec<usize>; 2]) -> Duration {
    let began = Instant::now();
    for node in sites.iter().flatten() {
        let client = stage.cluster.client_with(&[*node], PATIENCE, PATIENCE);
        until(&format!("node-{} to see the other site alive", node + 1), HEAL_BOUND, || async {
            let answer = client.list_sites(v1::ListSitesRequest {}).await.map_err(|error| error.to_string())?;
            let other = answer.sites.iter().find(|site| !site.own);
            if other.is_some_and(|site| site.state == "alive") { Ok(()) } else { Err(format!("{:?}", answer.sites)) }
        })
        .await;
        eprintln!("node-{} sees the other site alive after {:.1?}", node + 1, began.elapsed());
    }
    began.elapsed()
}

/// Waits until the outbox of its site is as wanted, as `node` sees it.
async fn until_outbox(stage: &Stage, node: usize, is_wanted: fn(&v1::ListOutboxResponse) -> bool) {
    let client: FleetClient = stage.cluster.client_with(&[node], PATIENCE, PATIENCE);
    until(&format!("the outbox as node-{} sees it", node + 1), FINISH_BOUND, || async {
        let answer = client.list_outbox(v1::ListOutboxRequest::default()).await;
        let outbox = answer.map_err(|error| error.to_string())?;
        if is_wanted(&outbox) { Ok(()) } else { Err(format!("{outbox:?}")) }
    })
    .await;
}

/// Every job completed at site `target` and was done by its nodes `there` only, and both sites tell the same of it.
async fn judge_places(stage: &Stage, history: &History, here: &[usize], there: &[usize], target: &str) {
    let jobs = read_jobs(&stage.cluster.client_of(here), history).await;
    let jobs_there = read_jobs(&stage.cluster.client_of(there), history).await;
    let names: BTreeSet<&str> = there.iter().map(|node| stage.cluster.nodes[*node].name.as_str()).collect();
    let mut actors: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for request in stage.recorder.requests() {
        let job = request.key.get(..JobId::generate().to_string().len()).unwrap_or_default().to_owned();
        actors.entry(job).or_default().insert(request.node);
    }
    let mut broken = Vec::new();
    for (id, job) in &jobs {
        let acted = actors.get(&id.to_string()).cloned().unwrap_or_default();
        if acted.is_empty() || acted.iter().any(|node| !names.contains(node.as_str())) {
            broken.push(format!("job {id} is for {target} and {acted:?} acted for it"));
        }
        if job.state != "completed" || job.site != target {
            broken.push(format!("job {id} is {} at {} ({})", job.state, job.site, job.reason));
        }
        let told = |job: &v1::Job| (job.state.clone(), job.node.clone(), job.attempt);
        if jobs_there.get(id).map(told) != Some(told(job)) {
            broken.push(format!("job {id} is told of as {job:?} and at its site as {:?}", jobs_there.get(id)));
        }
    }
    eprintln!(
        "figure dial-out {} jobs for {target}, {} of them assigned more than once",
        jobs.len(),
        jobs.values().filter(|job| job.attempt > 1).count()
    );
    assert_eq!(jobs.len(), history.submits.len(), "each key is one job");
    assert!(broken.is_empty(), "{broken:#?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_every_trouble_keeps_its_length_and_ends_with_a_long_cut() {
        for seed in 0..50 {
            let steps = plan(&mut Random::new(seed), 60_000);
            assert_eq!(steps, plan(&mut Random::new(seed), 60_000), "seed {seed}");
            assert!(steps.iter().map(|step| step.pause_ms + step.hold_ms).sum::<u64>() <= 60_500, "seed {seed}");
            for trouble in [Trouble::Cut, Trouble::Loss, Trouble::KillLeader(0), Trouble::KillLeader(1)] {
                assert!(steps.iter().any(|step| step.troubles.contains(&trouble)), "seed {seed}: {trouble:?}");
            }
            assert_eq!(steps.last().expect("there is one").hold_ms, LAST_CUT_MS);
        }
    }
}
