//! Three sites in one store, and messages between them that are lost, doubled, late and out of order.
//!
//! What is sent is what the sender's state says when it is sent; a site remembers nothing else, so a crash is a loss of
//! messages. Every command that was committed may be committed again, at any time later.

use std::collections::BTreeMap;

use fleet_core::{FleetId, GroupId, JobId, Timestamp};
use fleet_replication::command::{Action, Arriving, Command, Moving, Outcome, Refusal, Report};
use fleet_replication::fsm::{EntryPosition, apply};
use fleet_replication::outgoing;
use fleet_store::record::{CommandId, Founding, Job, JobState, Move, PeerSite, Serial, StopCause, Verdict};
use fleet_store::state::{jobs, moves};
use fleet_store::{StateReader, Store};

use crate::test_site::{admission, complete, job_id, node_id, record, session, submission};

/// How many sites there are.
pub(crate) const SITES: usize = 3;

/// A message between two sites, with what its sender's state said.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Move { arriving: Box<Arriving>, watermark: Serial },
    Recall { source: PeerSite, number: Serial, watermark: Serial },
    Stop { source: GroupId, number: Serial, job: JobId },
    Obeyed { target: GroupId, number: Serial },
    Answer { target: GroupId, number: Serial, verdict: Verdict },
    Report(Box<Report>),
    Acknowledge { source: GroupId, serial: Serial },
}

/// The sites and what is between them.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) sites: Vec<PeerSite>,
    indexes: Vec<u64>,
    pub(crate) now: u64,
    next_id: u128,
    pub(crate) in_flight: Vec<(usize, Message)>,
    /// What was committed, to be repeated; the operator's submits are not among them.
    pub(crate) committed: Vec<(usize, Command)>,
    /// How each job ended, the first time it did at any site.
    pub(crate) ended: BTreeMap<JobId, (usize, JobState)>,
    /// Sites that say they can never run what comes.
    pub(crate) unable: [bool; SITES],
    /// Whether a job was given up while it may run elsewhere, so that it may run twice.
    pub(crate) may_double: bool,
}

impl World {
    /// Three founded sites under groups that no other world in `store` has.
    pub(crate) fn new(store: Store, number: u64) -> Self {
        let group = |site: usize| {
            let mut bytes = [7; 16];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            bytes[8] = u8::try_from(site).unwrap();
            GroupId::from_bytes(bytes)
        };
        let site = |site: usize| PeerSite { group: group(site), site: format!("site-{site}").parse().unwrap() };
        let mut world = Self {
            store,
            sites: (0..SITES).map(site).collect(),
            indexes: vec![0; SITES],
            now: 1_000,
            next_id: 0,
            in_flight: Vec::new(),
            committed: Vec::new(),
            ended: BTreeMap::new(),
            unable: [false; SITES],
            may_double: false,
        };
        for site in 0..SITES {
            let PeerSite { group, site: name } = world.sites[site].clone();
            let (fleet, founder) = (FleetId::default(), node_id(1));
            world.must(site, Action::Found(Founding { fleet, site: name.clone(), group, founder, dev: false }));
            let mut admission = admission(1);
            admission.profile.site = name;
            world.must(site, Action::PutNode(Box::new(admission)));
        }
        world.committed.clear();
        world
    }

    pub(crate) fn reader(&self, site: usize) -> StateReader {
        self.store.reader(self.sites[site].group).unwrap()
    }

    /// Commits `command` at `site`, whether it is new or a repeat.
    pub(crate) fn commit(&mut self, site: usize, command: Command) -> Outcome {
        self.indexes[site] += 1;
        let entry = EntryPosition { epoch: 1, term: 1, index: self.indexes[site] };
        let group = self.sites[site].group;
        self.store.apply(group, move |state| apply(state, entry, &[command])).wait().unwrap().remove(0).outcome
    }

    /// Commits `action` at `site`.
    pub(crate) fn propose(&mut self, site: usize, action: Action) -> Outcome {
        self.now += 1;
        self.next_id += 1;
        let command = Command { id: CommandId(self.next_id), at: Timestamp(self.now), action };
        if !matches!(command.action, Action::Moving(Moving::SubmitTo { .. }) | Action::Submit(_)) {
            self.committed.push((site, command.clone()));
        }
        self.commit(site, command)
    }

