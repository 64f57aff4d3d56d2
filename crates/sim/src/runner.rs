//! One check over many seeds: how many depends on `FLEET_TEST_SIZE`; `FLEET_SEED` repeats a single one.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// How much a test may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TestSize {
    /// Plain `cargo test`.
    Plain,
    /// `FLEET_TEST_SIZE=ci`.
    Ci,
    /// `FLEET_TEST_SIZE=long`: for the figures of closing notes.
    Long,
}

impl TestSize {
    /// The size asked for.
    pub fn from_env() -> Self {
        match env::var("FLEET_TEST_SIZE").as_deref() {
            Ok("ci") => Self::Ci,
            Ok("long") => Self::Long,
            _ => Self::Plain,
        }
    }

    /// The one of three values that belongs to this size.
    pub fn choose<T>(self, plain: T, ci: T, long: T) -> T {
        match self {
            Self::Plain => plain,
            Self::Ci => ci,
            Self::Long => long,
        }
    }
}

/// Runs `check` with the seeds from 0 to `count`, or with `FLEET_SEED` alone. A failure names its seed.
pub fn for_each_seed(count: u64, check: impl Fn(u64)) {
    let only = env::var("FLEET_SEED").ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = only.map_or(0..count, |seed| seed..seed + 1);
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(seed))) {
            eprintln!("failed with seed {seed}: repeat with FLEET_SEED={seed}");
            resume_unwind(panic);
        }
    }
}
