//! What Linux says about a process: memory and processor time. The benches' only part that knows the platform.

use std::time::Duration;

/// Units of time in `/proc`, a second: fixed for user space.
const TICKS_PER_SECOND: u64 = 100;

/// Memory of a process, bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident now: what the targets speak of.
    pub resident: u64,
    /// Resident at most so far.
    pub peak: u64,
    /// The part of `resident` that no file backs.
    pub anonymous: u64,
}

/// Memory of the process `pid`.
pub fn memory(pid: u32) -> Memory {
    let text = read(pid, "status");
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel tells it");
        let kib: u64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("it is a number");
        kib * 1024
    };
    Memory { resident: field("VmRSS:"), peak: field("VmHWM:"), anonymous: field("RssAnon:") }
}

/// Processor time of the process `pid` so far, all its threads.
pub fn processor_time(pid: u32) -> Duration {
    let text = read(pid, "stat");
    // The second field is the program's name, which may have anything in it but ends with the last parenthesis.
    let (_, fields) = text.rsplit_once(')').expect("the kernel tells the name");
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("it is a number")).sum();
    Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
}

/// Processor time of all of `pids` together.
pub fn processor_time_of(pids: &[u32]) -> Duration {
    pids.iter().map(|pid| processor_time(*pid)).sum()
}

fn read(pid: u32, file: &str) -> String {
    let path = format!("/proc/{pid}/{file}");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {path}: {error}"))
}
