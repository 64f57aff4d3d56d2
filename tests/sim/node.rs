//! One process of `fleetd` in the simulation: its part of the group, its scheduler and its robot, and what passes between.

use fleet_core::{BootInstant, JobId, NodeId, SiteName};
use fleet_node::routing::Route;
use fleet_replication::command::{Action, Moving, NodeAdmission, Outcome};
use fleet_store::record::NodeProfile;
use fleet_store::state::{jobs, moves};

use crate::consensus::Members;
use crate::courier::Courier;
use crate::group::{GroupPart, Notice, Question};
use crate::message::{Alarm, Fact, Message, Out, Situation, Step, Told, Wish};
use crate::robot::{Robot, SLOTS};
use crate::scheduler::{self, Reply, Scheduler};

/// A running process.
pub(crate) struct Process {
    pub(crate) group: GroupPart,
    pub(crate) scheduler: Scheduler,
    pub(crate) robot: Robot,
    courier: Option<Courier>,
    ticks: u64,
}

impl Process {
    pub(crate) fn new(step: &mut Step<'_>, group: GroupPart, robot: Robot, courier: Option<Courier>) -> Self {
        let ticks = step.dice.below(2) as u64;
        let process = Self { group, scheduler: Scheduler::new(), robot, courier, ticks };
        let delay_us = step.dice.below(usize::try_from(tick_us(step)).unwrap_or_default()) as u64;
        step.out.push(Out::Wake { delay_us, alarm: Alarm::Tick });
        process
    }

    pub(crate) fn woken(&mut self, step: &mut Step<'_>, alarm: Alarm) {
        match alarm {
            Alarm::Tick => self.tick(step),
            Alarm::Synced => self.group.synced(step),
            Alarm::EffectOver { pair, path, token } => self.robot.effect_over(step, pair, &path, token),
        }
        self.settle(step);
    }

    fn tick(&mut self, step: &mut Step<'_>) {
        self.ticks += 1;
        let late_us = if step.dice.chance(5) { step.dice.below(40_000) as u64 } else { step.dice.below(2_000) as u64 };
        step.out.push(Out::Wake { delay_us: tick_us(step) + late_us, alarm: Alarm::Tick });
        self.group.tick(step, self.ticks.is_multiple_of(2));
        self.settle(step);
        self.scheduler.tick(step, &mut self.group);
        if let Some(courier) = &mut self.courier {
            courier.tick(step, &mut self.group);
        }
        let leader = self.group.leader(step);
        self.robot.tick(step, leader);
    }

    /// A message for this node came.
    pub(crate) fn receive(&mut self, step: &mut Step<'_>, message: Message) {
        match message {
            Message::Ask { from, run, call, ask } => self.group.asked(step, from, run, call, ask),
            Message::Said { from, run, call, said } => {
                if run == self.group.run {
                    self.group.answered(step, from, call, said);
                }
            }
            Message::Heartbeat(heartbeat) => self.scheduler.heard(step, &mut self.group, heartbeat),
            Message::BeatAnswer(answer) => self.robot.answered(step, answer),
            Message::Up(message) => self.scheduler.up(step, &mut self.group, message),
            Message::Down(message) => self.robot.down(step, *message),
            Message::Join { node, machine, replaces } => self.join(step, node, machine, replaces),
            Message::Wish { number, wish } => self.wish(step, number, wish),
            Message::Letter { from, run, call, message } => {
                if let Some(courier) = &mut self.courier {
                    courier.asked(step, &mut self.group, (from, run, call), message);
                }
            }
            Message::LetterAnswer { run, call, answer } => {
                if let Some(courier) = self.courier.as_mut().filter(|_| run == self.group.run) {
                    courier.answered(step, &mut self.group, call, answer);
                }
            }
        }
        self.settle(step);
    }

    /// Passes on what the parts say to each other until nobody has anything more to say.
    fn settle(&mut self, step: &mut Step<'_>) {
        while let Some(notice) = self.group.notices.pop_front() {
            self.follow(step);
            match notice {
                Notice::Applied(events) => {
                    self.scheduler.applied(step, &mut self.group, &events);
                    if let Some(courier) = &mut self.courier {
                        courier.applied(&events);
                    }
                }
                Notice::Proposed(reply, outcome) => self.proposed(step, reply, outcome),
                Notice::Confirmed(Question::Sessions { term, round }, is_confirmed) => {
                    self.scheduler.confirmed(step, &mut self.group, term, round, is_confirmed);
                }
                Notice::Confirmed(Question::Read { number, job }, is_confirmed) => {
                    let told = match is_confirmed {
                        true => Told::Found(self.knows(job)),
                        false => Told::Unknown,
                    };
                    step.out.push(Out::Tell { number, told });
                }
                Notice::Takeover { term, latest } => self.scheduler.takeover(term, latest),
            }
        }
        self.follow(step);
    }

