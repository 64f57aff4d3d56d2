//! Which queued job goes to which robot. Pure: a queue and the robots in, assignments out.
//!
//! Order: higher priority first, strictly; within a priority the workflow that was served least; within a workflow the
//! oldest job. A job that fits nowhere holds back nobody. Each job goes to the fitting robot with the most free slots; of
//! several, to the one that had it last.
//! The cost is that of the assignments made and the classes looked at, never of the jobs queued.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use fleet_core::{JobId, NodeId, SessionId};
use fleet_workflow::hosts;

use crate::queue::{ClassKey, Queue};

/// What begins the word for a version of the interpreter among capabilities: `interpreter:1`.
pub const INTERPRETER_WORD: &str = "interpreter:";

/// What begins the word for a host among capabilities: `http:api.example` of a job, `http:*.example` of a robot.
pub const HOST_WORD: &str = "http:";

/// What a job asks of a robot. Both lists are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Needs {
    /// Tags it must have.
    pub tags: Vec<String>,
    /// Capabilities it must allow.
    pub capabilities: Vec<String>,
}

/// A robot as the leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RobotView {
    /// Its live session.
    pub session: SessionId,
    /// Its tags, sorted.
    pub tags: Arc<[String]>,
    /// What it allows, sorted.
    pub capabilities: Arc<[String]>,
    /// How many more jobs it can take.
    pub slots_free: u32,
    /// Whether it takes no new work.
    pub is_draining: bool,
}

/// A job to be given to a robot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Assigned {
    /// The job.
    pub job: JobId,
    /// How often it was assigned before.
    pub attempt: u32,
    /// The session it goes to.
    pub session: SessionId,
}

/// Why a queued job is on no robot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Unplaced {
    /// No robot is connected.
    NoRobot,
    /// No robot has this tag.
    TagMissing(String),
    /// No robot allows this capability.
    NotAllowed(String),
    /// No robot has this version of the interpreter.
    InterpreterMissing(String),
    /// Every tag and capability exists, but on no single robot.
    NotTogether,
    /// Every robot that fits is draining.
    Draining,
    /// Every robot that fits is full.
    Full,
    /// It will be placed next.
    Next,
}

impl fmt::Display for Unplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRobot => f.write_str("no robot is connected"),
            Self::TagMissing(tag) => write!(f, "no robot has the tag `{tag}`"),
            Self::NotAllowed(capability) => match capability.split_once(':') {
                Some(("http", host)) => {
                    write!(f, "no robot allows http to {host}: add `{host}` to `robot.allow.http` of a node")
                }
                Some((key, value)) => {
                    write!(f, "no robot allows {key} in {value}: add `{value}` to `robot.allow.{key}` of a node")
                }
                None if capability == "http" => {
                    f.write_str("no robot allows http: name the hosts in `robot.allow.http` of a node")
                }
                None => write!(f, "no robot allows {capability}: set `robot.allow.{capability}` of a node"),
            },
            Self::InterpreterMissing(version) => {
                write!(
                    f,
                    "no robot has version {version} of the interpreter: start a node of the software that accepted it"
                )
            }
            Self::NotTogether => f.write_str("no single robot has all the tags and capabilities it needs"),
            Self::Draining => f.write_str("every robot that fits is draining"),
            Self::Full => f.write_str("every robot that fits is full"),
            Self::Next => f.write_str("about to be assigned"),
        }
    }
}

impl RobotView {
    /// Whether it has and allows all that `needs` asks, whatever its load.
    pub fn fits(&self, needs: &Needs) -> bool {
        let has_tag = |tag: &String| self.tags.binary_search(tag).is_ok();
        needs.tags.iter().all(has_tag) && needs.capabilities.iter().all(|word| self.allows(word))
    }

    /// Whether it allows the capability `word`. A host it allows by a pattern; without any, it is of the time when robots
    /// named none, and may allow the host.
    fn allows(&self, word: &str) -> bool {
        let has = |word: &str| self.capabilities.binary_search_by(|has| has.as_str().cmp(word)).is_ok();
        let allows_host = |host: &str| {
            let mut patterns = self.capabilities.iter().filter_map(|word| word.strip_prefix(HOST_WORD)).peekable();
            let names_none = patterns.peek().is_none() && has("http");
            names_none || patterns.any(|pattern| hosts::matches(pattern, host))
        };
        has(word) || word.strip_prefix(HOST_WORD).is_some_and(allows_host)
    }
}

/// At most `limit` assignments of the heads of `queue` to `robots`. The jobs it names are still in the queue.
pub fn placement(queue: &Queue, robots: &[RobotView], limit: usize) -> Vec<Assigned> {
    let mut round = Round::new(robots, limit);
    let mut classes = queue.classes().peekable();
    while let Some(&(first, _)) = classes.peek() {
        if round.is_full() {
            break;
        }
        let mut level = Vec::new();
        while let Some(class) = classes.next_if(|(key, _)| key.priority == first.priority) {
            level.push(class);
        }
        round.place_level(queue, level);
    }
    round.assignments
}

