//! The actor that keeps links as [`Plan`] wants them: it dials, takes streams over, watches sessions and closes them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use ractor_cluster::node::NodeServerSessionInformation;
use ractor_cluster::{NodeEventSubscription, NodeServer, NodeServerMessage, NodeSessionMessage, RactorMessage};
use tokio::time::Instant;

use fleet_core::limits::ACTOR_MESSAGE_BYTES_MAX;
use fleet_core::{Error, NodeId, SiteName};
use fleet_membership::View;

use super::gateway::Gateway;
use super::plan::{Action, Plan, SessionNumber};
use super::stream::{LinkStream, labelled_peer, session_name};
use super::{Answerer, Dialer};

/// How often the plan is asked what is due.
pub(super) const TICK: Duration = Duration::from_millis(100);
/// Room for the framing around the largest message, bytes.
const FRAME_BYTES_EXTRA: u64 = 4_096;

/// The peers that can be asked now, each with the session that leads there. Shared with the handle.
pub(super) type Linked = Arc<Mutex<BTreeMap<NodeId, SessionNumber>>>;

/// What the manager is told.
#[derive(RactorMessage)]
pub(super) enum ManagerMessage {
    /// The view of gossip changed.
    View(Arc<View>),
    /// The daemon's listener took a stream.
    Accepted(LinkStream),
    /// A dial ended.
    Dialled(NodeId, Result<LinkStream, Error>),
    /// A session was opened.
    Opened(NodeServerSessionInformation),
    /// The handshake of a session is done.
    Ready(NodeServerSessionInformation),
    /// A session ended.
    Closed(NodeServerSessionInformation),
    /// Time passed.
    Tick,
}

/// What the manager needs.
pub(super) struct Manager {
    pub(super) node: NodeId,
    pub(super) site: SiteName,
    pub(super) cookie: String,
    pub(super) dialer: Arc<dyn Dialer>,
    pub(super) answerer: Arc<dyn Answerer>,
    pub(super) linked: Linked,
}

/// What the manager has.
pub(super) struct ManagerState {
    plan: Plan,
    started: Instant,
    server: ActorRef<NodeServerMessage>,
    gateway: ActorRef<super::gateway::GatewayMessage>,
    sessions: HashMap<SessionNumber, ActorRef<NodeSessionMessage>>,
}

