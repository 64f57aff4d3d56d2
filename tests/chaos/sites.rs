//! Sites without each other: each goes on as if nothing were, also after all its machines were started anew meanwhile.

use std::time::{Duration, Instant};

use crate::harness::judge::finish;
use crate::load::{Clients, Load, PATIENCE};
use crate::outcome::Outcome;
use crate::plan::Fault;
use crate::run::FINISH_BOUND;
use crate::stage::{Layout, Stage};
use crate::stalls::Stalls;

/// Clients of each site.
const CLIENTS: u64 = 2;
/// The sites, and how many nodes each has.
const SITES: [(&str, u32); 2] = [("default", 3), ("plant", 3)];
/// How long a site whose machines were all started anew may take to accept jobs again, on a busy machine.
const REBOOT_BOUND: Duration = Duration::from_secs(40);

/// Submits that a site accepted in a phase of the run; it must have accepted all.
struct Phase {
    accepted: usize,
    unanswered: usize,
}

impl Phase {
    fn begin(load: &Load) -> Self {
        Self { accepted: load.accepted(), unanswered: load.unanswered() }
    }

    fn end(self, load: &Load, what: &str) {
        let accepted = load.accepted() - self.accepted;
        let unanswered = load.unanswered() - self.unanswered;
        eprintln!("figure cut-off {what}: {accepted} submits accepted, {unanswered} not");
        assert!(unanswered == 0 && accepted > 0, "{what}: {accepted} submits accepted, {unanswered} not");
    }
}

/// Cuts site `plant` off, starts all its machines anew while it is, and heals.
pub(crate) async fn cut_off_and_reboot(seed: u64, length: Duration) -> Outcome {
    let third = length / 3;
    let (first, plant): (Vec<usize>, Vec<usize>) = ((0..3).collect(), (3..6).collect());
    let mut stage = Stage::laid_out("cut-off", &Layout { sites: &SITES, ..Layout::default() }).await;
    let load_at = |site: &str, nodes: &[usize]| {
        let nodes = nodes.iter().map(|node| stage.cluster.client_with(&[*node], PATIENCE, PATIENCE)).collect();
        let (recorder, target, count) = (stage.recorder.url(), "", CLIENTS);
        Load::start(Clients { site, target, nodes, recorder, count, is_fickle: false, seed })
    };
    let loads = [load_at("default", &first), load_at("plant", &plant)];
    let stalls = Stalls::start();
    stage.strike(&[Fault::CutSide(plant.clone())]).await;

    let phases = [Phase::begin(&loads[0]), Phase::begin(&loads[1])];
    tokio::time::sleep(third).await;
    for ((phase, load), site) in phases.into_iter().zip(&loads).zip(["the first site", "the cut-off site"]) {
        phase.end(load, site);
    }

    stage.note_holdings_at(&plant, &loads[1].parking()).await;
    for node in &plant {
        stage.history.note_disturbance(&stage.cluster.nodes[*node].name);
        stage.cluster.nodes[*node].kill();
    }
    for node in &plant {
        stage.cluster.start_node(*node);
    }
    let rebooted = Instant::now();
    loads[1].submit_to_each(0, &[0, 1, 2], REBOOT_BOUND).await;
    let rebooted_after = rebooted.elapsed();
    eprintln!("figure cut-off each rebooted node accepted a job after {rebooted_after:.1?}");
    // What a client began while no machine was up may fail until it has asked every node.
    tokio::time::sleep(PATIENCE * 4).await;
    let phases = [Phase::begin(&loads[0]), Phase::begin(&loads[1])];
    tokio::time::sleep(third).await;
    for ((phase, load), site) in phases.into_iter().zip(&loads).zip(["the first site", "the rebooted site"]) {
        phase.end(load, site);
    }

    let mut outcome = Outcome { accepted: rebooted_after, ..Outcome::default() };
    stage.heal().await;
    for (name, nodes) in [("first", &first), ("plant", &plant)] {
        let whole = stage.wait_until_whole(nodes).await;
        eprintln!("figure cut-off healed: {name} whole after {whole:.1?}");
        outcome.note_heal(whole, Duration::ZERO);
    }
    stage.note_stalls(&stalls);
    outcome.stalls = stalls.worst();
    for (load, nodes) in loads.into_iter().zip([&first, &plant]) {
        let mut history = load.finish().await;
        history.holdings = stage.history.holdings.clone();
        history.disturbances = stage.history.disturbances.clone();
        outcome.jobs += history.submits.len();
        outcome.violations.extend(finish(&stage.cluster, nodes, &history, &stage.recorder, FINISH_BOUND).await);
    }
    outcome.requests = stage.recorder.requests().len();
    eprintln!("figure cut-off seed {seed}: {outcome}");
    outcome
}
