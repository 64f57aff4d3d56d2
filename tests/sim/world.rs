//! The simulated world: machines with clocks and disks, the network between them, clients, faults, and the judge. One seed
//! decides everything that happens in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use fleet_core::invariant::Invariant;
use fleet_core::timing::Timing;
use fleet_core::{GroupId, JobId, NodeId, SiteName};
use fleet_replication::command::{Action, Command};
use fleet_replication::fsm;
use fleet_sim::{Agenda, Clocks, Dice, Disk, EventLog, Network, Weather};
use fleet_store::record::{CommandId, Founding, JobState, PeerSite};
use fleet_store::state::moves;

use crate::bugs::PlantedBug;
use crate::clients::Clients;
use crate::consensus::{DiskRecord, Entry, Members, Payload};
use crate::courier::Courier;
use crate::faults::Plan;
use crate::group::GroupPart;
use crate::judge::{self, JobFacts, Judge, Law, Violation, broken};
use crate::message::{Alarm, Fact, Message, Out, Situation, Step, Told};
use crate::node::{self, Process, admission};
use crate::robot::Robot;
use crate::workflows::Interpreter;

/// How often a process looks at its clocks.
pub(crate) const TICK_US: u64 = 50_000;
/// Within what time everything must be well again once the faults are over, microseconds.
const HEAL_BOUND_US: u64 = 90_000_000;

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
    Resume {
        machine: usize,
    },
    Gossip {
        machine: usize,
    },
    Fault,
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
    pub(crate) permanent_losses: usize,
    timing: Timing,
    pub(crate) bug: Option<PlantedBug>,
    /// What came up in the catalogs of this seed.
    pub(crate) catalog_seen: BTreeMap<Situation, u64>,
    runs: u64,
    interpreter: Interpreter,
    out: Vec<Out>,
    facts: Vec<(usize, Fact)>,
}

fn fair_weather() -> Weather {
    Weather { fast_us: 3_000, slow_us: 30_000, slow_percent: 5, ..Weather::default() }
}

fn node_id(machine: usize, generation: u64) -> NodeId {
    let mut bytes = [0; 16];
    bytes[7] = u8::try_from(machine + 1).unwrap_or(u8::MAX);
    bytes[8..].copy_from_slice(&generation.to_be_bytes());
    NodeId::from_bytes(bytes)
}

