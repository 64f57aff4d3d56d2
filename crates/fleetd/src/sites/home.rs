//! What the links need to know of this node's own site, as a port: the daemon reads it from group, gossip and store, tests
//! make it up.

use std::collections::{BTreeMap, BTreeSet};

use fleet_api::Issuer;
use fleet_core::{GroupId, NodeId, SiteName};
use fleet_node::site_link::{Hello, SiteReport};
use futures_util::stream::BoxStream;

/// Where another site may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteContact {
    /// The group that agrees on its log.
    pub group: GroupId,
    /// `host:port` of its nodes, the likeliest first.
    pub addresses: Vec<String>,
}

/// This node's own site, as of now.
pub trait Home: Send + Sync + 'static {
    /// What this node says of itself at the start of a link.
    fn hello(&self) -> Hello;
    /// Whether this node leads the site's group and serves.
    fn is_leading(&self) -> bool;
    /// Who leads, if that is another node.
    fn other_leader(&self) -> Option<NodeId>;
    /// Whether `node` belongs to the site.
    fn is_member(&self, node: NodeId) -> bool;
    /// The other living nodes of the site that say they hold a link to `site`.
    fn holders(&self, site: &SiteName) -> Vec<NodeId>;
    /// All other living nodes of the site that say they hold a link to any site.
    fn all_holders(&self) -> BTreeSet<NodeId>;
    /// What the site says of itself to others.
    fn report(&self) -> SiteReport;
    /// Who vouches for the nodes of `site`.
    fn issuer(&self, site: &SiteName) -> Issuer;
    /// The groups of sites that were removed from the fleet.
    fn removed(&self) -> BTreeSet<GroupId>;
    /// The other sites of the fleet, without those.
    fn contacts(&self) -> BTreeMap<SiteName, SiteContact>;
    /// Yields whenever something that is told here may have changed since this call, at most some twenty times a second.
    fn changes(&self) -> BoxStream<'static, ()>;
}
