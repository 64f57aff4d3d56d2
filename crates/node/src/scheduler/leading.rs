//! The scheduler's memory of one leadership: sessions, queue, stops, and what is proposed. Reads the applied state, sends
//! nothing; the actor carries out what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::timing::Timing;
use fleet_core::{BootInstant, JobId, NodeId, SessionId, Timestamp};
use fleet_replication::command::{
    FIRST_VERSION, FORGET_VERSION, HOSTS_VERSION, SITES_VERSION, SUBMIT_ASSIGNED_VERSION, Submission,
};
use fleet_replication::fsm::Event;
use fleet_store::StateReader;
use fleet_store::record::{Assignment, Job, JobSpec, JobState, NodeStanding, Reason, StopCause};
use fleet_store::state::{jobs, members, queue};

use super::seats::Seats;
use crate::Error;
use crate::placement::{Assigned, HOST_WORD, INTERPRETER_WORD, Needs, RobotView, placement};
use crate::queue::{ClassKey, Head, Queue};
use crate::session::{Claim, Finishing, LeaderCommand, LeaderSessions, LeaderTerm};

/// Queued jobs read from the store at a time.
const LOAD_PAGE: usize = 1_000;
/// Most assignments proposed at a time.
const ASSIGNMENTS_MAX: usize = 512;

/// One leadership.
pub struct Leading {
    /// The robots' sessions.
    pub sessions: LeaderSessions,
    queue: Queue,
    /// Where the reading of queued jobs goes on; `None` once all are read.
    load_from: Option<Option<queue::QueuePlace>>,
    stops: BTreeMap<JobId, StopCause>,
    /// Assignments proposed whose fate is not seen yet. They count as taken slots.
    proposing: BTreeMap<JobId, NodeId>,
    /// Jobs to look at again: their assignment was not applied.
    doubtful: BTreeSet<JobId>,
    standings: BTreeMap<NodeId, NodeStanding>,
    /// Stops that are proposed and whose fate is not known yet.
    stops_proposed: BTreeSet<JobId>,
    /// The newest version of commands that may be proposed.
    gate: u32,
    /// Whether dispatch is held after a recovery.
    is_held: bool,
    /// Nodes of which it is proposed that they have reconciled, and whose fate is not known yet.
    reconciling: BTreeSet<NodeId>,
    /// Whether a firing of timers is proposed.
    is_firing: bool,
    /// When the next timer is due; `None` if jobs changed since that was read.
    timer_next: Option<Option<Timestamp>>,
    /// When to look next for what is long over.
    pub forgets_from: BootInstant,
}

impl Leading {
    /// Begins a leadership from the applied state.
    pub fn begin(term: LeaderTerm, timing: &Timing, reader: &StateReader) -> Result<Self, Error> {
        let held = read_held(reader)?;
        let stops = held.iter().filter_map(|(job, row)| row.stop.map(|cause| (*job, cause))).collect();
        let claims = claims_of(reader, &held)?;
        let mut leading = Self {
            sessions: LeaderSessions::new(term, timing, claims),
            queue: Queue::default(),
            load_from: Some(None),
            stops,
            proposing: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            standings: BTreeMap::new(),
            stops_proposed: BTreeSet::new(),
            gate: FIRST_VERSION,
            is_held: false,
            reconciling: BTreeSet::new(),
            is_firing: false,
            timer_next: None,
            forgets_from: BootInstant::default(),
        };
        leading.read_site(reader)?;
        Ok(leading)
    }

