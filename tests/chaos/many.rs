//! Many runs: all scenarios in turn with seeds that nobody has seen yet, a line for each run, and one for all.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::harness::seed::Random;
use crate::outcome::Outcome;
use crate::run::{length, play};
use crate::scenarios::ALL;

/// How many runs are asked for: `FLEET_CHAOS_RUNS`.
pub(crate) fn asked() -> Option<usize> {
    let text = std::env::var("FLEET_CHAOS_RUNS").ok()?;
    Some(text.parse().expect("FLEET_CHAOS_RUNS is a number"))
}

/// Makes `runs` of them, whatever comes of each. Runs follow from the first seed.
///
/// # Panics
/// If one of them broke a promise or did not end well otherwise.
pub(crate) fn run_all(runs: usize, seed: u64) {
    let (mut random, mut sum, mut failed, began) = (Random::new(seed), Outcome::default(), Vec::new(), Instant::now());
    for (number, scenario) in ALL.iter().cycle().take(runs).enumerate() {
        let (seed, started) = (random.next(), Instant::now());
        // A panic is a run that did not end well: what it held is gone with its runtime, and its logs are kept.
        let ended = catch_unwind(AssertUnwindSafe(|| play(scenario, seed, length())));
        let name = format!("{} seed {seed}", scenario.name());
        let told = match ended {
            Ok(outcome) => {
                let told = outcome.to_string();
                if !outcome.violations.is_empty() {
                    eprintln!("broken promises in {name}: {:#?}", outcome.violations);
                    failed.push(name.clone());
                }
                sum.add(outcome);
                told
            }
            Err(reason) => {
                failed.push(name.clone());
                format!("NOT ENDED: {}", first_line(reason.as_ref()))
            }
        };
        println!("run {} of {runs}: {name}: {told}; in {:.0?}", number + 1, started.elapsed());
    }
    println!("{runs} runs, {} of them failed, in {:.0?}: {sum}", failed.len(), began.elapsed());
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

/// What a panic says first.
fn first_line(reason: &(dyn std::any::Any + Send)) -> String {
    let text = reason.downcast_ref::<String>().map(String::as_str).or_else(|| reason.downcast_ref::<&str>().copied());
    let line = text.and_then(|text| text.lines().next()).unwrap_or("it panicked");
    line.chars().take(300).collect()
}
