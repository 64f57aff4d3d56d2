//! Chaos on real processes and a real network: nodes in network namespaces of their own, faults by a seed, and the same
//! judge as in `tests/cluster`. Needs root and a few programs of Linux; says why it does nothing where these are not.
//!
//! Each scenario has a seed of its own, so that a run that fails in the gate fails by what was changed. At `long` seeds are
//! new. The seed is printed always; `FLEET_SEED` sets it and so replays the faults of a run. `FLEET_CHAOS_SECONDS` sets how
//! long faults go on. With `FLEET_CHAOS_RUNS` only the test `many_runs` does something: so many runs, of all scenarios in
//! turn. Several of these processes may run at once; they do not meet, but share the machine's processors.

#[path = "../harness/mod.rs"]
mod harness;

mod crossing;
mod crossing_judge;
mod disk;
mod heals;
mod leftovers;
mod line;
mod load;
mod many;
mod narrow;
mod network;
mod outcome;
mod plan;
mod run;
mod saturated;
mod scenarios;
mod sites;
mod stage;
mod stalls;
mod tools;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::harness::seed::{seed, seed_or, sized};
use crate::run::{length, on_a_runtime, play, seed_of};
use crate::scenarios::{SMOKE, Scenario, named};

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

/// The same for a scenario of larger sizes, or, of the smallest, if `is_small`; none where many runs are asked for.
fn machine_for_one(is_small: bool) -> Option<MutexGuard<'static, ()>> {
    if many::asked().is_some() {
        eprintln!("skipped: FLEET_CHAOS_RUNS is for many_runs");
        return None;
    }
    if !sized(is_small, !is_small, !is_small) {
        eprintln!("skipped: FLEET_TEST_SIZE asks for other scenarios");
        return None;
    }
    machine()
}

/// The same for what takes many minutes, unless `FLEET_CHAOS_SECONDS` says how long.
fn machine_for_long() -> Option<MutexGuard<'static, ()>> {
    let is_asked = sized(false, false, true) || std::env::var_os("FLEET_CHAOS_SECONDS").is_some();
    if many::asked().is_some() || !is_asked {
        eprintln!("skipped: set FLEET_TEST_SIZE to long, or FLEET_CHAOS_SECONDS");
        return None;
    }
    machine()
}

/// The seed of the scenario `name`: its own, but for figures a new one.
fn seed_for(name: &str) -> u64 {
    seed_or(sized(true, true, false).then(|| seed_of(name)))
}

/// One run of `scenario`.
fn judge(scenario: &Scenario) {
    let seed = seed_for(scenario.name());
    let outcome = play(scenario, seed, length());
    assert!(outcome.violations.is_empty(), "{} with seed {seed}: {:#?}", scenario.name(), outcome.violations);
}

/// The same for the scenario `name` of larger sizes.
fn judge_named(name: &str) {
    if let Some(_machine) = machine_for_one(false) {
        judge(&named(name));
    }
}

#[test]
fn a_disk_without_power_has_lost_what_was_not_synced() {
    if let Some(_machine) = machine() {
        disk::check_that_a_cut_loses_what_is_not_synced();
    }
}

#[test]
fn a_line_delays_and_networks_do_not_meet() {
    if let Some(_machine) = machine() {
        network::check_that_a_line_delays_and_that_networks_do_not_meet();
    }
}

#[test]
fn smoke() {
    if let Some(_machine) = machine_for_one(true) {
        judge(&SMOKE);
    }
}

#[test]
fn kills() {
    judge_named("kills");
}

#[test]
fn frozen_and_cut_off_nodes() {
    judge_named("frozen");
}

#[test]
fn sides_without_each_other_and_one_way_links() {
    judge_named("sides");
}

#[test]
fn everybody_accepts_jobs_soon_after_cuts_of_any_length() {
    judge_named("heals");
}

#[test]
fn lossy_and_slow_networks() {
    judge_named("lossy");
}

#[test]
fn lost_power_and_full_disks() {
    judge_named("power");
}

#[test]
fn everything_at_once() {
    judge_named("everything");
}

#[test]
fn a_site_that_is_cut_off_and_started_anew_goes_on() {
    judge_named("cut-off");
}

#[test]
fn a_site_that_can_only_dial_out_sends_and_takes_jobs() {
    judge_named("dial-out");
}

#[test]
fn jobs_on_a_long_line_outlive_the_machines_of_both_sites() {
    judge_named("far-kills");
}

#[test]
fn moves_are_neither_lost_nor_doubled_where_power_is_lost() {
    judge_named("far-power");
}

#[test]
fn a_job_that_is_cancelled_or_called_back_on_its_way_ends_at_one_site() {
    judge_named("recalls");
}

/// At `long` only, or where `FLEET_CHAOS_SECONDS` is set.
#[test]
fn a_catalog_on_a_narrow_line_starves_no_job() {
    if let Some(_machine) = machine_for_long() {
        on_a_runtime(narrow::catalog_and_jobs(seed_for("narrow")));
    }
}

/// As many as `FLEET_CHAOS_RUNS` says.
#[test]
fn many_runs() {
    let Some(runs) = many::asked() else {
        eprintln!("skipped: set FLEET_CHAOS_RUNS");
        return;
    };
    let Some(_machine) = machine() else { return };
    many::run_all(runs, seed());
}

/// Half an hour, so only at `long`; or as long as `FLEET_CHAOS_SECONDS` says.
#[test]
fn nobody_is_held_dead_while_both_cores_are_busy() {
    if let Some(_machine) = machine_for_long() {
        on_a_runtime(saturated::count_false_deaths());
    }
}
