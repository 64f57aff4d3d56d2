//! A long line between two sides of a network: every packet, TCP or not, takes its time, and so many pass in a second.
//!
//! Linux without netem delays nothing, so a process does (`delay.py`): each side has a bridge of its own, a TAP interface is
//! a port of each, and the process carries frames from one to the other, later. What a bound on the rate lets through is
//! decided before that, by `tbf` on the same interfaces. On a machine without a free processor the line is longer than
//! it should be, never shorter.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::tools::{run, run_with};

/// What the process runs.
const SCRIPT: &str = include_str!("delay.py");
/// Interfaces by which frames enter and leave the line.
const ENDS: [&str; 2] = ["line-near", "line-far"];

/// How long and how narrow it is, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// How long a packet takes.
    pub(crate) delay_ms: u32,
    /// How much passes; none for no bound.
    pub(crate) kbit: Option<u32>,
}

/// The line. It is gone when it is dropped.
pub(crate) struct Line {
    switch: String,
    process: Child,
    commands: ChildStdin,
    shape: Shape,
}

impl Line {
    /// A line between the bridges `near` and `far` of the namespace `switch`.
    pub(crate) fn start(switch: &str, near: &str, far: &str, shape: Shape) -> Self {
        let mut process = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{switch}"))
            .args(["python3", "-c", SCRIPT, &shape.delay_ms.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 can be started in a namespace");
        let commands = process.stdin.take().expect("it is a pipe");
        let mut said = String::new();
        let output = process.stdout.take().expect("it is a pipe");
        BufReader::new(output).read_line(&mut said).expect("it can be read");
        assert_eq!(said, "ready\n", "the line has both ends");
        let [one, other] = ENDS;
        let ports = format!(
            "link set {one} master {near}\nlink set {one} up\nlink set {other} master {far}\nlink set {other} up\n"
        );
        run_with("ip", &["-n", switch, "-batch", "-"], &ports);
        let mut line = Self { switch: switch.to_owned(), process, commands, shape: Shape { kbit: None, ..shape } };
        line.bound(shape.kbit);
        line
    }

    /// From now on a packet takes so long, or as long as the line's shape says.
    pub(crate) fn delay(&mut self, delay_ms: Option<u32>) {
        writeln!(self.commands, "{}", delay_ms.unwrap_or(self.shape.delay_ms)).expect("the line is up");
    }

    /// Bounds what passes each way; none takes the bound away.
    pub(crate) fn bound(&mut self, kbit: Option<u32>) {
        for end in ENDS {
            let place = ["-n", &self.switch, "qdisc"];
            if let Some(kbit) = kbit {
                let rate = format!("{kbit}kbit");
                let shape = ["root", "tbf", "rate", &rate, "burst", "16kb", "latency", "400ms"];
                run("tc", &[&place[..], &["replace", "dev", end], &shape].concat());
            } else if self.shape.kbit.is_some() {
                run("tc", &[&place[..], &["delete", "dev", end, "root"]].concat());
            }
        }
        self.shape.kbit = kbit;
    }

    /// Bytes that it took in so far, by direction: to the far side, to the near one.
    pub(crate) fn taken_bytes(&self) -> [u64; 2] {
        ENDS.map(|end| {
            let told = run("ip", &["-n", &self.switch, "-j", "-s", "link", "show", "dev", end]);
            let told: serde_json::Value = serde_json::from_str(&told).expect("ip speaks JSON");
            told[0]["stats64"]["tx"]["bytes"].as_u64().expect("an interface counts")
        })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
