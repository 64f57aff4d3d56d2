//! The group as the rest of the node sees it: propose, read, confirm, watch, change members.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fleet_core::timing::Timing;
use fleet_core::{BootInstant, Clock, Digest, GroupId, NodeId};
use fleet_store::state::jobs;
use fleet_store::{LogFact, StateReader, Store};
use openraft::{Config, SnapshotPolicy};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::autopilot::{self, Change};
use crate::blob_keeper::BlobKeeper;
use crate::blobs;
use crate::command::{Command, FIRST_VERSION, Outcome};
use crate::consensus::{CodecError, Raft, VoterId, applied_index};
use crate::election::Elections;
use crate::error::Error;
use crate::leadership::Leadership;
use crate::log_storage::LogStorage;
use crate::member::{Identity, Member};
use crate::network::{Clients, GroupNetwork};
use crate::proposer::{self, Proposal, Proposer};
use crate::read_index::{self, Confirmations, Confirmed, Question};
use crate::recover::stored_epoch;
use crate::server::Server;
use crate::site_view::SiteView;
use crate::state_machine::{AppliedEntry, ApplyCommands, StateMachine};
use crate::status::Status;
use crate::survey::{self, Survey};
use crate::takeover;
use crate::upkeep::{self, Upkeep};

/// Most applied entries that a slow watcher may be behind before it is told that it missed some.
const WATCHER_ENTRIES_MAX: usize = 4_096;
/// Counter of the store that names each opening of a group.
const RUN_COUNTER: &str = "group_runs";

/// What a group is opened with.
pub struct GroupConfig {
    /// The node's store.
    pub store: Store,
    /// The group.
    pub group: GroupId,
    /// Its epoch, as the node was told when it joined or founded it; a later one in the store wins.
    pub epoch: u64,
    /// Its durations.
    pub timing: Timing,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The way to its other nodes.
    pub network: Arc<dyn GroupNetwork>,
    /// The state machine: [`crate::fsm::apply`], or a test's own.
    pub apply_commands: ApplyCommands,
}

/// This node's part in the group of its site. Clones share it.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    member: Arc<Member>,
    raft: Raft,
    store: Store,
    server: Server,
    status: watch::Receiver<Status>,
    site: watch::Sender<Option<SiteView>>,
    proposals: mpsc::Sender<Proposal>,
    questions: mpsc::Sender<Question>,
    /// The gate of versions as last read; it is never lowered.
    gate: AtomicU32,
    watchers: broadcast::Sender<Arc<AppliedEntry>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// openraft's settings: its own election timer is off, and only the log's bytes make us purge.
fn raft_config(config: &GroupConfig) -> Result<Arc<Config>, Error> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let config = Config {
        cluster_name: config.group.to_string(),
        heartbeat_interval: millis(config.timing.group_heartbeat),
        election_timeout_min: millis(config.timing.election_min),
        election_timeout_max: millis(config.timing.group_lease),
        enable_elect: false,
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        ..Config::default()
    };
    config.validate().map(Arc::new).map_err(|error| Error::consensus("open the group", &error))
}

/// Whether a leader's death leaves every robot its lease (promise 8), however many voters there are.
fn check_timing(timing: &Timing) -> Result<(), Error> {
    let work = Timing::BLINK_WORK;
    for voters in [3, autopilot::VOTERS_MAX] {
        if !timing.keeps_control_blink_promise(voters, work) {
            let (blink, lease) = (timing.leader_blink_max(voters, work), timing.robot_lease_at_robot());
            return Err(Error::Timing { voters, work, blink, lease });
        }
    }
    Ok(())
}