    /// Some changes were missed: compares with the applied state.
    pub fn catch_up(&mut self, now: BootInstant, reader: &StateReader) -> Result<Vec<LeaderCommand>, Error> {
        let held = read_held(reader)?;
        let current = claims_of(reader, &held)?;
        let is_over = |(job, claim): &(JobId, Claim)| !current.get(job).is_some_and(|current| current.is_same(claim));
        for (job, _) in self.sessions.claims().filter(is_over).collect::<Vec<_>>() {
            self.sessions.released(job);
        }
        let mut commands = Vec::new();
        self.stops.clear();
        for (job, claim) in &current {
            if self.sessions.claim(*job).is_none() {
                commands.extend(self.sessions.assigned(now, *job, *claim));
            }
            if let Some(cause) = held.get(job).and_then(|row| row.stop) {
                self.stops.insert(*job, cause);
                commands.extend(self.sessions.stopping(now, *job));
            }
        }
        let mut proposing = BTreeMap::new();
        for (job, node) in std::mem::take(&mut self.proposing) {
            let row = jobs::job(reader, job).map_err(Error::store("read a job"))?;
            if row.is_some_and(|row| row.state == JobState::Queued) {
                proposing.insert(job, node);
            }
        }
        self.proposing = proposing;
        self.queue = Queue::default();
        self.load_from = Some(None);
        self.timer_next = None;
        self.read_site(reader)?;
        Ok(commands)
    }

    fn read_site(&mut self, reader: &StateReader) -> Result<(), Error> {
        let nodes = members::nodes(reader).map_err(Error::store("read the nodes"))?;
        self.standings = nodes.into_iter().map(|node| (node.id, node.standing)).collect();
        let site = jobs::site(reader).map_err(Error::store("read the site"))?;
        (self.is_held, self.gate) = (site.hold.is_some(), site.gate);
        Ok(())
    }

    /// Reads the next page of queued jobs. Returns whether there are more.
    pub fn load(&mut self, reader: &StateReader) -> Result<bool, Error> {
        let Some(after) = self.load_from else { return Ok(false) };
        let page = queue::heads(reader, after, LOAD_PAGE).map_err(Error::store("read the queue"))?;
        let last = page.last().map(|(place, _)| *place);
        for (_, job) in &page {
            self.enqueue(reader, *job)?;
        }
        self.load_from = (page.len() == LOAD_PAGE).then_some(last);
        Ok(self.load_from.is_some())
    }

    /// How many jobs are queued, as far as they are read.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Why `job` was to be stopped.
    pub fn stop_cause(&self, job: JobId) -> StopCause {
        self.stops.get(&job).copied().unwrap_or(StopCause::Drain)
    }

    /// A change was applied.
    pub fn applied(
        &mut self,
        now: BootInstant,
        reader: &StateReader,
        event: &Event,
    ) -> Result<Vec<LeaderCommand>, Error> {
        match event {
            Event::JobChanged { job, from, to, assignment, released, stop, .. } => {
                self.timer_next = None;
                if released.is_some() {
                    self.sessions.released(*job);
                    self.stops.remove(job);
                }
                if *from == Some(JobState::Queued) {
                    self.proposing.remove(job);
                    self.queue.remove(*job);
                }
                if *to == JobState::Queued {
                    self.enqueue(reader, *job)?;
                }
                self.holder_changed(now, reader, *job, *assignment, *stop)
            }
            Event::NodeChanged { .. } | Event::HoldChanged { .. } | Event::GateRaised { .. } => {
                self.read_site(reader)?;
                Ok(Vec::new())
            }
            _ => Ok(Vec::new()),
        }
    }

    fn holder_changed(
        &mut self,
        now: BootInstant,
        reader: &StateReader,
        job: JobId,
        assignment: Option<Assignment>,
        stop: Option<StopCause>,
    ) -> Result<Vec<LeaderCommand>, Error> {
        let Some(Assignment { session, fence, .. }) = assignment else { return Ok(Vec::new()) };
        let known = self.sessions.claim(job);
        let mut commands = Vec::new();
        if known.is_none_or(|claim| (claim.fence, claim.session) != (fence, session)) {
            let finishing = finishing_of(reader, job)?;
            let claim = Claim { fence, session, is_stopping: stop.is_some(), finishing };
            commands.extend(self.sessions.assigned(now, job, claim));
        }
        if let Some(cause) = stop
            && self.stops.insert(job, cause) != Some(cause)
        {
            commands.extend(self.sessions.stopping(now, job));
        }
        Ok(commands)
    }

