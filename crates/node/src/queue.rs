//! The leader's queue in memory: queued jobs by class, so that the placement looks at classes and heads only.
//!
//! A class is a priority, a workflow and a set of needs. The truth is the applied state; this is its index, built when a
//! leadership begins and kept by what is applied.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use fleet_core::{JobId, NodeId};

use crate::placement::Needs;

/// What jobs of one class have in common. Ordered by priority, the highest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassKey {
    /// Priority, 0 to 20.
    pub priority: u8,
    /// The workflow, for fairness.
    pub workflow: Arc<str>,
    /// What they ask of a robot.
    pub needs: Arc<Needs>,
}

impl Ord for ClassKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let by_priority = other.priority.cmp(&self.priority);
        by_priority.then_with(|| self.workflow.cmp(&other.workflow)).then_with(|| self.needs.cmp(&other.needs))
    }
}

impl PartialOrd for ClassKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A queued job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// The job.
    pub job: JobId,
    /// How often it was assigned before.
    pub attempt: u32,
    /// The node that had it last: what its effects left behind may still be there.
    pub last: Option<NodeId>,
}

/// How a workflow with queued jobs stands beside the others.
#[derive(Debug)]
struct Share {
    /// How often it was served; one that is new begins with the least.
    served: u64,
    /// How many classes it has.
    classes: usize,
}

/// Queued jobs by class and, within a class, by the number of their submission.
#[derive(Debug, Default)]
pub struct Queue {
    classes: BTreeMap<Arc<ClassKey>, BTreeMap<u64, Head>>,
    places: HashMap<JobId, (Arc<ClassKey>, u64)>,
    workflows: BTreeMap<Arc<str>, Share>,
    served_floor: u64,
}

impl Queue {
    /// How many jobs are queued.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether no job is queued.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Queues `head`, submitted as `number`, unless it is queued already.
    pub fn insert(&mut self, class: &ClassKey, number: u64, head: Head) {
        if self.places.contains_key(&head.job) {
            return;
        }
        let class = match self.classes.get_key_value(class) {
            Some((known, _)) => Arc::clone(known),
            None => {
                let fresh = Share { served: self.served_floor, classes: 0 };
                self.workflows.entry(Arc::clone(&class.workflow)).or_insert(fresh).classes += 1;
                Arc::new(class.clone())
            }
        };
        self.places.insert(head.job, (Arc::clone(&class), number));
        self.classes.entry(class).or_default().insert(number, head);
    }

    /// Takes `job` out: it was assigned, stopped, or is about to be assigned.
    pub fn remove(&mut self, job: JobId) {
        let Some((class, number)) = self.places.remove(&job) else { return };
        if let Some(jobs) = self.classes.get_mut(&class) {
            jobs.remove(&number);
            if jobs.is_empty() {
                self.classes.remove(&class);
                self.forget_class_of(&class.workflow);
            }
        }
    }

    /// Takes out a job that is being assigned, and counts it for its workflow.
    pub fn take(&mut self, job: JobId) {
        if let Some((class, _)) = self.places.get(&job)
            && let Some(share) = self.workflows.get_mut(&class.workflow)
        {
            self.served_floor = self.served_floor.max(share.served);
            share.served += 1;
        }
        self.remove(job);
    }

    /// Every class that has jobs, highest priority first.
    pub fn classes(&self) -> impl Iterator<Item = (&ClassKey, &BTreeMap<u64, Head>)> {
        self.classes.iter().map(|(class, jobs)| (&**class, jobs))
    }

    /// How often `workflow` was served, relative to the others.
    pub fn served(&self, workflow: &str) -> u64 {
        self.workflows.get(workflow).map_or(self.served_floor, |share| share.served)
    }

    fn forget_class_of(&mut self, workflow: &str) {
        if let Some(share) = self.workflows.get_mut(workflow) {
            share.classes -= 1;
            if share.classes == 0 {
                self.workflows.remove(workflow);
            }
        }
    }
}
