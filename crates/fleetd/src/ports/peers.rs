//! Where other nodes answer, and a warm channel to each. The address comes from gossip, else from what the group admitted.
//!
//! Not authority: that the right node answers is proved by its certificate at each connection.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use fleet_api::PeerDialer;
use fleet_api::pb::peer::peer_client::PeerClient;
use fleet_core::limits::GRPC_MESSAGE_BYTES_MAX;
use fleet_core::{Error, ErrorKind, NodeId};
use tokio::runtime::Handle;
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
    channels: BTreeMap<(NodeId, Purpose), (String, Channel)>,
}

impl Peers {
    /// Peers dialled by `dialer`, whose connections run on `runtime`.
    pub fn new(dialer: PeerDialer, runtime: Handle) -> Self {
        Self { shared: Arc::new(Shared { dialer, runtime, known: Mutex::new(Known::default()) }) }
    }

    /// Notes where nodes answer. Nodes not named keep the address they had.
    pub fn learn(&self, addresses: impl IntoIterator<Item = (NodeId, String)>) {
        let mut known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (node, address) in addresses {
            if known.addresses.get(&node) != Some(&address) {
                known.channels.retain(|(channel_node, _), _| *channel_node != node);
                known.addresses.insert(node, address);
            }
        }
    }

    /// Where `node` answers, if known.
    pub fn address(&self, node: NodeId) -> Option<String> {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner).addresses.get(&node).cloned()
    }

    /// Which node answers at `address`, if known.
    pub fn node_at(&self, address: &str) -> Option<NodeId> {
        let known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.addresses.iter().find(|(_, at)| at.as_str() == address).map(|(node, _)| *node)
    }

    /// The channel to `node` for `purpose`; it connects on use and again after a loss.
    ///
    /// # Errors
    /// `Unavailable` if nobody knows where the node answers.
    pub fn channel(&self, node: NodeId, purpose: Purpose) -> Result<Channel, Error> {
        let mut known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        let address = known.addresses.get(&node).cloned().ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, format!("reach node {node}: its address is not known yet"))
        })?;
        if let Some((at, channel)) = known.channels.get(&(node, purpose))
            && *at == address
        {
            return Ok(channel.clone());
        }
        if known.channels.len() >= CHANNELS_MAX {
            known.channels.clear();
        }
        let channel = self.shared.dialer.channel(&self.shared.runtime, &address, node)?;
        known.channels.insert((node, purpose), (address, channel.clone()));
        Ok(channel)
    }

    /// Forgets every channel, so that the next use of each shows the certificate of now. Calls under way go on.
    pub fn forget_channels(&self) {
        self.shared.known.lock().unwrap_or_else(PoisonError::into_inner).channels.clear();
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
