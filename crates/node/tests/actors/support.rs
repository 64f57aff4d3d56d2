//! A node's actors on paused time: the real state machine over a store in memory, a group that agrees with itself, effects
//! that the test ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use fleet_core::limits::INLINE_BYTES_MAX;
use fleet_core::timing::Timing;
use fleet_core::{BootInstant, Clock, Digest, Error, ErrorKind, FleetId, GroupId, JobId, NodeId, SiteName, Timestamp};
use fleet_node::link::{Duplex, RobotReport, RobotStreams, WorkDown, WorkUp, duplex};
use fleet_node::ports::{
    EffectContext, EffectReport, Effects, Group, GroupStanding, KnownSites, RobotLink, SiteTopic, Sites,
};
use fleet_node::session::LeaderTerm;
use fleet_node::{JobRequest, LinkServer, Node, NodeConfig, NodePorts};
use fleet_replication::AppliedEntry;
use fleet_replication::command::{
    Action, COMMAND_VERSION, Command as GroupCommand, NodeAdmission, Outcome, Submission,
};
use fleet_replication::fsm::{self, EntryPosition};
use fleet_store::record::{
    CommandId, Content, Founding, Job, JobSpec, JobState, JournalRecord, NodeProfile, Payload, WorkflowName,
};
use fleet_store::state::jobs;
use fleet_store::{StateReader, Store};
use fleet_workflow::machine::effect::Effect;
use fleet_workflow::machine::event::{Event, Outcome as EffectOutcome};

use crate::journal::TestJournal;
use crate::words::Words;

pub(crate) const GROUP: GroupId = GroupId::from_bytes([9; 16]);

/// Both clocks follow tokio's time, so that paused time pauses them.
pub(crate) struct TestClock {
    start: tokio::time::Instant,
}

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: tokio::time::Instant::now() })
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_700_000_000_000 + u64::try_from(self.start.elapsed().as_millis()).unwrap())
    }

    fn boot_now(&self) -> BootInstant {
        BootInstant(self.start.elapsed() + Duration::from_secs(1_000))
    }
}

struct LogEnd {
    term: u64,
    index: u64,
    leader: NodeId,
}

/// How long these nodes keep ended jobs.
pub(crate) const ENDED_JOBS_KEPT: Duration = Duration::from_secs(600);

/// The log that all nodes of a test share: whoever the test says leads.
#[derive(Clone)]
pub(crate) struct SharedLog {
    store: Store,
    pub(crate) group: GroupId,
    pub(crate) site: SiteName,
    clock: Arc<TestClock>,
    applied: broadcast::Sender<Arc<AppliedEntry>>,
    end: Arc<Mutex<LogEnd>>,
    elected_at: Arc<Mutex<BootInstant>>,
    /// Records with this in an event are refused by every leader, for ever.
    pub(crate) poison: Arc<Mutex<Option<String>>>,
    /// Records with this in an event are committed, but nobody is told so before the test takes it away.
    pub(crate) held_back: Arc<Mutex<Option<String>>>,
    /// Whether the group takes proposals in and answers none of them.
    pub(crate) stalls: Arc<AtomicBool>,
    /// Whether the word that a robot has reconciled gets lost.
    pub(crate) loses_reconciled: Arc<AtomicBool>,
    /// How often that word was proposed.
    pub(crate) reconciled_proposed: Arc<AtomicUsize>,
    /// Stops that were proposed.
    pub(crate) stops_proposed: Arc<AtomicUsize>,
    /// Whether the disk has no room for new work.
    pub(crate) is_short_of_space: Arc<AtomicBool>,
    /// What blobs are found to be.
    pub(crate) blobs: Arc<Mutex<BTreeMap<Digest, Result<Payload, ErrorKind>>>>,
    standings: Arc<Mutex<BTreeMap<NodeId, watch::Sender<GroupStanding>>>>,
}

impl SharedLog {
    pub(crate) fn new(clock: Arc<TestClock>) -> Self {
        Self::of_site(clock, SiteName::default(), GROUP)
    }

