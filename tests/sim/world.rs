//! The simulated world: machines with clocks and disks, the network between them, clients, faults, and the judge. One seed
//! decides everything that happens in it.

use std::collections::BTreeSet;

use fleet_core::invariant::Invariant;
use fleet_core::timing::Timing;
use fleet_core::{GroupId, NodeId, SiteName};
use fleet_replication::command::{Action, Command};
use fleet_sim::{Agenda, Clocks, Dice, Disk, EventLog, Network, Weather};
use fleet_store::record::{CommandId, Founding, JobState};

use crate::bugs::PlantedBug;
use crate::clients::Clients;
use crate::consensus::{DiskRecord, Entry, Members, Payload};
use crate::faults::Plan;
use crate::group::GroupPart;
use crate::judge::{Judge, Law, Violation, broken};
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
    Deliver { machine: usize, node: Option<NodeId>, message: Message },
    Wake { machine: usize, run: u64, alarm: Alarm },
    Start { machine: usize },
    Resume { machine: usize },
    Gossip { machine: usize },
    Fault,
    RoomAgain { machine: usize },
    Told { number: u64, told: Told },
    Wish,
    Try { number: u64 },
}

/// A machine.
pub(crate) struct Machine {
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
    pub(crate) is_lost: bool,
}

/// The world.
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) agenda: Agenda<Event>,
    pub(crate) network: Network,
    pub(crate) machines: Vec<Machine>,
    pub(crate) plan: Plan,
    pub(crate) clients: Clients,
    pub(crate) judge: Judge,
    pub(crate) log: EventLog,
    pub(crate) is_healed: bool,
    pub(crate) permanent_losses: usize,
    group: GroupId,
    timing: Timing,
    bug: Option<PlantedBug>,
    runs: u64,
    interpreter: Interpreter,
    pub(crate) out: Vec<Out>,
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
        let clients = Clients::new(may_wait);
        let mut world = Self {
            dice,
            agenda: Agenda::default(),
            network,
            machines: Vec::new(),
            plan,
            clients,
            judge: Judge::default(),
            log: EventLog::default(),
            is_healed: false,
            permanent_losses: 0,
            group: GroupId::from_bytes([9; 16]),
            timing: Timing::LAN,
            bug,
            runs: 0,
            interpreter,
            out: Vec::new(),
        };
        world.found(count);
        world
    }

    /// Machines whose disks hold what a founded site of `count` nodes has agreed on.
    fn found(&mut self, count: usize) {
        let voters = if count < 3 { 1 } else { count - usize::from(count.is_multiple_of(2)) };
        let ids: Vec<NodeId> = (0..count).map(|machine| node_id(machine, 0)).collect();
        let members = Members {
            voters: vec![ids[..voters].iter().copied().collect()],
            learners: ids[voters..].iter().copied().collect(),
        };
        let founding = Founding {
            fleet: fleet_core::FleetId::default(),
            site: SiteName::default(),
            group: self.group,
            founder: ids[0],
            dev: false,
        };
        let mut actions = vec![Action::Found(founding)];
        actions.extend(
            ids.iter().enumerate().map(|(machine, id)| Action::PutNode(Box::new(admission(*id, machine, None)))),
        );
        actions.push(Action::Gate { version: fleet_replication::command::COMMAND_VERSION });
        let at = Clocks::default().wall_now(0);
        let commands = actions.into_iter().zip(1..).map(|(action, id)| Command { id: CommandId(id), at, action });
        let entries = vec![
            Entry { place: (0, 1), payload: Payload::Members(members) },
            Entry { place: (0, 2), payload: Payload::Commands(commands.collect::<Vec<_>>().into()) },
        ];
        for (machine, id) in ids.into_iter().enumerate() {
            let mut disk = Disk::default();
            disk.write(DiskRecord::Entries(entries.clone())).expect("an empty disk has room");
            disk.sync();
            let clocks = Clocks {
                drift_ppm: self.dice.below(7_000) as i64 - 3_500,
                wall_ahead_ms: self.dice.below(200) as i64 - 100,
                running_since_us: 10_000_000 + self.dice.below(1_000_000_000) as u64,
            };
            self.machines.push(Machine {
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
                is_lost: false,
            });
            self.agenda.book(self.dice.below(500_000) as u64, Event::Start { machine });
            self.agenda.book(self.dice.below(500_000) as u64, Event::Gossip { machine });
        }
        self.agenda.book(2_000_000, Event::Fault);
        self.agenda.book(1_000_000, Event::Wish);
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
                let (judge, machines) = (&self.judge, &self.machines);
                let machine_of = |node: NodeId| machines.iter().position(|machine| machine.node == node);
                if let Some(request) = self.clients.told(judge, number, &told, machine_of)? {
                    self.send_wish(number, request);
                }
            }
            Event::Wish => self.wish(),
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
        let (run, mut facts) = (self.machines[machine].run, Vec::new());
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
                fact @ Out::Fact(_) => facts.push(fact),
            }
        }
        self.out = facts;
    }

    fn send(&mut self, from: usize, to: NodeId, message: Message) {
        let Some(machine) = self.machines.iter().position(|machine| machine.node == to) else { return };
        for delay_us in self.network.delays_us(&mut self.dice, from, machine) {
            self.agenda.book(delay_us, Event::Deliver { machine, node: Some(to), message: message.clone() });
        }
    }

    /// The process of `machine` ends; what its disk has not synced is lost where `loses_writes`.
    pub(crate) fn stop(&mut self, machine: usize, loses_writes: bool) {
        let there = &mut self.machines[machine];
        there.process = None;
        there.is_paused = false;
        there.backlog.clear();
        if loses_writes {
            there.disk.lose_power(&mut self.dice);
        }
    }

    fn start(&mut self, machine: usize) {
        if self.machines[machine].process.is_some() || self.machines[machine].is_lost {
            return;
        }
        let records = match self.machines[machine].disk.open() {
            Ok(records) => records,
            Err(error) => {
                // Reported, and never taken for good: the operator wipes the machine.
                self.judge.see(Situation::DamageReported);
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
        let remembered = self.remembered(&records);
        let (group, interpreter) = (self.group, self.interpreter.clone());
        let mut out = std::mem::take(&mut self.out);
        let mut step = self.step(machine, &mut out);
        let part = GroupPart::start(&mut step, group, node, run, &records, remembered);
        let opens_from = node::opens_from(&mut step);
        let robot = Robot::start(&step, node, name, boot, opens_from, interpreter);
        let process = Process::new(&mut step, part, robot);
        self.machines[machine].process = Some(process);
        self.say(&format!("machine {machine} runs {node} again from entry {remembered}"));
        self.carry_out(machine, out);
    }

    /// Up to which entry the state on a disk reaches: any prefix of what is committed and on that disk.
    fn remembered(&mut self, records: &[DiskRecord]) -> u64 {
        let mut length = 0;
        for record in records {
            match record {
                DiskRecord::Entries(entries) => length = entries.last().map_or(length, |entry| entry.place.1),
                DiskRecord::Truncate(from) => length = from - 1,
                DiskRecord::Boot(_) | DiskRecord::Vote(_) => {}
            }
        }
        let reach = length.min(self.judge.log_length());
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
        (there.disk, there.boot) = (Disk::default(), 0);
    }

    /// A node that is no member yet asks any machine to make it one.
    fn ask_to_join(&mut self, machine: usize) {
        let there = &self.machines[machine];
        let Some(replaces) = there.replaces else { return };
        let is_member = there.process.as_ref().is_some_and(|process| !process.group.consensus.log.is_empty());
        if is_member {
            self.machines[machine].replaces = None;
            self.judge.see(Situation::NodeReplaced);
        } else if self.dice.chance(10) {
            let (node, target) = (there.node, self.dice.below(self.machines.len()));
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
        for (other, there) in self.machines.iter().enumerate() {
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
        let nodes: Vec<NodeId> = self.machines.iter().map(|machine| machine.node).collect();
        if let Some(number) = self.clients.wish(&mut self.dice, self.machines.len(), &nodes) {
            self.try_wish(number);
        }
    }

    pub(crate) fn try_wish(&mut self, number: u64) {
        let Some(request) = self.clients.try_again(&mut self.dice, self.machines.len(), number) else { return };
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
        for out in std::mem::take(&mut self.out) {
            if let Out::Fact(fact) = out {
                self.note_fact(&fact);
                self.judge.hear(&fact)?;
            }
        }
        let now_us = self.agenda.now_us();
        let mut rights = Vec::new();
        for machine in &self.machines {
            if let Some(process) = &machine.process {
                let pairs = process.robot.rights(machine.clocks.boot_now(now_us));
                rights.extend(pairs.into_iter().map(|pair| (machine.node, pair)));
            }
        }
        self.judge.check_rights(&rights)
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

    /// Whether every job has ended and every node knows the whole log.
    fn is_well(&self) -> bool {
        if self.clients.open_submits() > 0 {
            return false;
        }
        let length = self.judge.log_length();
        let is_up_to_date = |machine: &Machine| {
            machine.is_lost || machine.process.as_ref().is_some_and(|process| process.group.applied >= length)
        };
        self.judge.jobs.values().all(|job| job.state.is_none_or(JobState::is_ended))
            && self.machines.iter().all(is_up_to_date)
            && self
                .machines
                .iter()
                .any(|machine| machine.process.as_ref().is_some_and(|process| process.group.serving.is_some()))
    }

    fn not_well(&self) -> Result<(), Violation> {
        let open: Vec<String> = self
            .judge
            .jobs
            .iter()
            .filter(|(_, job)| job.state.is_some_and(|state| !state.is_ended()))
            .map(|(id, job)| format!("{id} {:?}", job.state))
            .collect();
        let nodes: Vec<String> = self.machines.iter().map(Machine::describe).collect();
        let detail = format!(
            "{} s after the faults: {} jobs open {open:?}, {} submits open, log {}, nodes {nodes:?}",
            HEAL_BOUND_US / 1_000_000,
            open.len(),
            self.clients.open_submits(),
            self.judge.log_length(),
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
        self.undo_wishes();
    }

    /// Everything that clients stopped goes on.
    pub(crate) fn undo_wishes(&mut self) {
        let nodes: Vec<NodeId> = self.machines.iter().map(|machine| machine.node).collect();
        let drained = nodes.into_iter().map(|node| Action::UndrainNode { node });
        let jobs: Vec<_> = self.clients.paused.iter().copied().collect();
        let changes: Vec<Action> = drained.chain(jobs.into_iter().map(|job| Action::Resume { job })).collect();
        for action in changes {
            let number = self.clients.begin_change(&mut self.dice, self.machines.len(), action);
            self.agenda.book(3_000_000 + self.dice.below(500_000) as u64, Event::Try { number });
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
