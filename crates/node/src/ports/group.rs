//! The group of the node's site as a port: what is agreed on, and who leads.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{broadcast, watch};

use fleet_core::{BootInstant, Error, NodeId};
use fleet_replication::AppliedEntry;
use fleet_replication::command::{Action, Outcome};
use fleet_store::StateReader;
use fleet_store::record::{CommandId, Content, Payload};
use uuid::Uuid;

use crate::session::LeaderTerm;

/// The group of the node's site, as the actors see it.
pub trait Group: Send + Sync + 'static {
    /// Who leads, and whether it is this node. Changes are seen at once.
    fn standing(&self) -> watch::Receiver<GroupStanding>;
    /// Has `action` committed and applied by this node's leadership.
    fn propose(&self, action: Action) -> BoxFuture<'static, Result<Outcome, Error>> {
        self.propose_as(CommandId(Uuid::now_v7().as_u128()), action)
    }
    /// The same under an id that its sender chose: where a job obeyed this id already, it does nothing more.
    fn propose_as(&self, id: CommandId, action: Action) -> BoxFuture<'static, Result<Outcome, Error>>;
    /// Has a quorum confirm this node's leadership, beginning now.
    fn confirm_leadership(&self) -> BoxFuture<'static, Result<(), Error>>;
    /// The latest time an earlier leader can have renewed anything, as a majority of voters reports it after this node's
    /// election or restart, on this node's lease clock.
    fn takeover_time(&self) -> BoxFuture<'static, Result<BootInstant, Error>>;
    /// What is applied from now on, entry by entry. Who lags behind reads the state instead.
    fn applied(&self) -> broadcast::Receiver<Arc<AppliedEntry>>;
    /// The applied state. It shows at least what the events heard so far tell.
    fn reader(&self) -> Result<StateReader, Error>;
    /// The content of `bytes`: as it is if it is small, else a blob that a majority has on disk.
    fn put_content(&self, bytes: Payload) -> BoxFuture<'static, Result<Content, Error>>;
    /// Whether this node's disk has room for new work: jobs that another site sends, beside those of clients.
    fn has_room(&self) -> Result<bool, Error> {
        Ok(true)
    }
    /// The bytes of a content.
    fn read_content(&self, content: Content) -> BoxFuture<'static, Result<Payload, Error>>;
}

/// Who leads a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupStanding {
    /// The leader as far as this node knows.
    pub leader: Option<NodeId>,
    /// Set while this node leads, its own first entry is applied, and a quorum was heard within the group lease. A
    /// restart of the leader within its term passes through `None`.
    pub serving: Option<LeaderTerm>,
}
