//! Two sites whose link was cut: how long what waited takes once it is back, and what a narrow link is used for.
//!
//! `cargo build --release -p fleetd && cargo bench -p fleet --bench sites -- --json`. Method: `docs/performance.md`.

#[path = "../tests/harness/mod.rs"]
mod harness;
#[path = "../tests/chaos/leftovers.rs"]
#[allow(dead_code, unused_imports, reason = "the suite of chaos uses the rest, and tests it")]
mod leftovers;
#[path = "../tests/chaos/line.rs"]
#[allow(dead_code, reason = "the suite of chaos uses the rest, and tests it")]
mod line;
#[path = "../tests/chaos/network.rs"]
#[allow(dead_code, unused_imports, reason = "the suite of chaos uses the rest, and tests it")]
mod network;
mod support;
#[path = "../tests/chaos/tools.rs"]
#[allow(dead_code, unused_imports, reason = "the suite of chaos uses the rest, and tests it")]
mod tools;
#[path = "support/two_sites.rs"]
mod two_sites;

use std::time::{Duration, Instant};

use fleet_api::pb::v1;
use support::load::{Bound, Load, as_new_job, request};
use support::options::Options;
use support::report::Report;
use support::{millis, percentile, runtime};
use two_sites::{BOUND, Line, TwoSites};

/// Jobs that wait for a link that is not narrow, and for one that is.
const JOBS: usize = 10_000;
const JOBS_NARROW: usize = 1_000;
/// Clients that fill the outbox.
const CLIENTS: usize = 64;
/// Bytes of input of each job on the narrow link: as much as a small order or reading has.
const INPUT_BYTES: usize = 1_024;
/// How long local submits are timed in a fleet that does nothing else.
const ALONE: Duration = Duration::from_secs(3);

struct Bench {
    sites: TwoSites,
    here: Load,
    there: Load,
    report: Report,
}

impl Bench {
    async fn start(options: &Options, sites: TwoSites) -> Self {
        let here = Load::at(&sites.cluster, &sites.here, CLIENTS).await;
        let there = Load::at(&sites.cluster, &sites.there, 1).await;
        let report = Report::new(options, sites.cluster.nodes.len());
        let bench = Self { sites, here, there, report };
        // Once one job has gone there and is known to have ended, the sites know each other.
        bench.sites.warm_up(&bench.here, &bench.request(0)).await;
        bench.until_back(BOUND).await;
        bench
    }

    /// A job of one `set` for the other site.
    fn request(&self, input_bytes: usize) -> v1::SubmitRequest {
        let mut request = request(harness::workflows::set_only());
        request.site = "plant".to_owned();
        request.input = format!("\"{}\"", "x".repeat(input_bytes)).into_bytes();
        request
    }

    /// Waits until this site knows the end of every job that it sent.
    async fn until_back(&self, bound: Duration) {
        self.until_outbox("every result is back", bound, |outbox| outbox.waiting == 0 && outbox.jobs.is_empty()).await;
    }

    async fn until_moved(&self, bound: Duration) {
        self.until_outbox("every job is taken", bound, |outbox| outbox.waiting == 0).await;
    }

    async fn until_outbox(&self, what: &str, bound: Duration, is_reached: fn(&v1::ListOutboxResponse) -> bool) {
        let client = self.here.connection();
        harness::wait::until(what, bound, || async {
            let answer =
                client.list_outbox(v1::ListOutboxRequest { limit: 1, ..v1::ListOutboxRequest::default() }).await;
            let outbox = answer.map_err(|error| error.to_string())?;
            if is_reached(&outbox) { Ok(()) } else { Err(format!("{} wait", outbox.waiting)) }
        })
        .await;
    }

    /// Jobs that wait here while the link is cut, then go there, run, and are known to have ended.
    async fn jobs_wait(&mut self, name: &str, jobs: usize, input_bytes: usize) {
        let mut alone = self.local_submits(tokio::time::sleep(ALONE)).await;
        let before = self.there.count("completed").await;
        self.sites.cut(&self.here).await;
        self.here.submit(&self.request(input_bytes), Bound::Jobs(jobs)).await;
        let waiting = self.here.count("transferring").await;
        assert_eq!(waiting, jobs as u64, "all wait while the link is cut");
        self.report.look_at_disk();
        let (entries, sent) = (self.sites.entries().await, self.sites.sent_bytes().await);
        let healed = Instant::now();
        self.sites.heal();
        let mut times = Times::default();
        let mut beside = self
            .local_submits(async {
                self.sites.until_alive(&self.here).await;
                times.open = healed.elapsed();
                self.until_moved(BOUND).await;
                times.moved = healed.elapsed();
                times.sent_bytes = self.sites.sent_bytes().await - sent;
                self.there.until_counted("completed", before + jobs as u64, BOUND).await;
                times.run = healed.elapsed();
                self.until_back(BOUND).await;
                times.back = healed.elapsed();
            })
            .await;
        self.report.look_at_disk_again();
        self.print_times(name, jobs, &times);
        self.print(name, "bytes of letters a job", times.sent_bytes / jobs as f64, "B");
        if let Some(rate) = self.sites.bytes_per_second() {
            let seconds = (times.moved - times.open).as_secs_f64();
            self.print(name, "share of the link in letters", 100.0 * times.sent_bytes / (rate as f64 * seconds), "%");
        }
        let entries = self.sites.entries().await - entries - (beside.len() as f64);
        self.print(name, "log entries a job, both sites, local submits left out", entries / jobs as f64, "");
        for (what, samples) in [("local submit alone", &mut alone), ("local submit beside it", &mut beside)] {
            for percent in [50, 99] {
                self.print(name, &format!("{what} p{percent}"), millis(percentile(samples, percent)), "ms");
            }
        }
        self.print_losses(name, jobs, before).await;
    }

