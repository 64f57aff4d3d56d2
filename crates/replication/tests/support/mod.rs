//! Groups in one process: an in-memory router with faults, nodes on memory disks, and a state machine that remembers
//! every command it applied.

#![allow(dead_code, reason = "each suite uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fleet_core::timing::Timing;
use fleet_core::{Digest, GroupId, JobId, NodeId, SessionId, SiteName, SystemClock, Timestamp};
use fleet_replication::command::{Action, Command, Outcome, Submission};
use fleet_replication::fsm::{Applied, EntryPosition};
use fleet_replication::{CallError, CallFuture, Error, Group, GroupConfig, GroupNetwork, SiteNode, SiteView, Status};
use fleet_store::record::{BlobUse, CommandId, Content, JobSpec, WorkflowName};
use fleet_store::state::jobs;
use fleet_store::state::tables::{BLOB_USES, SITE};
use fleet_store::{MemoryDisk, Record, StateRead, StateTable, StateTransaction, Store};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// The group of every test.
pub(crate) const GROUP: GroupId = GroupId::from_bytes([7; 16]);
/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How often a waiting test looks.
const LOOK: Duration = Duration::from_millis(5);

/// A command as it was applied: its place in the order, and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen(pub(crate) u128);

impl Record for Seen {
    const NAME: &'static str = "command seen";
}

const ORDER: StateTable<u64, Seen> = StateTable::new(240, "order");

/// Writes down every command but the group's own in the order in which they are applied.
pub(crate) fn remember(
    state: &mut StateTransaction<'_>,
    _entry: EntryPosition,
    commands: &[Command],
) -> Result<Vec<Applied>, fleet_store::Error> {
    let next = state.last(&ORDER, &())?.map_or(0, |(place, _)| place + 1);
    let is_own = |command: &&Command| {
        matches!(command.action, Action::Lead { .. } | Action::Gate { .. } | Action::Reconciled { .. })
    };
    let remembered = commands.iter().filter(|command| !is_own(command));
    for (place, command) in (next..).zip(remembered) {
        state.put(&ORDER, &place, &Seen(command.id.0))?;
        if let Action::Deliver { event: Content::Blob { digest, .. }, .. } = &command.action {
            state.put(&BLOB_USES, digest, &BlobUse { rows: 1 })?;
        }
    }
    for command in commands {
        if let Action::Reconciled { node } = command.action {
            let mut site = jobs::site(state)?;
            site.hold = site.hold.filter(|hold| hold.awaited != [node]);
            state.put(&SITE, &(), &site)?;
        }
    }
    Ok(commands.iter().map(|_| Applied { outcome: Outcome::Done, events: Vec::new() }).collect())
}

/// The commands in the order in which `store` applied them.
pub(crate) fn applied_commands(store: &Store) -> Vec<u128> {
    let rows = store.reader(GROUP).unwrap().scan(&ORDER, &(), None, usize::MAX).unwrap();
    rows.into_iter().map(|(_, seen)| seen.0).collect()
}

/// A command that only its id tells from others.
pub(crate) fn command(id: u128) -> Command {
    Command { id: CommandId(id), at: Timestamp(0), action: Action::EndHold }
}

/// A command that the first programs did not know.
pub(crate) fn command_of_version_2(id: u128) -> Command {
    let spec = JobSpec {
        workflow: WorkflowName { namespace: "n".to_owned(), name: "w".to_owned(), version: "1.0.0".to_owned() },
        definition: Digest::of(b"{}"),
        interpreter: 1,
        site: SiteName::default(),
        tags: Vec::new(),
        capabilities: Vec::new(),
        lost_max: 5,
        finish_within_ms: None,
        retry_of: None,
    };
    let submission =
        Submission { job: JobId::generate(), spec, priority: 10, input: Content::inline("{}"), definition: None };
    let session = SessionId { node: NodeId::generate(), boot: 1, number: 1 };
    Command { action: Action::SubmitAssigned { submission: Box::new(submission), session }, ..command(id) }
}

/// A command that names the blob `digest`.
pub(crate) fn naming(id: u128, digest: Digest) -> Command {
    let event = Content::Blob { digest, length: 1 };
    Command { action: Action::Deliver { job: JobId::generate(), event }, ..command(id) }
}

#[derive(Default)]
struct Routes {
    groups: BTreeMap<NodeId, Group>,
    /// Directions in which nothing passes.
    cut: BTreeSet<(NodeId, NodeId)>,
}