    fn follow(&mut self, step: &mut Step<'_>) {
        self.scheduler.follow(step, &mut self.group);
        if let Some(courier) = &mut self.courier {
            courier.follow(&self.group);
        }
    }

    fn proposed(&mut self, step: &mut Step<'_>, reply: Reply, outcome: Option<Outcome>) {
        if let Reply::Client(number) | Reply::SubmitAssigned(number, _) = reply {
            let told = outcome.clone().map_or(Told::Unknown, Told::Outcome);
            step.out.push(Out::Tell { number, told });
        }
        if let (Reply::Courier(token), Some(courier)) = (&reply, &mut self.courier) {
            courier.proposed(step, &mut self.group, *token, outcome.clone());
        }
        self.scheduler.proposed(step, &mut self.group, reply, outcome);
    }

    fn wish(&mut self, step: &mut Step<'_>, number: u64, wish: Wish) {
        if self.group.serving.is_none() {
            let leader = self.group.leader(step).filter(|leader| *leader != self.group.node);
            return step.out.push(Out::Tell { number, told: Told::NotHere(leader) });
        }
        match wish {
            Wish::Change(id, Action::Submit(submission)) => {
                let courier = self.courier.as_ref();
                match courier.and_then(|courier| courier.route(&self.group, &submission.spec)) {
                    Some(Route { to, because }) => {
                        step.fact(Fact::Seen(Situation::JobRouted));
                        let action = Moving::SubmitTo { submission, to, because }.into();
                        self.group.propose_as(step, id, action, Reply::Client(number));
                    }
                    None => self.scheduler.submit(step, &mut self.group, number, id, submission),
                }
            }
            Wish::Change(id, action) => self.group.propose_as(step, id, action, Reply::Client(number)),
            Wish::Read(job) => self.group.confirm(step, Question::Read { number, job }),
        }
    }

    /// Whether the job is here, or is known to be at another site.
    fn knows(&self, job: JobId) -> bool {
        let reader = self.group.reader();
        let is_here = jobs::job(&reader, job).expect("the state can be read").is_some();
        is_here || moves::of_job(&reader, job).expect("the state can be read").is_some()
    }

    fn join(&mut self, step: &mut Step<'_>, node: NodeId, machine: usize, replaces: NodeId) {
        if self.group.serving.is_none() {
            return;
        }
        let members = &self.group.consensus.members;
        if members.all().contains(&node) {
            return;
        }
        let is_known = scheduler::nodes_in(&self.group.reader()).contains(&node);
        if !is_known {
            let founding = jobs::site(&self.group.reader()).expect("the state can be read").founding;
            let site = founding.map(|founding| founding.site).unwrap_or_default();
            let admission = admission(node, machine, site, Some(replaces));
            return self.group.propose(step, Action::PutNode(Box::new(admission)), Reply::Nobody);
        }
        // A learner comes, and the one it replaces goes; a voter that is gone keeps its seat.
        let mut learners = members.learners.clone();
        learners.remove(&replaces);
        learners.insert(node);
        let members = Members { voters: members.voters.clone(), learners };
        if members.voters.len() == 1 {
            self.group.change_members(step, members);
        }
    }
}

/// How often a process looks at its clocks, microseconds.
fn tick_us(step: &Step<'_>) -> u64 {
    u64::try_from((step.timing.watchdog_tick / 2).as_micros()).unwrap_or(u64::MAX)
}

/// What a node says of itself when it is admitted.
pub(crate) fn admission(node: NodeId, machine: usize, site: SiteName, replaces: Option<NodeId>) -> NodeAdmission {
    let profile = NodeProfile {
        name: format!("machine-{machine}"),
        tags: vec![site.to_string()],
        site,
        address: format!("10.0.0.{machine}:7000"),
        http_address: format!("10.0.0.{machine}:8000"),
        slots: SLOTS,
        capabilities: vec!["http".to_owned()],
        version: "0.1.0".to_owned(),
    };
    NodeAdmission { node, profile, certificate: None, replaces }
}

/// When the first session of a boot may open: at once where no guard of the last boot lives, else a lease later.
pub(crate) fn opens_from(step: &mut Step<'_>) -> BootInstant {
    match step.dice.chance(50) {
        true => step.now,
        false => step.now.saturating_add(step.timing.robot_lease),
    }
}
