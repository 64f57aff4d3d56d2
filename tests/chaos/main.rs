//! Chaos on real processes and a real network: nodes in network namespaces of their own, faults by a seed, and the same
//! judge as in `tests/cluster`. Needs root and a few programs of Linux; says why it does nothing where these are not.
//!
//! Each scenario has a seed of its own, so that a run that fails in the gate fails by what was changed. At `long`, and where
//! `FLEET_CHAOS_RUNS` repeats each scenario, seeds are new. The seed is printed always; `FLEET_SEED` sets it and so replays
//! the faults of a run. `FLEET_CHAOS_SECONDS` sets how long faults go on.

#[path = "../harness/mod.rs"]
mod harness;

mod dial_out;
mod disk;
mod heals;
mod leftovers;
mod load;
mod network;
mod plan;
mod run;
mod saturated;
mod sites;
mod stage;
mod stalls;
mod tools;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::harness::seed::sized;
use crate::plan::Kind::{
    CutNode, CutSide, Freeze, FullDisk, Kill, KillAll, Loss, OneWay, PowerLoss, PowerLossOfAll, Slow,
};
use crate::run::{Scenario, of_its_kinds, run};

/// One scenario at a time: they share the machine's cores, and judge what a fleet does in time.
static STAGE: Mutex<()> = Mutex::new(());

/// The machine for one scenario; none, with the reason printed, where it cannot be had.
fn machine() -> Option<MutexGuard<'static, ()>> {
    if let Some(reason) = tools::missing() {
        eprintln!("skipped: {reason}");
        return None;
    }
    let guard = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    leftovers::clear();
    Some(guard)
}

/// The same for a scenario that is too long for plain `cargo test`.
fn machine_of_larger_sizes() -> Option<MutexGuard<'static, ()>> {
    if !sized(false, true, true) {
        eprintln!("skipped: set FLEET_TEST_SIZE to ci or long");
        return None;
    }
    machine()
}

/// Runs `scenario` on a runtime of its own, so that nothing of it is left when the next one begins.
fn play(scenario: &Scenario, small_seconds: u64) {
    finish(run(scenario, of_its_kinds, small_seconds));
}

fn finish(run: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build();
    runtime.expect("a runtime can be made").block_on(run);
}

#[test]
fn a_disk_without_power_has_lost_what_was_not_synced() {
    if let Some(_machine) = machine() {
        disk::check_that_a_cut_loses_what_is_not_synced();
    }
}

#[test]
fn smoke() {
    if sized(false, true, true) {
        eprintln!("skipped: larger sizes have larger scenarios");
        return;
    }
    let Some(_machine) = machine() else { return };
    play(&Scenario { name: "smoke", nodes: 3, kinds: &[Kill, Freeze, CutNode], together: 1, has_disks: false }, 10);
}

#[test]
fn kills() {
    let Some(_machine) = machine_of_larger_sizes() else { return };
    play(&Scenario { name: "kills", nodes: 5, kinds: &[Kill, Kill, Kill, KillAll], together: 2, has_disks: false }, 60);
}

#[test]
fn frozen_and_cut_off_nodes() {
    let Some(_machine) = machine_of_larger_sizes() else { return };
    let kinds = &[Freeze, CutNode];
    play(&Scenario { name: "frozen", nodes: 5, kinds, together: 2, has_disks: false }, 60);
}

#[test]
fn sides_without_each_other_and_one_way_links() {
    let Some(_machine) = machine_of_larger_sizes() else { return };
    let kinds = &[CutSide, OneWay];
    play(&Scenario { name: "sides", nodes: 5, kinds, together: 1, has_disks: false }, 60);
}

#[test]
fn everybody_accepts_jobs_soon_after_cuts_of_any_length() {
    let Some(_machine) = machine_of_larger_sizes() else { return };
    let heals = Scenario { name: "heals", nodes: 5, kinds: &[CutNode, CutSide], together: 1, has_disks: false };
    finish(run(&heals, |scenario, random, length_ms| heals::plan(random, scenario.nodes, length_ms), 60));
}

#[test]
fn lossy_and_slow_networks() {
    let Some(_machine) = machine_of_larger_sizes() else { return };
    let kinds = &[Loss, Loss, Slow, Kill];
    play(&Scenario { name: "lossy", nodes: 4, kinds, together: 2, has_disks: false }, 60);
}

#[test]
fn lost_power_and_full_disks() {
    let Some(_machine) = machine_of_larger_sizes() else { return };
    let kinds = &[PowerLoss, PowerLoss, PowerLossOfAll, FullDisk];
    play(&Scenario { name: "power", nodes: 3, kinds, together: 1, has_disks: true }, 60);
}

#[test]
fn everything_at_once() {
    let Some(_machine) = machine_of_larger_sizes() else { return };
    let kinds = &[Kill, KillAll, Freeze, CutNode, CutSide, OneWay, Loss, Slow, FullDisk, PowerLoss, PowerLossOfAll];
    play(&Scenario { name: "everything", nodes: 4, kinds, together: 3, has_disks: true }, 60);
}

#[test]
fn a_site_that_is_cut_off_and_started_anew_goes_on() {
    let Some(_machine) = machine_of_larger_sizes() else { return };
    finish(sites::cut_off_and_reboot(60));
}

#[test]
fn a_site_that_can_only_dial_out_sends_and_takes_jobs() {
    let Some(_machine) = machine_of_larger_sizes() else { return };
    finish(dial_out::transfers_under_faults(60));
}

/// Half an hour, so only at `long`; or as long as `FLEET_CHAOS_SECONDS` says.
#[test]
fn nobody_is_held_dead_while_both_cores_are_busy() {
    if !sized(false, false, true) && std::env::var_os("FLEET_CHAOS_SECONDS").is_none() {
        eprintln!("skipped: set FLEET_TEST_SIZE to long, or FLEET_CHAOS_SECONDS");
        return;
    }
    let Some(_machine) = machine() else { return };
    finish(saturated::count_false_deaths());
}
