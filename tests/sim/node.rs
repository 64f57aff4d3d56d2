//! One process of `fleetd` in the simulation: its part of the group, its scheduler and its robot, and what passes between.

use fleet_core::{BootInstant, NodeId};
use fleet_replication::command::{Action, NodeAdmission, Outcome};
use fleet_store::record::NodeProfile;
use fleet_store::state::jobs;

use crate::consensus::Members;
use crate::group::{GroupPart, Notice, Question};
use crate::message::{Alarm, Message, Out, Step, Told, Wish};
use crate::robot::{Robot, SLOTS};
use crate::scheduler::{self, Reply, Scheduler};
use crate::world::TICK_US;

/// A running process.
pub(crate) struct Process {
    pub(crate) group: GroupPart,
    pub(crate) scheduler: Scheduler,
    pub(crate) robot: Robot,
    ticks: u64,
}

impl Process {
    pub(crate) fn new(step: &mut Step<'_>, group: GroupPart, robot: Robot) -> Self {
        let process = Self { group, scheduler: Scheduler::new(), robot, ticks: step.dice.below(2) as u64 };
        let delay_us = step.dice.below(TICK_US as usize) as u64;
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
        step.out.push(Out::Wake { delay_us: TICK_US + late_us, alarm: Alarm::Tick });
        self.group.tick(step, self.ticks.is_multiple_of(2));
        self.settle(step);
        self.scheduler.tick(step, &mut self.group);
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
        }
        self.settle(step);
    }

    /// Passes on what the parts say to each other until nobody has anything more to say.
    fn settle(&mut self, step: &mut Step<'_>) {
        while let Some(notice) = self.group.notices.pop_front() {
            self.scheduler.follow(step, &mut self.group);
            match notice {
                Notice::Applied(events) => self.scheduler.applied(step, &mut self.group, &events),
                Notice::Proposed(reply, outcome) => self.proposed(step, reply, outcome),
                Notice::Confirmed(Question::Sessions { term, round }, is_confirmed) => {
                    self.scheduler.confirmed(step, &mut self.group, term, round, is_confirmed);
                }
                Notice::Confirmed(Question::Read { number, job }, is_confirmed) => {
                    let told = match is_confirmed {
                        true => {
                            Told::Found(jobs::job(&self.group.reader(), job).expect("the state can be read").is_some())
                        }
                        false => Told::Unknown,
                    };
                    step.out.push(Out::Tell { number, told });
                }
                Notice::Takeover { term, latest } => self.scheduler.takeover(term, latest),
            }
        }
        self.scheduler.follow(step, &mut self.group);
    }

    fn proposed(&mut self, step: &mut Step<'_>, reply: Reply, outcome: Option<Outcome>) {
        if let Reply::Client(number) | Reply::SubmitAssigned(number, _) = reply {
            let told = outcome.clone().map_or(Told::Unknown, Told::Outcome);
            step.out.push(Out::Tell { number, told });
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
                self.scheduler.submit(step, &mut self.group, number, id, submission);
            }
            Wish::Change(id, action) => self.group.propose_as(step, id, action, Reply::Client(number)),
            Wish::Read(job) => self.group.confirm(step, Question::Read { number, job }),
        }
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
            let admission = admission(node, machine, Some(replaces));
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

/// What a node says of itself when it is admitted.
pub(crate) fn admission(node: NodeId, machine: usize, replaces: Option<NodeId>) -> NodeAdmission {
    let profile = NodeProfile {
        name: format!("machine-{machine}"),
        site: fleet_core::SiteName::default(),
        address: format!("10.0.0.{machine}:7000"),
        http_address: format!("10.0.0.{machine}:8000"),
        tags: Vec::new(),
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
