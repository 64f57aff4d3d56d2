//! Where other nodes answer, and a warm channel to each. The address comes from gossip, else from what the group admitted.
//!
//! Not authority: that the right node answers is proved by its certificate at each connection. Which connections are given
//! up for their silence is decided in `api/silence`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fleet_api::pb::peer::peer_client::PeerClient;
use fleet_api::silence::{Lost, is_silent};
use fleet_api::{PeerDialer, Pulse};
use fleet_core::limits::GRPC_MESSAGE_BYTES_MAX;
use fleet_core::{Error, ErrorKind, NodeId};
use tokio::runtime::Handle;
use tokio::time::Instant;
use tonic::transport::Channel;

/// Most peers a channel is kept to.
const CHANNELS_MAX: usize = 1_024;

/// Which of a peer's connections. Those of the robot link are its own, so that work never delays a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// The group's log and everything else.
    Group,
    /// Heartbeats of the robot.
    Heartbeats,
    /// The robot's work.
    Work,
    /// Requests of clients that are passed on to the leader.
    Forward,
    /// The catalog, whose rows are many and may wait.
    Catalog,
}

/// Channels to peers. A cheap handle.
#[derive(Clone)]
pub struct Peers {
    shared: Arc<Shared>,
}

struct Shared {
    dialer: PeerDialer,
    runtime: Handle,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    addresses: BTreeMap<NodeId, String>,
    channels: BTreeMap<(NodeId, Purpose), Kept>,
    lost: Lost,
}

/// A channel that is kept.
#[derive(Clone)]
struct Kept {
    address: String,
    channel: Channel,
    pulse: Pulse,
    /// Whether another one is dialled, which may take its place.
    is_being_replaced: bool,
}

impl Kept {
    fn new(address: String, channel: Channel, pulse: Pulse) -> Self {
        Self { address, channel, pulse, is_being_replaced: false }
    }
}

impl Peers {
    /// Peers dialled by `dialer`, whose connections run on `runtime`.
    pub fn new(dialer: PeerDialer, runtime: Handle) -> Self {
        Self { shared: Arc::new(Shared { dialer, runtime, known: Mutex::new(Known::default()) }) }
    }

    /// Notes where nodes answer. Nodes not named keep the address they had.
    pub fn learn(&self, addresses: impl IntoIterator<Item = (NodeId, String)>) {
        let mut known = self.known();
        for (node, address) in addresses {
            if known.addresses.get(&node) != Some(&address) {
                known.channels.retain(|(channel_node, _), _| *channel_node != node);
                known.addresses.insert(node, address);
            }
        }
    }

    /// Where `node` answers, if known.
    pub fn address(&self, node: NodeId) -> Option<String> {
        self.known().addresses.get(&node).cloned()
    }

    /// Which node answers at `address`, if known.
    pub fn node_at(&self, address: &str) -> Option<NodeId> {
        let known = self.known();
        known.addresses.iter().find(|(_, at)| at.as_str() == address).map(|(node, _)| *node)
    }

