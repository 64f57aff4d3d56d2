//! Runs processes: what reaches them, what they want done, their ends and their starts.

use fleet_core::NodeId;
use fleet_node::link::WorkUp;
use fleet_node::ports::RobotOffer;

use super::{Event, Site, World};
use crate::consensus::{DiskRecord, Remains};
use crate::courier::Courier;
use crate::group::GroupPart;
use crate::message::{Alarm, Message, Out, Situation, Step};
use crate::node::{self, Process};
use crate::own_journal::OwnJournals;
use crate::robot::{Robot, SLOTS};

impl World {
    pub(super) fn deliver(&mut self, machine: usize, node: Option<NodeId>, message: Message) {
        let there = &mut self.machines[machine];
        if there.is_paused {
            return there.backlog.push(Event::Deliver { machine, node, message });
        }
        // Nobody answers for the node that was here before.
        if node.is_some_and(|node| node != there.node) {
            return;
        }
        self.with(machine, |process, step| process.receive(step, message));
    }

    pub(super) fn wake(&mut self, machine: usize, run: u64, alarm: Alarm) {
        let there = &mut self.machines[machine];
        if there.run != run || there.process.is_none() {
            return;
        }
        if there.is_paused {
            return there.backlog.push(Event::Wake { machine, run, alarm });
        }
        if matches!(alarm, Alarm::Tick) {
            self.ask_to_join(machine);
        }
        self.with(machine, |process, step| process.woken(step, alarm));
    }