    /// The log of the group of a site.
    pub(crate) fn of_site(clock: Arc<TestClock>, site: SiteName, group: GroupId) -> Self {
        let now = clock.boot_now();
        Self {
            store: Store::in_memory().unwrap(),
            group,
            site,
            clock,
            applied: broadcast::channel(1_024).0,
            end: Arc::new(Mutex::new(LogEnd { term: 0, index: 0, leader: NodeId::default() })),
            elected_at: Arc::new(Mutex::new(now)),
            poison: Arc::default(),
            held_back: Arc::default(),
            stalls: Arc::default(),
            loses_reconciled: Arc::default(),
            reconciled_proposed: Arc::default(),
            stops_proposed: Arc::default(),
            is_short_of_space: Arc::default(),
            blobs: Arc::default(),
            standings: Arc::default(),
        }
    }

    pub(crate) fn reader(&self) -> StateReader {
        self.store.reader(self.group).unwrap()
    }

    /// Applies one command as its own entry.
    pub(crate) async fn commit(&self, action: Action) -> Result<Outcome, Error> {
        self.commit_as(CommandId(uuid::Uuid::now_v7().as_u128()), action).await
    }

    /// The leader that the test chose last.
    pub(crate) fn leader(&self) -> NodeId {
        self.end.lock().unwrap().leader
    }

    async fn commit_as(&self, id: CommandId, action: Action) -> Result<Outcome, Error> {
        let command = GroupCommand { id, at: self.clock.now(), action };
        let entry = {
            let mut end = self.end.lock().unwrap();
            end.index += 1;
            EntryPosition { epoch: 1, term: end.term, index: end.index }
        };
        let work = self.store.apply(self.group, move |state| fsm::apply(state, entry, &[command]));
        // On a blocking thread, because paused time passes while a task waits for any other.
        let mut applied = tokio::task::spawn_blocking(|| work.wait())
            .await
            .unwrap()
            .map_err(|error| Error::new(ErrorKind::Internal, "apply").with_source(error))?;
        let applied = applied.remove(0);
        let _ = self.applied.send(Arc::new(AppliedEntry { index: entry.index, events: applied.events }));
        Ok(applied.outcome)
    }

    fn is_poisoned(&self, action: &Action) -> bool {
        Self::mentions(action, self.poison.lock().unwrap().clone())
    }

    fn mentions(action: &Action, text: Option<String>) -> bool {
        let (Action::Record(records), Some(poison)) = (action, text) else { return false };
        records.records.iter().any(|record| match &record.event {
            Content::Inline(payload) => String::from_utf8_lossy(payload.as_slice()).contains(&poison),
            Content::Blob { .. } => false,
        })
    }

    /// Founds the site, admits `nodes`, and opens the gate as a leader does whose members know every command.
    pub(crate) async fn found(&self, nodes: &[NodeId]) {
        let founding = Founding {
            fleet: FleetId::from_bytes([1; 16]),
            site: self.site.clone(),
            group: self.group,
            founder: nodes[0],
            dev: true,
        };
        self.commit(Action::Found(founding)).await.unwrap().accepted().unwrap();
        for node in nodes {
            let profile = NodeProfile {
                name: name_of(*node),
                site: self.site.clone(),
                address: "127.0.0.1:7000".to_owned(),
                http_address: "127.0.0.1:8000".to_owned(),
                tags: Vec::new(),
                slots: 2,
                capabilities: vec!["http".to_owned()],
                version: "0".to_owned(),
            };
            let admission = NodeAdmission { node: *node, profile, certificate: None, replaces: None };
            self.commit(Action::PutNode(Box::new(admission))).await.unwrap().accepted().unwrap();
        }
        self.commit(Action::Gate { version: COMMAND_VERSION }).await.unwrap().accepted().unwrap();
    }

    /// Makes `leader` the leader in a new term: everyone else stops at once.
    pub(crate) fn elect(&self, leader: NodeId) {
        let term = {
            let mut end = self.end.lock().unwrap();
            end.term += 1;
            end.leader = leader;
            end.term
        };
        *self.elected_at.lock().unwrap() = self.clock.boot_now();
        for (node, standing) in self.standings.lock().unwrap().iter() {
            let serving = (*node == leader).then_some(LeaderTerm { epoch: 1, term });
            standing.send_replace(GroupStanding { leader: Some(leader), serving });
        }
    }

