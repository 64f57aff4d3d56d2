//! The whole decision core of a fleet under one seed: `docs/testing.md` says what is real in it and what is not.
//!
//! `SEED=n` runs that seed and prints one line on stdout, `seed N hash HEX`; `SEEDS=n` runs so many. Everything else that is
//! printed goes to stderr. This target has no harness, so that stdout holds nothing else.

mod applying;
mod bugs;
mod clients;
mod consensus;
mod ending;
mod faults;
mod group;
mod judge;
mod message;
mod node;
mod robot;
mod runs;
mod scheduler;
mod striking;
mod workflows;
mod world;

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("SEED") {
        return runs::one(seed);
    }
    if let Some(count) = number("SEEDS") {
        return runs::many(count);
    }
    runs::suite()
}
