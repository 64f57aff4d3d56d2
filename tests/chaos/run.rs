//! One run: a fleet under load, the faults of a seed, healing after each, the end of all work, and the judge.

use std::time::{Duration, Instant};

use crate::harness::history::read_view;
use crate::harness::judge::finish;
use crate::harness::seed::{Random, sized};
use crate::load::{Clients, Load, PATIENCE};
use crate::outcome::Outcome;
use crate::plan::{Kind, Step, plan};
use crate::scenarios::Scenario;
use crate::stage::Stage;
use crate::stalls::Stalls;

/// How long open work may take once everything is healed.
pub(crate) const FINISH_BOUND: Duration = Duration::from_secs(90);
/// How long a healed node may take to accept a job.
const ACCEPT_BOUND: Duration = Duration::from_secs(30);
/// How long a run may take whose faults go on for a minute or less; longer ones may take as much longer.
const RUN_BOUND: Duration = Duration::from_secs(180);
/// Clients that submit at the same time.
const CLIENTS: u64 = 5;

/// A scenario of one site.
#[derive(Clone, Copy)]
pub(crate) struct OneSite {
    pub(crate) name: &'static str,
    pub(crate) nodes: usize,
    pub(crate) kinds: &'static [Kind],
    /// Faults at the same time, at most.
    pub(crate) together: usize,
    pub(crate) has_disks: bool,
    /// What happens, by the dice, in so many milliseconds.
    pub(crate) plan: fn(&Self, &mut Random, u64) -> Vec<Step>,
}

/// How long faults go on: `FLEET_CHAOS_SECONDS`, else what the size of the tests says.
pub(crate) fn length() -> Duration {
    let asked = std::env::var("FLEET_CHAOS_SECONDS").ok();
    let asked = asked.map(|text| text.parse().expect("FLEET_CHAOS_SECONDS is a number"));
    Duration::from_secs(asked.unwrap_or_else(|| sized(10, 35, 120)))
}

/// Runs `scenario` on a runtime of its own, so that nothing of it is left when the next one begins.
///
/// # Panics
/// If it does not come to an end, or not in time.
pub(crate) fn play(scenario: &Scenario, seed: u64, length: Duration) -> Outcome {
    let bound = RUN_BOUND + length.saturating_sub(Duration::from_secs(60));
    on_a_runtime(async {
        let mut run = Box::pin(scenario.run(seed, length));
        match tokio::time::timeout(bound, &mut run).await {
            Ok(outcome) => outcome,
            // What runs is dropped by this panic, so that it keeps its logs.
            Err(_) => panic!("{} with seed {seed} took more than {bound:?}", scenario.name()),
        }
    })
}

/// Runs `future` to its end.
pub(crate) fn on_a_runtime<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    runtime.expect("a runtime can be made").block_on(future)
}

/// The seed that `scenario` has in the gate, so that what turns it red is the change and not the dice: FNV-1a of its name.
pub(crate) fn seed_of(scenario: &str) -> u64 {
    scenario.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// Faults of the scenario's kinds, as the dice fall.
pub(crate) fn of_its_kinds(scenario: &OneSite, random: &mut Random, length_ms: u64) -> Vec<Step> {
    plan(random, scenario.kinds, scenario.together, scenario.nodes, length_ms)
}

/// Runs a scenario of one site.
pub(crate) async fn run_once(scenario: &OneSite, seed: u64, length: Duration) -> Outcome {
    let began = Instant::now();
    let length_ms = u64::try_from(length.as_millis()).expect("a run has an end");
    let steps = (scenario.plan)(scenario, &mut Random::new(seed), length_ms);
    let mut stage = Stage::new(scenario.name, scenario.nodes, scenario.has_disks).await;
    eprintln!("figure {} {} nodes are up after {:.1?}", scenario.name, stage.len(), began.elapsed());
    let nodes = (0..stage.len()).map(|node| stage.cluster.client_with(&[node], PATIENCE, PATIENCE)).collect();
    let recorder = stage.recorder.url();
    let (site, target, count, is_fickle) = ("default", "", CLIENTS, false);
    let load = Load::start(Clients { site, target, nodes, recorder, count, is_fickle, seed });
    let (mut outcome, stalls) = (Outcome::default(), Stalls::start());
    for (round, step) in steps.iter().enumerate() {
        let (whole, accepted) = carry_out(&mut stage, &load, round, step).await;
        outcome.note_heal(whole, accepted);
    }
    let mut history = load.finish().await;
    stage.note_stalls(&stalls);
    history.merge(std::mem::take(&mut stage.history));
    let all = stage.cluster.up();
    outcome.violations = finish(&stage.cluster, &all, &history, &stage.recorder, FINISH_BOUND).await;
    let view = read_view(&stage.cluster.client()).await.expect("a healed fleet answers");
    let jobs = usize::try_from(view.jobs.values().sum::<u64>()).expect("they can be counted");
    assert_eq!(jobs, history.submits.len(), "each key is one job, and there is no other: {view:?}");
    outcome.jobs = jobs;
    outcome.given_up = view.jobs.get("dead_lettered").copied().unwrap_or_default() as usize;
    outcome.requests = stage.recorder.requests().len();
    outcome.stalls = stalls.worst();
    let (name, steps, holdings) = (scenario.name, steps.len(), history.holdings.len());
    eprintln!("figure {name} seed {seed}: {steps} steps of faults, {holdings} jobs seen on nodes; {outcome}");
    outcome
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