/// Carries messages between the groups of one process.
#[derive(Clone, Default)]
pub(crate) struct Router {
    routes: Arc<Mutex<Routes>>,
}

impl Router {
    /// The port of `node`.
    pub(crate) fn port(&self, node: NodeId) -> Arc<dyn GroupNetwork> {
        Arc::new(Port { router: self.clone(), node })
    }

    /// Lets nothing pass from `from` to `to`.
    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.routes.lock().unwrap().cut.insert((from, to));
    }

    /// Cuts `node` off from all of `others`, both ways.
    pub(crate) fn isolate(&self, node: NodeId, others: impl IntoIterator<Item = NodeId>) {
        for other in others.into_iter().filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// Lets everything pass.
    pub(crate) fn heal(&self) {
        self.routes.lock().unwrap().cut.clear();
    }

    /// Hands a message of `from` to whoever is attached as `to`, whatever it says inside.
    pub(crate) async fn deliver(&self, from: NodeId, to: NodeId, request: &[u8]) -> Option<Bytes> {
        let group = self.routes.lock().unwrap().groups.get(&to).cloned();
        group?.handle(from, request).await.ok()
    }

    /// Answers for `node` from now on.
    pub(crate) fn attach(&self, node: NodeId, group: Group) {
        self.routes.lock().unwrap().groups.insert(node, group);
    }

    /// Nobody answers for `node` any more.
    pub(crate) fn detach(&self, node: NodeId) {
        self.routes.lock().unwrap().groups.remove(&node);
    }

    fn route(&self, from: NodeId, to: NodeId) -> Route {
        let routes = self.routes.lock().unwrap();
        if routes.cut.contains(&(from, to)) {
            return Route::Cut;
        }
        // A dead node sends nothing either.
        let sender = routes.groups.get(&from);
        sender.and(routes.groups.get(&to)).cloned().map_or(Route::Nobody, Route::To)
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.routes.lock().unwrap().cut.contains(&(from, to))
    }
}

enum Route {
    To(Group),
    Cut,
    Nobody,
}

struct Port {
    router: Router,
    node: NodeId,
}

impl GroupNetwork for Port {
    fn call(&self, target: NodeId, request: Bytes, deadline: Duration) -> CallFuture<'_> {
        Box::pin(async move {
            let silence = async {
                tokio::time::sleep(deadline).await;
                Err(CallError::Deadline)
            };
            match self.router.route(self.node, target) {
                Route::Nobody => Err(CallError::Unreachable("nobody is there".to_owned())),
                Route::Cut => silence.await,
                Route::To(group) => {
                    let answer = group.handle(self.node, &request).await;
                    // What is cut now does not bring the answer back either.
                    if self.router.is_cut(target, self.node) {
                        return silence.await;
                    }
                    answer.map_err(|error| CallError::Unreachable(error.to_string()))
                }
            }
        })
    }
}

/// A node: its disk, and what runs on it.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) disk: MemoryDisk,
    pub(crate) store: Store,
    pub(crate) group: Group,
}

/// A site in one process.
pub(crate) struct Site {
    pub(crate) router: Router,
    pub(crate) timing: Timing,
    pub(crate) nodes: Vec<Node>,
}

impl Site {
    /// A group of one.
    pub(crate) async fn found() -> Self {
        Self::found_with(Timing::LAN).await
    }

    /// A group of one with durations of its own.
    pub(crate) async fn found_with(timing: Timing) -> Self {
        let mut site = Self { router: Router::default(), timing, nodes: Vec::new() };
        let node = site.boot(MemoryDisk::new(), 1).await;
        node.group.found().await.unwrap();
        site.nodes.push(node);
        site
    }

    /// A group of `count` voters, grown by its autopilot.
    pub(crate) async fn grow(count: usize) -> Self {
        Self::grow_with(count, Timing::LAN).await
    }

    /// The same with durations of its own.
    pub(crate) async fn grow_with(count: usize, timing: Timing) -> Self {
        let mut site = Self::found_with(timing).await;
        for _ in 1..count {
            let node = site.boot(MemoryDisk::new(), 1).await;
            site.nodes.push(node);
        }
        site.tell_all_alive();
        site.wait_for("all nodes vote", |status| status.voters().len() == count && status.voter_sets.len() == 1).await;
        site
    }

    /// What opening a group with `timing` alone comes to.
    pub(crate) async fn open_with(timing: Timing) -> Result<Group, Error> {
        let site = Self { router: Router::default(), timing, nodes: Vec::new() };
        site.open(&MemoryDisk::new().open().unwrap(), 1).await
    }

