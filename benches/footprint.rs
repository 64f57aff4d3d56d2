//! What a node weighs: its size, its start, its memory and processor at rest, and what a long queue or many parked jobs
//! add to memory and to a submit. Real `fleetd` processes.
//!
//! `cargo build --release -p fleetd && cargo bench -p fleet --bench footprint -- --json`. Method: `docs/performance.md`.

#[path = "../tests/harness/mod.rs"]
mod harness;
mod support;

use std::time::{Duration, Instant};

use fleet_api::pb::v1;
use harness::cluster::Cluster;
use harness::node::{TestNode, binary};
use serde_json::{Value, json};
use support::load::{Bound, Load, request};
use support::options::Options;
use support::process::{memory, processor_time};
use support::ready::until_ready;
use support::report::Report;
use support::{megabytes, millis, percentile, runtime};

const STARTS_DEFAULT: usize = 5;
const SLOTS: u32 = 128;
/// How long a node at rest is looked at.
const REST_WINDOW: Duration = Duration::from_secs(20);
/// The same, for a node that has just taken many jobs.
const HEAP_WINDOW: Duration = Duration::from_secs(10);
const JOBS_DEFAULT: usize = 100_000;
const FILL_CLIENTS: usize = 128;
const FILL_BOUND: Duration = Duration::from_secs(240);
/// Submits beside a heap of jobs and in an empty fleet, in turns: the disk is then the same for both.
const TURNS: usize = 6;
const TURN: Duration = Duration::from_millis(1_500);
const PROBE_BOUND: Duration = Duration::from_secs(30);

const READY: [&str; 2] = ["time to ready, new node", "time to ready, node with its data"];
const REST: [&str; 3] = ["memory at rest", "memory at rest, anonymous", "processor at rest"];

/// Jobs that lie on a node without using it.
#[derive(Clone, Copy)]
enum Heap {
    /// Queued for a robot that does not exist.
    Backlog,
    /// Waiting for an hour, without a slot.
    Parked,
}

impl Heap {
    fn name(self) -> &'static str {
        match self {
            Self::Backlog => "backlog",
            Self::Parked => "parked",
        }
    }

    fn state(self) -> &'static str {
        match self {
            Self::Backlog => "queued",
            Self::Parked => "waiting",
        }
    }

    fn request(self) -> v1::SubmitRequest {
        match self {
            Self::Backlog => v1::SubmitRequest { tags: vec!["no-such-robot".to_owned()], ..probe() },
            Self::Parked => workflow("parked", &json!({ "wait": { "hours": 1 } })),
        }
    }
}

/// The job whose submit is measured: it runs at once and has no effect.
fn probe() -> v1::SubmitRequest {
    workflow("probe", &json!({ "set": { "answer": 42 } }))
}

fn workflow(name: &str, task: &Value) -> v1::SubmitRequest {
    let document = json!({
        "document": { "dsl": "1.0.3", "namespace": "bench", "name": name, "version": "1.0.0" },
        "do": [{ "task": task }],
    });
    request(document.to_string().into_bytes())
}

/// From the process's start to the first `/ready` that says 200.
async fn start_until_ready(cluster: &mut Cluster) -> Duration {
    let started = Instant::now();
    cluster.start_node(0);
    until_ready(&cluster.nodes[0]).await;
    started.elapsed()
}

/// Starts of a node with an empty data directory, and of the same node with what it then has.
async fn time_to_ready(options: &Options) {
    let report = Report::new(options, 1);
    let mut cluster = Cluster::start("ready", 1, SLOTS).await;
    let (mut new, mut old) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds.unwrap_or(STARTS_DEFAULT) {
        cluster.nodes[0].kill();
        std::fs::remove_dir_all(&cluster.nodes[0].data_dir).expect("the data is the bench's own");
        new.push(start_until_ready(&mut cluster).await);
        cluster.nodes[0].kill();
        old.push(start_until_ready(&mut cluster).await);
    }
    for (name, times) in READY.into_iter().zip([&mut new, &mut old]) {
        report.print(&format!("{name} p50"), millis(percentile(times, 50)), "ms", 0);
        report.print(&format!("{name} max"), millis(percentile(times, 100)), "ms", 0);
    }
}

/// Looks at `nodes` for `window`: prints memory at its end, and the share of one core meanwhile.
async fn at_rest(report: &Report, nodes: &[TestNode], window: Duration, name_of: impl Fn(&TestNode, &str) -> String) {
    let before: Vec<Duration> = nodes.iter().map(|node| processor_time(node.pid())).collect();
    let started = Instant::now();
    tokio::time::sleep(window).await;
    for (node, before) in nodes.iter().zip(before) {
        let used = processor_time(node.pid()) - before;
        let memory = memory(node.pid());
        let share = used.as_secs_f64() / started.elapsed().as_secs_f64();
        report.print(&name_of(node, REST[0]), megabytes(memory.resident), "MB", 0);
        report.print(&name_of(node, REST[1]), megabytes(memory.anonymous), "MB", 0);
        report.print(&name_of(node, REST[2]), share * 100.0, "% of core", 0);
    }
}

