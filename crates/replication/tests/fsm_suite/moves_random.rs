//! Promises 2, 4, 6 and 7 for jobs that move: whatever is lost, doubled, late, out of order or said again after a crash,
//! a job has one holder and one result, and once the links work every site knows it.

use std::cell::RefCell;
use std::collections::BTreeSet;

use fleet_core::{JobId, Timestamp};
use fleet_replication::command::Action;
use fleet_sim::dice::Dice;
use fleet_sim::runner::{TestSize, for_each_seed};
use fleet_store::record::JobState;
use fleet_store::state::tables::{ARRIVALS, CANCELS, ORIGINS, OUTBOX, REPORTS};
use fleet_store::state::{jobs, moves};
use fleet_store::{StateRead, StateReader, Store};

use crate::moves_world::{SITES, World};
use crate::test_site::{check_consistency, job_id};

const JOBS: u8 = 3;
/// Runs that share one store in memory before it is made anew.
const RUNS_PER_STORE: u64 = 25;

#[test]
fn a_job_has_one_holder_and_one_result_whatever_the_links_do() {
    run_many(false, 0);
}

#[test]
fn a_job_has_one_holder_and_one_result_whatever_the_links_do_once_more() {
    run_many(false, 1);
}

#[test]
fn what_a_lost_site_still_says_of_a_job_that_was_given_up_changes_nothing() {
    run_many(true, 0);
}

#[test]
fn what_a_lost_site_still_says_of_a_job_that_was_given_up_changes_nothing_once_more() {
    run_many(true, 1);
}

/// Every second seed, so that two tests share the runs and two cores the work.
fn run_many(abandons: bool, half: u64) {
    let store = RefCell::new((0_u64, Store::in_memory().unwrap()));
    for_each_seed(TestSize::from_env().choose(100, 1_000, 25_000), |seed| {
        let mut shared = store.borrow_mut();
        shared.0 += 1;
        if shared.0.is_multiple_of(RUNS_PER_STORE) {
            shared.1 = Store::in_memory().unwrap();
        }
        let world = World::new(shared.1.clone(), shared.0);
        Run { world, dice: Dice::new(2 * seed + half), abandons, submitted: BTreeSet::new() }.run();
    });
}

struct Run {
    world: World,
    dice: Dice,
    abandons: bool,
    submitted: BTreeSet<JobId>,
}

impl Run {
    fn run(mut self) {
        let steps = 30 + self.dice.below(60);
        for _ in 0..steps {
            self.step();
            self.check();
        }
        self.heal();
    }

    fn site(&mut self) -> usize {
        self.dice.below(SITES)
    }

    fn job(&mut self) -> JobId {
        job_id(u8::try_from(self.dice.below(JOBS.into())).unwrap() + 1)
    }

    fn step(&mut self) {
        let (site, other, job) = (self.site(), self.site(), self.job());
        match self.dice.below(100) {
            0..=9 => self.submit(site, other),
            10..=13 => drop((site != other).then(|| self.world.begin(site, job, other))),
            14..=21 => self.world.assign(site, job),
            22..=27 => self.world.finish(site, job),
            28..=32 => self.world.recall(site, job),
            33..=34 => self.world.cancel(site, job),
            35..=36 => self.world.unable[site] ^= true,
            37..=38 if self.abandons => self.world.abandon(site, job),
            39..=41 => {
                let before = Timestamp(self.world.now + 1);
                self.world.propose(site, Action::Forget { before });
            }
            42..=59 if site != other => self.world.send(site, other),
            60..=64 => self.repeat(),
            65..=69 => self.lose(),
            _ => self.deliver(),
        }
    }

    /// Each job is submitted once, at one site, for itself or another.
    fn submit(&mut self, site: usize, to: usize) {
        let number = u8::try_from(self.submitted.len()).unwrap() + 1;
        if number <= JOBS {
            let job = if site == to { self.world.submit(site, number) } else { self.world.submit_to(site, number, to) };
            self.submitted.insert(job);
        }
    }

    /// A message comes, whichever was sent when; it may come once more.
    fn deliver(&mut self) {
        if self.world.in_flight.is_empty() {
            return;
        }
        let index = self.dice.below(self.world.in_flight.len());
        let (to, message) = self.world.in_flight[index].clone();
        if !self.dice.chance(25) {
            self.world.in_flight.swap_remove(index);
        }
        self.world.deliver(to, message);
    }