    pub(crate) fn job(&self, job: JobId) -> Job {
        jobs::job(&self.reader(), job).unwrap().expect("the job exists")
    }

    /// Whether the state knows `job`.
    pub(crate) fn has(&self, job: JobId) -> bool {
        jobs::job(&self.reader(), job).unwrap().is_some()
    }

    pub(crate) fn journal(&self, job: JobId) -> Vec<Event> {
        let read = |record: JournalRecord| match record.event {
            Content::Inline(payload) => serde_json::from_slice(payload.as_slice()).unwrap(),
            Content::Blob { .. } => panic!("no blobs here"),
        };
        jobs::journal(&self.reader(), job, 0, 1_000).unwrap().into_iter().map(read).collect()
    }

    /// Waits until `job` is in `state`.
    pub(crate) async fn reaches(&self, job: JobId, state: JobState) {
        let reached = async {
            while self.job(job).state != state {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), reached).await;
        assert!(waited.is_ok(), "job is {:?}, not {state:?}", self.job(job));
    }
}

/// The group as one node has it.
pub(crate) struct NodeGroup {
    log: SharedLog,
    node: NodeId,
    standing: watch::Receiver<GroupStanding>,
}

impl NodeGroup {
    pub(crate) fn new(log: &SharedLog, node: NodeId) -> Arc<Self> {
        let leader = Some(log.end.lock().unwrap()).filter(|end| end.term > 0).map(|end| end.leader);
        let (sender, standing) = watch::channel(GroupStanding { leader, serving: None });
        log.standings.lock().unwrap().insert(node, sender);
        Arc::new(Self { log: log.clone(), node, standing })
    }

    fn leads(&self) -> Result<(), Error> {
        let leads = self.log.end.lock().unwrap().leader == self.node;
        if leads { Ok(()) } else { Err(Error::new(ErrorKind::NotLeader, "not the leader")) }
    }
}

impl Group for NodeGroup {
    fn standing(&self) -> watch::Receiver<GroupStanding> {
        self.standing.clone()
    }

    fn propose_as(&self, id: CommandId, action: Action) -> BoxFuture<'static, Result<Outcome, Error>> {
        let (log, leads) = (self.log.clone(), self.leads());
        async move {
            leads?;
            if matches!(action, Action::Stop { .. }) {
                log.stops_proposed.fetch_add(1, Ordering::Relaxed);
            }
            if matches!(action, Action::Reconciled { .. }) {
                log.reconciled_proposed.fetch_add(1, Ordering::Relaxed);
                if log.loses_reconciled.load(Ordering::Relaxed) {
                    return Err(Error::new(ErrorKind::Unavailable, "propose a command: it is lost"));
                }
            }
            while log.stalls.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if log.is_poisoned(&action) {
                return Err(Error::new(ErrorKind::InvalidInput, "propose a command: it is poisoned"));
            }
            let is_held_back = SharedLog::mentions(&action, log.held_back.lock().unwrap().clone());
            let outcome = log.commit_as(id, action).await;
            while is_held_back && log.held_back.lock().unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            outcome
        }
        .boxed()
    }

    fn confirm_leadership(&self) -> BoxFuture<'static, Result<(), Error>> {
        let leads = self.leads();
        async move { leads }.boxed()
    }

    fn takeover_time(&self) -> BoxFuture<'static, Result<BootInstant, Error>> {
        let at = *self.log.elected_at.lock().unwrap();
        async move { Ok(at) }.boxed()
    }

    fn applied(&self) -> broadcast::Receiver<Arc<AppliedEntry>> {
        self.log.applied.subscribe()
    }

    fn reader(&self) -> Result<StateReader, Error> {
        Ok(self.log.reader())
    }

    fn has_room(&self) -> Result<bool, Error> {
        Ok(!self.log.is_short_of_space.load(Ordering::Relaxed))
    }

    fn put_content(&self, bytes: Payload) -> BoxFuture<'static, Result<Content, Error>> {
        let blobs = Arc::clone(&self.log.blobs);
        async move {
            if bytes.as_slice().len() <= INLINE_BYTES_MAX {
                return Ok(Content::Inline(bytes));
            }
            let (digest, length) = (Digest::of(bytes.as_slice()), bytes.as_slice().len() as u64);
            blobs.lock().unwrap().insert(digest, Ok(bytes));
            Ok(Content::Blob { digest, length })
        }
        .boxed()
    }

    fn read_content(&self, content: Content) -> BoxFuture<'static, Result<Payload, Error>> {
        let blobs = Arc::clone(&self.log.blobs);
        async move {
            match content {
                Content::Inline(payload) => Ok(payload),
                Content::Blob { digest, .. } => {
                    let found = blobs.lock().unwrap().get(&digest).cloned().unwrap_or(Err(ErrorKind::Unavailable));
                    found.map_err(|kind| Error::new(kind, "read a blob"))
                }
            }
        }
        .boxed()
    }
}

