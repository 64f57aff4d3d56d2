//! The handle of the links: ask another node, hand over a stream, stop. A cheap clone that hides the actors.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ractor::rpc::CallResult;
use ractor::{Actor, ActorId, ActorRef};
use tokio::sync::{Semaphore, watch};

use fleet_core::{Error, ErrorKind, NodeId, SiteName};
use fleet_membership::View;

use super::gateway::{self, GatewayMessage};
use super::manager::{Linked, Manager, ManagerMessage, TICK};
use super::message::{Answer, Request, decode_reply};
use super::stream::LinkStream;
use super::{Answerer, Dialer};

/// Questions of this node under way at once: ractor_cluster's queues have no bound of their own.
const QUESTIONS_MAX: usize = 256;

/// How links are kept.
#[derive(Clone)]
pub struct LinksConfig {
    /// This node.
    pub node: NodeId,
    /// Its site: links lead to nodes of it only.
    pub site: SiteName,
    /// A secret of the fleet. The certificates already prove who is at the other end; this keeps out what else runs on
    /// this machine, so it must be random and long.
    pub cookie: String,
}

/// The links of this node.
#[derive(Clone)]
pub struct Links {
    node: NodeId,
    manager: ActorRef<ManagerMessage>,
    answerer: Arc<dyn Answerer>,
    linked: Linked,
    room: Arc<Semaphore>,
}

impl Links {
    /// Starts the actors; from then on links follow `view`.
    pub async fn start(
        config: LinksConfig,
        view: watch::Receiver<Arc<View>>,
        dialer: Arc<dyn Dialer>,
        answerer: Arc<dyn Answerer>,
    ) -> Result<Self, Error> {
        let linked = Linked::default();
        let manager = Manager {
            node: config.node,
            site: config.site,
            cookie: config.cookie,
            dialer,
            answerer: Arc::clone(&answerer),
            linked: Arc::clone(&linked),
        };
        let (manager, _) = Actor::spawn(None, manager, ())
            .await
            .map_err(|error| Error::new(ErrorKind::Internal, "start the links to other nodes").with_source(error))?;
        tokio::spawn(follow(view, manager.clone()));
        Ok(Self { node: config.node, manager, answerer, linked, room: Arc::new(Semaphore::new(QUESTIONS_MAX)) })
    }

    /// Takes over a stream that the daemon's listener accepted from a node with a valid certificate.
    pub fn accept(&self, stream: LinkStream) -> Result<(), Error> {
        self.manager.cast(ManagerMessage::Accepted(stream)).map_err(|_| stopped())
    }

    /// Asks `node`. This node asks itself without a link.
    pub async fn ask(&self, node: NodeId, request: Request, patience: Duration) -> Result<Answer, Error> {
        let _permit = self.room.try_acquire().map_err(|_| {
            let message = format!("ask node {node}: too many questions are under way");
            Error::new(ErrorKind::ResourceExhausted, message).with_retry_after(TICK)
        })?;
        let late = || Error::new(ErrorKind::DeadlineExceeded, format!("ask node {node}: no answer in {patience:?}"));
        if node == self.node {
            return tokio::time::timeout(patience, self.answerer.answer(request)).await.map_err(|_| late())?;
        }
        let bytes = request.encode()?;
        let gateway = self.gateway(node)?;
        match gateway.call(|reply| GatewayMessage::Ask(bytes, reply), Some(patience)).await {
            Ok(CallResult::Success(bytes)) => decode_reply(&bytes),
            Ok(CallResult::Timeout) => Err(late()),
            Ok(CallResult::SenderError) | Err(_) => Err(no_link(node)),
        }
    }

    /// The nodes that can be asked now, besides this one.
    pub fn linked(&self) -> Vec<NodeId> {
        self.linked.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// Ends all links.
    pub async fn stop(&self) {
        if self.manager.stop_and_wait(Some("links are stopped".to_owned()), None).await.is_err() {
            tracing::debug!("the links had stopped before");
        }
    }

    /// The gateway of `node`, looked up anew for each question: a reference dies with its session. It must come through
    /// the session that leads to `node`, whatever groups others put themselves into.
    fn gateway(&self, node: NodeId) -> Result<ActorRef<GatewayMessage>, Error> {
        let linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner).get(&node).copied();
        let session = linked.ok_or_else(|| no_link(node))?;
        let (scope, group) = gateway::group(node);
        let members = ractor::pg::get_scoped_members(&scope, &group);
        let through_session = |id: ActorId| matches!(id, ActorId::Remote { node_id, .. } if node_id == session);
        let found = members.into_iter().find(|member| through_session(member.get_id()));
        found.map(ActorRef::from).ok_or_else(|| no_link(node))
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("node", &self.node).field("linked", &self.linked()).finish()
    }
}

fn no_link(node: NodeId) -> Error {
    Error::new(ErrorKind::Unavailable, format!("ask node {node}: there is no link to it")).with_retry_after(TICK)
}

fn stopped() -> Error {
    Error::new(ErrorKind::Unavailable, "hand over a link: the links have stopped")
}

/// Tells the manager of every view until either ends.
async fn follow(mut view: watch::Receiver<Arc<View>>, manager: ActorRef<ManagerMessage>) {
    loop {
        let current = Arc::clone(&view.borrow_and_update());
        if manager.cast(ManagerMessage::View(current)).is_err() || view.changed().await.is_err() {
            return;
        }
    }
}
