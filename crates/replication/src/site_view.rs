//! What gossip holds of the site's nodes, as the group needs it: hints for who tries first and who should vote.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_core::{BootInstant, NodeId};

/// A node of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteNode {
    /// The node.
    pub node: NodeId,
    /// Since when gossip has held it down; `None`: it is alive.
    pub down_since: Option<BootInstant>,
    /// Whether the operator took it out of the fleet.
    pub is_removed: bool,
    /// The newest version of commands that it says it can apply; `None`: it has not said.
    pub commands: Option<u32>,
}

/// The site's nodes, this one among them. Only nodes that the group admitted belong here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteView {
    /// The nodes.
    pub nodes: Vec<SiteNode>,
}

impl SiteView {
    /// Those that gossip holds alive.
    pub fn alive(&self) -> BTreeSet<NodeId> {
        self.nodes.iter().filter(|node| node.down_since.is_none()).map(|node| node.node).collect()
    }
}

impl SiteNode {
    /// How long it has been down at `now`.
    pub(crate) fn down_for(&self, now: BootInstant) -> Duration {
        self.down_since.map_or(Duration::ZERO, |since| now.saturating_since(since))
    }
}
