//! What the benches share: options, the line a figure is printed as, the same-minute fdatasync loop, clients, an HTTP
//! server that answers at once, and what the system says about a process.

#![allow(unreachable_pub, dead_code, reason = "each bench that includes this uses its own part of it")]

pub(crate) mod disk;
pub(crate) mod load;
pub(crate) mod null_server;
pub(crate) mod options;
pub(crate) mod process;
pub(crate) mod ready;
pub(crate) mod report;

use std::time::Duration;

/// The runtime of a bench: one thread, so that the client takes no more of the cores than it must.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The `percent`th percentile; zero of nothing.
pub fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    samples.get((samples.len().saturating_sub(1)) * percent / 100).copied().unwrap_or_default()
}

/// Milliseconds, with their fraction.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// Bytes as MB of a million.
pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
