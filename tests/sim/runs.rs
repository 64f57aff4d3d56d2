//! Runs of the simulation: one seed, many seeds on all cores, and the suite of plain `cargo test`.

use std::env;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use fleet_sim::TestSize;

use crate::bugs::PlantedBug;
use crate::judge::Violation;
use crate::workflows::Interpreter;
use crate::world::World;

/// Stack of a thread that runs simulations: definitions are read and run on it.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// Within how many seeds a planted bug must be found.
const SEEDS_PER_BUG_MAX: u64 = 200;

/// What came of a seed.
struct Report {
    seed: u64,
    hash: u128,
    lines: u64,
    /// Virtual seconds.
    seconds: f64,
    jobs: usize,
    effects: u64,
    violation: Option<Violation>,
    tail: Vec<String>,
}

fn run(seed: u64, bug: Option<PlantedBug>, interpreter: &Interpreter) -> Report {
    let mut world = World::new(seed, bug, interpreter.clone());
    let violation = world.run().err();
    if let Some(violation) = &violation {
        world.log.note(violation.to_string());
    }
    Report {
        seed,
        hash: world.log.hash(),
        lines: world.log.lines(),
        seconds: world.agenda.now_us() as f64 / 1e6,
        jobs: world.judge.jobs.len(),
        effects: world.judge.effects_begun,
        tail: if violation.is_some() { world.log.tail().map(str::to_owned).collect() } else { Vec::new() },
        violation,
    }
}

fn explain(report: &Report) {
    let Some(violation) = &report.violation else { return };
    eprintln!("seed {}: {violation}", report.seed);
    eprintln!("the last of {} lines:", report.lines);
    report.tail.iter().for_each(|line| eprintln!("  {line}"));
    eprintln!("seed {}: {violation}", report.seed);
    eprintln!("repeat with SEED={} cargo test --release -p fleet --test sim -- --nocapture", report.seed);
}

/// Runs `work` on a thread with a large stack.
fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let joined = thread.expect("a thread starts").join();
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// One seed, and its line on stdout.
pub(crate) fn one(seed: u64) -> ExitCode {
    let report = on_large_stack(|| run(seed, None, &Interpreter::new()));
    println!("seed {seed} hash {:032x}", report.hash);
    explain(&report);
    if report.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The seeds from 0 to `count`, on all cores. Every seed that fails is told of; the first is explained.
pub(crate) fn many(count: u64) -> ExitCode {
    let began = Instant::now();
    let failed = seeds(0, count, None, false);
    let seconds = began.elapsed().as_secs_f64();
    eprintln!("{count} seeds in {seconds:.1} s: {:.2} seeds/s, {} failed", count as f64 / seconds, failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs seeds on all cores; those that failed. Stops at the first where `is_first_enough`.
fn seeds(first: u64, count: u64, bug: Option<PlantedBug>, is_first_enough: bool) -> Vec<Report> {
    let (next, done, is_over) = (AtomicU64::new(first), AtomicU64::new(0), AtomicBool::new(false));
    let (failed, began) = (Mutex::new(Vec::new()), Instant::now());
    let totals = Mutex::new((0.0, 0, 0, 0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let work = || {
                let interpreter = Interpreter::new();
                while !is_over.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        return;
                    }
                    let report = run(seed, bug, &interpreter);
                    let ended = done.fetch_add(1, Ordering::Relaxed) + 1;
                    {
                        let mut totals = totals.lock().expect("no thread panics with it");
                        totals.0 += report.seconds;
                        totals.1 += report.jobs;
                        totals.2 += report.effects;
                        totals.3 += report.lines;
                    }
                    if bug.is_none() && (ended.is_multiple_of(100) || ended == count) {
                        let seconds = began.elapsed().as_secs_f64();
                        let totals = *totals.lock().expect("no thread panics with it");
                        eprintln!(
                            "{ended} seeds, {:.2} seeds/s; {:.0} virtual s, {} jobs, {} effects, {} lines",
                            ended as f64 / seconds, totals.0, totals.1, totals.2, totals.3
                        );
                    }
                    if report.violation.is_some() {
                        is_over.fetch_or(is_first_enough, Ordering::Relaxed);
                        let mut failed = failed.lock().expect("no thread panics with it");
                        match (&report.violation, bug, failed.is_empty()) {
                            (_, None, true) => explain(&report),
                            (Some(violation), None, false) => eprintln!("seed {seed}: {violation}"),
                            _ => {}
                        }
                        failed.push(report);
                    }
                }
            };
            std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work).expect("a thread starts");
        }
    });
    let mut failed = failed.into_inner().expect("no thread panicked");
    failed.sort_by_key(|report| report.seed);
    failed
}

/// What plain `cargo test` runs: some seeds, the same seed twice in two processes, and the planted bugs.
pub(crate) fn suite() -> ExitCode {
    let size = TestSize::from_env();
    let mut is_good = true;
    let mut check = |name: &str, holds: bool| {
        eprintln!("test {name} ... {}", if holds { "ok" } else { "FAILED" });
        is_good &= holds;
    };
    check("a_seed_repeats_across_processes", repeats_across_processes());
    check("planted_bugs_are_caught", planted_bugs_are_caught());
    let count = size.choose(20, 500, 10_000);
    check("no_seed_breaks_a_law", many(count) == ExitCode::SUCCESS);
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The line that a process of its own prints for `seed`.
fn line_of(seed: u64) -> Option<String> {
    let this = env::current_exe().ok()?;
    let output = Command::new(this).env("SEED", seed.to_string()).env_remove("SEEDS").output().ok()?;
    String::from_utf8(output.stdout).ok()
}

fn repeats_across_processes() -> bool {
    [1, 2, 3].into_iter().all(|seed| {
        let (first, second) = (line_of(seed), line_of(seed));
        let is_one_line = first.as_ref().is_some_and(|text| {
            text.lines().count() == 1 && text.starts_with(&format!("seed {seed} hash "))
        });
        if !is_one_line || first != second {
            eprintln!("seed {seed} printed {first:?} and then {second:?}");
        }
        is_one_line && first == second
    })
}

fn planted_bugs_are_caught() -> bool {
    let caught = PlantedBug::ALL.into_iter().map(|bug| {
        let began = Instant::now();
        let found = seeds(0, SEEDS_PER_BUG_MAX, Some(bug), true).into_iter().next();
        match &found {
            Some(Report { seed, violation: Some(violation), .. }) => {
                eprintln!("{bug:?}: caught by seed {seed} in {:.1} s: {violation}", began.elapsed().as_secs_f64());
            }
            _ => eprintln!("{bug:?}: not caught by {SEEDS_PER_BUG_MAX} seeds"),
        }
        found.is_some()
    });
    caught.fold(true, |all, one| all & one)
}
