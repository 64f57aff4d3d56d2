//! Durable submits and whole jobs through real `fleetd` processes, beside a same-minute fdatasync loop.
//!
//! `cargo build --release -p fleetd && cargo bench -p fleet --bench jobs -- --json`. Method: `docs/performance.md`.

#[path = "../tests/harness/mod.rs"]
mod harness;
mod support;

use std::time::{Duration, Instant};

use fleet_api::pb::v1;
use harness::cluster::Cluster;
use serde_json::json;
use support::load::{Bound, Load, as_new_job, request};
use support::null_server::NullServer;
use support::options::Options;
use support::process::{processor_time, processor_time_of};
use support::report::Report;
use support::{millis, percentile, runtime};

const SLOTS: u32 = 128;
const CLIENTS: [usize; 3] = [1, 16, 128];
/// Submits before a figure whose time counts for nothing but the rate that is to be expected.
const WARM_UP: Duration = Duration::from_millis(1_500);
/// How long a figure should run at the rate of the warm-up; more than five seconds also at a third more.
const RUN_SECONDS: f64 = 6.5;
const JOBS_MIN: usize = 300;
/// Jobs of a figure of latency, and of its warm-up.
const ROUNDS: usize = 1_500;
const ROUNDS_WARM_UP: usize = 100;
/// A run that takes longer is a failed one.
const RUN_BOUND: Duration = Duration::from_secs(120);

#[derive(Clone, Copy)]
enum Shape {
    /// So many calls to the null server in a row.
    Calls(usize),
    /// So many tasks that have no effect.
    Sets(usize),
    /// A job that no robot may run: accepting it is all there is to do.
    Queued,
}

impl Shape {
    fn name(self) -> String {
        match self {
            Self::Calls(tasks) => format!("{tasks}-call"),
            Self::Sets(tasks) => format!("{tasks}-set"),
            Self::Queued => "queued".to_owned(),
        }
    }

    fn request(self, server: &NullServer) -> v1::SubmitRequest {
        let set = json!({ "set": { "answer": 42 } });
        let endpoint = format!("http://{}/", server.address);
        let (tasks, body) = match self {
            Self::Calls(tasks) => {
                (tasks, json!({ "call": "http", "with": { "method": "post", "endpoint": endpoint } }))
            }
            Self::Sets(tasks) => (tasks, set),
            Self::Queued => (1, set),
        };
        let list: Vec<_> = (0..tasks).map(|task| json!({ format!("task{task}"): body })).collect();
        let workflow = json!({
            "document": { "dsl": "1.0.3", "namespace": "bench", "name": self.name(), "version": "1.0.0" },
            "do": list,
        });
        let mut request = request(workflow.to_string().into_bytes());
        if matches!(self, Self::Queued) {
            request.tags = vec!["no-such-robot".to_owned()];
        }
        request
    }
}

/// A fleet, what its jobs call, and where its figures go.
struct Bench {
    cluster: Cluster,
    server: NullServer,
    report: Report,
}

impl Bench {
    /// Rates at `clients`: from the first submit until all are accepted, and until the fleet has counted all completed.
    async fn rates(&mut self, shape: Shape, clients: usize) {
        let load = Load::new(&self.cluster, clients).await;
        let request = shape.request(&self.server);
        let runs = !matches!(shape, Shape::Queued);
        let expected = self.run(&load, &request, Bound::Time(WARM_UP), runs).await;
        let jobs = ((expected.jobs_per_second * RUN_SECONDS) as usize).max(JOBS_MIN);
        self.report.look_at_disk();
        let mut run = self.run(&load, &request, Bound::Jobs(jobs), runs).await;
        let name = shape.name();
        let print = |what: &str, value: f64, unit: &str| {
            self.report.print(&format!("{name} {what}"), value, unit, clients);
        };
        print("submits", run.submits_per_second, "1/s");
        print("submit p50", millis(percentile(&mut run.times, 50)), "ms");
        print("submit p99", millis(percentile(&mut run.times, 99)), "ms");
        if runs {
            print("jobs", run.jobs_per_second, "1/s");
        }
        print("processor of the nodes", run.cores_of_nodes, "cores");
        print("processor of the bench", run.cores_of_bench, "cores");
    }