    fn with(&mut self, machine: usize, work: impl FnOnce(&mut Process, &mut Step<'_>)) {
        let Some(mut process) = self.machines[machine].process.take() else { return };
        let mut out = std::mem::take(&mut self.out);
        let mut step = self.step(machine, &mut out);
        work(&mut process, &mut step);
        self.machines[machine].process = Some(process);
        self.carry_out(machine, out);
    }

    fn step<'a>(&'a mut self, machine: usize, out: &'a mut Vec<Out>) -> Step<'a> {
        let now_us = self.agenda.now_us();
        let there = &mut self.machines[machine];
        Step {
            now: there.clocks.boot_now(now_us),
            wall: there.clocks.wall_now(now_us),
            timing: self.timing,
            dice: &mut self.dice,
            disk: &mut there.disk,
            disk_stall_us: there.disk_stall_us,
            bug: self.bug,
            out,
        }
    }

    fn carry_out(&mut self, machine: usize, mut out: Vec<Out>) {
        let (run, site) = (self.machines[machine].run, self.machines[machine].site);
        for wanted in out.drain(..) {
            match wanted {
                Out::Send { to, message } => self.send(machine, to, message),
                Out::Tell { number, told } => {
                    let clients = self.machines.len();
                    for delay_us in self.network.delays_us(&mut self.dice, machine, clients) {
                        self.agenda.book(delay_us, Event::Told { number, told: told.clone() });
                    }
                }
                Out::Wake { delay_us, alarm } => self.agenda.book(delay_us, Event::Wake { machine, run, alarm }),
                Out::Fail(reason) => {
                    self.say(&format!("machine {machine} fails: {reason}"));
                    self.stop(machine, true);
                    let delay_us = 500_000 + self.dice.below(1_000_000) as u64;
                    self.agenda.book(delay_us, Event::Start { machine });
                }
                Out::AskSite(message) => self.ask_site(machine, &message),
                Out::Fact(fact) => self.facts.push((site, fact)),
            }
        }
        self.out = out;
    }

    fn send(&mut self, from: usize, to: NodeId, message: Message) {
        let Some(machine) = self.machines.iter().position(|machine| machine.node == to) else { return };
        let is_report = from != machine && matches!(message, Message::Up(WorkUp::Records { .. }));
        let late_us = if is_report { self.reports_late_us(from) } else { 0 };
        for delay_us in self.network.delays_us(&mut self.dice, from, machine) {
            self.agenda.book(late_us + delay_us, Event::Deliver { machine, node: Some(to), message: message.clone() });
        }
    }

    /// Sends to whoever leads the other site, or, as one may be mistaken, to any node there.
    fn ask_site(&mut self, from: usize, message: &Message) {
        let own = self.machines[from].site;
        let Some(other) = self
            .sites
            .iter()
            .position(|site| site.judge.log_length() > 0 && site.machines.start != self.sites[own].machines.start)
        else {
            return;
        };
        let range = self.sites[other].machines.clone();
        let any = range.start + self.dice.below(range.len());
        let leader = range.clone().find(|machine| self.serves(*machine));
        let to = leader.filter(|_| !self.dice.chance(20)).unwrap_or(any);
        for delay_us in self.network.delays_us(&mut self.dice, from, to) {
            for late_us in self.letters_late_us() {
                let event = Event::Deliver { machine: to, node: None, message: message.clone() };
                self.agenda.book(delay_us + late_us, event);
            }
        }
    }

    /// Whether the node of `machine` serves as a leader.
    pub(crate) fn serves(&self, machine: usize) -> bool {
        self.machines[machine].process.as_ref().is_some_and(|process| process.group.serving.is_some())
    }

    /// The process of `machine` ends; what its disk has not synced is lost where `loses_writes`.
    pub(crate) fn stop(&mut self, machine: usize, loses_writes: bool) {
        let there = &mut self.machines[machine];
        self.ended_at_us.insert(there.node, self.agenda.now_us());
        there.reached = there.process.take().map_or(there.reached, |process| process.group.applied);
        there.is_paused = false;
        there.backlog.clear();
        if loses_writes {
            there.disk.lose_power(&mut self.dice);
        }
    }

    pub(super) fn start(&mut self, machine: usize) {
        if self.machines[machine].process.is_some() {
            return;
        }
        let records = match self.machines[machine].disk.open() {
            Ok(records) => records,
            Err(error) => {
                // Reported, and never taken for good: the operator wipes the machine.
                let site = self.machines[machine].site;
                self.sites[site].judge.see(Situation::DamageReported);
                self.say(&format!("machine {machine} does not start: {error}"));
                self.wipe(machine);
                return self.agenda.book(1_000_000, Event::Start { machine });
            }
        };
        self.runs += 1;
        let run = self.runs;
        let there = &mut self.machines[machine];
        let (is_written, boot) = (there.disk.write(DiskRecord::Boot(there.boot + 1)).is_ok(), there.boot + 1);
        if !is_written {
            return self.agenda.book(1_000_000, Event::Start { machine });
        }
        there.disk.sync();
        (there.run, there.boot) = (run, boot);
        let (node, name) = (there.node, format!("machine-{machine}"));
        let remembered = self.remembered(machine, &records);
        let site = self.machines[machine].site;
        let own = self.sites[site].peer.clone();
        let other = self.sites.iter().find(|site| site.peer != own).map(|site| (site.peer.clone(), offers(site)));
        let interpreter = self.interpreter.clone();
        let mut out = std::mem::take(&mut self.out);
        let mut step = self.step(machine, &mut out);
        let part = GroupPart::start(&mut step, own.group, node, run, &records, remembered);
        let opens_from = node::opens_from(&mut step);
        let journals = OwnJournals::open(&records);
        let mut robot = Robot::start(&step, (node, name, boot), opens_from, interpreter, journals);
        robot.tags = vec![own.site.to_string()];
        let courier = other.map(|(peer, offers)| Courier::start(&part, own, peer, offers));
        let process = Process::new(&mut step, part, robot, courier);
        self.machines[machine].process = Some(process);
        self.say(&format!("machine {machine} runs {node} again from entry {remembered}"));
        self.carry_out(machine, out);
    }

    /// Up to which entry the state on a disk reaches: some prefix of what was applied and is in the log there.
    fn remembered(&mut self, machine: usize, records: &[DiskRecord]) -> u64 {
        let remains = Remains::of(records);
        let reach = remains.last().1.min(self.machines[machine].reached);
        let later = reach.saturating_sub(remains.base.state.place.1).min(20);
        let forgotten = self.dice.below(usize::try_from(later).unwrap_or_default() + 1) as u64;
        reach.max(remains.base.state.place.1) - forgotten
    }

    pub(super) fn resume(&mut self, machine: usize) {
        let there = &mut self.machines[machine];
        there.is_paused = false;
        for event in std::mem::take(&mut there.backlog) {
            self.agenda.book(1, event);
        }
    }
}

/// The robots of `site`, as other sites hear of them.
fn offers(site: &Site) -> Vec<RobotOffer> {
    let offer = |machine| RobotOffer {
        node: format!("machine-{machine}"),
        tags: vec![site.peer.site.to_string()],
        capabilities: vec!["http".to_owned()],
        slots: SLOTS,
    };
    site.machines.clone().map(offer).collect()
}
