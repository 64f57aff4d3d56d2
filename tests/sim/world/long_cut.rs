//! A site is cut off for a day, its machines are started anew meanwhile, and everything merges afterwards.

use fleet_core::JobId;
use fleet_core::invariant::Invariant;
use fleet_core::timing::Timing;
use fleet_sim::Dice;
use fleet_store::record::JobState;

use super::{Event, World};
use crate::clients::Clients;
use crate::faults::Plan;
use crate::judge::{JobFacts, Law, Violation, broken};
use crate::workflows::Interpreter;

/// How much longer every lease and tick is than on a good network: sites may choose up to minutes, and a day of short ones
/// would be nothing but heartbeats.
const TIMING_FACTOR: u32 = 60;
/// When the cut begins, microseconds.
const BEGINS_US: u64 = 600_000_000;
/// How long before it many jobs come, microseconds.
const RUSH_US: u64 = 60_000_000;
/// How long it lasts: a day, microseconds.
const LASTS_US: u64 = 86_400_000_000;
/// Before its end everything that was submitted must have been accepted and have ended: that takes so long, microseconds.
const QUIET_US: u64 = 1_800_000_000;
/// Within what time everything has merged, microseconds: an election, a lease and the longest rest of a courier.
const MERGE_BOUND_US: u64 = 600_000_000;
/// Jobs of such a simulation.
const JOBS_MAX: usize = 500;
/// The site that is cut off.
const CUT_OFF: usize = 1;

/// What came of a long cut.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LongCut {
    /// Jobs that were accepted before the cut ended.
    pub(crate) accepted: usize,
    /// Jobs that ended at the other site in the cut, as their first site learnt afterwards.
    pub(crate) ends_buffered: usize,
    /// Jobs that waited in an outbox when it ended.
    pub(crate) moves_waiting: usize,
    /// When the sites were linked again, microseconds.
    pub(crate) healed_at_us: u64,
}

impl World {
    /// The world of `seed` in which a site is cut off for a day.
    pub(crate) fn long_cut(seed: u64, interpreter: Interpreter) -> Self {
        let plan = Plan::of_a_cut(BEGINS_US + LASTS_US, MERGE_BOUND_US);
        let timing = Timing::LAN.scaled(TIMING_FACTOR);
        let mut world = Self::empty(Dice::new(seed), plan, timing, None, interpreter);
        for _ in 0..=CUT_OFF {
            let count = *world.dice.pick(&[1, 2, 3, 3]).unwrap_or(&3);
            world.found(count);
        }
        let places = world.sites.iter().map(|site| (site.peer.clone(), site.machines.clone()));
        world.clients = Clients::new(true, JOBS_MAX, places.collect());
        world.clients.only_submits = true;
        world.long_cut = Some(LongCut::default());
        world.agenda.book(BEGINS_US, Event::Fault);
        world.agenda.book(BEGINS_US - RUSH_US, Event::Wish);
        let is_at_once = world.dice.chance(50);
        let at_us = world.moment_of_restart_us();
        for machine in world.sites[CUT_OFF].machines.clone() {
            let own_us = if is_at_once { at_us } else { world.moment_of_restart_us() };
            world.agenda.book(own_us, Event::PowerCut { machine });
        }
        world
    }

    fn moment_of_restart_us(&mut self) -> u64 {
        let hours = self.dice.below(22) as u64;
        BEGINS_US + 1_800_000_000 + hours * 3_600_000_000 + self.dice.below(3_600_000_000) as u64
    }

    /// How long until the next wish; `None` if there is to be none.
    pub(super) fn pause_of_wishes_us(&mut self) -> Option<u64> {
        if self.long_cut.is_none() {
            return Some(50_000 + self.dice.below(700_000) as u64);
        }
        let now_us = self.agenda.now_us();
        // Many jobs come shortly before the cut, so that some move before it and end in it.
        let longest_us = if now_us < BEGINS_US { 600_000 } else { 480_000_000 };
        (now_us + QUIET_US < self.plan.until_us).then(|| 1 + self.dice.below(longest_us) as u64)
    }

    /// At the end of a long cut: everything was accepted, and what its own site has robots for has ended.
    pub(super) fn check_long_cut(&mut self) -> Result<(), Violation> {
        let Some(mut cut) = self.long_cut else { return Ok(()) };
        let law = Law::Promise(Invariant::CutOffSiteKeepsWorking);
        if self.clients.open_submits() > 0 {
            let detail = format!("{} submits are not accepted when a long cut ends", self.clients.open_submits());
            return broken(law, detail);
        }
        let has_ended = |site: usize, (job, facts): (&JobId, &JobFacts)| {
            let elsewhere = self.clients.wanted.get(job).and_then(|wanted| wanted.tagged_for);
            match facts.state {
                None | Some(JobState::Transferring) => true,
                Some(JobState::Queued) => elsewhere.is_some_and(|elsewhere| elsewhere != site),
                Some(state) => state.is_ended(),
            }
        };
        for (number, site) in self.sites.iter().enumerate() {
            if let Some((job, facts)) = site.judge.jobs.iter().find(|known| !has_ended(number, *known)) {
                return broken(law, format!("job {job} is {:?} at site {number} when a long cut ends", facts.state));
            }
        }
        let jobs = || self.sites.iter().flat_map(|site| &site.judge.jobs);
        cut.accepted = self.clients.accepted.len();
        cut.healed_at_us = self.agenda.now_us();
        cut.moves_waiting = jobs().filter(|(_, facts)| facts.state == Some(JobState::Transferring)).count();
        cut.ends_buffered = (0..self.sites.len()).map(|home| self.ends_unknown(home)).sum();
        self.long_cut = Some(cut);
        Ok(())
    }

    /// Jobs of `home` that have ended at the other site, as `home` does not know.
    fn ends_unknown(&self, home: usize) -> usize {
        let Some(leader) = self.sites[home].machines.clone().find(|machine| self.serves(*machine)) else { return 0 };
        let ended_elsewhere = |job: &JobId| {
            let others = self.sites.iter().enumerate().filter(|(number, _)| *number != home);
            others.filter_map(|(_, site)| site.judge.jobs.get(job)?.state).any(JobState::is_ended)
        };
        let gone = self.sites[home].judge.jobs.iter().filter(|(_, facts)| facts.is_elsewhere).map(|(job, _)| job);
        gone.filter(|job| ended_elsewhere(job) && !self.mirrored(leader, **job).is_some_and(JobState::is_ended)).count()
    }
}
