//! What goes wrong with the copies of the catalog, and what changes in the fleet meanwhile.

use fleet_sim::Weather;

use super::{CatalogWorld, Event, fair_weather};
use crate::judge::Violation;
use crate::message::Situation;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Kill,
    /// The power goes, perhaps in the middle of a write to come.
    LosePower,
    LosePowerInAWrite,
    Isolate,
    CutOneWay,
    CutSites,
    /// Nothing goes from one site to the other, in that direction.
    CutSitesOneWay,
    /// The ways between sites come and go.
    Flap,
    RestoreWays,
    Weather,
    SetClockWrong,
    ChangeLeader,
    /// A machine loses its disk and comes back as another node.
    Wipe,
    /// A node is removed from its site, and perhaps goes on for a while.
    Remove,
    /// A disk is put back to an earlier state.
    PutBack,
}

impl Fault {
    pub(super) const ALL: [Self; 15] = [
        Self::Kill,
        Self::LosePower,
        Self::LosePowerInAWrite,
        Self::Isolate,
        Self::CutOneWay,
        Self::CutSites,
        Self::CutSitesOneWay,
        Self::Flap,
        Self::RestoreWays,
        Self::Weather,
        Self::SetClockWrong,
        Self::ChangeLeader,
        Self::Wipe,
        Self::Remove,
        Self::PutBack,
    ];
}

/// How often a flapping link changes.
const FLAPS: u64 = 6;

impl CatalogWorld {
    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if self.is_healed {
            return Ok(());
        }
        let Some(fault) = self.dice.pick(&self.kinds).copied() else { return Ok(()) };
        let delay_us = 500_000 + self.dice.below(20_000_000) as u64;
        self.agenda.book(delay_us, Event::Fault);
        let machine = self.dice.below(self.machines.len());
        self.say(&format!("fault: {fault:?} at {machine}"));
        match fault {
            Fault::Kill => self.stop(machine, false),
            Fault::LosePower => self.stop(machine, true),
            Fault::LosePowerInAWrite => self.machines[machine].drive.lose_power_after(self.dice.below(4)),
            Fault::Isolate => self.cut_where(|from, to| (from == machine) != (to == machine)),
            Fault::CutOneWay => {
                let to = self.dice.below(self.machines.len());
                self.network.cut(machine, to);
            }
            Fault::CutSites => self.cut_sites(),
            Fault::CutSitesOneWay => {
                let site = self.machines[machine].site;
                let sites: Vec<usize> = self.machines.iter().map(|machine| machine.site).collect();
                self.cut_where(|from, to| sites[from] == site && sites[to] != site);
            }
            Fault::Flap => (1..=FLAPS).for_each(|flap| self.agenda.book(flap * 1_700_000, Event::Flap)),
            Fault::RestoreWays => self.network.restore_ways(),
            Fault::Weather => self.change_weather(),
            Fault::SetClockWrong => {
                let wrong_ms = self.dice.pick(&[2_000, 300_000, 1_500_000]).copied().unwrap_or_default();
                self.machines[machine].clocks.wall_ahead_ms = self.dice.below(2 * wrong_ms) as i64 - wrong_ms as i64;
            }
            Fault::ChangeLeader => {
                // The last one may not know yet.
                let (site, leads) = (self.machines[machine].site, self.dice.chance(30));
                for other in self.of_site(site) {
                    self.machines[other].leads &= leads;
                }
                self.machines[machine].leads = true;
            }
            Fault::Wipe => self.wipe(machine),
            Fault::Remove => self.remove(machine),
            Fault::PutBack => return self.put_back(machine),
        }
        Ok(())
    }

    pub(super) fn flap(&mut self) {
        match self.is_healed || self.dice.chance(50) {
            true => self.network.restore_ways(),
            false => self.cut_sites(),
        }
    }

    fn cut_where(&mut self, is_cut: impl Fn(usize, usize) -> bool) {
        for from in 0..self.machines.len() {
            for to in (0..self.machines.len()).filter(|to| is_cut(from, *to)) {
                self.network.cut(from, to);
            }
        }
    }

    fn cut_sites(&mut self) {
        let sites: Vec<usize> = self.machines.iter().map(|machine| machine.site).collect();
        self.cut_where(|from, to| sites[from] != sites[to]);
    }

    fn change_weather(&mut self) {
        let dice = &mut self.dice;
        let mut pick = |of: &[usize]| dice.pick(of).copied().unwrap_or_default();
        self.network.weather = Weather {
            loss_percent: pick(&[0, 1, 5, 30]),
            repeat_percent: pick(&[0, 5, 30]),
            slow_percent: pick(&[1, 5, 30]),
            fast_us: pick(&[1_000, 20_000]) as u64,
            slow_us: pick(&[30_000, 1_000_000, 30_000_000]) as u64,
        };
    }

    /// Whether the site of `machine` can do without it for good.
    fn can_spare(&self, machine: usize) -> bool {
        let machine = &self.machines[machine];
        self.losses < 3 && !machine.is_removed && self.sites[machine.site].members.len() > 1
    }

    fn wipe(&mut self, machine: usize) {
        if !self.can_spare(machine) {
            return;
        }
        self.losses += 1;
        self.judge.count(Situation::CatalogNodeReplaced);
        self.stop(machine, true);
        self.lose(machine, false);
        let (site, old) = (self.machines[machine].site, self.machines[machine].node);
        self.strike_off(site, old);
        self.replace(machine);
    }

    fn remove(&mut self, machine: usize) {
        if !self.can_spare(machine) {
            return;
        }
        self.losses += 1;
        self.judge.count(Situation::CatalogNodeRemoved);
        self.lose(machine, false);
        let (site, node) = (self.machines[machine].site, self.machines[machine].node);
        self.strike_off(site, node);
        self.machines[machine].is_removed = true;
        if self.dice.chance(50) {
            self.stop(machine, false);
        }
    }

    fn put_back(&mut self, machine: usize) -> Result<(), Violation> {
        let Some(earlier) = self.machines[machine].earlier.take() else { return Ok(()) };
        self.judge.count(Situation::CatalogDiskPutBack);
        self.stop(machine, false);
        self.lose(machine, true);
        self.machines[machine].drive.put_back(earlier);
        Ok(())
    }

    /// Tells the judge that what only this machine has is lost.
    fn lose(&mut self, machine: usize, is_put_back: bool) {
        let others = self.machines.iter().enumerate().filter(|(other, there)| *other != machine && !there.is_removed);
        let others: Vec<_> = others.map(|(_, there)| there.drive.kept()).collect();
        self.judge.lost(self.machines[machine].node, &others, is_put_back);
    }

    /// The site removes `node`; whoever leads it will say so in the catalog.
    fn strike_off(&mut self, site: usize, node: fleet_core::NodeId) {
        self.sites[site].members.remove(&node);
        self.sites[site].removed.push(node);
    }

    /// The faults are over.
    pub(super) fn heal(&mut self) {
        self.say("the faults are over");
        self.is_healed = true;
        self.network.weather = fair_weather();
        self.network.restore_ways();
        for site in 0..self.sites.len() {
            let of_site: Vec<usize> = self.of_site(site).collect();
            let leader = of_site.iter().copied().find(|machine| !self.machines[*machine].is_removed);
            of_site.into_iter().for_each(|machine| self.machines[machine].leads = Some(machine) == leader);
        }
        for machine in 0..self.machines.len() {
            self.machines[machine].clocks.wall_ahead_ms = 0;
            self.agenda.book(1, Event::Start { machine });
        }
    }
}
