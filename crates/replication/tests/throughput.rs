//! Figures, not promises: durable proposals per second of one node on a real file, beside an fdatasync loop of the same
//! minute. Ignored by default; run with `cargo test --release -p fleet-replication --test throughput -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::SystemClock;
use fleet_core::timing::Timing;
use fleet_replication::{Group, GroupConfig};
use fleet_store::Store;
use tokio::time::Instant;

use support::{GROUP, Router, command, remember, wait};

const RUN: Duration = Duration::from_secs(3);

/// Appends and syncs of 4 KiB per second in `folder`.
fn syncs_per_second(folder: &Path) -> u64 {
    let mut file = File::create(folder.join("sync")).unwrap();
    let (started, mut count) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(1) {
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures; see the file's head"]
async fn durable_proposals_of_one_node() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("fleet.redb")).unwrap();
    let router = Router::default();
    let node = store.node_id();
    let config = GroupConfig {
        store,
        group: GROUP,
        epoch: 1,
        timing: Timing::LAN,
        clock: Arc::new(SystemClock),
        network: router.port(node),
        apply_commands: remember,
    };
    let group = Group::open(config).await.unwrap();
    group.found().await.unwrap();
    wait(|| group.serving_term()).await.unwrap();
    for clients in [1_u128, 16, 128] {
        let syncs = syncs_per_second(folder.path());
        let started = Instant::now();
        let tasks: Vec<_> = (0..clients)
            .map(|client| {
                let group = group.clone();
                tokio::spawn(async move {
                    let mut latencies = Vec::new();
                    while started.elapsed() < RUN {
                        let id = (client << 64) | latencies.len() as u128;
                        let asked = Instant::now();
                        group.propose(command(id), Duration::from_secs(5)).await.unwrap();
                        latencies.push(asked.elapsed());
                    }
                    latencies
                })
            })
            .collect();
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await.unwrap());
        }
        latencies.sort_unstable();
        let per_second = latencies.len() as f64 / started.elapsed().as_secs_f64();
        let at = |share: usize| latencies[latencies.len() * share / 100];
        println!("clients {clients}: {per_second:.0}/s, p50 {:?}, p99 {:?}, fdatasync {syncs}/s", at(50), at(99));
    }
}
