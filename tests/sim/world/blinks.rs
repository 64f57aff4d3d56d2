//! Only leaders die: no job on another robot may begin anew (promise 8).

use fleet_core::invariant::Invariant;
use fleet_core::timing::Timing;
use fleet_sim::Dice;

use super::{Event, World};
use crate::clients::Clients;
use crate::faults::Plan;
use crate::judge::{Law, Violation, broken};
use crate::workflows::Interpreter;

/// How long leaders die, microseconds.
const LASTS_US: u64 = 45_000_000;
/// How long a robot's own end may be the reason why it lost a job: it comes back, or its lease runs out, microseconds.
const OWN_END_US: u64 = 12_000_000;
/// Most jobs of such a simulation.
const JOBS_MAX: usize = 80;

impl World {
    /// The world of `seed` in which only leaders die, of one site with three voters or five.
    pub(crate) fn blinks(seed: u64, interpreter: Interpreter) -> Self {
        let plan = Plan::of_blinks(LASTS_US);
        let mut world = Self::empty(Dice::new(seed), plan, Timing::LAN, None, interpreter);
        let count = *world.dice.pick(&[3, 3, 4, 5]).unwrap_or(&3);
        world.found(count);
        let places = world.sites.iter().map(|site| (site.peer.clone(), site.machines.clone()));
        world.clients = Clients::new(true, JOBS_MAX, places.collect());
        world.clients.only_submits = true;
        world.checks_blinks = true;
        world.agenda.book(8_000_000, Event::Fault);
        world.agenda.book(4_000_000, Event::Wish);
        world
    }

    /// A job is taken from a robot as lost only if its own process has ended, where only leaders die.
    pub(super) fn check_blinks(&mut self, site: usize) -> Result<(), Violation> {
        let now_us = self.agenda.now_us();
        for (job, node) in std::mem::take(&mut self.sites[site].judge.lost) {
            let has_ended = self.ended_at_us.get(&node).is_some_and(|at_us| now_us - at_us < OWN_END_US);
            if self.checks_blinks && !has_ended {
                let detail = format!("job {job} is taken from {node} as lost, whose process has not ended");
                return broken(Law::Promise(Invariant::ControlBlinkRestartsNothing), detail);
            }
        }
        Ok(())
    }
}
