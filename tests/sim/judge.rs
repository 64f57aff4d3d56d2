//! Holds the simulation against the promises at every step. It learns from what nodes apply, first come first believed: the
//! first node that applies an entry says what the log is, and everyone else must agree for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fleet_core::invariant::Invariant;
use fleet_core::{Fence, JobId, NodeId};
use fleet_node::session::Pair;
use fleet_replication::command::{Action, Moving, Next, Outcome, Records, Refusal, ReleaseCause};
use fleet_replication::fsm::Event;
use fleet_store::record::{Content, JobState, JournalRecord, StopCause, Verdict};
use fleet_workflow::machine::command::EffectPath;
use fleet_workflow::machine::event;

use crate::consensus::Place;
use crate::message::{AppliedFact, Fact, Situation};

/// What must hold besides the promises, because they stand on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Law {
    Promise(Invariant),
    /// The same log makes the same state on every node.
    SameLogSameState,
    /// A term has one leader that serves, and it has applied everything that was committed before.
    LeadersKnowTheLog,
    /// What a copy of the catalog has, it keeps until something later is written; what was deleted stays away.
    CatalogKeepsItsWord,
    /// Nothing breaks by something that can never happen.
    NothingBreaks,
}

/// A law that was broken.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) law: Law,
    pub(crate) detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.law {
            Law::Promise(invariant) => write!(f, "{invariant:?}: {}", self.detail),
            law => write!(f, "{law:?}: {}", self.detail),
        }
    }
}

/// What the log says of a job.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobFacts {
    pub(crate) state: Option<JobState>,
    created: u32,
    fences: BTreeSet<Fence>,
    holder: Option<Fence>,
    settled: Option<Fence>,
    /// The node of the robot that has it, or had it last.
    holder_node: Option<NodeId>,
    pub(crate) was_cancelled: bool,
    /// Whether it lives at another site, as its first one knows.
    pub(crate) is_elsewhere: bool,
    /// Whether the site was given up where it went: it may run at both, and only the result here counts.
    pub(crate) was_abandoned: bool,
}

/// An entry as the first node that applied it had it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    place: Place,
    content: String,
    fingerprint: String,
}

/// The judge.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    log: Vec<Known>,
    committed: u64,
    pub(crate) jobs: BTreeMap<JobId, JobFacts>,
    finished: BTreeSet<(JobId, EffectPath)>,
    /// Effects whose results a robot that is cut off has on its disk.
    secured: BTreeSet<(JobId, EffectPath)>,
    /// Jobs that were taken from such a robot, because it was away for too long: what it did may be done again.
    given_up: BTreeSet<JobId>,
    leaders: BTreeMap<u64, NodeId>,
    /// Jobs that were taken from robots as lost, and the robots' nodes, since somebody looked last.
    pub(crate) lost: Vec<(JobId, NodeId)>,
    pub(crate) effects_begun: u64,
    pub(crate) seen: BTreeMap<Situation, u64>,
}

impl Judge {
    /// How many entries the log has.
    pub(crate) fn log_length(&self) -> u64 {
        self.log.len() as u64
    }

    /// Takes a fact in.
    pub(crate) fn hear(&mut self, fact: &Fact) -> Result<(), Violation> {
        match fact {
            Fact::Committed { index } => {
                self.committed = self.committed.max(*index);
                Ok(())
            }
            Fact::Applied(applied) => self.applied(applied),
            Fact::Installed { node, place } => self.installed(*node, *place),
            Fact::Serves { node, term, applied } => self.serves(*node, *term, *applied),
            Fact::EffectBegan { node, pair, path } => self.effect_began(*node, *pair, path),
            Fact::Secured { job, records } => {
                self.secured.extend(ended_in(*job, records));
                Ok(())
            }
            Fact::Seen(situation) => {
                self.see(*situation);
                Ok(())
            }
            Fact::Broken(reason) => broken(Law::NothingBreaks, reason.clone()),
        }
    }

    fn installed(&mut self, node: NodeId, place: Place) -> Result<(), Violation> {
        self.see(Situation::SnapshotInstalled);
        let position = usize::try_from(place.1).unwrap_or_default();
        match position.checked_sub(1).and_then(|position| self.log.get(position)) {
            Some(known) if known.place == place => Ok(()),
            known => {
                let detail = format!("{node} takes a snapshot up to {place:?}, where {known:?} was committed");
                broken(Law::Promise(Invariant::DurableAccept), detail)
            }
        }
    }

    fn serves(&mut self, node: NodeId, term: u64, applied: u64) -> Result<(), Violation> {
        let first = *self.leaders.entry(term).or_insert(node);
        if first != node {
            return broken(Law::LeadersKnowTheLog, format!("{first} and {node} serve in term {term}"));
        }
        if applied < self.committed {
            let detail = format!("{node} serves in term {term} having applied {applied} of {} entries", self.committed);
            return broken(Law::LeadersKnowTheLog, detail);
        }
        Ok(())
    }

