//! Runs of the simulation: one seed, many seeds on all cores, and the suite of plain `cargo test`.

use std::collections::BTreeMap;
use std::env;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fleet_sim::{EventLog, TestSize};

use crate::bugs::PlantedBug;
use crate::catalog::CatalogWorld;
use crate::judge::Violation;
use crate::message::Situation;
use crate::workflows::Interpreter;
use crate::world::World;

/// Stack of a thread that runs simulations: definitions are read and run on it.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// Within how many seeds a planted bug must be found.
const SEEDS_PER_BUG_MAX: u64 = 200;
/// How often a run of many seeds says how far it is.
const SEEDS_PER_LINE: u64 = 100;
/// Seeds whose events are compared between processes.
const REPEATED_SEEDS: [u64; 3] = [1, 2, 3];

/// What came of a seed.
struct Report {
    seed: u64,
    hash: u128,
    lines: u64,
    violation: Option<Violation>,
    tail: Vec<String>,
}

/// What came of many seeds.
#[derive(Default)]
struct Totals {
    seeds: u64,
    virtual_seconds: f64,
    jobs: usize,
    effects: u64,
    lines: u64,
    seen: BTreeMap<Situation, u64>,
    failed: Vec<Report>,
}

fn run(seed: u64, bug: Option<PlantedBug>, interpreter: &Interpreter) -> (Report, World) {
    run_world(World::new(seed, bug, interpreter.clone()), seed)
}

fn run_world(mut world: World, seed: u64) -> (Report, World) {
    let is_in_catalog = world.bug.is_some_and(PlantedBug::is_in_catalog);
    let mut violation = if is_in_catalog { None } else { world.run().err() };
    if violation.is_none() && world.bug.is_none_or(PlantedBug::is_in_catalog) {
        let mut catalogs = CatalogWorld::new(seed, world.bug, std::mem::take(&mut world.log));
        violation = catalogs.run().err();
        (world.log, world.catalog_seen) = catalogs.into_log();
    }
    if let Some(violation) = &violation {
        world.log.note(violation.to_string());
    }
    let tail = violation.iter().flat_map(|_| world.log.tail().map(str::to_owned)).collect();
    let report = Report { seed, hash: world.log.hash(), lines: world.log.lines(), violation, tail };
    (report, world)
}

fn explain(report: &Report) {
    let Some(violation) = &report.violation else { return };
    eprintln!("seed {}: the last of {} lines:", report.seed, report.lines);
    report.tail.iter().for_each(|line| eprintln!("  {line}"));
    eprintln!("seed {} breaks {violation}", report.seed);
    eprintln!("repeat with SEED={} cargo test --release -p fleet --test sim -- --nocapture", report.seed);
}

/// One seed, and its line on stdout. Every event is told on stderr if `is_told`.
pub(crate) fn one(seed: u64, bug: Option<PlantedBug>, is_told: bool) -> ExitCode {
    let work = || {
        let mut world = World::new(seed, bug, Interpreter::new());
        if is_told {
            world.log = EventLog::default().told();
        }
        run_world(world, seed)
    };
    let (report, _) = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let running = thread.spawn_scoped(scope, work).expect("a thread starts");
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    println!("seed {seed} hash {:032x}", report.hash);
    explain(&report);
    code(report.violation.is_none())
}

/// The seeds from 0 to `count`, on all cores; with a planted bug, until one finds it.
pub(crate) fn many(count: u64, bug: Option<PlantedBug>) -> ExitCode {
    let totals = Batch::of(count, bug).run();
    if bug.is_some() {
        totals.failed.iter().for_each(explain);
    } else {
        every_situation_comes_up(&totals.seen);
    }
    code(totals.failed.is_empty())
}

fn code(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The seeds from 0 to `count`, shared by threads.
struct Batch {
    count: u64,
    bug: Option<PlantedBug>,
    began: Instant,
    next: AtomicU64,
    is_over: AtomicBool,
    totals: Mutex<Totals>,
}

impl Batch {
    fn of(count: u64, bug: Option<PlantedBug>) -> Self {
        Self {
            count,
            bug,
            began: Instant::now(),
            next: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            totals: Mutex::new(Totals::default()),
        }
    }

    /// Runs them on all cores. Where a bug is planted, the first seed that finds it ends the batch.
    fn run(self) -> Totals {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
                thread.spawn_scoped(scope, || self.work()).expect("a thread starts");
            }
        });
        let mut totals = self.totals.into_inner().unwrap_or_else(PoisonError::into_inner);
        totals.failed.sort_by_key(|report| report.seed);
        totals
    }

    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let interpreter = Interpreter::new();
        while !self.is_over.load(Ordering::Relaxed) {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.count {
                return;
            }
            let (report, world) = run(seed, self.bug, &interpreter);
            self.count_in(report, &world);
        }
    }

    fn count_in(&self, report: Report, world: &World) {
        let mut totals = self.totals();
        totals.seeds += 1;
        totals.virtual_seconds += world.agenda.now_us() as f64 / 1e6;
        totals.jobs += world.clients.accepted.len();
        totals.effects += world.sites.iter().map(|site| site.judge.effects_begun).sum::<u64>();
        totals.lines += report.lines;
        let of_sites = world.sites.iter().flat_map(|site| &site.judge.seen);
        for (situation, times) in of_sites.chain(&world.catalog_seen) {
            *totals.seen.entry(*situation).or_default() += times;
        }
        if let Some(violation) = &report.violation {
            self.is_over.fetch_or(self.bug.is_some(), Ordering::Relaxed);
            match (self.bug, totals.failed.is_empty()) {
                (None, true) => explain(&report),
                (None, false) => eprintln!("seed {} breaks {violation}", report.seed),
                (Some(_), _) => {}
            }
            totals.failed.push(report);
        }
        if self.bug.is_none() && (totals.seeds.is_multiple_of(SEEDS_PER_LINE) || totals.seeds == self.count) {
            let seconds = self.began.elapsed().as_secs_f64();
            eprintln!(
                "{} seeds in {seconds:.0} s, {:.2} seeds/s, {} failed: {:.0} virtual s, {} jobs, {} effects, {} events",
                totals.seeds,
                totals.seeds as f64 / seconds,
                totals.failed.len(),
                totals.virtual_seconds,
                totals.jobs,
                totals.effects,
                totals.lines,
            );
        }
    }
}

