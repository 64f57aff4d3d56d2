//! The actor links of this node: started beside everything else, and missed by nothing if they are not.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::error::chain;
use fleet_core::{Error, ErrorKind};
use fleet_membership::Membership;
use fleet_node::Node;
use fleet_node::links::{LinkStream, Links, LinksConfig};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::identity::Identity;
use crate::listener::ActorLink;
use crate::ports::{ActorDialer, NodeAnswerer, cookie};
use crate::site::Site;

/// How long the actors may take to stop.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// Starts the links on `runtime`, if they are `wanted`. Without them the node only answers from what gossip told it, so a
/// failure is logged and nothing more.
pub(super) async fn start(
    wanted: bool,
    identity: &Identity,
    site: &Site,
    node: &Node,
    membership: &Membership,
    runtime: &Handle,
) -> Option<Links> {
    if !wanted {
        tracing::info!("no actor links, as actors.links says: what is shown of other nodes comes from gossip");
        return None;
    }
    match try_start(identity, site, node, membership, runtime).await {
        Ok(links) => Some(links),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "no actor links: what is shown of other nodes comes from gossip");
            None
        }
    }
}

async fn try_start(
    identity: &Identity,
    site: &Site,
    node: &Node,
    membership: &Membership,
    runtime: &Handle,
) -> Result<Links, Error> {
    let secret = identity.link_secret().ok_or_else(|| {
        Error::new(ErrorKind::Internal, "start the links to other nodes: the data directory has no gossip key")
    })?;
    let cookie = cookie(&secret, identity.fleet_id);
    let config = LinksConfig { node: identity.node_id, site: identity.site.clone(), cookie };
    let dialer = Arc::new(ActorDialer::new(site.peers().dialer().clone()));
    let answerer = Arc::new(NodeAnswerer::new(identity.name.clone(), site.clone(), node.clone()));
    let started = runtime.spawn(Links::start(config, membership.view(), dialer, answerer)).await;
    started.map_err(|source| Error::new(ErrorKind::Internal, "start the links to other nodes").with_source(source))?
}

/// Hands over what the listener took, until the listener ends. Without links whoever dials is hung up on.
pub(super) async fn take_over(links: Option<Links>, mut inbound: mpsc::Receiver<ActorLink>) {
    while let Some(ActorLink { node, stream, .. }) = inbound.recv().await {
        let taken = links.as_ref().map(|links| links.accept(LinkStream::new(node, stream)));
        if let Some(Err(error)) = taken {
            tracing::debug!(%node, %error, "an actor link was not taken over");
        }
    }
}

/// Ends the links.
pub(super) async fn stop(links: Option<&Links>) {
    let Some(links) = links else { return };
    if tokio::time::timeout(STOP_GRACE, links.stop()).await.is_err() {
        tracing::warn!("the actor links do not stop in time");
    }
}
