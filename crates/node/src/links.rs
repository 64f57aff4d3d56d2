//! Links between the nodes of a site: asking another node something *now*, by remote actors (ractor_cluster) over streams
//! that the daemon makes.
//!
//! What travels here is a hint or a look: live state, log tails, cancel and drain hints. Nothing that must be durable,
//! nothing large, nothing between sites. With every link down the fleet works on and only answers slower.
//!
//! A stream comes in only through [`Dialer`] or [`Links::accept`], proved by a certificate; whatever reaches
//! ractor_cluster otherwise is closed at once. Links follow gossip: the lower node id dials, and a link to a node that
//! stays down is dropped, because ractor_cluster itself never notices a silent peer.

mod gateway;
mod handle;
mod manager;
mod message;
mod plan;
mod stream;

#[cfg(test)]
mod tests;

pub use handle::{Links, LinksConfig};
pub use message::{Answer, JobLive, LogTail, NodeStatus, OutputStream, Request};
pub use stream::LinkStream;

use futures_util::future::BoxFuture;

use fleet_core::{Error, NodeId};

/// Opens streams to other nodes; the daemon implements it with TLS.
pub trait Dialer: Send + Sync + 'static {
    /// A stream to `node` at `address`, proved by its certificate to end there.
    fn dial(&self, node: NodeId, address: String) -> BoxFuture<'static, Result<LinkStream, Error>>;
}

/// Answers what other nodes ask of this one.
pub trait Answerer: Send + Sync + 'static {
    /// The answer to `request`. Several may be asked for at once; each is bounded by the asker's patience.
    fn answer(&self, request: Request) -> BoxFuture<'static, Result<Answer, Error>>;
}
