//! The other copies of the catalog within the site, over gRPC.

use std::collections::BTreeSet;

use fleet_api::pb::peer::CatalogMessage;
use fleet_api::pb::peer::catalog_sync_client::CatalogSyncClient;
use fleet_api::status::error_of;
use fleet_core::limits::GRPC_MESSAGE_BYTES_MAX;
use fleet_core::{Error, NodeId, SiteName};
use fleet_membership::Membership;
use fleet_node::catalog::CatalogPeers;
use fleet_store::record::{NodeStanding, Payload};
use futures_util::future::BoxFuture;

use super::peers::Purpose;
use crate::site::Site;

/// Reaches the site's other nodes.
#[derive(Clone)]
pub struct CatalogPort {
    site: Site,
    name: SiteName,
    membership: Membership,
}

impl CatalogPort {
    /// Reaches the nodes of `site`, called `name`, that `membership` holds for alive.
    pub fn new(site: Site, name: SiteName, membership: Membership) -> Self {
        Self { site, name, membership }
    }
}

impl CatalogPeers for CatalogPort {
    fn others(&self) -> Vec<NodeId> {
        let (view, own) = (self.membership.current_view(), self.site.group().node());
        view.active_in(&self.name).map(|member| member.node).filter(|node| *node != own).collect()
    }

    fn members(&self) -> Option<BTreeSet<NodeId>> {
        let roster = self.site.roster().ok()?;
        let there = roster.nodes.iter().filter(|node| node.standing != NodeStanding::Removed);
        let nodes: BTreeSet<NodeId> = there.map(|node| node.id).collect();
        // Whose log has not come so far that it knows itself does not know the others either.
        nodes.contains(&self.site.group().node()).then_some(nodes)
    }

    fn ask(&self, node: NodeId, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        let channel = self.site.peers().channel(node, Purpose::Catalog);
        Box::pin(async move {
            let mut client = CatalogSyncClient::new(channel?)
                .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
            let answer = client.ask(CatalogMessage { payload: message.0.into() }).await;
            answer.map(|answer| answer.into_inner().payload.into()).map_err(|status| error_of(&status))
        })
    }
}