impl Manager {
    async fn spawn_server(
        &self,
        myself: &ActorRef<ManagerMessage>,
    ) -> Result<ActorRef<NodeServerMessage>, ActorProcessingErr> {
        // ractor_cluster insists on a listener of its own. It gets a free port of loopback, and whatever comes in there
        // is closed as soon as it shows, because it bears no label of ours.
        let (name, host) = ("fleet".to_owned(), self.node.to_string());
        let server = NodeServer::new(0, self.cookie.clone(), name, host, None, None)
            .with_listen_addr(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
            .with_max_inbound_frame_size(ACTOR_MESSAGE_BYTES_MAX as u64 + FRAME_BYTES_EXTRA);
        let (server, _) = Actor::spawn_linked(None, server, (), myself.get_cell()).await?;
        let subscription = Box::new(Subscription(myself.clone()));
        server.cast(NodeServerMessage::SubscribeToEvents { id: "links".to_owned(), subscription })?;
        Ok(server)
    }

    async fn spawn_gateway(
        &self,
        myself: &ActorRef<ManagerMessage>,
    ) -> Result<ActorRef<super::gateway::GatewayMessage>, ActorProcessingErr> {
        let gateway = Gateway { node: self.node, answerer: Arc::clone(&self.answerer) };
        Ok(Actor::spawn_linked(None, gateway, (), myself.get_cell()).await?.0)
    }

    fn set_linked(&self, change: impl FnOnce(&mut BTreeMap<NodeId, SessionNumber>)) {
        change(&mut self.linked.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The peers worth a link: active nodes of this site, where their listeners are.
    fn alive(&self, view: &View) -> Vec<(NodeId, String)> {
        let peers = view.active_peers().filter_map(|member| {
            let metadata = member.metadata.as_ref().filter(|metadata| metadata.site == self.site)?;
            Some((member.node, metadata.grpc_address.clone()))
        });
        peers.filter(|(_, address)| !address.is_empty()).collect()
    }

    fn take_stream(&self, state: &ManagerState, stream: LinkStream, is_server: bool) -> Result<(), ActorProcessingErr> {
        if !state.plan.has_room() {
            tracing::warn!(peer = %stream.peer(), "link refused: too many are open");
            return Ok(());
        }
        state.server.cast(NodeServerMessage::ConnectionOpenedExternal { stream: Box::new(stream), is_server })?;
        Ok(())
    }

    fn opened(&self, state: &mut ManagerState, session: NodeServerSessionInformation) {
        let Some(peer) = labelled_peer(&session.peer_addr) else {
            tracing::warn!(from = %session.peer_addr, "link refused: it did not come through the daemon's listener");
            session.actor.stop(Some("not from the daemon".to_owned()));
            return;
        };
        state.plan.opened(state.started.elapsed(), session.node_id, peer);
        state.sessions.insert(session.node_id, session.actor);
    }

    fn ready(&self, state: &mut ManagerState, session: &NodeServerSessionInformation) {
        let Some(peer) = labelled_peer(&session.peer_addr) else { return };
        let claimed = session.peer_name.as_ref().map(|claimed| claimed.name.as_str());
        if claimed != Some(session_name(peer).as_str()) {
            tracing::warn!(%peer, ?claimed, "link refused: the peer calls itself otherwise than its certificate");
            session.actor.stop(Some("other name than the certificate's".to_owned()));
            return;
        }
        tracing::info!(%peer, "link is up");
        state.plan.ready(session.node_id);
        self.set_linked(|linked| {
            linked.insert(peer, session.node_id);
        });
    }

    fn closed(&self, state: &mut ManagerState, session: &NodeServerSessionInformation) {
        state.sessions.remove(&session.node_id);
        state.plan.closed(state.started.elapsed(), session.node_id, jitter());
        if let Some(peer) = labelled_peer(&session.peer_addr) {
            tracing::info!(%peer, "link is down");
            self.set_linked(|linked| {
                if linked.get(&peer) == Some(&session.node_id) {
                    linked.remove(&peer);
                }
            });
        }
    }

    fn carry_out(&self, myself: &ActorRef<ManagerMessage>, state: &mut ManagerState) {
        for action in state.plan.due(state.started.elapsed()) {
            match action {
                Action::Dial { node, address } => {
                    let (dial, manager) = (self.dialer.dial(node, address), myself.clone());
                    // One dial per peer at a time, so as many as there are peers.
                    tokio::spawn(async move {
                        let outcome = dial.await;
                        if manager.cast(ManagerMessage::Dialled(node, outcome)).is_err() {
                            tracing::debug!(%node, "a dial ended after the links did");
                        }
                    });
                }
                Action::Close { session, reason } => {
                    if let Some(actor) = state.sessions.get(&session) {
                        tracing::info!(reason, "link closed");
                        actor.stop(Some(reason.to_owned()));
                    }
                }
            }
        }
    }

    fn dialled(
        &self,
        state: &mut ManagerState,
        node: NodeId,
        outcome: Result<LinkStream, Error>,
    ) -> Result<(), ActorProcessingErr> {
        let outcome = outcome.map(|stream| Some(stream).filter(|stream| stream.peer() == node));
        let succeeded = matches!(outcome, Ok(Some(_)));
        state.plan.dialled(state.started.elapsed(), node, succeeded, jitter());
        match outcome {
            Ok(Some(stream)) => self.take_stream(state, stream, false),
            Ok(None) => {
                tracing::warn!(%node, "link not made: another node answered");
                Ok(())
            }
            Err(error) => {
                tracing::debug!(%node, error = %fleet_core::error::chain(&error), "link not made");
                Ok(())
            }
        }
    }
}

/// A random share for a pause. Not a secret, only apart from other nodes'.
fn jitter() -> f64 {
    let low = uuid::Uuid::new_v4().as_u128() as u32;
    f64::from(low) / f64::from(u32::MAX)
}

impl Actor for Manager {
    type Msg = ManagerMessage;
    type State = ManagerState;
    type Arguments = ();

    async fn pre_start(&self, myself: ActorRef<ManagerMessage>, (): ()) -> Result<ManagerState, ActorProcessingErr> {
        let server = self.spawn_server(&myself).await?;
        let gateway = self.spawn_gateway(&myself).await?;
        myself.send_interval(TICK, || ManagerMessage::Tick);
        Ok(ManagerState {
            plan: Plan::new(self.node),
            started: Instant::now(),
            server,
            gateway,
            sessions: HashMap::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<ManagerMessage>,
        message: ManagerMessage,
        state: &mut ManagerState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            ManagerMessage::View(view) => {
                state.plan.alive(state.started.elapsed(), self.alive(&view).into_iter());
                self.carry_out(&myself, state);
            }
            ManagerMessage::Accepted(stream) => self.take_stream(state, stream, true)?,
            ManagerMessage::Dialled(node, outcome) => self.dialled(state, node, outcome)?,
            ManagerMessage::Opened(session) => self.opened(state, session),
            ManagerMessage::Ready(session) => self.ready(state, &session),
            ManagerMessage::Closed(session) => self.closed(state, &session),
            ManagerMessage::Tick => self.carry_out(&myself, state),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<ManagerMessage>,
        event: SupervisionEvent,
        state: &mut ManagerState,
    ) -> Result<(), ActorProcessingErr> {
        let ended = match event {
            SupervisionEvent::ActorFailed(actor, reason) => {
                tracing::error!(%reason, "an actor of the links failed and is replaced");
                actor.get_id()
            }
            SupervisionEvent::ActorTerminated(actor, _, _) => actor.get_id(),
            _ => return Ok(()),
        };
        if ended == state.server.get_id() {
            self.set_linked(BTreeMap::clear);
            state.plan.all_closed(state.started.elapsed(), jitter());
            state.sessions.clear();
            state.server = self.spawn_server(&myself).await?;
        } else if ended == state.gateway.get_id() {
            state.gateway = self.spawn_gateway(&myself).await?;
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<ManagerMessage>,
        _state: &mut ManagerState,
    ) -> Result<(), ActorProcessingErr> {
        self.set_linked(BTreeMap::clear);
        Ok(())
    }
}

/// Passes what the node server reports on to the manager.
struct Subscription(ActorRef<ManagerMessage>);

impl Subscription {
    fn tell(&self, message: ManagerMessage) {
        if self.0.cast(message).is_err() {
            tracing::debug!("a session changed after the links ended");
        }
    }
}

impl NodeEventSubscription for Subscription {
    fn node_session_opened(&self, session: NodeServerSessionInformation) {
        self.tell(ManagerMessage::Opened(session));
    }

    fn node_session_disconnected(&self, session: NodeServerSessionInformation) {
        self.tell(ManagerMessage::Closed(session));
    }

    fn node_session_authenticated(&self, _session: NodeServerSessionInformation) {}

    fn node_session_ready(&self, session: NodeServerSessionInformation) {
        self.tell(ManagerMessage::Ready(session));
    }
}