    fn effect_began(&mut self, node: NodeId, pair: Pair, path: &EffectPath) -> Result<(), Violation> {
        self.effects_begun += 1;
        if self.finished.contains(&(pair.job, path.clone())) {
            let detail = format!("{node} begins {} of {} again, whose result is in the journal", path.0, pair.job);
            return broken(Law::Promise(Invariant::NoFinishedEffectRunsAgain), detail);
        }
        if self.secured.contains(&(pair.job, path.clone())) && !self.given_up.contains(&pair.job) {
            let detail = format!("{node} begins {} of {} again, which was finished cut off", path.0, pair.job);
            return broken(Law::Promise(Invariant::NoFinishedEffectRunsAgain), detail);
        }
        if !self.jobs.get(&pair.job).is_some_and(|job| job.fences.contains(&pair.fence)) {
            let detail =
                format!("{node} begins {} of {} under fence {}, which nobody committed", path.0, pair.job, pair.fence);
            return broken(Law::Promise(Invariant::GossipLeadsLogGuards), detail);
        }
        Ok(())
    }

    fn applied(&mut self, fact: &AppliedFact) -> Result<(), Violation> {
        let (node, place) = (fact.node, fact.place);
        let position = usize::try_from(place.1).unwrap_or_default();
        self.committed = self.committed.max(place.1);
        if let Some(known) = self.log.get(position - 1) {
            if (known.place, &known.content) != (place, &fact.content) {
                let detail =
                    format!("{node} applies another entry at {place:?} than was committed at {:?}", known.place);
                return broken(Law::Promise(Invariant::DurableAccept), detail);
            }
            if known.fingerprint != fact.fingerprint {
                let detail = format!("{node} comes to another state by entry {place:?}");
                return broken(Law::SameLogSameState, detail);
            }
            return Ok(());
        }
        if position != self.log.len() + 1 {
            return broken(Law::NothingBreaks, format!("{node} applies entry {place:?} out of order"));
        }
        let (content, fingerprint) = (fact.content.clone(), fact.fingerprint.clone());
        self.log.push(Known { place, content, fingerprint });
        for (action, outcome) in fact.actions.iter().zip(&fact.outcomes) {
            self.obeyed(action, outcome)?;
        }
        for event in &fact.events {
            if let Event::MirrorChanged { job } = event {
                let facts = self.jobs.entry(*job).or_default();
                (facts.state, facts.is_elsewhere) = (None, true);
            }
            if let Event::JobChanged { job, to, assignment, .. } = event {
                let facts = self.jobs.entry(*job).or_default();
                facts.holder_node = assignment.map(|assignment| assignment.session.node).or(facts.holder_node);
                (facts.state, facts.is_elsewhere) = (Some(*to), false);
                match to {
                    JobState::Waiting => self.see(Situation::JobParked),
                    JobState::Suspended => self.see(Situation::JobSuspended),
                    JobState::Cancelled => self.see(Situation::JobCancelled),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Notes that `situation` came up.
    pub(crate) fn see(&mut self, situation: Situation) {
        *self.seen.entry(situation).or_default() += 1;
    }

    fn notice(&mut self, action: &Action, outcome: &Outcome) {
        match (action, outcome) {
            (_, Outcome::Refused(Refusal::StaleFence { .. })) => self.see(Situation::StaleFenceRefused),
            (_, Outcome::Refused(Refusal::JobConflict(_))) => self.see(Situation::SubmitConflicts),
            (_, Outcome::Submitted { created: false, .. }) => self.see(Situation::SubmitRepeated),
            (Action::SubmitAssigned { .. }, Outcome::Assigned { .. }) => self.see(Situation::JobAssignedAtOnce),
            (Action::FireTimers, Outcome::Fired { jobs, .. }) if *jobs > 0 => self.see(Situation::TimersFired),
            (Action::Moving(Moving::Settle { verdict, .. }), Outcome::Changed { .. }) => match verdict {
                Verdict::Accepted => self.see(Situation::MoveAccepted),
                Verdict::Recalled => self.see(Situation::MoveRecalled),
                Verdict::Declined(_) | Verdict::Conflict => {}
            },
            (Action::Moving(Moving::Begin { .. }), Outcome::Changed { .. }) => self.see(Situation::QueuedJobRouted),
            (Action::Moving(Moving::Report(report)), Outcome::Done) if report.standing.state.is_ended() => {
                self.see(Situation::MovedJobEnded);
            }
            (Action::Release { job, cause: ReleaseCause::Lost, .. }, Outcome::Changed { .. }) => {
                let node = self.jobs.get(job).and_then(|facts| facts.holder_node);
                self.lost.extend(node.map(|node| (*job, node)));
                self.see(Situation::RobotLost);
            }
            (Action::ReleaseAbsent { .. }, Outcome::Changed { .. }) => self.see(Situation::AbsentTooLong),
            (Action::Release { cause: ReleaseCause::Stopped, .. }, Outcome::Changed { .. }) => {
                self.see(Situation::RobotStopped);
            }
            _ => {}
        }
    }

    fn obeyed(&mut self, action: &Action, outcome: &Outcome) -> Result<(), Violation> {
        self.notice(action, outcome);
        if matches!(outcome, Outcome::Refused(_)) {
            return Ok(());
        }
        match (action, outcome) {
            (
                Action::Submit(submission) | Action::Moving(Moving::SubmitTo { submission, .. }),
                Outcome::Submitted { created: true, .. },
            ) => self.created(submission.job),
            (Action::SubmitAssigned { submission, .. }, Outcome::Submitted { created: true, .. }) => {
                self.created(submission.job)
            }
            (Action::SubmitAssigned { submission, .. }, Outcome::Assigned { job, fence }) => {
                self.created(submission.job)?;
                self.assigned(*job, *fence)
            }
            (Action::Assign { .. }, Outcome::Assigned { job, fence }) => self.assigned(*job, *fence),
            (Action::Record(records), Outcome::Recorded { .. }) => self.recorded(records),
            (Action::Moving(Moving::Abandon { job, .. }), Outcome::Changed { .. }) => {
                self.see(Situation::MoveAbandoned);
                self.jobs.entry(*job).or_default().was_abandoned = true;
                Ok(())
            }
            (Action::Release { job, fence, .. } | Action::ReleaseAbsent { job, fence, .. }, _) => {
                let facts = self.jobs.entry(*job).or_default();
                facts.holder.take_if(|holder| holder == fence);
                if matches!(action, Action::ReleaseAbsent { .. }) {
                    self.given_up.insert(*job);
                }
                Ok(())
            }
            (Action::Stop { job, cause: StopCause::Cancel } | Action::Moving(Moving::StopArrived { job, .. }), _) => {
                self.jobs.entry(*job).or_default().was_cancelled = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn created(&mut self, job: JobId) -> Result<(), Violation> {
        let facts = self.jobs.entry(job).or_default();
        facts.created += 1;
        match facts.created {
            1 => Ok(()),
            _ => broken(Law::Promise(Invariant::DurableAccept), format!("job {job} was made twice")),
        }
    }

    fn assigned(&mut self, job: JobId, fence: Fence) -> Result<(), Violation> {
        let facts = self.jobs.entry(job).or_default();
        // A repeat of the same assignment has the same answer.
        if let Some(holder) = facts.holder.filter(|holder| *holder != fence) {
            let detail = format!("job {job} is assigned under {fence} while {holder} holds it");
            return broken(Law::Promise(Invariant::AtMostOneActor), detail);
        }
        facts.fences.insert(fence);
        facts.holder = Some(fence);
        Ok(())
    }

    fn recorded(&mut self, records: &Records) -> Result<(), Violation> {
        let facts = self.jobs.entry(records.job).or_default();
        if facts.holder != Some(records.fence) && facts.settled != Some(records.fence) {
            let detail = format!("records of {} count under the stale fence {}", records.job, records.fence);
            return broken(Law::Promise(Invariant::AtMostOneActor), detail);
        }
        if records.next != Next::Continue && facts.holder == Some(records.fence) {
            facts.settled = facts.holder.take();
        }
        self.finished.extend(ended_in(records.job, &records.records));
        Ok(())
    }

    /// A client was told that `job` is accepted.
    pub(crate) fn accepted(&self, job: JobId) -> Result<(), Violation> {
        match self.jobs.get(&job) {
            Some(_) => Ok(()),
            None => broken(
                Law::Promise(Invariant::DurableAccept),
                format!("job {job} is said to be accepted and is not in the log"),
            ),
        }
    }
}

/// The effects of `job` whose ends are among `records`.
fn ended_in(job: JobId, records: &[JournalRecord]) -> impl Iterator<Item = (JobId, EffectPath)> {
    records.iter().filter_map(move |record| {
        let Content::Inline(bytes) = &record.event else { return None };
        match serde_json::from_slice(bytes.as_slice()) {
            Ok(event::Event::EffectEnded { path, .. }) => Some((job, path)),
            _ => None,
        }
    })
}

/// No two robots may act for the same job now: those of one site never, those of two only where one was given up.
pub(crate) fn check_rights(
    rights: &[(usize, NodeId, Pair)],
    was_abandoned: impl Fn(JobId) -> bool,
) -> Result<(), Violation> {
    let mut actors: BTreeMap<(JobId, Option<usize>), NodeId> = BTreeMap::new();
    for (site, node, pair) in rights {
        let only_at = was_abandoned(pair.job).then_some(*site);
        if let Some(other) = actors.insert((pair.job, only_at), *node) {
            let detail = format!("{other} and {node} may act for {}", pair.job);
            return broken(Law::Promise(Invariant::AtMostOneActor), detail);
        }
    }
    Ok(())
}

/// `law` is broken.
pub(crate) fn broken<T>(law: Law, detail: String) -> Result<T, Violation> {
    Err(Violation { law, detail })
}
