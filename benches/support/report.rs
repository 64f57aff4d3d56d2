//! Figures as they are printed, each beside what the disk gave in the same minute.

use std::time::Duration;

use serde::Serialize;

use super::disk::fdatasync_loop;
use super::millis;
use super::options::Options;

/// How long the yardstick is held to the disk.
const DISK_WINDOW: Duration = Duration::from_millis(500);

/// One figure, as `--json` prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figure<'a> {
    /// What was measured.
    name: &'a str,
    /// How much.
    value: f64,
    /// Of what.
    unit: &'a str,
    /// Clients at once; 0 where none is at work.
    clients: usize,
    /// Nodes of the fleet.
    nodes: usize,
    /// What the disk gave in the same minute.
    fdatasync_per_second: f64,
}

/// Where the figures of a fleet of `nodes` go.
#[derive(Debug)]
pub struct Report {
    options: Options,
    nodes: usize,
    fdatasync_per_second: f64,
}

impl Report {
    /// A report that has looked at the disk once.
    pub fn new(options: &Options, nodes: usize) -> Self {
        let mut report = Self { options: options.clone(), nodes, fdatasync_per_second: 0.0 };
        report.look_at_disk();
        report
    }

    /// Measures the disk anew, for the figures that follow; answers with the median of one fdatasync.
    pub fn look_at_disk(&mut self) -> Duration {
        let (rate, median) = fdatasync_loop(DISK_WINDOW);
        self.fdatasync_per_second = rate;
        median
    }

    /// Prints the median of one fdatasync, in milliseconds.
    pub fn disk(&mut self) {
        let median = self.look_at_disk();
        self.print("fdatasync p50", millis(median), "ms", 1);
    }

    /// Prints a figure if it was asked for: one JSON line with `--json`, else a line for people.
    pub fn print(&self, name: &str, value: f64, unit: &str, clients: usize) {
        if !self.options.wants(name) {
            return;
        }
        let (nodes, fdatasync_per_second) = (self.nodes, self.fdatasync_per_second);
        if self.options.json {
            let figure = Figure { name, value, unit, clients, nodes, fdatasync_per_second };
            println!("{}", serde_json::to_string(&figure).expect("a figure is plain data"));
        } else {
            println!(
                "{name:44} {value:>12.3} {unit:8} clients {clients:>3}  nodes {nodes}  fdatasync/s {fdatasync_per_second:.0}"
            );
        }
    }
}
