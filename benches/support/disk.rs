//! The yardstick: how often a second this disk makes 4 KiB durable, now.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use super::percentile;

/// Appends 4 KiB and calls fdatasync, for `bound`; the rate, and the median of one call.
pub fn fdatasync_loop(bound: Duration) -> (f64, Duration) {
    let path = std::env::temp_dir().join(format!("fleet-bench-{}", uuid::Uuid::now_v7().simple()));
    let mut file = OpenOptions::new().create_new(true).append(true).open(&path).expect("the disk is writable");
    let block = [0x5a_u8; 4096];
    let started = Instant::now();
    let mut calls = Vec::new();
    while started.elapsed() < bound {
        let call = Instant::now();
        file.write_all(&block).expect("the disk has room");
        file.sync_data().expect("the disk syncs");
        calls.push(call.elapsed());
    }
    let rate = calls.len() as f64 / started.elapsed().as_secs_f64();
    std::fs::remove_file(path).expect("the file is ours");
    (rate, percentile(&mut calls, 50))
}