    /// The channel to `node` for `purpose`; it connects on use and again after a loss.
    ///
    /// # Errors
    /// `Unavailable` if nobody knows where the node answers.
    pub fn channel(&self, node: NodeId, purpose: Purpose) -> Result<Channel, Error> {
        let mut known = self.known();
        let address = known.addresses.get(&node).cloned().ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, format!("reach node {node}: its address is not known yet"))
        })?;
        if let Some(kept) = known.channels.get(&(node, purpose))
            && kept.address == address
        {
            return Ok(kept.channel.clone());
        }
        if known.channels.len() >= CHANNELS_MAX {
            known.channels.clear();
        }
        let pulse = Pulse::default();
        let channel = self.shared.dialer.channel(&self.shared.runtime, &address, node, &pulse)?;
        known.channels.insert((node, purpose), Kept::new(address, channel.clone(), pulse));
        Ok(channel)
    }

    /// Notes that `node` does not answer.
    pub fn lost(&self, node: NodeId) {
        self.known().lost.lose(node);
    }

    /// Notes that `node` was heard just now, on whichever way. If it had been lost, its connections that are still silent are
    /// broken: calls on them fail at once instead of waiting for TCP, and the next ones connect anew. Not the group's: its
    /// calls have short deadlines, and [`Self::missed`] replaces it without breaking anything.
    pub fn heard(&self, node: NodeId) {
        let mut known = self.known();
        if !known.lost.hear(node) {
            return;
        }
        let now = Instant::now();
        for ((_, purpose), kept) in known.channels.iter().filter(|((to, _), _)| *to == node) {
            if *purpose != Purpose::Group && is_silent(kept.pulse.heard_at(), now) {
                tracing::debug!(%node, ?purpose, "heard again: a silent connection is broken");
                metrics::counter!("fleet_peer_connections_broken").increment(1);
                kept.pulse.break_off();
            }
        }
    }

    /// Notes that a call of `node` for `purpose` got no answer in time. If its connection is silent, the node is lost, and
    /// another connection is dialled, which takes the place of that one if it is made before that one says something.
    pub fn missed(&self, node: NodeId, purpose: Purpose) {
        let mut known = self.known();
        let Some(kept) = known.channels.get(&(node, purpose)) else { return };
        if kept.is_being_replaced || !is_silent(kept.pulse.heard_at(), Instant::now()) {
            return;
        }
        known.lost.lose(node);
        let Some(kept) = known.channels.get_mut(&(node, purpose)) else { return };
        kept.is_being_replaced = true;
        let (peers, address) = (self.clone(), kept.address.clone());
        // It ends by itself when connecting has succeeded or its time is over.
        self.shared.runtime.spawn(async move {
            let pulse = Pulse::default();
            let channel = peers.shared.dialer.connected_channel(&address, node, &pulse).await;
            peers.replace((node, purpose), channel.map(|channel| Kept::new(address, channel, pulse)));
        });
    }

    fn replace(&self, place: (NodeId, Purpose), made: Result<Kept, Error>) {
        let mut known = self.known();
        let Some(kept) = known.channels.get_mut(&place).filter(|kept| kept.is_being_replaced) else { return };
        kept.is_being_replaced = false;
        match made {
            Ok(made) if made.address == kept.address && is_silent(kept.pulse.heard_at(), Instant::now()) => {
                metrics::counter!("fleet_peer_connections_replaced").increment(1);
                // Calls under way on the other one end with their deadlines.
                *kept = made;
            }
            Ok(_) => {}
            Err(error) => {
                let (node, purpose) = place;
                tracing::debug!(%node, ?purpose, %error, "a silent connection is not replaced");
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets every channel, so that the next use of each shows the certificate of now. Calls under way go on.
    pub fn forget_channels(&self) {
        self.known().channels.clear();
    }

    /// A client of the peer service of `node` for `purpose`.
    ///
    /// # Errors
    /// `Unavailable` if nobody knows where the node answers.
    pub fn client(&self, node: NodeId, purpose: Purpose) -> Result<PeerClient<Channel>, Error> {
        Ok(client(self.channel(node, purpose)?))
    }

    /// A client of the peer service of whichever node of the fleet answers at `address`. Its connection is not kept.
    ///
    /// # Errors
    /// `InvalidInput` if it is no address.
    pub fn client_at(&self, address: &str) -> Result<PeerClient<Channel>, Error> {
        Ok(client(self.shared.dialer.channel_to_any(&self.shared.runtime, address)?))
    }

    /// The runtime on which the connections run.
    pub fn runtime(&self) -> &Handle {
        &self.shared.runtime
    }

    /// What is needed to dial streams of other protocols.
    pub fn dialer(&self) -> &PeerDialer {
        &self.shared.dialer
    }
}

fn client(channel: Channel) -> PeerClient<Channel> {
    PeerClient::new(channel)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
}
