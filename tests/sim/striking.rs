//! Carries out the faults of a plan.

use fleet_sim::Weather;

use crate::faults::Fault;
use crate::node::Process;
use crate::world::{Event, World};

/// How long a cut lasts at least, where it is to last longer than leases, microseconds.
const LONG_CUT_US: u64 = 2_500_000;
/// How long a cut of a leader lasts at least: until others lead, leases have ended, and its jobs run elsewhere, microseconds.
const LEADER_CUT_US: u64 = 4_000_000;
/// Within what time the power goes of machines whose disks take long, microseconds.
const WRITING_US: usize = 800_000;
/// Within what time the power goes of a machine whose robot's reports come late, microseconds.
const REPORTING_US: usize = 1_500_000;
/// How late such reports are, at least and at most, microseconds: others are to have the robot's jobs meanwhile.
const REPORTS_LATE_US: std::ops::Range<usize> = 1_000_000..4_000_000;
/// How long letters come late and more than once, how often each, and how late at most, microseconds.
const LETTERS_SUFFER_US: u64 = 8_000_000;
const LETTER_COPIES: usize = 3;
const LETTERS_LATE_US: usize = 6_000_000;
/// How often ways that come and go change, and within what time, microseconds.
const FLAPS: usize = 8;
const FLAPPING_US: usize = 4_000_000;

/// How long after a leader's death nothing else happens where promise 8 is looked at, microseconds.
const BLINKS_APART_US: u64 = 6_000_000;

impl World {
    /// The next fault strikes.
    pub(crate) fn fault(&mut self) {
        if self.is_healed {
            return;
        }
        let Some(fault) = self.dice.pick(&self.plan.kinds).copied() else { return };
        let longer_us = self.undisturbed_us(fault);
        self.agenda.book(longer_us + self.plan.pause_us(&mut self.dice), Event::Fault);
        let machine = self.dice.below(self.machines.len());
        self.say(&format!("fault: {fault:?} at {machine}"));
        match fault {
            Fault::Kill => self.kill(machine, 3_000_000),
            Fault::KillLeaderShortly => {
                if let Some(leader) = self.leader() {
                    self.kill(leader, 150_000);
                }
            }
            Fault::KillLeader => {
                if let Some(leader) = self.leader() {
                    self.kill(leader, 3_000_000);
                }
            }
            Fault::LosePower => self.lose_power(machine),
            Fault::LosePowerInWrites => self.lose_power_in_writes(machine),
            Fault::LosePowerReporting => {
                let reporting = self.machines_with_jobs(false);
                let machine = self.dice.pick(&reporting).copied().unwrap_or(machine);
                let power_goes_us = 1 + self.dice.below(REPORTING_US) as u64;
                self.machines[machine].reports_late_until_us = self.agenda.now_us() + power_goes_us;
                self.agenda.book(power_goes_us, Event::PowerCut { machine });
            }
            Fault::LosePowerEverywhere => (0..self.machines.len()).for_each(|machine| self.lose_power(machine)),
            Fault::Pause => {
                if !self.machines[machine].is_paused {
                    self.machines[machine].is_paused = true;
                    self.agenda.book(50_000 + self.dice.below(5_000_000) as u64, Event::Resume { machine });
                }
            }
            Fault::Isolate => {
                let whom = if self.dice.chance(50) { self.leader().unwrap_or(machine) } else { machine };
                self.isolate(whom);
            }
            Fault::IsolateLeader => {
                let leaders = self.machines_with_jobs(true);
                if let Some(leader) = self.dice.pick(&leaders).copied() {
                    self.network.restore_ways();
                    self.isolate(leader);
                }
            }
            Fault::CutOneWay => {
                let to = self.dice.below(self.machines.len());
                self.network.cut(machine, to);
            }
            Fault::Split => self.split(),
            Fault::CutSites => self.cut_sites(|_| true),
            Fault::CutSitesOneWay => {
                let site = self.machines[machine].site;
                self.cut_sites(|from| from == site);
            }
            Fault::FlapSites => {
                for _ in 0..FLAPS {
                    self.agenda.book(self.dice.below(FLAPPING_US) as u64, Event::Flap);
                }
            }
            Fault::DelayLetters => self.letters_late_until_us = self.agenda.now_us() + LETTERS_SUFFER_US,
            Fault::RestoreWays => self.network.restore_ways(),
            Fault::Weather => self.change_weather(),
            Fault::StallDisk => {
                self.machines[machine].disk_stall_us = self.dice.below(900_000) as u64;
                self.agenda.book(self.dice.below(3_000_000) as u64, Event::RoomAgain { machine });
            }
            Fault::FillDisk => {
                self.machines[machine].disk.is_full = true;
                self.agenda.book(self.dice.below(4_000_000) as u64, Event::RoomAgain { machine });
            }
            Fault::FlipBit | Fault::Wipe => self.lose_for_good(machine, fault),
            Fault::SetClockWrong => {
                let wrong_ms = self.plan.wall_wrong_ms;
                self.machines[machine].clocks.wall_ahead_ms = self.dice.below(2 * wrong_ms) as i64 - wrong_ms as i64;
            }
        }
    }

    /// How long nothing else is to happen after `fault`, microseconds.
    fn undisturbed_us(&mut self, fault: Fault) -> u64 {
        match fault {
            _ if self.checks_blinks => BLINKS_APART_US,
            Fault::KillLeader => BLINKS_APART_US,
            Fault::IsolateLeader => LEADER_CUT_US,
            Fault::Isolate | Fault::Split if self.dice.chance(50) => LONG_CUT_US,
            _ => 0,
        }
    }