async fn rest(options: &Options, nodes: usize) {
    let report = Report::new(options, nodes);
    let cluster = Cluster::start("rest", nodes, SLOTS).await;
    let leader = cluster.leader(&(0..nodes).collect::<Vec<_>>()).await;
    let leader = cluster.nodes[leader].name.clone();
    at_rest(&report, &cluster.nodes, REST_WINDOW, |node, what| {
        let role = if node.name == leader { "leads" } else { "follows" };
        format!("{what}, {} {role}", node.name)
    })
    .await;
}

/// Times of one client's submits for one turn. The fleet is as before when it ends.
async fn probe_turn(load: &Load, clients: usize) -> Vec<Duration> {
    let before = load.count("completed").await;
    let accepted = load.submit(&probe(), Bound::Time(TURN)).await;
    assert!(accepted.times.len() >= clients, "a turn is long enough for one submit of each client");
    load.until_counted("completed", before + accepted.times.len() as u64, PROBE_BOUND).await;
    accepted.times
}

/// Prints the submit p50 of the fleet with the heap, that of the empty one in the same minute, and their ratio.
async fn compare(report: &mut Report, heap: Heap, with_heap: &Cluster, empty: &Cluster, clients: usize) {
    let loads = (Load::new(with_heap, clients).await, Load::new(empty, clients).await);
    probe_turn(&loads.0, clients).await;
    probe_turn(&loads.1, clients).await;
    report.look_at_disk();
    let (mut full, mut none) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        full.extend(probe_turn(&loads.0, clients).await);
        none.extend(probe_turn(&loads.1, clients).await);
    }
    report.look_at_disk_again();
    let name = heap.name();
    for percent in [50, 99] {
        let (full, none) = (percentile(&mut full, percent), percentile(&mut none, percent));
        report.print(&format!("{name}: submit p{percent}"), millis(full), "ms", clients);
        report.print(&format!("{name}: submit p{percent}, empty fleet"), millis(none), "ms", clients);
        let ratio = full.as_secs_f64() / none.as_secs_f64();
        report.print(&format!("{name}: submit p{percent}, to empty"), ratio, "ratio", clients);
    }
}

async fn heap(options: &Options, heap: Heap) {
    let jobs = options.jobs.unwrap_or(JOBS_DEFAULT);
    let name = heap.name();
    let mut report = Report::new(options, 1);
    let mut full = Cluster::start(name, 1, SLOTS).await;
    let empty = Cluster::start("empty", 1, SLOTS).await;
    let load = Load::new(&full, FILL_CLIENTS).await;
    let started = Instant::now();
    let accepted = load.submit(&heap.request(), Bound::Jobs(jobs)).await;
    load.until_counted(heap.state(), jobs as u64, FILL_BOUND).await;
    let filled = jobs as f64 / started.elapsed().as_secs_f64();
    let rests = |_: &TestNode, what: &str| format!("{name}: {what}");
    report.print(&format!("{name}: submits"), accepted.rate(), "1/s", FILL_CLIENTS);
    report.print(&format!("{name}: jobs until {}", heap.state()), filled, "1/s", FILL_CLIENTS);
    report.print(&format!("{name}: jobs"), load.count(heap.state()).await as f64, "", 0);
    at_rest(&report, &full.nodes, HEAP_WINDOW, rests).await;
    for clients in [1, 16] {
        compare(&mut report, heap, &full, &empty, clients).await;
    }
    report.print(&format!("{name}: peak memory"), megabytes(memory(full.nodes[0].pid()).peak), "MB", 0);
    full.nodes[0].kill();
    let ready = start_until_ready(&mut full).await;
    report.print(&format!("{name}: time to ready after a kill"), millis(ready), "ms", 0);
    load.until_counted(heap.state(), jobs as u64, FILL_BOUND).await;
    let rests = |_: &TestNode, what: &str| format!("{name}: {what}, started again");
    at_rest(&report, &full.nodes, HEAP_WINDOW, rests).await;
    let peak = megabytes(memory(full.nodes[0].pid()).peak);
    report.print(&format!("{name}: peak memory, started again"), peak, "MB", 0);
}

/// Whether `--only` may mean a figure whose name begins with one of `beginnings`.
fn wants(options: &Options, beginnings: &[&str]) -> bool {
    let Some(part) = &options.only else { return true };
    beginnings.iter().any(|beginning| beginning.contains(part.as_str()) || part.starts_with(beginning))
}

async fn measure(options: &Options) {
    if options.wants_nodes(1) {
        let size = std::fs::metadata(binary("fleetd")).expect("fleetd is built").len();
        Report::new(options, 1).print("size of fleetd", megabytes(size), "MB", 0);
        if wants(options, &READY) {
            time_to_ready(options).await;
        }
    }
    for nodes in [1, 3].into_iter().filter(|nodes| options.wants_nodes(*nodes)) {
        if wants(options, &REST) {
            rest(options, nodes).await;
        }
    }
    for kind in [Heap::Backlog, Heap::Parked] {
        if options.wants_nodes(1) && wants(options, &[&format!("{}:", kind.name())]) {
            heap(options, kind).await;
        }
    }
}

fn main() {
    let options = Options::of_process();
    runtime().block_on(measure(&options));
}
