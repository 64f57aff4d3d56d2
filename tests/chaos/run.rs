//! One run: a fleet under load, the faults of a seed, healing after each, the end of all work, and the judge.

use std::time::{Duration, Instant};

use crate::harness::history::read_view;
use crate::harness::judge::finish_and_judge;
use crate::harness::seed::{Random, seed_or, sized};
use crate::load::{Load, PATIENCE};
use crate::plan::{Kind, Step, plan};
use crate::stage::Stage;
use crate::stalls::Stalls;

/// How long open work may take once everything is healed.
pub(crate) const FINISH_BOUND: Duration = Duration::from_secs(90);
/// How long a healed node may take to accept a job.
const ACCEPT_BOUND: Duration = Duration::from_secs(30);
/// Clients that submit at the same time.
const CLIENTS: usize = 5;

/// What is tried.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) nodes: usize,
    pub(crate) kinds: &'static [Kind],
    /// Faults at the same time, at most.
    pub(crate) together: usize,
    pub(crate) has_disks: bool,
}

/// How long faults go on: `FLEET_CHAOS_SECONDS`, else what the size of the tests says.
pub(crate) fn length(small_seconds: u64) -> Duration {
    let asked = std::env::var("FLEET_CHAOS_SECONDS").ok();
    let asked = asked.map(|text| text.parse().expect("FLEET_CHAOS_SECONDS is a number"));
    Duration::from_secs(asked.unwrap_or_else(|| sized(small_seconds, 60, 120)))
}

/// How often each scenario is run: `FLEET_CHAOS_RUNS`.
fn runs() -> u32 {
    std::env::var("FLEET_CHAOS_RUNS").map_or(1, |text| text.parse().expect("FLEET_CHAOS_RUNS is a number"))
}

/// The seed that `scenario` has in the gate, so that what turns it red is the change and not the dice: FNV-1a of its name.
fn seed_of(scenario: &str) -> u64 {
    scenario.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// Runs `once` with a seed as often as is asked for: `scenario`'s own for a single run, else new ones; `FLEET_SEED` for all.
pub(crate) async fn repeat(scenario: &str, once: impl AsyncFn(u64)) {
    let is_fixed = runs() == 1 && sized(true, true, false);
    for number in 1..=runs() {
        eprintln!("chaos {scenario}: run {number} of {}", runs());
        let seed = seed_or(is_fixed.then(|| seed_of(scenario)));
        Box::pin(once(seed)).await;
    }
}

/// Who says what happens in a run: by its dice, in so many milliseconds.
pub(crate) type Planner = fn(&Scenario, &mut Random, u64) -> Vec<Step>;

/// Faults of the scenario's kinds, as the dice fall.
pub(crate) fn of_its_kinds(scenario: &Scenario, random: &mut Random, length_ms: u64) -> Vec<Step> {
    plan(random, scenario.kinds, scenario.together, scenario.nodes, length_ms)
}

/// Runs `scenario` as often as is asked for.
pub(crate) async fn run(scenario: &Scenario, planner: Planner, small_seconds: u64) {
    repeat(scenario.name, async |seed| run_once(scenario, planner, seed, length(small_seconds)).await).await;
}

async fn run_once(scenario: &Scenario, planner: Planner, seed: u64, length: Duration) {
    let began = Instant::now();
    let length_ms = u64::try_from(length.as_millis()).expect("a run has an end");
    let steps = planner(scenario, &mut Random::new(seed), length_ms);
    let mut stage = Stage::new(scenario.name, scenario.nodes, scenario.has_disks).await;
    eprintln!("figure {} {} nodes are up after {:.1?}", scenario.name, stage.len(), began.elapsed());
    let nodes = (0..stage.len()).map(|node| stage.cluster.client_with(&[node], PATIENCE, PATIENCE)).collect();
    let load = Load::start("default", "", nodes, stage.recorder.url(), CLIENTS, seed);
    let (mut heals, stalls) = (Vec::new(), Stalls::start());
    for (round, step) in steps.iter().enumerate() {
        heals.push(carry_out(&mut stage, &load, round, step).await);
    }
    let mut history = load.finish().await;
    stage.note_stalls(&stalls);
    eprintln!("figure {} seed {seed}: {}", scenario.name, stalls.summary());
    history.merge(std::mem::take(&mut stage.history));
    finish_and_judge(&stage.cluster, &history, &stage.recorder, FINISH_BOUND).await;
    let view = read_view(&stage.cluster.client()).await.expect("a healed fleet answers");
    let jobs = usize::try_from(view.jobs.values().sum::<u64>()).expect("they can be counted");
    assert_eq!(jobs, history.submits.len(), "each key is one job, and there is no other: {view:?}");
    let worst = |of: fn(&(Duration, Duration)) -> Duration| heals.iter().map(of).max().unwrap_or_default();
    let given_up = view.jobs.get("dead_lettered").copied().unwrap_or_default();
    eprintln!(
        "figure {} seed {seed}: {} steps of faults, {jobs} jobs of which {given_up} were given up, {} requests outside, {} jobs seen on nodes; \
         slowest after a heal: full membership {:.1?}, a submit to each node {:.1?}; all in {:.1?}",
        scenario.name,
        steps.len(),
        stage.recorder.requests().len(),
        history.holdings.len(),
        worst(|heal| heal.0),
        worst(|heal| heal.1),
        began.elapsed(),
    );
}

/// Lets `step` happen; gives how long the healed fleet took until all saw all, and until all accepted a job.
async fn carry_out(stage: &mut Stage, load: &Load, round: usize, step: &Step) -> (Duration, Duration) {
    tokio::time::sleep(Duration::from_millis(step.pause_ms)).await;
    stage.note_holdings(&load.parking()).await;
    stage.strike(&step.faults).await;
    tokio::time::sleep(Duration::from_millis(step.hold_ms)).await;
    stage.heal().await;
    let healed = Instant::now();
    let all: Vec<usize> = (0..stage.len()).collect();
    let accepting = async {
        load.submit_to_each(round, &all, ACCEPT_BOUND).await;
        healed.elapsed()
    };
    let (whole, accepted) = tokio::join!(stage.wait_until_whole(&all), accepting);
    eprintln!("figure step {round}: full membership after {whole:.1?}, a submit to each node after {accepted:.1?}");
    (whole, accepted)
}
