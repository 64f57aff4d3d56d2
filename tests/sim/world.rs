//! The simulated world: machines with clocks and disks, the network between them, clients, faults, and the judge. One seed
//! decides everything that happens in it.

mod belonging;
mod blinks;
mod founding;
mod judging;
mod long_cut;
mod running;
mod telling;

use std::collections::BTreeMap;
use std::ops::Range;

use fleet_core::timing::Timing;
use fleet_core::{JobId, NodeId};
use fleet_replication::command::Action;
use fleet_sim::{Agenda, Clocks, Dice, Disk, EventLog, Network, Weather};
use fleet_store::record::PeerSite;

use crate::bugs::PlantedBug;
use crate::clients::Clients;
use crate::consensus::DiskRecord;
use crate::faults::Plan;
use crate::judge::{Judge, Law, Violation, broken};
use crate::message::{Alarm, Fact, Message, Out, Situation, Told};
use crate::node::Process;
use crate::workflows::Interpreter;

pub(crate) use long_cut::LongCut;

/// Most jobs of one simulation.
const JOBS_MAX: usize = 40;
/// How many events pass between two looks at whether all is well again.
const STEPS_PER_LOOK: u64 = 20;

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Deliver {
        machine: usize,
        node: Option<NodeId>,
        message: Message,
    },
    Wake {
        machine: usize,
        run: u64,
        alarm: Alarm,
    },
    Start {
        machine: usize,
    },
    /// A machine loses its power, and is started again.
    PowerCut {
        machine: usize,
    },
    Resume {
        machine: usize,
    },
    Gossip {
        machine: usize,
    },
    Fault,
    /// The ways between sites that come and go change.
    Flap,
    RoomAgain {
        machine: usize,
    },
    Told {
        number: u64,
        told: Told,
    },
    Wish,
    /// Clients set going again what they stopped.
    Undo,
    Try {
        number: u64,
    },
}

/// A site of the world.
pub(crate) struct Site {
    pub(crate) peer: PeerSite,
    pub(crate) machines: Range<usize>,
    pub(crate) judge: Judge,
}

/// A machine.
pub(crate) struct Machine {
    /// The number of its site.
    pub(crate) site: usize,
    pub(crate) node: NodeId,
    /// Which node of this machine it is; each wipe makes another.
    generation: u64,
    pub(crate) clocks: Clocks,
    pub(crate) disk: Disk<DiskRecord>,
    pub(crate) process: Option<Process>,
    run: u64,
    boot: u64,
    pub(crate) is_paused: bool,
    backlog: Vec<Event>,
    pub(crate) disk_stall_us: u64,
    /// Until when what its robot reports comes late.
    pub(crate) reports_late_until_us: u64,
    /// The node whose place this one takes, as long as it is no member.
    replaces: Option<NodeId>,
    /// Up to which entry its state got before its process ended.
    reached: u64,
}

/// The world.
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) agenda: Agenda<Event>,
    pub(crate) network: Network,
    pub(crate) sites: Vec<Site>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) plan: Plan,
    pub(crate) clients: Clients,
    /// The site at which each job was assigned that ever was.
    assigned_at: BTreeMap<JobId, usize>,
    pub(crate) log: EventLog,
    pub(crate) is_healed: bool,
    /// Until when letters between the sites come late and more than once.
    pub(crate) letters_late_until_us: u64,
    pub(crate) permanent_losses: usize,
    timing: Timing,
    pub(crate) bug: Option<PlantedBug>,
    /// What came up in the catalogs of this seed.
    pub(crate) catalog_seen: BTreeMap<Situation, u64>,
    runs: u64,
    interpreter: Interpreter,
    out: Vec<Out>,
    facts: Vec<(usize, Fact)>,
    /// Whether only leaders die, so that no other robot may lose a job.
    pub(crate) checks_blinks: bool,
    /// When each node's process ended last, microseconds.
    ended_at_us: BTreeMap<NodeId, u64>,
    /// What came of a long cut, where the simulation is about one.
    pub(crate) long_cut: Option<LongCut>,
}

fn fair_weather() -> Weather {
    Weather { fast_us: 3_000, slow_us: 30_000, slow_percent: 5, ..Weather::default() }
}