/// A run of an effect that the test ends.
pub(crate) struct Run {
    pub(crate) node: NodeId,
    pub(crate) path: String,
    /// Records in the journal when it began.
    pub(crate) journaled: usize,
    pub(crate) end: oneshot::Sender<EffectOutcome>,
}

/// Effects that begin, and wait for the test to end them.
#[derive(Clone)]
pub(crate) struct TestEffects {
    log: SharedLog,
    node: NodeId,
    runs: Arc<Mutex<Vec<Run>>>,
    pub(crate) begun: Arc<Mutex<Vec<(NodeId, String)>>>,
    /// Where a job was given up, and its state at that moment.
    pub(crate) given_up: Arc<Mutex<Vec<(NodeId, JobState)>>>,
}

impl TestEffects {
    pub(crate) fn new(log: &SharedLog) -> Self {
        Self {
            log: log.clone(),
            node: NodeId::default(),
            runs: Arc::default(),
            begun: Arc::default(),
            given_up: Arc::default(),
        }
    }

    fn of(&self, node: NodeId) -> Self {
        Self { node, ..self.clone() }
    }

    /// The next run that begins.
    pub(crate) async fn next(&self) -> Run {
        let next = async {
            loop {
                if let Some(run) = self.runs.lock().unwrap().pop() {
                    return run;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), next).await.expect("an effect begins")
    }

    /// Whether nothing has begun that was not taken.
    pub(crate) fn is_quiet(&self) -> bool {
        self.runs.lock().unwrap().is_empty()
    }
}

impl Effects for TestEffects {
    fn run(&self, _: Effect, context: EffectContext) -> BoxFuture<'static, EffectReport> {
        let (end, ended) = oneshot::channel();
        let journaled = self.log.journal(context.job).len();
        let run = Run { node: self.node, path: context.path.0.clone(), journaled, end };
        self.begun.lock().unwrap().push((self.node, context.path.0));
        self.runs.lock().unwrap().push(run);
        let mut cancelled = context.cancelled;
        async move {
            tokio::select! {
                outcome = ended => outcome.map_or_else(|_| EffectReport::broken_off(), EffectReport::of),
                _ = cancelled.wait_for(|is_cancelled| *is_cancelled) => EffectReport::broken_off(),
            }
        }
        .boxed()
    }

    fn end_job(&self, job: JobId) -> BoxFuture<'static, ()> {
        self.given_up.lock().unwrap().push((self.node, self.log.job(job).state));
        async {}.boxed()
    }
}

/// Reaches the leader's node in this process, unless the test cut the way.
#[derive(Clone, Default)]
pub(crate) struct TestLink {
    node: NodeId,
    servers: Arc<Mutex<BTreeMap<NodeId, LinkServer>>>,
    cut: Arc<watch::Sender<Vec<NodeId>>>,
    /// Whether a cut breaks links that are open, too.
    is_severable: Arc<AtomicBool>,
    repeats: Arc<AtomicBool>,
    connects: Arc<AtomicUsize>,
    /// Whether the texts of definitions get lost on the way.
    loses_definitions: Arc<AtomicBool>,
}