/// Why no robot has a job with these needs.
pub fn unplaced(needs: &Needs, robots: &[RobotView]) -> Unplaced {
    if robots.is_empty() {
        return Unplaced::NoRobot;
    }
    let nobody = |has: &dyn Fn(&RobotView) -> bool| !robots.iter().any(has);
    if let Some(tag) = needs.tags.iter().find(|tag| nobody(&|robot| robot.tags.binary_search(tag).is_ok())) {
        return Unplaced::TagMissing(tag.clone());
    }
    let mut capabilities = needs.capabilities.iter();
    let missing = capabilities.find(|item| nobody(&|robot| robot.allows(item)));
    if let Some(capability) = missing {
        return match capability.strip_prefix(INTERPRETER_WORD) {
            Some(version) => Unplaced::InterpreterMissing(version.to_owned()),
            None => Unplaced::NotAllowed(capability.clone()),
        };
    }
    let fitting: Vec<&RobotView> = robots.iter().filter(|robot| robot.fits(needs)).collect();
    if fitting.is_empty() {
        return Unplaced::NotTogether;
    }
    if fitting.iter().all(|robot| robot.is_draining) {
        return Unplaced::Draining;
    }
    let has_room = fitting.iter().any(|robot| !robot.is_draining && robot.slots_free > 0);
    if has_room { Unplaced::Next } else { Unplaced::Full }
}

/// One run of the placement.
struct Round<'a> {
    robots: &'a [RobotView],
    free: Vec<u32>,
    free_total: u64,
    limit: usize,
    /// For each set of needs met so far, the fitting robots by free slots; an entry may be out of date.
    fitting: BTreeMap<&'a Needs, BinaryHeap<(u32, Reverse<usize>)>>,
    assignments: Vec<Assigned>,
}

impl<'a> Round<'a> {
    fn new(robots: &'a [RobotView], limit: usize) -> Self {
        let free: Vec<u32> = robots.iter().map(|robot| if robot.is_draining { 0 } else { robot.slots_free }).collect();
        let free_total = free.iter().map(|slots| u64::from(*slots)).sum();
        Self { robots, free, free_total, limit, fitting: BTreeMap::new(), assignments: Vec::new() }
    }

    fn is_full(&self) -> bool {
        self.free_total == 0 || self.assignments.len() >= self.limit
    }

    /// Places jobs of classes of one priority: always of the workflow served least, its oldest first.
    fn place_level(&mut self, queue: &'a Queue, level: Vec<(&'a ClassKey, &'a BTreeMap<u64, crate::queue::Head>)>) {
        let mut heads: Vec<_> = level.into_iter().map(|(key, jobs)| (key, jobs.iter())).collect();
        let mut order = BinaryHeap::new();
        for (index, (key, jobs)) in heads.iter_mut().enumerate() {
            if let Some((number, head)) = jobs.next() {
                order.push(Reverse((queue.served(&key.workflow), *number, index, *head)));
            }
        }
        while let Some(Reverse((served, _, index, head))) = order.pop() {
            if self.is_full() {
                return;
            }
            let (key, jobs) = &mut heads[index];
            // A class that fits nowhere now is left out of the rest of the round.
            let Some(robot) = self.take(&key.needs, head.last) else { continue };
            let session = self.robots[robot].session;
            self.assignments.push(Assigned { job: head.job, attempt: head.attempt, session });
            if let Some((number, next)) = jobs.next() {
                order.push(Reverse((served + 1, *number, index, *next)));
            }
        }
    }

    /// Takes a slot of the fitting robot with the most free ones; of several, of that on the node `last`.
    fn take(&mut self, needs: &'a Needs, last: Option<NodeId>) -> Option<usize> {
        let (robots, free) = (self.robots, &mut self.free);
        let heap = self.fitting.entry(needs).or_insert_with(|| {
            let fits = robots.iter().enumerate().filter(|(index, robot)| free[*index] > 0 && robot.fits(needs));
            fits.map(|(index, _)| (free[index], Reverse(index))).collect()
        });
        while let Some((slots, Reverse(index))) = heap.pop() {
            if slots != free[index] {
                if free[index] > 0 {
                    heap.push((free[index], Reverse(index)));
                }
                continue;
            }
            let at_last = last.and_then(|node| robots.iter().position(|robot| robot.session.node == node));
            let chosen = at_last.filter(|at| free[*at] == slots && robots[*at].fits(needs)).unwrap_or(index);
            free[chosen] -= 1;
            self.free_total -= 1;
            // The entry of another than the topmost stays where it is, out of date.
            if free[index] > 0 {
                heap.push((free[index], Reverse(index)));
            }
            return Some(chosen);
        }
        None
    }
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
