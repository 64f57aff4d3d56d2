//! The site's group as the daemon's own services use it: nodes, tokens, trust. Jobs go through `fleet-node`.

mod roster;

pub use roster::Roster;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fleet_core::{Clock, Error, ErrorKind, NodeId, SystemClock};
use fleet_replication::command::{Action, Command, Outcome, Refusal};
use fleet_replication::{Group, Remembered};
use fleet_store::record::{CommandId, NodeRecord, NodeStanding};
use fleet_store::state::members;
use fleet_store::{StateReader, Store};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::ports::Peers;

/// How long one proposal may take before its outcome is unknown.
const PROPOSAL_DEADLINE: Duration = Duration::from_secs(5);

/// The group, and where its nodes answer. A cheap handle.
#[derive(Clone)]
pub struct Site {
    group: Group,
    store: Store,
    peers: Peers,
    name: Arc<str>,
    removing: Arc<Mutex<()>>,
    roster: Arc<std::sync::Mutex<Remembered<Arc<Roster>>>>,
}

impl Site {
    /// The site called `name`.
    pub fn new(group: Group, store: Store, peers: Peers, name: &str) -> Self {
        Self { group, store, peers, name: name.into(), removing: Arc::default(), roster: Arc::default() }
    }

    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The node's store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The site's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the site's nodes answer.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Held by whoever looks whether a node may be removed, until that is committed.
    pub async fn removing(&self) -> MutexGuard<'_, ()> {
        self.removing.lock().await
    }

    /// Commits `action` here. A refusal is an error of its kind.
    ///
    /// # Errors
    /// `NotLeader` with a hint if this node does not serve; `DeadlineExceeded` if the outcome is unknown.
    pub async fn propose(&self, action: Action) -> Result<Outcome, Error> {
        let command = Command { id: CommandId(Uuid::new_v4().as_u128()), at: SystemClock.now(), action };
        let outcome = self.group.propose(command, PROPOSAL_DEADLINE).await.map_err(|error| self.explain(error))?;
        outcome.accepted().map_err(|refusal| refused(&refusal))
    }

    /// The state as applied here, current if this node leads and `confirm_leadership` was asked.
    ///
    /// # Errors
    /// If the store failed.
    pub fn reader(&self) -> Result<StateReader, Error> {
        self.group.reader().map_err(|error| self.explain(error))
    }

    /// The state, current: this node leads and a quorum confirmed it just now.
    ///
    /// # Errors
    /// `NotLeader` or `Unavailable` if it does not.
    pub async fn current_reader(&self) -> Result<StateReader, Error> {
        self.group.confirm_leadership().await.map_err(|error| self.explain(error))?;
        self.reader()
    }

    /// The site's nodes as applied here, without those that were removed.
    ///
    /// # Errors
    /// If the store failed.
    pub fn nodes(&self) -> Result<Vec<NodeRecord>, Error> {
        let mut nodes = members::nodes(&self.reader()?).map_err(read_failed)?;
        nodes.retain(|node| node.standing != NodeStanding::Removed);
        Ok(nodes)
    }

    /// Who belongs to the site and which others there are, as applied here a moment ago: for tasks that look again and
    /// again. Nothing is read while nothing is applied.
    ///
    /// # Errors
    /// If the store failed.
    pub fn roster(&self) -> Result<Arc<Roster>, Error> {
        let mut roster = self.roster.lock().unwrap_or_else(PoisonError::into_inner);
        let applied = self.group.applied_index();
        roster.get(applied, || Roster::read(&self.reader()?).map(Arc::new))
    }

    /// Who leads, as far as this node knows, if that is another node.
    pub fn other_leader(&self) -> Option<NodeId> {
        let leader = self.group.status().borrow().leader;
        leader.filter(|leader| *leader != self.group.node())
    }

    /// A group's error as callers see it, with the leader's address where that helps.
    pub fn explain(&self, error: fleet_replication::Error) -> Error {
        let kind = error.kind();
        let leader = match &error {
            fleet_replication::Error::NotLeader { leader, .. } => *leader,
            _ => None,
        };
        let mut explained = Error::new(kind, error.to_string()).with_source(error);
        if let Some(address) = leader.and_then(|leader| self.peers.address(leader)) {
            explained = explained.with_leader_hint(address);
        }
        explained
    }
}

/// A refusal of the log as callers see it.
pub fn refused(refusal: &Refusal) -> Error {
    let error = Error::new(refusal.kind(), refusal.to_string());
    match refusal.next_step() {
        Some(next_step) => error.with_next_step(next_step),
        None => error,
    }
}

/// A failed read of the store.
pub fn read_failed(error: fleet_store::Error) -> Error {
    Error::new(error.kind(), "read the site's state").with_source(error)
}

/// The refusal for a thing that does not exist.
pub fn not_found(what: &str, name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("{what} `{name}` does not exist"))
}