    /// Whether every member knows the commands that a job needs which may be finished cut off.
    pub(super) fn knows_finishing(&self) -> bool {
        self.gate >= SITES_VERSION
    }

    fn enqueue(&mut self, reader: &StateReader, job: JobId) -> Result<(), Error> {
        let row = jobs::job(reader, job).map_err(Error::store("read a job"))?;
        let Some(row) = row.filter(|row| row.state == JobState::Queued) else { return Ok(()) };
        if self.proposing.contains_key(&job) {
            return Ok(());
        }
        let spec = jobs::spec(reader, job).map_err(Error::store("read a job"))?;
        let Some(spec) = spec else { return Ok(()) };
        // A node that lost the job may lose it again.
        let was_lost = matches!(row.reason, Some(Reason::RobotLost { .. }));
        let head = Head { job, attempt: row.attempt, last: row.node.filter(|_| !was_lost) };
        self.queue.remove(job);
        self.queue.insert(&class_of(row.priority, spec), row.number, head);
        Ok(())
    }

    /// The robots that may be given work, as the placement sees them.
    pub fn robots(&self, seats: &Seats) -> Vec<RobotView> {
        let mut proposing: BTreeMap<NodeId, usize> = BTreeMap::new();
        for node in self.proposing.values() {
            *proposing.entry(*node).or_default() += 1;
        }
        let views = self.sessions.live_sessions().filter_map(|session| {
            let node = session.node;
            let seat = seats.get(node).filter(|seat| seat.takes_work())?;
            let standing = self.standings.get(&node)?;
            let taken = self.sessions.held_by(node) + proposing.get(&node).copied().unwrap_or_default();
            Some(RobotView {
                session,
                tags: Arc::clone(&seat.tags),
                capabilities: Arc::clone(&seat.capabilities),
                slots_free: seat.report.slots.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX)),
                is_draining: seat.report.is_draining || *standing != NodeStanding::Active,
            })
        });
        views.collect()
    }

    /// Takes out of what a job needs what not every node's placement knows: it would wait for ever under another leader.
    pub fn lower_needs(&self, submission: &mut Submission) {
        if self.gate < HOSTS_VERSION {
            submission.spec.capabilities.retain(|word| !word.starts_with(HOST_WORD));
        }
    }

    /// The session of the robot that a job about to be submitted goes to at once, and whose slot counts as taken from now
    /// on. Only where nothing waits that might come first.
    pub fn offer(&mut self, submission: &Submission, seats: &Seats) -> Option<SessionId> {
        let job = submission.job;
        let is_idle = self.queue.is_empty() && self.doubtful.is_empty() && self.load_from.is_none() && !self.is_held;
        let is_known = self.proposing.contains_key(&job) || self.sessions.claim(job).is_some();
        if !is_idle || is_known || self.gate < SUBMIT_ASSIGNED_VERSION {
            return None;
        }
        let mut queue = Queue::default();
        queue.insert(&class_of(submission.priority, submission.spec.clone()), 0, Head { job, attempt: 0, last: None });
        let session = placement(&queue, &self.robots(seats), 1).first()?.session;
        self.proposing.insert(job, session.node);
        Some(session)
    }

    /// Whether it is time to look for what is long over.
    pub fn may_forget(&self, now: BootInstant) -> bool {
        self.gate >= FORGET_VERSION && now >= self.forgets_from
    }

    /// Takes what can be assigned now out of the queue.
    pub fn place(&mut self, seats: &Seats) -> Vec<Assigned> {
        if self.is_held || self.queue.is_empty() {
            return Vec::new();
        }
        let assignments = placement(&self.queue, &self.robots(seats), ASSIGNMENTS_MAX);
        for assigned in &assignments {
            self.queue.take(assigned.job);
            self.proposing.insert(assigned.job, assigned.session.node);
        }
        assignments
    }

    /// Proposed assignments have come to an end. One that is applied counts until its change is heard, unless it was
    /// already; one that is not is looked at again.
    pub fn proposed(&mut self, proposed: &[(Assigned, bool)]) {
        for (Assigned { job, .. }, is_applied) in proposed {
            if !is_applied {
                self.proposing.remove(job);
                self.doubtful.insert(*job);
            } else if self.sessions.claim(*job).is_some() {
                self.proposing.remove(job);
            }
        }
    }

    /// Whether a look at the applied state is due: jobs are doubtful, or timers may have changed.
    pub fn wants_look(&self) -> bool {
        !self.doubtful.is_empty() || self.timer_next.is_none()
    }

    /// Queues doubtful jobs again that are still queued, and learns which timer is next.
    pub fn look_again(&mut self, reader: &StateReader) -> Result<(), Error> {
        self.timer_next = Some(queue::next_timer(reader).map_err(Error::store("read the timers"))?);
        for job in std::mem::take(&mut self.doubtful) {
            self.enqueue(reader, job)?;
        }
        Ok(())
    }

    /// Whether timers are to be fired. A firing counts as proposed from now on.
    pub fn begin_firing(&mut self, now: Timestamp) -> bool {
        let is_due = self.timer_next.flatten().is_some_and(|due| due <= now);
        let begins = is_due && !self.is_firing;
        self.is_firing |= begins;
        begins
    }

    /// A firing has come to an end; what is due next is to be read.
    pub fn fired(&mut self) {
        self.is_firing = false;
        self.timer_next = None;
    }

    /// Held jobs of nodes whose drain is past its deadline and that nobody stopped yet. Their stops count as proposed from
    /// now on.
    pub fn drained_late(&mut self, now: Timestamp) -> Vec<JobId> {
        let late = self.standings.iter().filter(|(_, standing)| match standing {
            NodeStanding::Draining { deadline: Some(deadline) } => *deadline <= now,
            NodeStanding::Removed => true,
            _ => false,
        });
        let claims = late.flat_map(|(node, _)| self.sessions.claims_of(*node));
        let due = claims.filter(|(job, claim)| !claim.is_stopping && !self.stops_proposed.contains(job));
        let due: Vec<JobId> = due.map(|(job, _)| job).collect();
        self.stops_proposed.extend(&due);
        due
    }

    /// Nodes that the hold after a recovery still awaits although their robots have opened a session. That they have
    /// reconciled counts as proposed from now on; until it is applied it is due again once a proposal came to nothing.
    pub fn reconciled(&mut self, reader: &StateReader) -> Result<Vec<NodeId>, Error> {
        let hold = jobs::site(reader).map_err(Error::store("read the site"))?.hold;
        let awaited = hold.into_iter().flat_map(|hold| hold.awaited);
        let is_due = |node: &NodeId| self.sessions.live(*node).is_some() && !self.reconciling.contains(node);
        let due: Vec<NodeId> = awaited.filter(is_due).collect();
        self.reconciling.extend(&due);
        Ok(due)
    }

    /// Whether dispatch is held, so that [`Self::reconciled`] is worth a look at the state.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    /// The word that `node` has reconciled was applied, refused or lost.
    pub fn reconciled_proposed(&mut self, node: NodeId) {
        self.reconciling.remove(&node);
    }

    /// The stop of `job` was applied, refused or given up.
    pub fn stop_proposed(&mut self, job: JobId) {
        self.stops_proposed.remove(&job);
    }
}

