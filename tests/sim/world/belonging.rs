//! Who belongs to a site: gossip's view of who is alive, nodes that lost their disks, and how they become members again.

use std::collections::BTreeSet;

use fleet_sim::Disk;

use super::founding::node_id;
use super::{Event, World};
use crate::message::{Message, Situation};

impl World {
    /// The machine loses its disk and comes back as another node.
    pub(crate) fn wipe(&mut self, machine: usize) {
        let there = &mut self.machines[machine];
        there.replaces = Some(there.replaces.unwrap_or(there.node));
        there.generation += 1;
        there.node = node_id(machine, there.generation);
        (there.disk, there.boot, there.reached) = (Disk::default(), 0, 0);
    }

    /// A node that is no member yet asks any machine to make it one.
    pub(super) fn ask_to_join(&mut self, machine: usize) {
        let there = &self.machines[machine];
        let Some(replaces) = there.replaces else { return };
        let is_member = there.process.as_ref().is_some_and(|process| process.group.consensus.last().1 > 0);
        if is_member {
            self.machines[machine].replaces = None;
            let site = self.machines[machine].site;
            self.sites[site].judge.see(Situation::NodeReplaced);
        } else if self.dice.chance(10) {
            let (node, range) = (there.node, self.sites[there.site].machines.clone());
            let target = range.start + self.dice.below(range.len());
            for delay_us in self.network.delays_us(&mut self.dice, machine, target) {
                let message = Message::Join { node, machine, replaces };
                self.agenda.book(delay_us, Event::Deliver { machine: target, node: None, message });
            }
        }
    }

    pub(super) fn gossip(&mut self, machine: usize) {
        let round_us = usize::try_from(self.timing.group_lease.as_micros()).unwrap_or(usize::MAX) / 2;
        self.agenda.book((round_us * 4 / 3 + self.dice.below(round_us)) as u64, Event::Gossip { machine });
        let is_wrong = !self.is_healed && !self.checks_blinks && self.dice.chance(10);
        let is_blind = !self.is_healed && !self.checks_blinks && self.dice.chance(5);
        let mut alive = BTreeSet::new();
        for other in self.sites[self.machines[machine].site].machines.clone() {
            let there = &self.machines[other];
            let reaches = self.network.is_open(machine, other) && self.network.is_open(other, machine);
            let seems_alive = reaches && there.process.is_some() && !there.is_paused;
            let is_told_so = if is_wrong { self.dice.chance(50) } else { seems_alive };
            if is_told_so {
                alive.insert(there.node);
            }
        }
        if let Some(process) = &mut self.machines[machine].process {
            process.group.alive = (!is_blind).then_some(alive);
        }
    }
}
