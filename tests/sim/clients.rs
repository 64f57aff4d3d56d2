//! The clients of the simulated fleet: they submit, read, cancel, pause, resume, drain, recall and give up, and ask again until they
//! know.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use fleet_core::invariant::Invariant;
use fleet_core::{JobId, NodeId, Timestamp};
use fleet_replication::command::{Action, Moving, Outcome};
use fleet_sim::Dice;
use fleet_store::record::{CommandId, PeerSite, StopCause};

use crate::judge::{Law, Violation, broken};
use crate::message::{Told, Wish};
use crate::workflows;
use crate::world::Site;

/// How often a client asks again, unless it is about a submit: that is asked until it is answered.
const TRIES_MAX: u32 = 12;

/// A request under way.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) wish: Wish,
    /// The site that is asked.
    pub(crate) site: usize,
    /// The machine that is asked next.
    pub(crate) machine: usize,
    tries: u32,
}

/// A job that somebody wants run.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) workflow: usize,
    priority: u8,
    /// The site that was asked.
    pub(crate) site: usize,
    /// The site that it is for, if that is another one.
    to: Option<PeerSite>,
    /// How long a robot may finish it cut off, if it may.
    finish_within_ms: Option<u64>,
    /// The site that alone has robots for it, if so.
    pub(crate) tagged_for: Option<usize>,
}

/// All clients.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    sites: Vec<(PeerSite, Range<usize>)>,
    requests: BTreeMap<u64, Request>,
    numbers: u64,
    pub(crate) wanted: BTreeMap<JobId, Wanted>,
    pub(crate) accepted: BTreeSet<JobId>,
    paused: BTreeSet<JobId>,
    /// The job that was submitted last for another site.
    sent_last: Option<JobId>,
    /// Whether workflows may wait for times: not where wall clocks are wrong by hours.
    may_wait: bool,
    /// Most jobs of the simulation.
    jobs_max: usize,
    /// Whether they only submit.
    pub(crate) only_submits: bool,
}

fn is_submit(wish: &Wish) -> bool {
    matches!(wish, Wish::Change(_, Action::Submit(_) | Action::Moving(Moving::SubmitTo { .. })))
}

impl Clients {
    /// Clients of these sites.
    pub(crate) fn new(may_wait: bool, jobs_max: usize, sites: Vec<(PeerSite, Range<usize>)>) -> Self {
        Self { may_wait, jobs_max, sites, ..Self::default() }
    }

    /// A new request; its number.
    pub(crate) fn wish(&mut self, dice: &mut Dice, nodes: &[(usize, NodeId)]) -> Option<u64> {
        if self.only_submits {
            return self.submit(dice);
        }
        match dice.below(100) {
            0..47 => self.submit(dice),
            47..54 => self.stop(dice, StopCause::Cancel),
            54..60 => self.stop(dice, StopCause::Pause),
            60..66 => {
                let job = pick(dice, self.paused.iter())?;
                let site = self.wanted.get(&job)?.site;
                Some(self.begin_change(dice, site, Action::Resume { job }))
            }
            66..76 => self.take_back(dice, |job| Moving::Recall { job, generation: 1 }),
            76..79 => self.take_back(dice, |job| Moving::Abandon { job, generation: 1 }),
            79..94 => {
                let job = pick(dice, self.accepted.iter())?;
                let site = self.wanted.get(&job)?.site;
                Some(self.begin(dice, site, Wish::Read(job)))
            }
            94..97 => {
                let (site, node) = *dice.pick(nodes)?;
                Some(self.begin_change(dice, site, Action::DrainNode { node, deadline: Some(Timestamp(0)) }))
            }
            _ => {
                let (site, node) = *dice.pick(nodes)?;
                Some(self.begin_change(dice, site, Action::UndrainNode { node }))
            }
        }
    }

    /// Begins `wish` at any machine of `site`; its number.
    fn begin(&mut self, dice: &mut Dice, site: usize, wish: Wish) -> u64 {
        self.numbers += 1;
        let machine = any(dice, &self.sites[site].1);
        self.requests.insert(self.numbers, Request { wish, site, machine, tries: 0 });
        self.numbers
    }

    /// Begins a change at any machine of `site`; its number.
    pub(crate) fn begin_change(&mut self, dice: &mut Dice, site: usize, action: Action) -> u64 {
        let id = CommandId(u128::from(dice.bits()) << 64 | u128::from(dice.bits()));
        self.begin(dice, site, Wish::Change(id, action))
    }

