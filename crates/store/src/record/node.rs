//! Nodes of a site, as its group has admitted them. Whether one is alive is gossip's to say.

use fleet_core::{NodeId, SiteName, Timestamp};
use serde::{Deserialize, Serialize};

/// What a node says of itself when it joins or starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeProfile {
    /// Its name, unique within the site.
    pub name: String,
    /// Its site.
    pub site: SiteName,
    /// `host:port` where its gRPC and gossip can be reached.
    pub address: String,
    /// `host:port` of its HTTP listener.
    pub http_address: String,
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// What its configuration allows, such as `http`, sorted.
    pub capabilities: Vec<String>,
    /// Version of its software.
    pub version: String,
}

/// A node's certificate, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCertificate {
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
    /// When it stops being valid.
    pub not_after: Timestamp,
}

/// Whether jobs may be placed on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeStanding {
    /// They may.
    Active,
    /// No new ones; those it has are moved at the deadline, if there is one.
    Draining {
        /// When what still runs is stopped and moved.
        deadline: Option<Timestamp>,
    },
    /// It was taken out of the fleet, for good.
    Removed,
}

/// A node of the site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its id.
    pub id: NodeId,
    /// What it said of itself last.
    pub profile: NodeProfile,
    /// Its newest certificate; `None` in a development fleet that issued none.
    pub certificate: Option<NodeCertificate>,
    /// Whether jobs may be placed on it.
    pub standing: NodeStanding,
    /// When it was first admitted.
    pub joined_at: Timestamp,
}