    pub(crate) fn must(&mut self, site: usize, action: impl Into<Action>) -> Outcome {
        let action = action.into();
        let text = format!("{action:?}");
        self.propose(site, action).accepted().unwrap_or_else(|refusal| panic!("{text}: {refusal}"))
    }

    pub(crate) fn refused(&mut self, site: usize, action: impl Into<Action>) -> Refusal {
        self.propose(site, action.into()).accepted().expect_err("it must be refused")
    }

    pub(crate) fn job(&self, site: usize, job: JobId) -> Option<Job> {
        jobs::job(&self.reader(site), job).unwrap()
    }

    pub(crate) fn moved(&self, site: usize, job: JobId) -> Option<Move> {
        moves::of_job(&self.reader(site), job).unwrap()
    }

    /// How `site` sees the state of `job`, wherever the job is.
    pub(crate) fn seen(&self, site: usize, job: JobId) -> Option<JobState> {
        let here = self.job(site, job).map(|job| job.state);
        here.or_else(|| Some(moves::mirror(&self.reader(site), job).unwrap()?.1.standing.state))
    }

    /// Submits job `number` at `site` for `to`.
    pub(crate) fn submit_to(&mut self, site: usize, number: u8, to: usize) -> JobId {
        let mut submission = Box::new(submission(number));
        submission.spec.site = self.sites[site].site.clone();
        let (to, because) = (self.sites[to].clone(), String::new());
        self.propose(site, Moving::SubmitTo { submission, to, because }.into()).accepted().unwrap();
        job_id(number)
    }

    /// Submits job `number` at `site` for itself.
    pub(crate) fn submit(&mut self, site: usize, number: u8) -> JobId {
        let mut submission = submission(number);
        submission.spec.site = self.sites[site].site.clone();
        self.propose(site, Action::Submit(Box::new(submission))).accepted().unwrap();
        job_id(number)
    }

    /// Sends a queued job of `site` to another one, if it may go.
    pub(crate) fn begin(&mut self, site: usize, job: JobId, to: usize) -> Outcome {
        let generation = self.job(site, job).map_or(0, |job| job.generation);
        let (to, because) = (self.sites[to].clone(), "a test".to_owned());
        self.propose(site, Moving::Begin { job, generation, to, because }.into())
    }

    /// A robot of `site` takes `job`, if it is queued there.
    pub(crate) fn assign(&mut self, site: usize, job: JobId) {
        if let Some(row) = self.job(site, job) {
            let action = Action::Assign { job, attempt: row.attempt, session: session(1, 1) };
            self.propose(site, action);
        }
    }

    /// The holder of `job` at `site`, if there is one, ends it or stops.
    pub(crate) fn finish(&mut self, site: usize, job: JobId) {
        let Some(row) = self.job(site, job) else { return };
        let Some(fence) = row.assignment.map(|held| held.fence) else { return };
        self.propose(site, record(job, fence, row.journal_length, &["a"], complete()));
    }

    /// Everything that the state of `from` has to say to `to`.
    pub(crate) fn outgoing(&self, from: usize, to: usize) -> Vec<Message> {
        let reader = self.reader(from);
        let (own, peer) = (&self.sites[from], self.sites[to].group);
        let watermark = moves::watermark(&reader, peer).unwrap();
        let mut messages = Vec::new();
        for (number, job) in moves::outbox(&reader, peer, None, 100).unwrap() {
            let wish = moves::of_job(&reader, job).unwrap().unwrap().wish;
            if wish.is_some() {
                messages.push(Message::Recall { source: own.clone(), number, watermark });
            } else {
                let arriving = Box::new(outgoing::arriving(&reader, own, number, job).unwrap().unwrap());
                messages.push(Message::Move { arriving, watermark });
            }
        }
        for (number, job) in moves::cancels(&reader, peer, None, 100).unwrap() {
            messages.push(Message::Stop { source: own.group, number, job });
        }
        for (serial, job) in moves::reports(&reader, peer, None, 100).unwrap() {
            let report = outgoing::report(&reader, own.group, peer, serial, job).unwrap();
            messages.push(Message::Report(Box::new(report.unwrap())));
        }
        messages
    }