    async fn open(&self, store: &Store, epoch: u64) -> Result<Group, Error> {
        let config = GroupConfig {
            store: store.clone(),
            group: GROUP,
            epoch,
            timing: self.timing,
            clock: Arc::new(SystemClock),
            network: self.router.port(store.node_id()),
            apply_commands: remember,
        };
        Group::open(config).await
    }

    /// Starts a node on `disk`.
    pub(crate) async fn boot(&self, disk: MemoryDisk, epoch: u64) -> Node {
        let store = disk.open().unwrap();
        let id = store.node_id();
        let group = self.open(&store, epoch).await.unwrap();
        self.router.attach(id, group.clone());
        Node { id, disk, store, group }
    }

    /// Ends the node at `place` as a power loss does, and starts it again on what its disk kept.
    pub(crate) async fn crash_and_restart(&mut self, place: usize) {
        let node = self.nodes.remove(place);
        self.router.detach(node.id);
        let disk = node.disk.lose_power();
        node.group.shutdown().await;
        drop(node);
        let node = self.boot(disk, 1).await;
        self.nodes.insert(place, node);
        self.tell_all_alive();
    }

    /// Ends the node at `place` as a power loss does.
    pub(crate) async fn crash(&mut self, place: usize) -> MemoryDisk {
        let node = self.nodes.remove(place);
        self.router.detach(node.id);
        let disk = node.disk.lose_power();
        node.group.shutdown().await;
        disk
    }

    /// Gossip holds every node alive.
    pub(crate) fn tell_all_alive(&self) {
        let nodes: Vec<SiteNode> = self
            .nodes
            .iter()
            .map(|node| SiteNode { node: node.id, down_since: None, is_removed: false, commands: None })
            .collect();
        for node in &self.nodes {
            node.group.observe(SiteView { nodes: nodes.clone() });
        }
    }

    /// The ids of all nodes.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// The node that serves, once there is one.
    pub(crate) async fn leader(&self) -> usize {
        self.leader_among(|_| true).await
    }

    /// The node that serves and satisfies `wanted`, once there is one.
    pub(crate) async fn leader_among(&self, wanted: impl Fn(NodeId) -> bool) -> usize {
        let found = wait(|| self.nodes.iter().position(|node| wanted(node.id) && node.group.serving_term().is_some()));
        found.await.unwrap_or_else(|| panic!("no leader serves: {:#?}", self.statuses()))
    }

    /// Waits until every node's status satisfies `wanted`.
    pub(crate) async fn wait_for(&self, what: &str, wanted: impl Fn(&Status) -> bool) {
        let all = wait(|| self.nodes.iter().all(|node| wanted(&node.group.status().borrow())).then_some(()));
        all.await.unwrap_or_else(|| panic!("{what}: {:#?}", self.statuses()));
    }

    /// What every node says of the group.
    pub(crate) fn statuses(&self) -> Vec<(NodeId, Status)> {
        self.nodes.iter().map(|node| (node.id, node.group.status().borrow().clone())).collect()
    }

    /// Proposes a command on whoever leads, again and again until its outcome is known.
    pub(crate) async fn write(&self, id: u128) {
        self.write_command(command(id)).await;
    }

    /// The same with `command`.
    pub(crate) async fn write_command(&self, command: Command) {
        let started = Instant::now();
        loop {
            let place = self.leader().await;
            match self.nodes[place].group.propose(command.clone(), Duration::from_secs(2)).await {
                Ok(_) => return,
                Err(error) => assert!(started.elapsed() < PATIENCE, "{:?} is not accepted: {error}", command.id),
            }
        }
    }

    /// Waits until every node has applied the same commands, and returns them.
    pub(crate) async fn settle(&self) -> Vec<u128> {
        let same = wait(|| {
            let mut all = self.nodes.iter().map(|node| applied_commands(&node.store));
            let first = all.next()?;
            all.all(|other| other == first).then_some(first)
        });
        same.await.unwrap_or_else(|| panic!("the nodes do not agree: {:#?}", self.statuses()))
    }
}

/// Looks until `found` gives something; `None` once patience ran out.
pub(crate) async fn wait<T>(mut found: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = found() {
            return Some(value);
        }
        if started.elapsed() > PATIENCE {
            return None;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the error says that somebody else leads.
pub(crate) fn is_not_leader<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::NotLeader { .. } | Error::NoQuorum { .. }))
}
