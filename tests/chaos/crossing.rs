//! Two sites that send each other jobs while the link between them and machines of both come and go: each job must run
//! once, where it was sent, and be told of alike at both. Only one of them may be able to dial: no UDP passes then, and no
//! connection that begins at the other one. Clients may cancel jobs and call them back while these are on their way.

use std::time::{Duration, Instant};

use fleet_api::FleetClient;
use fleet_api::pb::v1;

use crate::crossing_judge::judge_places;
use crate::harness::judge::finish;
use crate::harness::seed::Random;
use crate::harness::wait::until;
use crate::line::Shape;
use crate::load::{Clients, Load, PATIENCE};
use crate::network::{Cut, Packets};
use crate::outcome::Outcome;
use crate::plan::{Fault, Victim};
use crate::run::FINISH_BOUND;
use crate::stage::{Layout, PORTS, Stage};
use crate::stalls::Stalls;

/// Clients of each site.
const CLIENTS: u64 = 2;
/// The sites, and how many nodes each has.
pub(crate) const SITES: [(&str, u32); 2] = [("default", 3), ("plant", 3)];
/// How many of a hundred packets a bad link loses.
const LOSS_PERCENT: u32 = 20;
/// How long a packet takes one way while the line is longer than usual, milliseconds.
const LATENCY_MS: u32 = 400;
/// How long the last cut holds at most, milliseconds.
const LAST_CUT_MS_MAX: u64 = 15_000;
/// How long a healed fleet may take until its sites see each other, and accept jobs for each other.
const HEAL_BOUND: Duration = Duration::from_secs(60);

/// No job is under way to another site.
const IS_TAKEN: fn(&v1::ListOutboxResponse) -> bool = |outbox| outbox.waiting == 0;
/// Nor open there.
const IS_EMPTY: fn(&v1::ListOutboxResponse) -> bool = |outbox| outbox.waiting == 0 && outbox.jobs.is_empty();

/// A scenario of two sites.
#[derive(Clone, Copy)]
pub(crate) struct Crossing {
    pub(crate) name: &'static str,
    /// Whether the plant can only dial out.
    pub(crate) is_walled: bool,
    pub(crate) has_disks: bool,
    /// How long a packet takes one way between the sites, milliseconds; none for no line between them.
    pub(crate) delay_ms: Option<u32>,
    /// Whether clients change their minds.
    pub(crate) is_fickle: bool,
    /// What happens, each of them about as often.
    pub(crate) troubles: &'static [Trouble],
}

/// What happens to the link, or beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nothing passes between the sites.
    Cut,
    /// Much is lost between them.
    Loss,
    /// The line between them is longer than usual.
    Latency,
    /// SIGKILL to who leads this site, and a start.
    KillLeader(usize),
    /// SIGKILL to a node of each site.
    KillAny,
    /// SIGKILL to every node of this site.
    KillSite(usize),
    /// Power lost by who leads this site …
    PowerLoss(usize),
    /// … or by all of its machines.
    PowerLossOfSite(usize),
}

/// Troubles that begin together after a pause and are taken away together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    pause_ms: u64,
    troubles: Vec<Trouble>,
    hold_ms: u64,
    /// What the choice of a node follows from, where one is chosen.
    dice: u64,
}

/// The steps of `length_ms`: rounds in which each of `troubles` comes once, now and then with a second one; then one long
/// cut.
fn plan(random: &mut Random, troubles: &[Trouble], length_ms: u64) -> Vec<Step> {
    let last_ms = LAST_CUT_MS_MAX.min(length_ms / 4);
    let mut left_ms = length_ms.saturating_sub(last_ms);
    let (mut steps, mut round) = (Vec::new(), Vec::new());
    loop {
        if round.is_empty() {
            round = troubles.to_vec();
        }
        let first = round.remove(random.below(round.len()));
        let second = troubles[random.below(troubles.len())];
        let troubles = if random.below(3) == 0 && second != first { vec![first, second] } else { vec![first] };
        let pause_ms = 500 + random.below(1_500) as u64;
        // Longer and shorter than every lease, and so that a short run still has each trouble.
        let hold_ms = 1_000 + random.below(usize::try_from(length_ms / 10).unwrap_or_default() + 1) as u64;
        if pause_ms + hold_ms > left_ms {
            break;
        }
        left_ms -= pause_ms + hold_ms;
        steps.push(Step { pause_ms, troubles, hold_ms, dice: random.next() });
    }
    steps.push(Step { pause_ms: 500, troubles: vec![Trouble::Cut], hold_ms: last_ms, dice: 0 });
    steps
}