    /// One message is lost, or all that go to a site, as when it crashes.
    fn lose(&mut self) {
        let index = self.dice.below(self.world.in_flight.len());
        if self.dice.chance(70) {
            if index < self.world.in_flight.len() {
                self.world.in_flight.swap_remove(index);
            }
        } else {
            let site = self.site();
            self.world.in_flight.retain(|(to, _)| *to != site);
        }
    }

    /// A command whose outcome its proposer never learnt is committed once more.
    fn repeat(&mut self) {
        if let Some((site, command)) = self.dice.pick(&self.world.committed).cloned() {
            self.world.commit(site, command);
        }
    }

    fn check(&mut self) {
        let readers: Vec<StateReader> = (0..SITES).map(|site| self.world.reader(site)).collect();
        for job in self.submitted.clone() {
            let row = |site: usize| Some((site, jobs::job(&readers[site], job).unwrap()?));
            let rows: Vec<_> = (0..SITES).filter_map(row).collect();
            let here: Vec<_> = rows.iter().filter(|(_, row)| row.state != JobState::Transferring).collect();
            if !self.world.may_double {
                assert!(here.len() <= 1, "{job} is at {} sites: {here:?}", here.len());
                if let Some((site, state)) = self.world.ended.get(&job) {
                    let lives = here.iter().find(|(_, row)| !row.state.is_ended());
                    assert!(lives.is_none(), "{job} ended {state} at {site} and lives again: {lives:?}");
                } else {
                    assert!(!rows.is_empty(), "{job} is nowhere");
                }
            }
            for (site, row) in &here {
                if row.state.is_ended() {
                    self.world.ended.entry(job).or_insert((*site, row.state));
                }
            }
            self.check_mirrors(&readers, job);
        }
    }

    /// What a mirror says of an end is what happened.
    fn check_mirrors(&self, readers: &[StateReader], job: JobId) {
        for (site, reader) in readers.iter().enumerate() {
            let Some((moved, mirror)) = moves::mirror(reader, job).unwrap() else { continue };
            if !mirror.standing.state.is_ended() {
                continue;
            }
            let target = self.world.site_of(moved.to.group);
            if let Some(row) = jobs::job(&readers[target], job).unwrap() {
                assert_eq!(row.state, mirror.standing.state, "{job}: the mirror at {site} and the job at {target}");
                let ending = |reader: &StateReader| jobs::ending(reader, job).unwrap();
                assert_eq!(ending(reader), ending(&readers[target]), "{job}: its result");
            }
            if !self.world.may_double {
                assert_eq!(self.world.ended.get(&job), Some(&(target, mirror.standing.state)));
            }
        }
    }

    /// Every link works again: everything comes to its end, and nothing is left to be said or remembered.
    fn heal(&mut self) {
        self.world.unable = [false; SITES];
        for _ in 0..3 {
            self.world.exchange_until_quiet();
            for job in self.submitted.clone() {
                for site in 0..SITES {
                    self.world.assign(site, job);
                    self.world.finish(site, job);
                }
            }
            self.check();
        }
        self.world.exchange_until_quiet();
        self.check();
        for site in 0..SITES {
            let reader = self.world.reader(site);
            check_consistency(&reader);
            assert!(reader.scan(&OUTBOX, &(), None, 9).unwrap().is_empty(), "moves wait at {site}");
            assert!(reader.scan(&CANCELS, &(), None, 9).unwrap().is_empty(), "cancels wait at {site}");
            assert!(reader.scan(&REPORTS, &(), None, 9).unwrap().is_empty(), "reports wait at {site}");
            assert!(reader.scan(&ORIGINS, &(), None, 9).unwrap().is_empty(), "origins are kept at {site}");
            assert!(reader.scan(&ARRIVALS, &(), None, 9).unwrap().is_empty(), "decisions are kept at {site}");
        }
        for job in &self.submitted {
            assert!(self.world.ended.contains_key(job), "{job} never ended");
            for site in 0..SITES {
                let seen = self.world.seen(site, *job);
                assert!(seen.is_none_or(JobState::is_ended), "{job} is {seen:?} at {site}");
            }
        }
    }
}