impl World {
    /// The world of `seed` before anything happens.
    pub(crate) fn new(seed: u64, bug: Option<PlantedBug>, interpreter: Interpreter) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(&mut dice);
        let count = *dice.pick(&[1, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4, 5, 5, 5]).unwrap_or(&3);
        let may_wait = plan.wall_wrong_ms < 10_000;
        let mut world = Self::empty(dice, plan, Timing::LAN, bug, interpreter);
        world.found(count);
        if world.dice.chance(50) {
            let count = *world.dice.pick(&[1, 2, 3]).unwrap_or(&1);
            world.found(count);
        }
        let places = world.sites.iter().map(|site| (site.peer.clone(), site.machines.clone()));
        world.clients = Clients::new(may_wait, JOBS_MAX, places.collect());
        world.agenda.book(2_000_000, Event::Fault);
        world.agenda.book(1_000_000, Event::Wish);
        world
    }

    /// A world without sites.
    fn empty(dice: Dice, plan: Plan, timing: Timing, bug: Option<PlantedBug>, interpreter: Interpreter) -> Self {
        Self {
            dice,
            agenda: Agenda::default(),
            network: Network::in_weather(fair_weather()),
            sites: Vec::new(),
            machines: Vec::new(),
            plan,
            clients: Clients::default(),
            assigned_at: BTreeMap::new(),
            log: EventLog::default(),
            is_healed: false,
            letters_late_until_us: 0,
            permanent_losses: 0,
            timing,
            bug,
            catalog_seen: BTreeMap::new(),
            runs: 0,
            interpreter,
            out: Vec::new(),
            facts: Vec::new(),
            checks_blinks: false,
            ended_at_us: BTreeMap::new(),
            long_cut: None,
        }
    }

    /// Lets everything happen until all is well after the faults.
    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        let until_us = self.plan.until_us;
        let (mut healed_at_us, mut steps) = (None, 0_u64);
        while let Some(event) = self.agenda.next_event() {
            let now_us = self.agenda.now_us();
            if healed_at_us.is_none() && now_us >= until_us {
                healed_at_us = Some(now_us);
                self.check_long_cut()?;
                self.heal();
            }
            self.happen(event)?;
            self.settle()?;
            if let Some(at_us) = healed_at_us {
                steps += 1;
                if steps % STEPS_PER_LOOK == 0 && self.is_well() {
                    return self.check_end();
                }
                if now_us > at_us + self.plan.heal_bound_us {
                    return self.not_well();
                }
            }
        }
        broken(Law::NothingBreaks, "nothing happens any more".to_owned())
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        self.note(&event);
        match event {
            Event::Deliver { machine, node, message } => self.deliver(machine, node, message),
            Event::Wake { machine, run, alarm } => self.wake(machine, run, alarm),
            Event::Start { machine } => self.start(machine),
            Event::PowerCut { machine } => self.lose_power(machine),
            Event::Resume { machine } => self.resume(machine),
            Event::Gossip { machine } => self.gossip(machine),
            Event::Fault => self.fault(),
            Event::Flap => self.flap(),
            Event::RoomAgain { machine } => {
                self.machines[machine].disk.is_full = false;
                self.machines[machine].disk_stall_us = 0;
            }
            Event::Told { number, told } => {
                let (sites, machines) = (&self.sites, &self.machines);
                let machine_of = |node: NodeId| machines.iter().position(|machine| machine.node == node);
                if let Some(request) = self.clients.told(sites, number, &told, machine_of)? {
                    self.send_wish(number, request);
                }
            }
            Event::Wish => self.wish(),
            Event::Undo => self.undo_wishes(),
            Event::Try { number } => self.try_wish(number),
        }
        Ok(())
    }

    fn wish(&mut self) {
        if self.is_healed {
            return;
        }
        let Some(pause_us) = self.pause_of_wishes_us() else { return };
        self.agenda.book(pause_us, Event::Wish);
        let nodes: Vec<(usize, NodeId)> = self.machines.iter().map(|machine| (machine.site, machine.node)).collect();
        if let Some(number) = self.clients.wish(&mut self.dice, &nodes) {
            self.try_wish(number);
        }
    }

    pub(crate) fn try_wish(&mut self, number: u64) {
        let Some(request) = self.clients.try_again(&mut self.dice, number) else { return };
        self.agenda.book(400_000 + self.dice.below(600_000) as u64, Event::Try { number });
        self.send_wish(number, request);
    }

    fn send_wish(&mut self, number: u64, request: crate::clients::Request) {
        let crate::clients::Request { wish, machine, .. } = request;
        for delay_us in self.network.delays_us(&mut self.dice, self.machines.len(), machine) {
            let message = Message::Wish { number, wish: wish.clone() };
            self.agenda.book(delay_us, Event::Deliver { machine, node: None, message });
        }
    }

    /// The clients' and machines' part of healing: the faults are over.
    fn heal(&mut self) {
        self.say("the faults are over");
        self.is_healed = true;
        self.network = Network::in_weather(fair_weather());
        for machine in 0..self.machines.len() {
            let there = &mut self.machines[machine];
            there.clocks.wall_ahead_ms = 0;
            (there.disk.is_full, there.disk_stall_us) = (false, 0);
            self.resume(machine);
            self.agenda.book(100_000, Event::Start { machine });
        }
        self.clients.give_up_stops();
        // Twice, because a stop may still be under way.
        self.agenda.book(3_000_000, Event::Undo);
        self.agenda.book(9_000_000, Event::Undo);
    }

    /// Everything that clients stopped goes on.
    fn undo_wishes(&mut self) {
        let nodes = self.machines.iter().map(|machine| (machine.site, Action::UndrainNode { node: machine.node }));
        let mut changes: Vec<(usize, Action)> = nodes.collect();
        changes.extend(self.clients.resumes());
        for (site, action) in changes {
            let number = self.clients.begin_change(&mut self.dice, site, action);
            self.try_wish(number);
        }
    }

    /// What workflow `number` comes to; `None` where more than one output is right.
    pub(crate) fn expected(&self, number: usize) -> Option<&serde_json::Value> {
        self.interpreter.expected(number)
    }
}