/// `count` seeds in which a site is cut off for a day; whether all went well.
pub(crate) fn long_cuts(count: u64) -> bool {
    let work = |seed| {
        let (report, world) = run_world(World::long_cut(seed, Interpreter::new()), seed);
        explain(&report);
        let Some(cut) = world.long_cut else { return false };
        let merged_us = world.agenda.now_us().saturating_sub(cut.healed_at_us);
        eprintln!(
            "long cut {seed}: {} sites of {} machines, {} jobs accepted, {} moves and {} ends waited, merged in {:.1} s, \
             {} events, hash {:032x}",
            world.sites.len(),
            world.machines.len(),
            cut.accepted,
            cut.moves_waiting,
            cut.ends_buffered,
            merged_us as f64 / 1e6,
            report.lines,
            report.hash,
        );
        report.violation.is_none() && cut.accepted > 0
    };
    std::thread::scope(|scope| {
        let begin = |seed| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            thread.spawn_scoped(scope, move || work(seed)).expect("a thread starts")
        };
        (0..count).all(|seed| begin(seed).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// `count` seeds in which only leaders die; whether no other robot lost a job.
pub(crate) fn blinks(count: u64) -> bool {
    let work = || {
        let interpreter = Interpreter::new();
        let (mut jobs, mut elected, mut is_good) = (0, 0, true);
        for seed in 0..count {
            let (report, world) = run_world(World::blinks(seed, interpreter.clone()), seed);
            explain(&report);
            is_good &= report.violation.is_none();
            jobs += world.clients.accepted.len();
            let seen = |site: &crate::world::Site| site.judge.seen.get(&Situation::LeaderElected).copied();
            elected += world.sites.iter().filter_map(seen).sum::<u64>();
        }
        eprintln!("blinks: {count} seeds, {jobs} jobs, {elected} leaders elected");
        is_good
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let running = thread.spawn_scoped(scope, work).expect("a thread starts");
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What `cargo test` runs. What takes hundreds of seeds to show is left to the larger sizes.
pub(crate) fn suite() -> ExitCode {
    let size = TestSize::from_env();
    let mut is_good = true;
    let mut check = |name: &str, holds: bool| {
        eprintln!("test {name} ... {}", if holds { "ok" } else { "FAILED" });
        is_good &= holds;
    };
    check("a_seed_repeats_across_processes", repeats_across_processes());
    let totals = Batch::of(size.choose(16, 500, 10_000), None).run();
    check("no_seed_breaks_a_law", totals.failed.is_empty());
    if size > TestSize::Plain {
        check("a_leaders_death_restarts_nothing_elsewhere", blinks(size.choose(0, 20, 1_000)));
        check("a_site_cut_off_for_a_day_merges", long_cuts(size.choose(0, 3, 100)));
        check("every_situation_comes_up", every_situation_comes_up(&totals.seen));
        check("planted_bugs_are_caught", planted_bugs_are_caught());
    }
    code(is_good)
}

fn every_situation_comes_up(seen: &BTreeMap<Situation, u64>) -> bool {
    let times = |situation: &Situation| seen.get(situation).copied().unwrap_or_default();
    let all: Vec<String> =
        Situation::ALL.iter().map(|situation| format!("{situation:?} {}", times(situation))).collect();
    eprintln!("situations: {}", all.join(", "));
    Situation::ALL.iter().all(|situation| times(situation) > 0)
}

/// The line that a process of its own prints for `seed`.
fn line_of(seed: u64) -> Option<String> {
    let this = env::current_exe().ok()?;
    let output = Command::new(this).env("SEED", seed.to_string()).output().ok()?;
    String::from_utf8(output.stdout).ok()
}

fn repeats_across_processes() -> bool {
    REPEATED_SEEDS.into_iter().all(|seed| {
        let (first, second) = (line_of(seed), line_of(seed));
        let begins = format!("seed {seed} hash ");
        let is_one_line = first.as_ref().is_some_and(|text| text.lines().count() == 1 && text.starts_with(&begins));
        if !is_one_line || first != second {
            eprintln!("seed {seed} printed {first:?} and then {second:?}");
        }
        is_one_line && first == second
    })
}

fn planted_bugs_are_caught() -> bool {
    let caught = PlantedBug::ALL.into_iter().map(|bug| {
        let found = Batch::of(SEEDS_PER_BUG_MAX, Some(bug)).run();
        match found.failed.first() {
            Some(Report { seed, violation: Some(violation), .. }) => {
                eprintln!("{bug:?}: caught by seed {seed}, after {} seeds: {violation}", found.seeds);
            }
            _ => eprintln!("{bug:?}: not caught by {SEEDS_PER_BUG_MAX} seeds"),
        }
        !found.failed.is_empty()
    });
    caught.fold(true, |all, one| all & one)
}
