//! What the benches share: the same-minute fdatasync loop, percentiles, the line a figure is printed as, and an HTTP
//! server that answers at once.

#![allow(unreachable_pub, dead_code, reason = "each bench that includes this uses its own part of it")]

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::post;
use serde::Serialize;
use tokio::net::TcpListener;

/// One figure, as `--json` prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// Clients at once.
    pub clients: usize,
    /// Nodes of the fleet.
    pub nodes: usize,
    /// What the disk gave in the same minute.
    pub fdatasync_per_second: f64,
}

impl Figure {
    /// Prints the figure: one JSON line with `--json`, else a line for people.
    pub fn print(&self) {
        if std::env::args().any(|argument| argument == "--json") {
            println!("{}", serde_json::to_string(self).expect("a figure is plain data"));
        } else {
            println!(
                "{:44} {:>12.2} {:10} clients {:>3}  nodes {}  fdatasync/s {:.0}",
                self.name, self.value, self.unit, self.clients, self.nodes, self.fdatasync_per_second
            );
        }
    }
}

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

/// The `percent`th percentile; zero of nothing.
pub fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    samples.get((samples.len().saturating_sub(1)) * percent / 100).copied().unwrap_or_default()
}

/// An HTTP server on loopback that answers `{}` at once.
pub async fn null_server() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    let routes = Router::new().route("/", post(async || axum::Json(serde_json::json!({}))));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}