impl Group {
    /// Opens the group on this node: it resumes what its store has, or waits to be made a member.
    pub async fn open(config: GroupConfig) -> Result<Self, Error> {
        let operation = "open the group";
        check_timing(&config.timing)?;
        let settings = raft_config(&config)?;
        let GroupConfig { store, group, epoch, timing, clock, network, apply_commands } = config;
        let epoch = match stored_epoch(&store, group)? {
            Some(stored) => stored.max(epoch),
            None => epoch,
        };
        let saved = store.put_log_fact(group, LogFact::Epoch, epoch.to_be_bytes().to_vec()).await;
        saved.map_err(Error::store(operation))?;
        let run = store.raise_counter(RUN_COUNTER).await.map_err(Error::store(operation))?;
        let identity = Identity { group, epoch, node: store.node_id(), run };
        let member = Arc::new(Member::new(identity, timing, clock, network));
        let watchers = broadcast::Sender::new(WATCHER_ENTRIES_MAX);
        let log = LogStorage::new(store.clone(), group);
        let meter = log.meter();
        let machine = StateMachine::new(store.clone(), group, epoch, apply_commands, watchers.clone());
        let clients = Clients { member: Arc::clone(&member) };
        let raft = Raft::new(VoterId(member.node), settings, clients, log, machine);
        let raft = raft.await.map_err(|error| Error::consensus(operation, &error))?;

        let (status_sender, status) = watch::channel(Status { epoch, ..Status::default() });
        let (site, site_receiver) = watch::channel(None);
        let (proposals, proposal_queue) = mpsc::channel(proposer::WAITING_MAX);
        let (questions, question_queue) = mpsc::channel(read_index::WAITING_MAX);
        let leadership = Leadership { member: Arc::clone(&member), raft: raft.clone(), status: status_sender };
        let elections = Elections {
            member: Arc::clone(&member),
            raft: raft.clone(),
            status: status.clone(),
            site: site_receiver.clone(),
        };
        let proposer = Proposer {
            raft: raft.clone(),
            status: status.clone(),
            queue: proposal_queue,
            group_lease: member.timing.group_lease,
        };
        let confirmations = Confirmations {
            member: Arc::clone(&member),
            raft: raft.clone(),
            status: status.clone(),
            queue: question_queue,
        };
        let upkeep = Upkeep {
            member: Arc::clone(&member),
            raft: raft.clone(),
            meter,
            store: store.clone(),
            status: status.clone(),
            site: site_receiver,
        };
        let blob_keeper = BlobKeeper { member: Arc::clone(&member), store: store.clone(), status: status.clone() };
        let tasks = vec![
            tokio::spawn(leadership.run()),
            tokio::spawn(elections.run()),
            tokio::spawn(proposer.run()),
            tokio::spawn(confirmations.run()),
            tokio::spawn(upkeep.run()),
            tokio::spawn(blob_keeper.run()),
        ];
        let server = Server::new(Arc::clone(&member), raft.clone(), store.clone(), status.clone());
        let tasks = Mutex::new(tasks);
        let gate = AtomicU32::new(FIRST_VERSION);
        let inner = Inner { member, raft, store, server, status, site, proposals, questions, gate, watchers, tasks };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes this node the only voter of a new group. Does nothing if the group has members already.
    pub async fn found(&self) -> Result<(), Error> {
        let operation = "found the group";
        let raft = &self.inner.raft;
        if raft.is_initialized().await.map_err(|error| Error::consensus(operation, &error))? {
            return Ok(());
        }
        let voters = std::collections::BTreeSet::from([VoterId(self.inner.member.node)]);
        raft.initialize(voters).await.map_err(|error| Error::consensus(operation, &error))
    }

    /// Answers a message of `sender`, as its [`GroupNetwork`] sent it; what it says in another node's name is refused. An
    /// error means that the bytes are no message.
    pub async fn handle(&self, sender: NodeId, request: &[u8]) -> Result<Bytes, CodecError> {
        self.inner.server.handle(sender, request).await
    }

    /// Proposes `command` and waits until it is committed and applied here, at most for `deadline`; after that its
    /// outcome is unknown, and the same command may be proposed again.
    pub async fn propose(&self, command: Command, deadline: Duration) -> Result<Outcome, Error> {
        let operation = "propose a command";
        if self.serving_term().is_none() {
            return Err(Error::NotLeader { operation, leader: self.inner.status.borrow().leader });
        }
        self.check_gate(command.action.version())?;
        let bytes = proposer::measure(&command)?;
        let (reply, answer) = oneshot::channel();
        let proposal = Proposal { command, bytes, reply };
        self.inner.proposals.try_send(proposal).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::QueueFull { operation, queue: proposer::QUEUE },
            mpsc::error::TrySendError::Closed(_) => Error::Stopped { operation },
        })?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(Error::OutcomeUnknown),
        }
    }

    /// Refuses a command that some member may not understand. A leader that serves has applied every raise of the gate.
    fn check_gate(&self, version: u32) -> Result<(), Error> {
        let known = self.inner.gate.load(Ordering::Relaxed);
        if version <= known {
            return Ok(());
        }
        let gate = jobs::site(&self.reader()?).map_err(Error::store("read the gate of versions"))?.gate;
        self.inner.gate.fetch_max(gate, Ordering::Relaxed);
        if version <= gate { Ok(()) } else { Err(Error::Gate { version, gate: gate.max(known) }) }
    }

    /// Confirms that this node led, with its state current, at a moment after this call. One round of the consensus
    /// serves all who wait for it.
    pub async fn confirm_leadership(&self) -> Result<Confirmed, Error> {
        let operation = "confirm the leadership";
        let (question, answer) = oneshot::channel();
        self.inner.questions.try_send(question).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::QueueFull { operation, queue: read_index::QUEUE },
            mpsc::error::TrySendError::Closed(_) => Error::Stopped { operation },
        })?;
        answer.await.map_err(|_| Error::Stopped { operation })?
    }

    /// The state as applied here, possibly stale: confirm the leadership first where that matters.
    pub fn reader(&self) -> Result<StateReader, Error> {
        self.inner.store.reader(self.inner.member.group).map_err(Error::store("read the state"))
    }

    /// Index of the last entry that is applied here: what [`Self::reader`] reads from now on is not older.
    pub fn applied_index(&self) -> Option<u64> {
        applied_index(&self.inner.raft)
    }

    /// The term in which this node leads and serves; `None` if it must not read, renew or dispatch.
    pub fn serving_term(&self) -> Option<u64> {
        self.inner.member.serving_term(&self.inner.status)
    }

    /// The group as this node sees it, and its changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// What is applied from now on, in the order of the log. Whoever is too slow is told how much it missed and reads
    /// the state anew.
    pub fn applied(&self) -> broadcast::Receiver<Arc<AppliedEntry>> {
        self.inner.watchers.subscribe()
    }

    /// Tells the group what gossip holds of the site's nodes.
    pub fn observe(&self, view: SiteView) {
        self.inner.site.send_replace(Some(view));
    }

    /// T of the robot lease: the latest moment, on this node's lease clock, at which an earlier leader may have been
    /// confirmed. A voter that answered confirms no earlier leader again. Ask again where no majority answered.
    pub async fn takeover_time(&self) -> Result<BootInstant, Error> {
        let operation = "ask when an earlier leader was last heard";
        let leader = self.inner.status.borrow().leader;
        let term = self.serving_term().ok_or(Error::NotLeader { operation, leader })?;
        let voters = self.inner.status.borrow().voter_sets.clone();
        takeover::ask(&self.inner.member, &voters, term).await
    }

    /// Asks every voter whether it is there, so that nobody declares a group lost that works.
    pub async fn survey(&self) -> Survey {
        let status = self.inner.status.borrow().clone();
        survey::ask(&self.inner.member, &status).await
    }

    /// Changes the membership through the log. The autopilot does so by itself.
    pub async fn change_membership(&self, change: Change) -> Result<(), Error> {
        upkeep::change_membership(&self.inner.raft, change).await
    }

    /// Shortens the log here to what is not in the state yet, as upkeep does when it has grown.
    pub async fn shorten_log(&self) -> Result<(), Error> {
        upkeep::shorten_log(&self.inner.raft, None).await
    }

    /// Stores `content` on a majority's disks, so that an entry may name it.
    pub async fn put_blob(&self, content: Bytes) -> Result<Digest, Error> {
        blobs::put(&self.inner.member, &self.inner.store, &self.inner.status, content).await
    }

    /// The content named `digest`, from here or from another member; `None` if every member says it has none.
    pub async fn blob(&self, digest: Digest) -> Result<Option<Bytes>, Error> {
        let status = self.inner.status.borrow().clone();
        blobs::get(&self.inner.member, &self.inner.store, &status, digest).await
    }

    /// The group's id.
    pub fn id(&self) -> GroupId {
        self.inner.member.group
    }

    /// The group's epoch.
    pub fn epoch(&self) -> u64 {
        self.inner.member.epoch
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.inner.member.node
    }

    /// Ends this node's part. The store stays open.
    pub async fn shutdown(&self) {
        if self.inner.raft.shutdown().await.is_err() {
            tracing::error!("the consensus did not end cleanly");
        }
        let tasks = std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            task.abort();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("member", &self.inner.member).finish_non_exhaustive()
    }
}