    /// Puts what `from` has to say to `to` on its way.
    pub(crate) fn send(&mut self, from: usize, to: usize) {
        let messages = self.outgoing(from, to);
        self.in_flight.extend(messages.into_iter().map(|message| (to, message)));
    }

    /// `message` comes to `site`; the answer is on its way then.
    pub(crate) fn deliver(&mut self, site: usize, message: Message) {
        let own = self.sites[site].group;
        match message {
            Message::Move { arriving, watermark } => {
                let (source, number) = (arriving.source.clone(), arriving.number);
                self.pass(site, &source, watermark);
                let moving = if self.unable[site] {
                    let verdict = Verdict::Declined("no robot".to_owned());
                    Moving::Decide { source: source.clone(), number, verdict }
                } else {
                    Moving::Accept(arriving)
                };
                self.decide(site, &source, number, moving);
            }
            Message::Recall { source, number, watermark } => {
                self.pass(site, &source, watermark);
                let moving = Moving::Decide { source: source.clone(), number, verdict: Verdict::Recalled };
                self.decide(site, &source, number, moving);
            }
            Message::Stop { source, number, job } => {
                self.propose(site, Moving::StopArrived { source, number, job }.into());
                self.in_flight.push((self.site_of(source), Message::Obeyed { target: own, number }));
            }
            Message::Obeyed { target, number } => {
                self.must(site, Moving::Obeyed { target, numbers: vec![number] });
            }
            Message::Answer { target, number, verdict } => {
                self.must(site, Moving::Settle { target, number, verdict });
            }
            Message::Report(report) => {
                let (from, serial) = (self.site_of(report.from), report.serial);
                if self.propose(site, Moving::Report(report).into()).accepted().is_ok() {
                    self.in_flight.push((from, Message::Acknowledge { source: own, serial }));
                }
            }
            Message::Acknowledge { source, serial } => {
                self.must(site, Moving::Acknowledge { source, reports: vec![serial] });
            }
        }
    }

    fn pass(&mut self, site: usize, source: &PeerSite, watermark: Serial) {
        let known = moves::peer(&self.reader(site), source.group).unwrap();
        if known.map(|peer| peer.passed).unwrap_or_default() < watermark {
            self.must(site, Moving::Pass { source: source.clone(), watermark });
        }
    }

    fn decide(&mut self, site: usize, source: &PeerSite, number: Serial, moving: Moving) {
        let target = self.sites[site].group;
        if let Ok(Outcome::Decided(verdict)) = self.propose(site, moving.into()).accepted() {
            let to = self.site_of(source.group);
            self.in_flight.push((to, Message::Answer { target, number, verdict }));
        }
    }

    pub(crate) fn site_of(&self, group: GroupId) -> usize {
        self.sites.iter().position(|site| site.group == group).unwrap()
    }

    /// An operator of `site` wants `job` back, cancelled, or here whatever the other site does.
    pub(crate) fn recall(&mut self, site: usize, job: JobId) {
        if let Some(moved) = self.moved(site, job) {
            self.propose(site, Moving::Recall { job, generation: moved.generation }.into());
        }
    }

    pub(crate) fn cancel(&mut self, site: usize, job: JobId) {
        self.propose(site, Action::Stop { job, cause: StopCause::Cancel });
    }

    pub(crate) fn abandon(&mut self, site: usize, job: JobId) {
        if let Some(moved) = self.moved(site, job) {
            let done = self.propose(site, Moving::Abandon { job, generation: moved.generation }.into());
            self.may_double |= done.accepted().is_ok();
        }
    }

    /// Every link works and loses nothing until nothing is left to be said.
    pub(crate) fn exchange_until_quiet(&mut self) {
        for _ in 0..50 {
            for (from, to) in (0..SITES).flat_map(|from| (0..SITES).map(move |to| (from, to))) {
                if from != to {
                    self.send(from, to);
                    // The watermark goes also when there is nothing else to say.
                    let watermark = moves::watermark(&self.reader(from), self.sites[to].group).unwrap();
                    let source = self.sites[from].clone();
                    self.pass(to, &source, watermark);
                }
            }
            if self.in_flight.is_empty() {
                return;
            }
            while !self.in_flight.is_empty() {
                let (to, message) = self.in_flight.remove(0);
                self.deliver(to, message);
            }
        }
        panic!("the sites never have done");
    }
}