impl World {
    /// The world of `seed` before anything happens.
    pub(crate) fn new(seed: u64, bug: Option<PlantedBug>, interpreter: Interpreter) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(&mut dice);
        let count = *dice.pick(&[1, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4, 5, 5, 5]).unwrap_or(&3);
        let network = Network::in_weather(fair_weather());
        let may_wait = plan.wall_wrong_ms < 10_000;
        let mut world = Self {
            dice,
            agenda: Agenda::default(),
            network,
            sites: Vec::new(),
            machines: Vec::new(),
            plan,
            clients: Clients::default(),
            assigned_at: BTreeMap::new(),
            log: EventLog::default(),
            is_healed: false,
            permanent_losses: 0,
            timing: Timing::LAN,
            bug,
            catalog_seen: BTreeMap::new(),
            runs: 0,
            interpreter,
            out: Vec::new(),
            facts: Vec::new(),
        };
        world.found(count);
        if world.dice.chance(40) {
            let count = *world.dice.pick(&[1, 2, 3]).unwrap_or(&1);
            world.found(count);
        }
        let places = world.sites.iter().map(|site| (site.peer.clone(), site.machines.clone()));
        world.clients = Clients::new(may_wait, places.collect());
        world.agenda.book(2_000_000, Event::Fault);
        world.agenda.book(1_000_000, Event::Wish);
        world
    }

    /// Machines whose disks hold what a founded site of `count` nodes has agreed on.
    fn found(&mut self, count: usize) {
        let voters = if count < 3 { 1 } else { count - usize::from(count.is_multiple_of(2)) };
        let (site, first) = (self.sites.len(), self.machines.len());
        let number = u8::try_from(site + 1).unwrap_or(u8::MAX);
        let name: SiteName = if site == 0 { SiteName::default() } else { "far".parse().expect("a name") };
        let peer = PeerSite { group: GroupId::from_bytes([number; 16]), site: name };
        let ids: Vec<NodeId> = (first..first + count).map(|machine| node_id(machine, 0)).collect();
        let members = Members {
            voters: vec![ids[..voters].iter().copied().collect()],
            learners: ids[voters..].iter().copied().collect(),
        };
        let founding = Founding {
            fleet: fleet_core::FleetId::default(),
            site: peer.site.clone(),
            group: peer.group,
            founder: ids[0],
            dev: false,
        };
        let mut actions = vec![Action::Found(founding)];
        actions.extend(
            ids.iter().enumerate().map(|(machine, id)| {
                Action::PutNode(Box::new(admission(*id, first + machine, peer.site.clone(), None)))
            }),
        );
        actions.push(Action::Gate { version: fleet_replication::command::COMMAND_VERSION });
        let at = Clocks::default().wall_now(0);
        let commands = actions.into_iter().zip(1..).map(|(action, id)| Command { id: CommandId(id), at, action });
        let entries = vec![
            Entry { place: (0, 1), payload: Payload::Members(members) },
            Entry { place: (0, 2), payload: Payload::Commands(commands.collect::<Vec<_>>().into()) },
        ];
        self.sites.push(Site { peer, machines: first..first + count, judge: Judge::default() });
        for (machine, id) in (first..).zip(ids) {
            let mut disk = Disk::default();
            disk.write(DiskRecord::Entries(entries.clone())).expect("an empty disk has room");
            disk.sync();
            let clocks = Clocks {
                drift_ppm: self.dice.below(7_000) as i64 - 3_500,
                wall_ahead_ms: self.dice.below(200) as i64 - 100,
                running_since_us: 10_000_000 + self.dice.below(1_000_000_000) as u64,
            };
            self.machines.push(Machine {
                site,
                node: id,
                generation: 0,
                clocks,
                disk,
                process: None,
                run: 0,
                boot: 0,
                is_paused: false,
                backlog: Vec::new(),
                disk_stall_us: 0,
                replaces: None,
                reached: 0,
            });
            self.agenda.book(self.dice.below(500_000) as u64, Event::Start { machine });
            self.agenda.book(self.dice.below(500_000) as u64, Event::Gossip { machine });
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
                self.heal();
            }
            self.happen(event)?;
            self.settle()?;
            if let Some(at_us) = healed_at_us {
                steps += 1;
                if steps % STEPS_PER_LOOK == 0 && self.is_well() {
                    return self.check_end();
                }
                if now_us > at_us + HEAL_BOUND_US {
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
            Event::Resume { machine } => self.resume(machine),
            Event::Gossip { machine } => self.gossip(machine),
            Event::Fault => self.fault(),
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

    fn note(&mut self, event: &Event) {
        let text = match event {
            Event::Wake { alarm: Alarm::Tick, .. } | Event::Gossip { .. } => return,
            Event::Deliver { machine, message, .. } => format!("to {machine}: {}", brief(message)),
            other => format!("{other:?}"),
        };
        self.log.note(format!("{:>9} {text}", self.agenda.now_us()));
    }

    /// Notes what somebody does, for whoever reads the log.
    pub(crate) fn say(&mut self, text: &str) {
        self.log.note(format!("{:>9} {text}", self.agenda.now_us()));
    }

    // ---- processes

    fn deliver(&mut self, machine: usize, node: Option<NodeId>, message: Message) {
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

    fn wake(&mut self, machine: usize, run: u64, alarm: Alarm) {
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
        for delay_us in self.network.delays_us(&mut self.dice, from, machine) {
            self.agenda.book(delay_us, Event::Deliver { machine, node: Some(to), message: message.clone() });
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
            self.agenda.book(delay_us, Event::Deliver { machine: to, node: None, message: message.clone() });
        }
    }

    /// Whether the node of `machine` serves as a leader.
    pub(crate) fn serves(&self, machine: usize) -> bool {
        self.machines[machine].process.as_ref().is_some_and(|process| process.group.serving.is_some())
    }

    /// The process of `machine` ends; what its disk has not synced is lost where `loses_writes`.
    pub(crate) fn stop(&mut self, machine: usize, loses_writes: bool) {
        let there = &mut self.machines[machine];
        there.reached = there.process.take().map_or(there.reached, |process| process.group.applied);
        there.is_paused = false;
        there.backlog.clear();
        if loses_writes {
            there.disk.lose_power(&mut self.dice);
        }
    }

    fn start(&mut self, machine: usize) {
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
        let other = self.sites.iter().map(|site| site.peer.clone()).find(|peer| *peer != own);
        let interpreter = self.interpreter.clone();
        let mut out = std::mem::take(&mut self.out);
        let mut step = self.step(machine, &mut out);
        let part = GroupPart::start(&mut step, own.group, node, run, &records, remembered);
        let opens_from = node::opens_from(&mut step);
        let robot = Robot::start(&step, node, name, boot, opens_from, interpreter);
        let courier = other.map(|peer| Courier::start(&part, own, peer));
        let process = Process::new(&mut step, part, robot, courier);
        self.machines[machine].process = Some(process);
        self.say(&format!("machine {machine} runs {node} again from entry {remembered}"));
        self.carry_out(machine, out);
    }

    /// Up to which entry the state on a disk reaches: some prefix of what was applied and is in the log there.
    fn remembered(&mut self, machine: usize, records: &[DiskRecord]) -> u64 {
        let mut length = 0;
        for record in records {
            match record {
                DiskRecord::Entries(entries) => length = entries.last().map_or(length, |entry| entry.place.1),
                DiskRecord::Truncate(from) => length = from - 1,
                DiskRecord::Boot(_) | DiskRecord::Vote(_) => {}
            }
        }
        let reach = length.min(self.machines[machine].reached);
        reach - self.dice.below(usize::try_from(reach.min(20)).unwrap_or_default() + 1) as u64
    }

    fn resume(&mut self, machine: usize) {
        let there = &mut self.machines[machine];
        there.is_paused = false;
        for event in std::mem::take(&mut there.backlog) {
            self.agenda.book(1, event);
        }
    }

    /// The machine loses its disk and comes back as another node.
    pub(crate) fn wipe(&mut self, machine: usize) {
        let there = &mut self.machines[machine];
        there.replaces = Some(there.replaces.unwrap_or(there.node));
        there.generation += 1;
        there.node = node_id(machine, there.generation);
        (there.disk, there.boot, there.reached) = (Disk::default(), 0, 0);
    }

    /// A node that is no member yet asks any machine to make it one.
    fn ask_to_join(&mut self, machine: usize) {
        let there = &self.machines[machine];
        let Some(replaces) = there.replaces else { return };
        let is_member = there.process.as_ref().is_some_and(|process| !process.group.consensus.log.is_empty());
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

    fn gossip(&mut self, machine: usize) {
        self.agenda.book(400_000 + self.dice.below(300_000) as u64, Event::Gossip { machine });
        let is_wrong = !self.is_healed && self.dice.chance(10);
        let is_blind = !self.is_healed && self.dice.chance(5);
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

    // ---- clients

    fn wish(&mut self) {
        if self.is_healed {
            return;
        }
        self.agenda.book(50_000 + self.dice.below(700_000) as u64, Event::Wish);
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

    // ---- judging

    fn settle(&mut self) -> Result<(), Violation> {
        for (site, fact) in std::mem::take(&mut self.facts) {
            self.note_fact(&fact);
            self.sites[site].judge.hear(&fact)?;
            self.check_sites(site, &fact)?;
        }
        let now_us = self.agenda.now_us();
        let mut rights = Vec::new();
        for machine in &self.machines {
            if let Some(process) = &machine.process {
                let pairs = process.robot.rights(machine.clocks.boot_now(now_us));
                rights.extend(pairs.into_iter().map(|pair| (machine.node, pair)));
            }
        }
        judge::check_rights(&rights)
    }

    /// A job is assigned at one site only: nobody gives up a site in the simulation.
    fn check_sites(&mut self, site: usize, fact: &Fact) -> Result<(), Violation> {
        let Fact::Applied(applied) = fact else { return Ok(()) };
        for event in &applied.events {
            if let fsm::Event::JobChanged { job, assignment: Some(_), .. } = event
                && *self.assigned_at.entry(*job).or_insert(site) != site
            {
                let detail = format!("job {job} is assigned at both sites");
                return broken(Law::Promise(Invariant::AtMostOneActor), detail);
            }
        }
        Ok(())
    }

    fn note_fact(&mut self, fact: &Fact) {
        let text = match fact {
            Fact::Applied(applied) => {
                let fact = applied.as_ref();
                format!("{} applies {:?}: {:?} {}", fact.node, fact.place, fact.outcomes, fact.fingerprint)
            }
            other => format!("{other:?}"),
        };
        self.log.note(format!("{:>9}   {text}", self.agenda.now_us()));
    }

    /// Whether every job has ended, its first site knows, and every node knows the whole log.
    fn is_well(&self) -> bool {
        self.clients.open_submits() == 0 && self.sites.iter().all(|site| self.is_site_well(site))
    }

    fn is_site_well(&self, site: &Site) -> bool {
        let is_up_to_date = |machine: usize| {
            let process = self.machines[machine].process.as_ref();
            process.is_some_and(|process| process.group.applied >= site.judge.log_length())
        };
        let Some(leader) = site.machines.clone().find(|machine| self.serves(*machine)) else { return false };
        let has_ended = |(job, facts): (&JobId, &JobFacts)| match facts.state {
            Some(state) => state.is_ended(),
            None => !facts.is_elsewhere || self.mirrored(leader, *job).is_some_and(JobState::is_ended),
        };
        site.machines.clone().all(is_up_to_date) && site.judge.jobs.iter().all(has_ended)
    }

    /// How `job` stands at the other site, as far as `machine` knows.
    pub(crate) fn mirrored(&self, machine: usize, job: JobId) -> Option<JobState> {
        let reader = self.machines[machine].process.as_ref()?.group.reader();
        let mirror = moves::mirror(&reader, job).expect("the state can be read");
        mirror.map(|(_, mirror)| mirror.standing.state)
    }

    fn not_well(&self) -> Result<(), Violation> {
        let jobs = self.sites.iter().flat_map(|site| &site.judge.jobs);
        let is_open = |facts: &JobFacts| facts.state.is_some_and(|state| !state.is_ended());
        let open: Vec<String> =
            jobs.filter(|(_, facts)| is_open(facts)).map(|(id, facts)| format!("{id} {:?}", facts.state)).collect();
        let nodes: Vec<String> = self.machines.iter().map(Machine::describe).collect();
        let detail = format!(
            "{} s after the faults: {} jobs open {open:?}, {} submits open, logs {:?}, nodes {nodes:?}",
            HEAL_BOUND_US / 1_000_000,
            open.len(),
            self.clients.open_submits(),
            self.sites.iter().map(|site| site.judge.log_length()).collect::<Vec<_>>(),
        );
        let law = if open.is_empty() { Invariant::HealingIsAutomatic } else { Invariant::EveryJobEndsOrSaysWhyNot };
        broken(Law::Promise(law), detail)
    }

    fn check_end(&mut self) -> Result<(), Violation> {
        self.say("all is well");
        crate::ending::check(self)
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

impl Machine {
    fn describe(&self) -> String {
        match &self.process {
            None => format!("{}: down", self.node),
            Some(process) => format!(
                "{}: term {}, applied {} of {}, leads {}, serves {:?}, session {:?}",
                self.node,
                process.group.consensus.vote.term,
                process.group.applied,
                process.group.consensus.log.len(),
                process.group.consensus.leads(),
                process.group.serving,
                process.robot.session.session(),
            ),
        }
    }
}

/// A message in few words.
fn brief(message: &Message) -> String {
    match message {
        Message::Down(down) => match down.as_ref() {
            fleet_node::link::WorkDown::Assign(assignment) => {
                format!("assign {:?} of {}", assignment.pair, assignment.session)
            }
            other => format!("{other:?}"),
        },
        Message::Up(fleet_node::link::WorkUp::Records { session, records }) => {
            let (from, count) = (records.from, records.records.len());
            format!("{count} records of {} from {from} under {} of {session}", records.job, records.fence)
        }
        Message::Ask { from, ask: crate::message::Ask::Log(request), .. } => match request {
            crate::consensus::Request::Append { term, previous, entries, committed } => {
                format!("append from {from} in {term}: {} after {previous:?}, committed {committed}", entries.len())
            }
            other => format!("{other:?} of {from}"),
        },
        Message::Heartbeat(heartbeat) => format!("{:?}", heartbeat.beat),
        Message::Wish { number, .. } => format!("wish {number}"),
        other => format!("{other:?}"),
    }
}