/// The indices of each site's nodes.
fn nodes_of_sites() -> [Vec<usize>; 2] {
    let first = SITES[0].1 as usize;
    [(0..first).collect(), (first..first + SITES[1].1 as usize).collect()]
}

/// What never passes where the plant can only dial out: UDP either way, and dials to it.
fn walls([first, plant]: &[Vec<usize>; 2]) -> [Cut; 3] {
    let wall =
        |from: &[usize], to: &[usize], packets| Cut { from: from.to_vec(), to: to.to_vec(), percent: 100, packets };
    [wall(first, plant, Packets::Udp), wall(plant, first, Packets::Udp), wall(first, plant, Packets::Dials)]
}

/// One run: jobs go both ways while all this happens.
pub(crate) async fn run_once(scenario: &Crossing, seed: u64, length: Duration) -> Outcome {
    let (name, sites) = (scenario.name, nodes_of_sites());
    let length_ms = u64::try_from(length.as_millis()).expect("a run has an end");
    let steps = plan(&mut Random::new(seed), scenario.troubles, length_ms);
    let mut stage = set_up(scenario, &sites).await;
    let load_at = |own: usize, other: usize| {
        let nodes = sites[own].iter().map(|node| stage.cluster.client_with(&[*node], PATIENCE, PATIENCE)).collect();
        let (recorder, is_fickle, count) = (stage.recorder.url(), scenario.is_fickle, CLIENTS);
        let (site, target) = (SITES[own].0, SITES[other].0);
        Load::start(Clients { site, target, nodes, recorder, count, is_fickle, seed })
    };
    let loads = [load_at(0, 1), load_at(1, 0)];
    let (mut outcome, stalls) = (Outcome::default(), Stalls::start());
    for (number, step) in steps.iter().enumerate() {
        carry_out(&mut stage, &sites, step).await;
        if number + 1 == steps.len() {
            let missing = nodes_without_other_site(&stage).await;
            let all = stage.len();
            eprintln!("figure {name} {missing} of {all} nodes hold the other site silent at the end of the last cut");
        }
        stage.heal().await;
    }
    let (whole, accepted) = measure_heal(&stage, &sites, &loads).await;
    outcome.note_heal(whole, accepted);
    let [first, plant] = loads;
    let histories = tokio::join!(first.finish(), plant.finish());
    let ended = Instant::now();
    for (what, is_reached) in [("taken by the other site", IS_TAKEN), ("ended, as their submitters see it,", IS_EMPTY)]
    {
        for node in 0..stage.len() {
            until_outbox(&stage, node, is_reached).await;
        }
        eprintln!("figure {name} all jobs {what} {:.1?} after the last submit", ended.elapsed());
    }
    outcome.stalls = stalls.worst();
    for ((history, own), other) in [histories.0, histories.1].iter().zip([0, 1]).zip([1, 0]) {
        outcome.jobs += history.submits.len();
        let found = finish(&stage.cluster, &sites[own], history, &stage.recorder, FINISH_BOUND).await;
        outcome.violations.extend(found);
        let found = judge_places(&stage, history, [&sites[own], &sites[other]], [SITES[own].0, SITES[other].0]).await;
        outcome.violations.extend(found);
    }
    outcome.requests = stage.recorder.requests().len();
    eprintln!("figure {name} seed {seed}: {} steps; {outcome}", steps.len());
    outcome
}

/// Two sites that see each other.
async fn set_up(scenario: &Crossing, sites: &[Vec<usize>; 2]) -> Stage {
    let name = scenario.name;
    let walls = if scenario.is_walled { walls(sites).to_vec() } else { Vec::new() };
    let line = scenario.delay_ms.map(|delay_ms| Shape { delay_ms, kbit: None });
    let layout = Layout { sites: &SITES, has_disks: scenario.has_disks, walls: &walls, line };
    let stage = Stage::laid_out(name, &layout).await;
    let [first, plant] = [sites[0][0], sites[1][0]];
    let (out, inwards) = (stage.network.can_dial(plant, first, PORTS.0), stage.network.can_dial(first, plant, PORTS.0));
    assert_eq!((out, inwards), (true, !scenario.is_walled), "who can dial whom");
    if let Some(delay_ms) = scenario.delay_ms {
        let round_trip = stage.network.round_trip(plant, first, 3);
        eprintln!("figure {name} a round trip between the sites takes {round_trip:.0?}");
        assert!(round_trip >= Duration::from_millis(u64::from(2 * delay_ms)), "the line is as long as it should be");
    }
    eprintln!("figure {name} sites see each other after {:.1?} from the start", sites_alive(&stage, sites).await);
    stage
}

