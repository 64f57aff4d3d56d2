//! Connections from node to node: gRPC channels and actor links, both with our node certificate, both only to the very
//! node that was meant, or to any where that is what was meant. Not a pool: whoever needs a peer keeps its channel.
//!
//! Invariant: what answers with another node's certificate, or a revoked one, gets nothing.

use fleet_core::{Error, NodeId};
use rustls_pki_types::CertificateDer;
use tokio::runtime::Handle;
use tonic::transport::Channel;

use crate::connect::{Connector, Established, NodeStream};
use crate::revocation::Revocations;
use crate::tls::{ALPN_ACTORS, ALPN_PEER, CertificateCell, ClientTls, Trust};
use crate::validity::ValidityClock;

/// What a node needs to dial other nodes of its fleet. A cheap handle.
#[derive(Clone, Debug)]
pub struct PeerDialer {
    tls: ClientTls,
}

impl PeerDialer {
    /// A dialer that believes `root` and shows what is in `certificate` at the time of each connection.
    pub fn new(
        root: CertificateDer<'static>,
        certificate: CertificateCell,
        revocations: Revocations,
        validity: ValidityClock,
    ) -> Self {
        let tls = ClientTls {
            trust: Trust::Root(root),
            expected: None,
            certificate: Some(certificate),
            revocations,
            validity,
        };
        Self { tls }
    }

    /// A gRPC channel to `node` at `address`, which connects on use and again after a loss. Its work runs on `runtime`.
    pub fn channel(&self, runtime: &Handle, address: &str, node: NodeId) -> Result<Channel, Error> {
        let _context = runtime.enter();
        Connector::new(self.towards(node), ALPN_PEER, Established::FirstByte)?.channel_lazy(address)
    }

    /// A gRPC channel to whichever node of the fleet answers at `address`, for what any of them may say. Otherwise as
    /// [`Self::channel`].
    pub fn channel_to_any(&self, runtime: &Handle, address: &str) -> Result<Channel, Error> {
        let _context = runtime.enter();
        Connector::new(self.tls.clone(), ALPN_PEER, Established::FirstByte)?.channel_lazy(address)
    }

    /// A link for remote actors to `node` at `address`.
    pub async fn actor_stream(&self, address: &str, node: NodeId) -> Result<NodeStream, Error> {
        Connector::new(self.towards(node), ALPN_ACTORS, Established::Handshake)?.dial(address).await
    }

    /// Connects to `node` at `address` and hangs up: whether it takes us.
    ///
    /// # Errors
    /// What kept it from taking us.
    pub async fn greet(&self, address: &str, node: NodeId) -> Result<(), Error> {
        Connector::new(self.towards(node), ALPN_PEER, Established::FirstByte)?.dial(address).await.map(drop)
    }

    fn towards(&self, node: NodeId) -> ClientTls {
        ClientTls { expected: Some(node), ..self.tls.clone() }
    }
}