    /// Results that wait there while the link is cut.
    async fn results_wait(&mut self, name: &str, jobs: usize) {
        let before = self.there.count("completed").await;
        self.sites.drain(&self.there, true).await;
        self.here.submit(&self.request(0), Bound::Jobs(jobs)).await;
        self.until_moved(BOUND).await;
        self.sites.cut(&self.here).await;
        self.sites.drain(&self.there, false).await;
        self.there.until_counted("completed", before + jobs as u64, BOUND).await;
        self.report.look_at_disk();
        let healed = Instant::now();
        self.sites.heal();
        self.sites.until_alive(&self.here).await;
        let open = healed.elapsed();
        self.until_back(BOUND).await;
        let back = healed.elapsed();
        self.report.look_at_disk_again();
        self.print(name, "link open after", open.as_secs_f64(), "s");
        self.print(name, "results back after", back.as_secs_f64(), "s");
        self.print(name, "results a second, link open", jobs as f64 / (back - open).as_secs_f64(), "1/s");
        self.print_losses(name, jobs, before).await;
    }

    /// Submits jobs of this site one after the other while `work` goes on; how long each took.
    async fn local_submits(&self, work: impl Future<Output = ()>) -> Vec<Duration> {
        let local = request(harness::workflows::set_only());
        let mut times = Vec::new();
        let submits = async {
            loop {
                let started = Instant::now();
                self.here.connection().submit(as_new_job(&local)).await.expect("accepted");
                times.push(started.elapsed());
            }
        };
        tokio::select! {
            () = work => {}
            _ = submits => {}
        }
        times
    }

    fn print_times(&self, name: &str, jobs: usize, times: &Times) {
        for (what, time) in [
            ("link open after", times.open),
            ("jobs moved after", times.moved),
            ("jobs run after", times.run),
            ("results back after", times.back),
        ] {
            self.print(name, what, time.as_secs_f64(), "s");
        }
        let seconds = (times.back - times.open).as_secs_f64();
        self.print(name, "jobs and results a second, link open", jobs as f64 / seconds, "1/s");
    }

    /// Jobs whose end this site does not know, and ends there beyond one a job.
    async fn print_losses(&self, name: &str, jobs: usize, before: u64) {
        let ended_there = self.there.count("completed").await - before;
        self.print(name, "jobs lost", jobs as f64 - ended_there.min(jobs as u64) as f64, "");
        self.print(name, "jobs doubled", ended_there.saturating_sub(jobs as u64) as f64, "");
        let told = self.sites.completed_elsewhere(&self.here).await;
        self.print(name, "results lost", self.there.count("completed").await as f64 - told as f64, "");
    }

    fn print(&self, name: &str, what: &str, value: f64, unit: &str) {
        self.report.print(&format!("{name} {what}"), value, unit, 1);
    }
}

/// How long after the healing, and how many bytes the letters had until all jobs were moved.
#[derive(Default)]
struct Times {
    sent_bytes: f64,
    open: Duration,
    moved: Duration,
    run: Duration,
    back: Duration,
}

async fn measure(options: &Options, nodes: usize) {
    let jobs = options.jobs.unwrap_or(JOBS);
    let (merge, results) = ("merge of jobs", "merge of results");
    if options.wants(merge) || options.wants(results) {
        let mut bench = Bench::start(options, TwoSites::start(nodes / 2, Line::Wide).await).await;
        if options.wants(merge) {
            bench.jobs_wait(merge, jobs, 0).await;
        }
        if options.wants(results) {
            bench.results_wait(results, jobs).await;
        }
    }
    let narrow = "merge at 256 kbit/s";
    if nodes == 2 && options.wants(narrow) {
        let mut bench = Bench::start(options, TwoSites::start(1, Line::Narrow).await).await;
        bench.jobs_wait(narrow, options.jobs.unwrap_or(JOBS_NARROW), INPUT_BYTES).await;
    }
}

fn main() {
    let options = Options::of_process();
    runtime().block_on(async {
        for nodes in [2, 6].into_iter().filter(|nodes| options.wants_nodes(*nodes)) {
            match tools::missing().filter(|_| nodes > 2) {
                Some(why) => eprintln!("sites of three nodes are left out: {why}"),
                None => Box::pin(measure(&options, nodes)).await,
            }
        }
    });
}
