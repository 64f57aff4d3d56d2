//! Machines that have no time: how often a fleet whose nodes all live holds one of them dead.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::raw;
use crate::stage::Stage;
use crate::stalls::Stalls;

/// How many nodes share the machine.
const NODES: usize = 5;
/// How long, unless `FLEET_CHAOS_SECONDS` says otherwise.
const LENGTH: Duration = Duration::from_secs(30 * 60);
/// How often every node is asked.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// What the log of a node says when gossip gives another node up.
const GIVEN_UP: &str = "state=\"down\"";

/// Processes that do nothing but work, one for each processor.
struct Burners(Vec<Child>);

impl Burners {
    fn start() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let burn = |_| {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            command.spawn().expect("there is a shell")
        };
        Self((0..processors).map(burn).collect())
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Keeps every processor busy and counts how often a node is held down that lives.
pub(crate) async fn count_false_deaths() {
    let asked = std::env::var("FLEET_CHAOS_SECONDS").ok();
    let length = asked.map_or(LENGTH, |text| Duration::from_secs(text.parse().expect("it is a number")));
    let stage = Stage::new("saturated", NODES, false).await;
    let (stalls, burners, began) = (Stalls::start(), Burners::start(), Instant::now());
    let (mut suspected, mut slowest_percent) = (0.0_f64, 0.0_f64);
    while began.elapsed() < length {
        tokio::time::sleep(ASK_EVERY).await;
        for node in &stage.cluster.nodes {
            let metric = |name: &'static str| raw::metric_at(node.http_address(), name);
            // A node that does not answer in time is slow, not dead: what it says of others is asked again.
            suspected = suspected.max(metric("fleet_membership_members{state=\"suspect\"}").await.unwrap_or_default());
            slowest_percent =
                slowest_percent.max(metric("fleet_membership_suspicion_percent").await.unwrap_or_default());
        }
    }
    drop(burners);
    let logs: Vec<String> = stage.cluster.nodes.iter().map(crate::harness::node::TestNode::all_logs).collect();
    let deaths: Vec<&str> = logs.iter().flat_map(|log| log.lines()).filter(|line| line.contains(GIVEN_UP)).collect();
    let suspicions = logs.iter().flat_map(|log| log.lines()).filter(|line| line.contains("state=\"suspect\"")).count();
    eprintln!(
        "figure saturated: {} false deaths and {suspicions} suspicions among {NODES} nodes in {:.0?} with every \
         processor busy; at most {suspected} suspected at once, suspicion time up to {slowest_percent} %; {}",
        deaths.len(),
        began.elapsed(),
        stalls.summary(),
    );
    assert!(deaths.is_empty(), "nobody died, and was held dead: {deaths:#?}");
}