async fn carry_out(stage: &mut Stage, sites: &[Vec<usize>; 2], step: &Step) {
    tokio::time::sleep(Duration::from_millis(step.pause_ms)).await;
    let mut faults = Vec::new();
    for trouble in &step.troubles {
        let kill = |node: &usize| Fault::Kill(Victim::Node(*node));
        let cut_power = |node: &usize| Fault::PowerLoss(Victim::Node(*node));
        match trouble {
            Trouble::Cut => faults.push(Fault::CutSide(sites[1].clone())),
            Trouble::Loss => faults.push(Fault::LossBetween(sites[1].clone(), LOSS_PERCENT)),
            Trouble::Latency => faults.push(Fault::Latency(LATENCY_MS)),
            Trouble::KillLeader(site) => faults.push(kill(&stage.leader_of(&sites[*site]).await)),
            Trouble::KillAny => {
                let mut random = Random::new(step.dice);
                faults.extend(sites.iter().map(|nodes| kill(&nodes[random.below(nodes.len())])));
            }
            Trouble::KillSite(site) => faults.extend(sites[*site].iter().map(kill)),
            Trouble::PowerLoss(site) => faults.push(cut_power(&stage.leader_of(&sites[*site]).await)),
            Trouble::PowerLossOfSite(site) => faults.extend(sites[*site].iter().map(cut_power)),
        }
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
async fn measure_heal(stage: &Stage, sites: &[Vec<usize>; 2], loads: &[Load; 2]) -> (Duration, Duration) {
    let healed = Instant::now();
    let accepting = async |site: usize| {
        let own: Vec<usize> = (0..sites[site].len()).collect();
        loads[site].submit_to_each(0, &own, HEAL_BOUND).await;
        healed.elapsed()
    };
    let (alive, first, plant) = tokio::join!(sites_alive(stage, sites), accepting(0), accepting(1));
    eprintln!(
        "figure healed: every node of both sites sees the other site alive after {alive:.1?}; a submit for the other \
         site to each node of default after {first:.1?}, of plant after {plant:.1?}"
    );
    (alive, first.max(plant))
}

/// How long it takes until every node says that the other site is alive.
pub(crate) async fn sites_alive(stage: &Stage, sites: &[Vec<usize>; 2]) -> Duration {
    let began = Instant::now();
    for node in sites.iter().flatten() {
        let client = stage.cluster.client_with(&[*node], PATIENCE, PATIENCE);
        until(&format!("node-{} to see the other site alive", node + 1), HEAL_BOUND, || async {
            let answer = client.list_sites(v1::ListSitesRequest {}).await.map_err(|error| error.to_string())?;
            let other = answer.sites.iter().find(|site| !site.own);
            if other.is_some_and(|site| site.state == "alive") { Ok(()) } else { Err(format!("{:?}", answer.sites)) }
        })
        .await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_has_every_trouble_keeps_its_length_and_ends_with_a_long_cut() {
        const TROUBLES: [Trouble; 4] = [Trouble::Cut, Trouble::Loss, Trouble::KillLeader(0), Trouble::KillLeader(1)];
        for seed in 0..50 {
            for length_ms in [35_000, 60_000] {
                let steps = plan(&mut Random::new(seed), &TROUBLES, length_ms);
                assert_eq!(steps, plan(&mut Random::new(seed), &TROUBLES, length_ms), "seed {seed}");
                let whole_ms = steps.iter().map(|step| step.pause_ms + step.hold_ms).sum::<u64>();
                assert!(whole_ms <= length_ms + 500, "seed {seed}: {whole_ms}");
                for trouble in TROUBLES {
                    assert!(steps.iter().any(|step| step.troubles.contains(&trouble)), "seed {seed}: {trouble:?}");
                }
                assert_eq!(steps.last().expect("there is one").hold_ms, LAST_CUT_MS_MAX.min(length_ms / 4));
            }
        }
    }
}
