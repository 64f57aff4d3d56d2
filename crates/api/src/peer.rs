//! Connections from node to node: gRPC channels and actor links, both with our node certificate, both only to the very
//! node that was meant, or to any of the site that is meant. Not a pool: whoever needs a peer keeps its channel.
//!
//! Invariants: what answers with another node's certificate, or a revoked one, gets nothing; nor does a node of another
//! site than the one meant, which is our own unless another was named.

use fleet_core::{Error, NodeId};
use rustls_pki_types::CertificateDer;
use tokio::runtime::Handle;
use tonic::transport::Channel;

use crate::chain::Issuer;
use crate::connect::{Connector, Established, NodeStream};
use crate::pulse::Pulse;
use crate::revocation::Revocations;
use crate::tls::{ALPN_ACTORS, ALPN_PEER, CertificateCell, ClientTls, Trust};
use crate::validity::ValidityClock;

/// What a node needs to dial other nodes of its fleet. A cheap handle.
#[derive(Clone, Debug)]
pub struct PeerDialer {
    tls: ClientTls,
    root: CertificateDer<'static>,
    certificate: CertificateCell,
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
            trust: Trust::Root(root.clone()),
            expected: None,
            issuer: None,
            certificate: Some(certificate.clone()),
            revocations,
            validity,
        };
        Self { tls, root, certificate }
    }

    /// A gRPC channel to `node` at `address`, which connects on use and again after a loss. Its work runs on `runtime`;
    /// `pulse` follows its connections.
    pub fn channel(&self, runtime: &Handle, address: &str, node: NodeId, pulse: &Pulse) -> Result<Channel, Error> {
        let _context = runtime.enter();
        self.followed(node, pulse)?.channel_lazy(address)
    }

    /// The same, connected. Its work runs on the runtime of this call.
    ///
    /// # Errors
    /// What kept it from connecting.
    pub async fn connected_channel(&self, address: &str, node: NodeId, pulse: &Pulse) -> Result<Channel, Error> {
        self.followed(node, pulse)?.channel(address).await
    }

    fn followed(&self, node: NodeId, pulse: &Pulse) -> Result<Connector, Error> {
        let connector = Connector::new(self.towards(Some(node))?, ALPN_PEER, Established::FirstByte)?;
        Ok(connector.followed_by(pulse.clone()))
    }

    /// A gRPC channel to whichever node of our site answers at `address`, for what any of them may say. Otherwise as
    /// [`Self::channel`].
    pub fn channel_to_any(&self, runtime: &Handle, address: &str) -> Result<Channel, Error> {
        let _context = runtime.enter();
        Connector::new(self.towards(None)?, ALPN_PEER, Established::FirstByte)?.channel_lazy(address)
    }

    /// A gRPC channel to whichever node of the site whose nodes `issuer` vouches for answers at `address`. Otherwise as
    /// [`Self::channel`].
    pub fn channel_to_site(&self, runtime: &Handle, address: &str, issuer: Issuer) -> Result<Channel, Error> {
        let _context = runtime.enter();
        let tls = ClientTls { issuer: Some(issuer), ..self.tls.clone() };
        Connector::new(tls, ALPN_PEER, Established::FirstByte)?.channel_lazy(address)
    }

    /// A link for remote actors to `node` at `address`.
    pub async fn actor_stream(&self, address: &str, node: NodeId) -> Result<NodeStream, Error> {
        Connector::new(self.towards(Some(node))?, ALPN_ACTORS, Established::Handshake)?.dial(address).await
    }

    /// Connects to `node` at `address` and hangs up: whether it takes us.
    ///
    /// # Errors
    /// What kept it from taking us.
    pub async fn greet(&self, address: &str, node: NodeId) -> Result<(), Error> {
        Connector::new(self.towards(Some(node))?, ALPN_PEER, Established::FirstByte)?.dial(address).await.map(drop)
    }

    /// TLS to `expected`, or any node, of our own site.
    fn towards(&self, expected: Option<NodeId>) -> Result<ClientTls, Error> {
        let issuer = Some(self.certificate.issuer(&self.root)?);
        Ok(ClientTls { expected, issuer, ..self.tls.clone() })
    }
}
