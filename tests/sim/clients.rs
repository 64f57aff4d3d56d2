//! The clients of the simulated fleet: they submit, read, cancel, pause, resume and drain, and ask again until they know.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::invariant::Invariant;
use fleet_core::{JobId, NodeId, SiteName};
use fleet_replication::command::{Action, Outcome};
use fleet_sim::Dice;
use fleet_store::record::{CommandId, StopCause};

use crate::judge::{Judge, Law, Violation, broken};
use crate::message::{Told, Wish};
use crate::workflows;

/// Most jobs of one simulation.
const JOBS_MAX: usize = 40;
/// How often a client asks again, unless it is about a submit: that is asked until it is answered.
const TRIES_MAX: u32 = 12;

/// A request under way.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) wish: Wish,
    /// The machine that is asked next.
    pub(crate) machine: usize,
    tries: u32,
}

/// A job that somebody wants run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) workflow: usize,
    pub(crate) priority: u8,
}

/// All clients.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    requests: BTreeMap<u64, Request>,
    numbers: u64,
    pub(crate) wanted: BTreeMap<JobId, Wanted>,
    pub(crate) accepted: BTreeSet<JobId>,
    pub(crate) paused: BTreeSet<JobId>,
    /// Whether workflows may wait for times: not where wall clocks are wrong by hours.
    may_wait: bool,
}

impl Clients {
    pub(crate) fn new(may_wait: bool) -> Self {
        Self { may_wait, ..Self::default() }
    }

    /// A new request; its number.
    pub(crate) fn wish(&mut self, dice: &mut Dice, machines: usize, nodes: &[NodeId]) -> Option<u64> {
        let wish = match dice.below(100) {
            0..55 => self.submit(dice)?,
            55..62 => self.stop(dice, StopCause::Cancel)?,
            62..70 => self.stop(dice, StopCause::Pause)?,
            70..78 => {
                let paused: Vec<JobId> = self.paused.iter().copied().collect();
                let job = *dice.pick(&paused)?;
                self.change(dice, Action::Resume { job })
            }
            78..94 => Wish::Read(*dice.pick(&self.accepted.iter().copied().collect::<Vec<_>>())?),
            94..97 => {
                let node = *dice.pick(nodes)?;
                self.change(dice, Action::DrainNode { node, deadline: Some(fleet_core::Timestamp(0)) })
            }
            _ => {
                let node = *dice.pick(nodes)?;
                self.change(dice, Action::UndrainNode { node })
            }
        };
        Some(self.begin(dice, machines, wish))
    }

    fn change(&self, dice: &mut Dice, action: Action) -> Wish {
        Wish::Change(CommandId(u128::from(dice.bits()) << 64 | u128::from(dice.bits())), action)
    }

    /// Begins `wish` at any machine; its number.
    pub(crate) fn begin(&mut self, dice: &mut Dice, machines: usize, wish: Wish) -> u64 {
        self.numbers += 1;
        let machine = dice.below(machines);
        self.requests.insert(self.numbers, Request { wish, machine, tries: 0 });
        self.numbers
    }

    /// Begins a change at any machine; its number.
    pub(crate) fn begin_change(&mut self, dice: &mut Dice, machines: usize, action: Action) -> u64 {
        let wish = self.change(dice, action);
        self.begin(dice, machines, wish)
    }

    /// A new job, or one that was asked for before: with the same key, and sometimes with other content.
    fn submit(&mut self, dice: &mut Dice) -> Option<Wish> {
        let known: Vec<JobId> = self.wanted.keys().copied().collect();
        let site = SiteName::default();
        if dice.chance(10)
            && let Some(job) = dice.pick(&known)
        {
            let Wanted { workflow, priority } = self.wanted[job];
            let other = u8::from(dice.chance(30));
            let submission = workflows::submission(*job, workflow, priority + other, site);
            return Some(self.change(dice, Action::Submit(Box::new(submission))));
        }
        if known.len() >= JOBS_MAX {
            return None;
        }
        let job = JobId::from_idempotency_key(&site, "sim", &format!("key-{}", known.len()));
        let count = if self.may_wait { workflows::all().len() } else { workflows::WAITING_FROM };
        let wanted = Wanted { workflow: dice.below(count), priority: 5 + 5 * dice.below(3) as u8 };
        self.wanted.insert(job, wanted);
        let submission = workflows::submission(job, wanted.workflow, wanted.priority, site);
        Some(self.change(dice, Action::Submit(Box::new(submission))))
    }

    fn stop(&mut self, dice: &mut Dice, cause: StopCause) -> Option<Wish> {
        let known: Vec<JobId> = self.wanted.keys().copied().collect();
        let job = *dice.pick(&known)?;
        if cause == StopCause::Pause {
            self.paused.insert(job);
        }
        Some(self.change(dice, Action::Stop { job, cause }))
    }

    /// The request to send now; `None` if it is answered or given up.
    pub(crate) fn try_again(&mut self, dice: &mut Dice, machines: usize, number: u64) -> Option<Request> {
        let request = self.requests.get_mut(&number)?;
        request.tries += 1;
        let is_submit = matches!(&request.wish, Wish::Change(_, Action::Submit(_)));
        if request.tries > TRIES_MAX && !is_submit {
            self.requests.remove(&number);
            return None;
        }
        if request.tries > 1 {
            request.machine = dice.below(machines);
        }
        Some(request.clone())
    }

    /// A client was told something. Returns the request to send again at once, if it is to be sent elsewhere.
    pub(crate) fn told(
        &mut self,
        judge: &Judge,
        number: u64,
        told: &Told,
        machine_of: impl Fn(NodeId) -> Option<usize>,
    ) -> Result<Option<Request>, Violation> {
        let Some(request) = self.requests.get_mut(&number) else { return Ok(None) };
        match told {
            Told::NotHere(Some(leader)) => {
                let Some(machine) = machine_of(*leader).filter(|machine| *machine != request.machine) else {
                    return Ok(None);
                };
                request.machine = machine;
                Ok(Some(request.clone()))
            }
            Told::NotHere(None) | Told::Unknown => Ok(None),
            Told::Found(is_found) => {
                let request = self.requests.remove(&number);
                match request.map(|request| request.wish) {
                    Some(Wish::Read(job)) if !is_found => broken(
                        Law::Promise(Invariant::DurableAccept),
                        format!("job {job} was accepted, and a leader does not know it"),
                    ),
                    _ => Ok(None),
                }
            }
            Told::Outcome(outcome) => {
                self.requests.remove(&number);
                if let Outcome::Submitted { job, .. } | Outcome::Assigned { job, .. } = outcome {
                    judge.accepted(*job)?;
                    self.accepted.insert(*job);
                }
                Ok(None)
            }
        }
    }

    /// Submits that nobody answered yet.
    pub(crate) fn open_submits(&self) -> usize {
        let is_submit = |request: &&Request| matches!(&request.wish, Wish::Change(_, Action::Submit(_)));
        self.requests.values().filter(is_submit).count()
    }
}