    /// A new job, or one that was asked for before: with the same key, and sometimes with other content.
    fn submit(&mut self, dice: &mut Dice) -> Option<u64> {
        if dice.chance(10)
            && let Some(job) = pick(dice, self.wanted.keys())
        {
            let mut wanted = self.wanted.get(&job)?.clone();
            wanted.priority += u8::from(dice.chance(30));
            return Some(self.submit_as(dice, job, &wanted));
        }
        if self.wanted.len() >= self.jobs_max {
            return None;
        }
        let site = dice.below(self.sites.len());
        let own = &self.sites[site].0;
        let job = JobId::from_idempotency_key(&own.site, "sim", &format!("key-{}", self.wanted.len()));
        let count = if self.may_wait { workflows::all().len() } else { workflows::WAITING_FROM };
        let other = (0..self.sites.len()).find(|other| *other != site);
        let (to, tagged_for) = match dice.below(100) {
            0..40 => (other.map(|other| self.sites[other].0.clone()), None),
            40..65 => (None, other),
            65..75 => (None, Some(site)),
            _ => (None, None),
        };
        let wanted = Wanted {
            workflow: dice.below(count),
            priority: if dice.chance(50) { 5 } else { 10 },
            site,
            to,
            finish_within_ms: dice.chance(35).then(|| 300 + dice.below(6_000) as u64),
            tagged_for,
        };
        self.wanted.insert(job, wanted.clone());
        Some(self.submit_as(dice, job, &wanted))
    }

    fn submit_as(&mut self, dice: &mut Dice, job: JobId, wanted: &Wanted) -> u64 {
        let site = self.sites[wanted.site].0.site.clone();
        let mut submission = Box::new(workflows::submission(job, wanted.workflow, wanted.priority, site));
        submission.spec.tags = wanted.tagged_for.map(|site| self.sites[site].0.site.to_string()).into_iter().collect();
        submission.spec.finish_within_ms = wanted.finish_within_ms;
        if wanted.to.is_some() {
            self.sent_last = Some(job);
        }
        let action = match wanted.to.clone() {
            None => Action::Submit(submission),
            Some(to) => Moving::SubmitTo { submission, to, because: String::new() }.into(),
        };
        self.begin_change(dice, wanted.site, action)
    }

    fn stop(&mut self, dice: &mut Dice, cause: StopCause) -> Option<u64> {
        let job = pick(dice, self.wanted.keys())?;
        if cause == StopCause::Pause {
            self.paused.insert(job);
        }
        let site = self.wanted.get(&job)?.site;
        Some(self.begin_change(dice, site, Action::Stop { job, cause }))
    }

    /// Asks for a job back that went to another site by its first move, or gives that site up.
    fn take_back(&mut self, dice: &mut Dice, ask: impl FnOnce(JobId) -> Moving) -> Option<u64> {
        let gone = self.wanted.iter().filter(|(_, wanted)| wanted.to.is_some()).map(|(job, _)| job);
        // The last one may still be on its way.
        let job = if dice.chance(60) { self.sent_last? } else { pick(dice, gone)? };
        let site = self.wanted.get(&job)?.site;
        Some(self.begin_change(dice, site, ask(job).into()))
    }

    /// Nobody asks for pauses and drains any more.
    pub(crate) fn give_up_stops(&mut self) {
        self.requests.retain(|_, request| {
            let is_pause = |action: &Action| matches!(action, Action::Stop { cause: StopCause::Pause, .. });
            let stops = |action: &Action| is_pause(action) || matches!(action, Action::DrainNode { .. });
            !matches!(&request.wish, Wish::Change(_, action) if stops(action))
        });
    }

    /// What sets everything going again that was paused.
    pub(crate) fn resumes(&self) -> Vec<(usize, Action)> {
        let site = |job: &JobId| self.wanted.get(job).map(|wanted| wanted.site);
        self.paused.iter().filter_map(|job| Some((site(job)?, Action::Resume { job: *job }))).collect()
    }

    /// The request to send now; `None` if it is answered or given up.
    pub(crate) fn try_again(&mut self, dice: &mut Dice, number: u64) -> Option<Request> {
        let request = self.requests.get_mut(&number)?;
        request.tries += 1;
        if request.tries > TRIES_MAX && !is_submit(&request.wish) {
            self.requests.remove(&number);
            return None;
        }
        if request.tries > 1 {
            request.machine = any(dice, &self.sites[request.site].1);
        }
        Some(request.clone())
    }

    /// A client was told something. Returns the request to send again at once, if it is to be sent elsewhere.
    pub(crate) fn told(
        &mut self,
        sites: &[Site],
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
                let site = request.site;
                self.requests.remove(&number);
                if let Outcome::Submitted { job, .. } | Outcome::Assigned { job, .. } = outcome {
                    sites[site].judge.accepted(*job)?;
                    self.accepted.insert(*job);
                }
                Ok(None)
            }
        }
    }

    /// Submits that nobody answered yet.
    pub(crate) fn open_submits(&self) -> usize {
        self.requests.values().filter(|request| is_submit(&request.wish)).count()
    }
}

fn pick<'a>(dice: &mut Dice, jobs: impl Iterator<Item = &'a JobId>) -> Option<JobId> {
    dice.pick(&jobs.copied().collect::<Vec<_>>()).copied()
}

fn any(dice: &mut Dice, machines: &Range<usize>) -> usize {
    machines.start + dice.below(machines.len())
}