/// What a job asks of a robot.
pub(super) fn needs_of(spec: JobSpec) -> Needs {
    let mut capabilities = spec.capabilities;
    let interpreter = format!("{INTERPRETER_WORD}{}", spec.interpreter);
    if let Err(place) = capabilities.binary_search(&interpreter) {
        capabilities.insert(place, interpreter);
    }
    Needs { tags: spec.tags, capabilities }
}

fn class_of(priority: u8, spec: JobSpec) -> ClassKey {
    let workflow = Arc::from(format!("{}/{}", spec.workflow.namespace, spec.workflow.name));
    ClassKey { priority, workflow, needs: Arc::new(needs_of(spec)) }
}

/// The claims on jobs that somebody holds.
fn claims_of<'a>(
    reader: &StateReader,
    held: impl IntoIterator<Item = (&'a JobId, &'a Job)>,
) -> Result<BTreeMap<JobId, Claim>, Error> {
    let mut claims = BTreeMap::new();
    for (job, row) in held {
        let Some(Assignment { fence, session, .. }) = row.assignment else { continue };
        let is_stopping = row.state == JobState::Stopping;
        claims.insert(*job, Claim { fence, session, is_stopping, finishing: finishing_of(reader, *job)? });
    }
    Ok(claims)
}

/// What `job` says of being finished cut off, and how long its holder is known to have been away.
fn finishing_of(reader: &StateReader, job: JobId) -> Result<Option<Finishing>, Error> {
    let spec = jobs::spec(reader, job).map_err(Error::store("read a job"))?;
    let Some(within_ms) = spec.and_then(|spec| spec.finish_within_ms) else { return Ok(None) };
    let row = jobs::job(reader, job).map_err(Error::store("read a job"))?;
    let absence = row.map(|row| row.absence).unwrap_or_default();
    Ok(Some(Finishing { within: Duration::from_millis(within_ms), absence }))
}