/// Passes on what comes, without the texts of definitions.
async fn lose_definitions(mut from: mpsc::Receiver<WorkDown>, to: mpsc::Sender<WorkDown>) {
    while let Some(mut message) = from.recv().await {
        if let WorkDown::Assign(assignment) = &mut message {
            assignment.definition_text = None;
        }
        if to.send(message).await.is_err() {
            return;
        }
    }
}

/// Passes on what comes, but no question for a definition.
async fn lose_questions(mut from: mpsc::Receiver<WorkUp>, to: mpsc::Sender<WorkUp>) {
    while let Some(message) = from.recv().await {
        if !matches!(message, WorkUp::NeedDefinition { .. }) && to.send(message).await.is_err() {
            return;
        }
    }
}

/// Passes on what comes, twice.
async fn repeat<M: Clone>(mut from: mpsc::Receiver<M>, to: mpsc::Sender<M>) {
    while let Some(message) = from.recv().await {
        if to.send(message.clone()).await.is_err() || to.send(message).await.is_err() {
            return;
        }
    }
}

/// Passes on what comes until `node` is cut off.
async fn pass<M>(
    mut from: mpsc::Receiver<M>,
    to: mpsc::Sender<M>,
    mut cut: watch::Receiver<Vec<NodeId>>,
    node: NodeId,
) {
    let passing = async {
        while let Some(message) = from.recv().await {
            if to.send(message).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = passing => {}
        _ = cut.wait_for(|cut| cut.contains(&node)) => {}
    }
}

/// The other end of `inner`, on a way that breaks when `node` is cut off.
fn severable<Out: Send + 'static, In: Send + 'static>(
    inner: Duplex<Out, In>,
    cut: &watch::Sender<Vec<NodeId>>,
    node: NodeId,
) -> Duplex<Out, In> {
    let (outer, far) = duplex();
    tokio::spawn(pass(far.receiver, inner.sender, cut.subscribe(), node));
    tokio::spawn(pass(inner.receiver, far.sender, cut.subscribe(), node));
    outer
}

/// The other end of `inner`, on a way that repeats every message.
fn repeating<Out: Clone + Send + 'static, In: Clone + Send + 'static>(inner: Duplex<Out, In>) -> Duplex<Out, In> {
    let (outer, far) = duplex();
    tokio::spawn(repeat(far.receiver, inner.sender));
    tokio::spawn(repeat(inner.receiver, far.sender));
    outer
}

impl RobotLink for TestLink {
    fn connect(&self, leader: NodeId) -> BoxFuture<'static, Result<RobotStreams, Error>> {
        let (node, servers, cut) = (self.node, Arc::clone(&self.servers), Arc::clone(&self.cut));
        let loses = self.loses_definitions.load(Ordering::Relaxed);
        let is_severable = self.is_severable.load(Ordering::Relaxed);
        let (repeats, connects) = (self.repeats.load(Ordering::Relaxed), Arc::clone(&self.connects));
        async move {
            let server = servers.lock().unwrap().get(&leader).cloned();
            let is_cut = cut.borrow().contains(&node);
            let server = server.filter(|_| !is_cut);
            let server = server.ok_or_else(|| Error::new(ErrorKind::Unavailable, "no way"))?;
            connects.fetch_add(1, Ordering::Relaxed);
            let (heartbeats, leader_heartbeats) = duplex();
            let (work, leader_work) = duplex();
            server.accept_heartbeats(node, leader_heartbeats);
            server.accept_work(node, leader_work);
            if loses {
                let (outer, far) = duplex();
                tokio::spawn(lose_questions(far.receiver, work.sender));
                tokio::spawn(lose_definitions(work.receiver, far.sender));
                return Ok(RobotStreams { heartbeats, work: outer });
            }
            if is_severable {
                let heartbeats = severable(heartbeats, &cut, node);
                return Ok(RobotStreams { heartbeats, work: severable(work, &cut, node) });
            }
            if repeats {
                return Ok(RobotStreams { heartbeats: repeating(heartbeats), work: repeating(work) });
            }
            Ok(RobotStreams { heartbeats, work })
        }
        .boxed()
    }
}

