//! The whole decision core of a fleet under one seed: `docs/testing.md` says what is real in it and what is not.
//!
//! `SEED=n` runs that seed and prints one line on stdout, `seed N hash HEX`; `SEEDS=n` runs so many,
//! `LONG_CUTS=n` so many in which a site is cut off for a day,
//! `BLINKS=n` so many in which only leaders die. Everything else that is
//! printed goes to stderr, with `EVENTS=1` every event of the seed; `PLANTED_BUG=AckBeforeFsync` plants that one. This target
//! has no harness, so that stdout holds nothing else.

mod applying;
mod bugs;
mod catalog;
mod clients;
mod consensus;
mod courier;
mod ending;
mod faults;
mod group;
mod judge;
mod message;
mod node;
mod own_journal;
mod robot;
mod runs;
mod scheduler;
mod striking;
mod workflows;
mod world;

use std::env;
use std::process::ExitCode;

use bugs::PlantedBug;

fn main() -> ExitCode {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let bug = env::var("PLANTED_BUG").ok();
    let bug =
        PlantedBug::ALL.into_iter().find(|planted| bug.as_ref().is_some_and(|name| format!("{planted:?}") == *name));
    if let Some(seed) = number("SEED") {
        return runs::one(seed, bug, env::var_os("EVENTS").is_some());
    }
    if let Some(count) = number("SEEDS") {
        return runs::many(count, bug);
    }
    if let Some(count) = number("LONG_CUTS") {
        return if runs::long_cuts(count) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Some(count) = number("BLINKS") {
        return if runs::blinks(count) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    runs::suite()
}