    /// The machines whose robots may act for jobs now: of sites that can spare them those that lead, or else do not.
    fn machines_with_jobs(&self, leads: bool) -> Vec<usize> {
        let now_us = self.agenda.now_us();
        let has_jobs = |machine: &usize| {
            let there = &self.machines[*machine];
            let may_act = |process: &Process| !process.robot.rights(there.clocks.boot_now(now_us)).is_empty();
            there.process.as_ref().is_some_and(may_act)
        };
        let can_be_spared = |machine: &usize| self.sites[self.machines[*machine].site].machines.len() >= 3;
        let is_meant = |machine: &usize| self.serves(*machine) == leads && can_be_spared(machine) && has_jobs(machine);
        (0..self.machines.len()).filter(is_meant).collect()
    }

    /// The machine of a node that serves, if any.
    fn leader(&mut self) -> Option<usize> {
        let leaders: Vec<usize> = (0..self.machines.len()).filter(|machine| self.serves(*machine)).collect();
        self.dice.pick(&leaders).copied()
    }

    fn kill(&mut self, machine: usize, down_us: usize) {
        self.stop(machine, false);
        self.agenda.book(20_000 + self.dice.below(down_us) as u64, Event::Start { machine });
    }

    pub(crate) fn lose_power(&mut self, machine: usize) {
        self.stop(machine, true);
        self.agenda.book(100_000 + self.dice.below(4_000_000) as u64, Event::Start { machine });
    }

    /// The power goes at the whole site of `machine`, whose disks take longer than that.
    fn lose_power_in_writes(&mut self, machine: usize) {
        let power_goes_us = 1 + self.dice.below(WRITING_US) as u64;
        for machine in self.sites[self.machines[machine].site].machines.clone() {
            self.machines[machine].disk_stall_us = WRITING_US as u64;
            self.agenda.book(power_goes_us, Event::PowerCut { machine });
            self.agenda.book(power_goes_us, Event::RoomAgain { machine });
        }
    }

    /// How much later than others a report from `machine` comes that is sent now, microseconds.
    pub(crate) fn reports_late_us(&mut self, machine: usize) -> u64 {
        if self.agenda.now_us() >= self.machines[machine].reports_late_until_us {
            return 0;
        }
        (REPORTS_LATE_US.start + self.dice.below(REPORTS_LATE_US.len())) as u64
    }

    /// How much later than others each copy of a letter comes that is sent now, microseconds.
    pub(crate) fn letters_late_us(&mut self) -> Vec<u64> {
        if self.agenda.now_us() >= self.letters_late_until_us {
            return vec![0];
        }
        (0..LETTER_COPIES).map(|_| self.dice.below(LETTERS_LATE_US) as u64).collect()
    }

    /// The machine itself and its clients stay together.
    fn isolate(&mut self, machine: usize) {
        for other in (0..self.machines.len()).filter(|other| *other != machine) {
            self.network.cut(machine, other);
            self.network.cut(other, machine);
        }
    }

    fn split(&mut self) {
        let sides: Vec<bool> = self.machines.iter().map(|_| self.dice.chance(50)).collect();
        for (from, side) in sides.iter().enumerate() {
            for (to, other) in sides.iter().enumerate() {
                if side != other {
                    self.network.cut(from, to);
                }
            }
        }
    }

    /// Cuts the ways to other sites from those that `is_cut` names.
    fn cut_sites(&mut self, is_cut: impl Fn(usize) -> bool) {
        for from in 0..self.machines.len() {
            for to in 0..self.machines.len() {
                let site = self.machines[from].site;
                if site != self.machines[to].site && is_cut(site) {
                    self.network.cut(from, to);
                }
            }
        }
    }

    /// The ways between the sites go, or come back with all others.
    pub(crate) fn flap(&mut self) {
        if self.is_healed || self.dice.chance(50) {
            self.network.restore_ways();
        } else {
            self.cut_sites(|_| true);
        }
    }

    fn change_weather(&mut self) {
        let pick = |dice: &mut fleet_sim::Dice, of: &[usize]| dice.pick(of).copied().unwrap_or_default();
        self.network.weather = Weather {
            loss_percent: pick(&mut self.dice, &[0, 1, 5, 20]),
            repeat_percent: pick(&mut self.dice, &[0, 0, 5, 20]),
            slow_percent: pick(&mut self.dice, &[1, 5, 20]),
            fast_us: pick(&mut self.dice, &[1_000, 5_000, 20_000]) as u64,
            slow_us: pick(&mut self.dice, &[30_000, 300_000, 5_000_000]) as u64,
        };
    }

    /// Loses a disk, but never so many voters that the group cannot go on.
    fn lose_for_good(&mut self, machine: usize, fault: Fault) {
        let site = self.machines[machine].site;
        if self.sites[site].machines.len() < 3 || self.permanent_losses > 0 {
            return;
        }
        self.permanent_losses += 1;
        self.stop(machine, true);
        match fault {
            Fault::FlipBit => self.machines[machine].disk.flip_a_bit(&mut self.dice),
            _ => self.wipe(machine),
        }
        self.agenda.book(500_000 + self.dice.below(2_000_000) as u64, Event::Start { machine });
    }
}