/// Every job that somebody holds.
fn read_held(reader: &StateReader) -> Result<BTreeMap<JobId, Job>, Error> {
    let mut held = BTreeMap::new();
    for state in JobState::ALL.into_iter().filter(|state| state.has_holder()) {
        let mut after = None;
        loop {
            let page =
                queue::jobs_in(reader, state, after.as_ref(), LOAD_PAGE).map_err(Error::store("read held jobs"))?;
            for (_, job) in &page {
                if let Some(row) = jobs::job(reader, *job).map_err(Error::store("read a job"))? {
                    held.insert(*job, row);
                }
            }
            let is_last = page.len() < LOAD_PAGE;
            after = page.into_iter().next_back().map(|(place, _)| place);
            if is_last {
                break;
            }
        }
    }
    Ok(held)
}

#[cfg(test)]
mod tests {
    use fleet_core::{Digest, GroupId, SiteName};
    use fleet_store::Store;
    use fleet_store::record::{Content, WorkflowName};
    use fleet_store::state::tables::SITE;

    use super::*;

    #[tokio::test]
    async fn hosts_are_asked_for_only_once_every_node_knows_them() {
        let group = GroupId::from_bytes([3; 16]);
        let store = Store::in_memory().unwrap();
        for (gate, expected) in [(HOSTS_VERSION - 1, vec!["http"]), (HOSTS_VERSION, vec!["http", "http:a.example"])] {
            let raised = store.apply(group, move |state| {
                let mut site = jobs::site(state)?;
                site.gate = gate;
                state.put(&SITE, &(), &site)
            });
            raised.wait().unwrap();
            let leading = Leading::begin(LeaderTerm::default(), &Timing::LAN, &store.reader(group).unwrap()).unwrap();
            let name = |text: &str| text.to_owned();
            let spec = JobSpec {
                workflow: WorkflowName { namespace: name("n"), name: name("w"), version: name("1") },
                definition: Digest::of(b""),
                interpreter: 1,
                site: SiteName::default(),
                tags: Vec::new(),
                capabilities: vec![name("http"), name("http:a.example")],
                lost_max: 5,
                finish_within_ms: None,
                retry_of: None,
            };
            let input = Content::inline(Vec::new());
            let mut submission = Submission { job: JobId::generate(), spec, priority: 10, input, definition: None };
            leading.lower_needs(&mut submission);
            assert_eq!(submission.spec.capabilities, expected);
        }
    }
}