/// Nodes that share a log.
pub(crate) struct Fleet {
    pub(crate) clock: Arc<TestClock>,
    pub(crate) log: SharedLog,
    pub(crate) effects: TestEffects,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// What each robot wrote down by itself; it outlives its node.
    pub(crate) journals: BTreeMap<NodeId, Store>,
    link: TestLink,
    sites: Arc<dyn Sites>,
}

/// There is no other site.
struct NoSites;

impl Sites for NoSites {
    fn ask(&self, site: SiteName, _: SiteTopic, _: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        async move { Err(Error::new(ErrorKind::NotFound, format!("ask site {site}"))) }.boxed()
    }

    fn known(&self) -> watch::Receiver<Arc<KnownSites>> {
        watch::channel(Arc::default()).1
    }
}

/// A port for nodes whose site is alone.
pub(crate) fn no_sites() -> Arc<dyn Sites> {
    Arc::new(NoSites)
}

fn in_memory() -> Store {
    Store::in_memory().unwrap()
}

pub(crate) fn id(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

fn name_of(node: NodeId) -> String {
    format!("node-{}", node.as_bytes()[0])
}

impl Fleet {
    /// Nodes 1 to `count`, of which the first leads. Those in `robots` have two slots, the others none.
    pub(crate) async fn start(count: u8, robots: &[u8]) -> Self {
        let clock = TestClock::new();
        let log = SharedLog::new(Arc::clone(&clock));
        Self::start_site(clock, log, no_sites(), count, robots).await
    }

    /// The same, with links that a cut breaks while they are open.
    pub(crate) async fn start_severable(count: u8, robots: &[u8]) -> Self {
        let fleet = Self::start(count, robots).await;
        fleet.link.is_severable.store(true, Ordering::Relaxed);
        fleet
    }

    /// The same, as the site of `log` that asks others by `sites`.
    pub(crate) async fn start_site(
        clock: Arc<TestClock>,
        log: SharedLog,
        sites: Arc<dyn Sites>,
        count: u8,
        robots: &[u8],
    ) -> Self {
        let ids: Vec<NodeId> = (1..=count).map(id).collect();
        log.found(&ids).await;
        let effects = TestEffects::new(&log);
        let (nodes, journals) = (BTreeMap::new(), BTreeMap::new());
        let mut fleet = Self { clock, log, effects, nodes, journals, link: TestLink::default(), sites };
        for number in 1..=count {
            fleet.start_node(number, 1, if robots.contains(&number) { 2 } else { 0 }).await;
        }
        fleet.log.elect(id(1));
        fleet
    }

    pub(crate) async fn start_node(&mut self, number: u8, boot: u64, slots: u32) {
        self.start_node_with(number, boot, slots, &["http"]).await;
    }

    pub(crate) async fn start_node_with(&mut self, number: u8, boot: u64, slots: u32, capabilities: &[&str]) {
        let node = id(number);
        let report = RobotReport {
            node_name: name_of(node),
            slots,
            tags: Vec::new(),
            capabilities: capabilities.iter().map(|word| (*word).to_owned()).collect(),
            is_draining: false,
        };
        let config = NodeConfig {
            node,
            boot,
            timing: Timing::LAN,
            robot: report,
            guards_gone: true,
            ended_jobs_kept: ENDED_JOBS_KEPT,
            interpreter_threads: 0,
        };
        let ports = NodePorts {
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            group: NodeGroup::new(&self.log, node),
            effects: Arc::new(self.effects.of(node)),
            robot_link: Arc::new(TestLink { node, ..self.link.clone() }),
            interpreter: Arc::new(Words),
            sites: Arc::clone(&self.sites),
            own_journal: Arc::new(TestJournal(self.journals.entry(node).or_insert_with(in_memory).clone())),
        };
        let started = Node::start(config, ports).await.unwrap();
        self.link.servers.lock().unwrap().insert(node, started.link_server());
        self.nodes.insert(node, started);
    }

    pub(crate) fn node(&self, number: u8) -> &Node {
        &self.nodes[&id(number)]
    }

    /// Submits a definition through the leader, node `leader`.
    pub(crate) async fn submit(&self, leader: u8, words: &str) -> JobId {
        self.node(leader).submit(Self::request(words)).await.unwrap()
    }

    /// Submits a definition pinned to a version of the interpreter.
    pub(crate) async fn submit_for_interpreter(&self, leader: u8, words: &str, interpreter: u32) -> JobId {
        let request = Self::request(words);
        let spec = JobSpec { interpreter, ..request.spec };
        self.node(leader).submit(JobRequest { spec, ..request }).await.unwrap()
    }

    /// A new job that runs `words`.
    pub(crate) fn request(words: &str) -> JobRequest {
        let (definition, spec) = definition_of(words);
        let input = Payload::from("{}");
        JobRequest { job: JobId::generate(), spec, site: None, priority: 10, input, definition }
    }

    /// Submits a definition whose input is a blob, past everything that would look at it.
    pub(crate) async fn submit_with_blob(&self, words: &str, input: Digest) -> JobId {
        let (definition, spec) = definition_of(words);
        let submission = Submission {
            job: JobId::generate(),
            spec,
            priority: 10,
            input: Content::Blob { digest: input, length: 100_000 },
            definition: Some(Content::Inline(definition)),
        };
        let job = submission.job;
        self.log.commit(Action::Submit(Box::new(submission))).await.unwrap().accepted().unwrap();
        job
    }

    /// Waits until the robot of node `number` has no job: it hears of a commit a little later than the state shows it.
    pub(crate) async fn is_free(&self, number: u8) {
        let free = async {
            while self.node(number).observe().await.robot.is_none_or(|robot| robot.jobs > 0) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), free).await;
        assert!(waited.is_ok(), "{:?}", self.node(number).observe().await.robot);
    }

    /// How often robots opened a link to the leader of another node.
    pub(crate) fn links_opened(&self) -> usize {
        self.link.connects.load(Ordering::Relaxed)
    }

    /// From now on every new link loses the texts of definitions.
    pub(crate) fn lose_definitions(&self) {
        self.link.loses_definitions.store(true, Ordering::Relaxed);
    }

    /// New links lose nothing any more.
    pub(crate) fn find_definitions(&self) {
        self.link.loses_definitions.store(false, Ordering::Relaxed);
    }

    /// From now on every new link repeats its messages.
    pub(crate) fn repeat_messages(&self) {
        self.link.repeats.store(true, Ordering::Relaxed);
    }

    /// The robot of node `number` reaches no other node from now on.
    pub(crate) fn sever(&self, number: u8) {
        self.link.cut.send_modify(|cut| cut.push(id(number)));
    }

    /// It reaches them again.
    pub(crate) fn restore(&self, number: u8) {
        self.link.cut.send_modify(|cut| cut.retain(|node| *node != id(number)));
    }

    /// The robot of node `number` dies: its effects end with it, and it says nothing more.
    pub(crate) async fn kill(&mut self, number: u8) {
        self.sever(number);
        let node = self.nodes.remove(&id(number)).expect("the node runs");
        node.abandon();
    }
}

pub(crate) fn done() -> EffectOutcome {
    EffectOutcome::Ok(serde_json::json!({}))
}

/// A definition, and the job that runs it.
pub(crate) fn definition_of(words: &str) -> (Payload, JobSpec) {
    let definition = Payload::from(words.as_bytes().to_vec());
    let spec = JobSpec {
        workflow: WorkflowName { namespace: "test".to_owned(), name: "words".to_owned(), version: "1.0.0".to_owned() },
        definition: Digest::of(definition.as_slice()),
        interpreter: 1,
        site: SiteName::default(),
        tags: Vec::new(),
        capabilities: vec!["http".to_owned()],
        lost_max: 5,
        finish_within_ms: None,
        retry_of: None,
    };
    (definition, spec)
}