    async fn run(&self, load: &Load, request: &v1::SubmitRequest, bound: Bound, runs: bool) -> Run {
        let nodes: Vec<u32> = self.cluster.nodes.iter().map(|node| node.pid()).collect();
        let before = load.count("completed").await;
        let processor = (processor_time_of(&nodes), processor_time(std::process::id()));
        let started = Instant::now();
        let accepted = load.submit(request, bound).await;
        let jobs = accepted.times.len();
        if runs {
            load.until_counted("completed", before + jobs as u64, RUN_BOUND).await;
        }
        let took = started.elapsed().as_secs_f64();
        Run {
            submits_per_second: accepted.rate(),
            jobs_per_second: jobs as f64 / took,
            cores_of_nodes: (processor_time_of(&nodes) - processor.0).as_secs_f64() / took,
            cores_of_bench: (processor_time(std::process::id()) - processor.1).as_secs_f64() / took,
            times: accepted.times,
        }
    }

    /// One client, one job at a time: the submit while nothing else goes on, and the completion that a watch shows.
    async fn alone(&mut self, shape: Shape) {
        let load = Load::new(&self.cluster, 1).await;
        let request = shape.request(&self.server);
        self.one_by_one(&load, &request, ROUNDS_WARM_UP).await;
        self.report.disk();
        let (mut accepted, mut seen) = self.one_by_one(&load, &request, ROUNDS).await;
        for (what, times) in [("submit alone", &mut accepted), ("submit to completion", &mut seen)] {
            for percent in [50, 99] {
                let name = format!("{} {what} p{percent}", shape.name());
                self.report.print(&name, millis(percentile(times, percent)), "ms", 1);
            }
        }
    }

    async fn one_by_one(
        &self,
        load: &Load,
        request: &v1::SubmitRequest,
        rounds: usize,
    ) -> (Vec<Duration>, Vec<Duration>) {
        let client = load.connection();
        let (mut accepted, mut seen) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let started = Instant::now();
            let job = client.submit(as_new_job(request)).await.expect("accepted").job_id;
            accepted.push(started.elapsed());
            let id = uuid::Uuid::from_slice(&job).expect("an id").to_string();
            let mut watch = client
                .watch_job(v1::WatchJobRequest { job: id, ..v1::WatchJobRequest::default() })
                .await
                .expect("it can be watched");
            while let Some(change) = watch.next().await.expect("the watch goes on") {
                if change.job.is_some_and(|job| job.ended_ms != 0) {
                    break;
                }
            }
            seen.push(started.elapsed());
        }
        (accepted, seen)
    }
}

/// What one run of a load gave.
struct Run {
    submits_per_second: f64,
    jobs_per_second: f64,
    cores_of_nodes: f64,
    cores_of_bench: f64,
    times: Vec<Duration>,
}

fn names(shape: Shape, figures: &[&str]) -> Vec<String> {
    figures.iter().map(|figure| format!("{} {figure}", shape.name())).collect()
}

async fn measure(options: &Options, nodes: usize) {
    let cluster = Cluster::start("bench", nodes, SLOTS).await;
    let server = NullServer::start().await;
    let mut bench = Bench { cluster, server, report: Report::new(options, nodes) };
    for shape in [Shape::Sets(1), Shape::Calls(1)] {
        let figures = ["submit alone p50", "submit alone p99", "submit to completion p50", "submit to completion p99"];
        if options.wants_clients(1) && options.wants_any(&names(shape, &figures)) {
            bench.alone(shape).await;
        }
    }
    // The jobs that stay queued come last: those before them run in a fleet without a backlog.
    for shape in [Shape::Sets(1), Shape::Sets(5), Shape::Calls(1), Shape::Calls(5), Shape::Queued] {
        let figures =
            ["submits", "submit p50", "submit p99", "jobs", "processor of the nodes", "processor of the bench"];
        for clients in CLIENTS.into_iter().filter(|clients| options.wants_clients(*clients)) {
            if options.wants_any(&names(shape, &figures)) {
                bench.rates(shape, clients).await;
            }
        }
    }
    bench.report.print("connections to the null server", bench.server.connections() as f64, "", 0);
}

fn main() {
    let options = Options::of_process();
    runtime().block_on(async {
        for nodes in [1, 3].into_iter().filter(|nodes| options.wants_nodes(*nodes)) {
            measure(&options, nodes).await;
        }
    });
}
