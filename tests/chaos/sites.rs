//! Sites without each other: each goes on as if nothing were, also after all its machines were started anew meanwhile.

use std::time::{Duration, Instant};

use crate::harness::judge::finish_and_judge_site;
use crate::load::{Load, PATIENCE};
use crate::plan::Fault;
use crate::run::{FINISH_BOUND, length, repeat};
use crate::stage::Stage;
use crate::stalls::Stalls;

/// Clients of each site.
const CLIENTS: usize = 2;
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
pub(crate) async fn cut_off_and_reboot(small_seconds: u64) {
    repeat("cut-off", async |seed| cut_off_and_reboot_once(seed, length(small_seconds)).await).await;
}

async fn cut_off_and_reboot_once(seed: u64, length: Duration) {
    let third = length / 3;
    let (first, plant): (Vec<usize>, Vec<usize>) = ((0..3).collect(), (3..6).collect());
    let mut stage = Stage::of_sites("cut-off", &[("default", 3), ("plant", 3)], false, &[]).await;
    let load_at = |site: &str, nodes: &[usize]| {
        let nodes = nodes.iter().map(|node| stage.cluster.client_with(&[*node], PATIENCE, PATIENCE)).collect();
        Load::start(site, "", nodes, stage.recorder.url(), CLIENTS, seed)
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
    eprintln!("figure cut-off each rebooted node accepted a job after {:.1?}", rebooted.elapsed());
    // What a client began while no machine was up may fail until it has asked every node.
    tokio::time::sleep(PATIENCE * 4).await;
    let phases = [Phase::begin(&loads[0]), Phase::begin(&loads[1])];
    tokio::time::sleep(third).await;
    for ((phase, load), site) in phases.into_iter().zip(&loads).zip(["the first site", "the rebooted site"]) {
        phase.end(load, site);
    }

    stage.heal().await;
    for (name, nodes) in [("first", &first), ("plant", &plant)] {
        eprintln!("figure cut-off healed: {name} whole after {:.1?}", stage.wait_until_whole(nodes).await);
    }
    stage.note_stalls(&stalls);
    eprintln!("figure cut-off seed {seed}: {}", stalls.summary());
    for (load, nodes) in loads.into_iter().zip([&first, &plant]) {
        let mut history = load.finish().await;
        history.holdings = stage.history.holdings.clone();
        history.disturbances = stage.history.disturbances.clone();
        finish_and_judge_site(&stage.cluster, nodes, &history, &stage.recorder, FINISH_BOUND).await;
    }
}
