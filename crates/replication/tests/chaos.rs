//! A site under faults that follow from a seed: cuts in one or both directions, power losses, restarts. A sequential
//! writer's acknowledged commands are all there in the end, in its order, none twice, the same on every node.
//!
//! `FLEET_SEED` repeats a run; `FLEET_TEST_SIZE=long` makes it longer.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use support::{Site, command};

/// What the writer was told.
#[derive(Debug)]
struct History {
    acknowledged: Vec<u128>,
    unknown: BTreeSet<u128>,
    longest_gap: Duration,
    last_acknowledged: Instant,
}

impl History {
    fn acknowledge(&mut self, id: u128) {
        self.acknowledged.push(id);
        self.longest_gap = self.longest_gap.max(self.last_acknowledged.elapsed());
        self.last_acknowledged = Instant::now();
    }
}

fn seed() -> u64 {
    std::env::var("FLEET_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_120)
}

fn faults() -> u32 {
    match std::env::var("FLEET_TEST_SIZE").as_deref() {
        Ok("long") => 120,
        Ok("ci") => 30,
        _ => 10,
    }
}

/// Writes one command after another for as long as `until` says, on whoever seems to lead.
async fn write_until(site: &Site, history: &mut History, next: &mut u128, until: Instant) {
    while Instant::now() < until {
        let leader = site.nodes.iter().find(|node| node.group.serving_term().is_some());
        let Some(leader) = leader else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let id = *next;
        *next += 1;
        match leader.group.propose(command(id), Duration::from_millis(500)).await {
            Ok(_) => {
                history.acknowledge(id);
            }
            Err(_) => {
                history.unknown.insert(id);
            }
        }
    }
}

/// Breaks something that `random` chooses. At most one node is down or cut off at a time.
async fn break_something(site: &mut Site, random: &mut StdRng) {
    let victim = random.random_range(0..site.nodes.len());
    let ids = site.ids();
    let id = ids[victim];
    let other = ids[(victim + random.random_range(1..ids.len())) % ids.len()];
    match random.random_range(0..5) {
        0 => site.router.isolate(id, ids),
        1 => site.router.cut(id, other),
        2 => {
            for other in ids.into_iter().filter(|other| *other != id) {
                site.router.cut(other, id);
            }
        }
        3 => site.crash_and_restart(victim).await,
        _ => {
            // The leader, restarted at once: it resumes its old term.
            let leader = site.nodes.iter().position(|node| node.group.serving_term().is_some());
            site.crash_and_restart(leader.unwrap_or(victim)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_command_is_lost_and_none_is_applied_twice() {
    let seed = seed();
    println!("FLEET_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut site = Site::grow(3).await;
    let mut history = History {
        acknowledged: Vec::new(),
        unknown: BTreeSet::new(),
        longest_gap: Duration::ZERO,
        last_acknowledged: Instant::now(),
    };
    let mut next = 1;
    for _ in 0..faults() {
        let calm = Duration::from_millis(random.random_range(200..900));
        write_until(&site, &mut history, &mut next, Instant::now() + calm).await;
        break_something(&mut site, &mut random).await;
        let trouble = Duration::from_millis(random.random_range(200..2_000));
        write_until(&site, &mut history, &mut next, Instant::now() + trouble).await;
        site.router.heal();
    }
    site.write(u128::MAX).await;
    let applied = site.settle().await;
    let distinct: BTreeSet<u128> = applied.iter().copied().collect();
    assert_eq!(distinct.len(), applied.len(), "a command was applied twice");
    let kept: Vec<u128> = applied.iter().copied().filter(|id| history.acknowledged.contains(id)).collect();
    assert_eq!(kept, history.acknowledged, "an acknowledged command was lost or moved");
    let stranger = applied
        .iter()
        .find(|id| **id != u128::MAX && !history.acknowledged.contains(id) && !history.unknown.contains(id));
    assert_eq!(stranger, None, "a command that nobody proposed was applied");
    assert!(history.acknowledged.len() > 100, "the site made progress: {} acknowledged", history.acknowledged.len());
    println!(
        "acknowledged {}, unknown {}, longest gap {:?}",
        history.acknowledged.len(),
        history.unknown.len(),
        history.longest_gap
    );
}
