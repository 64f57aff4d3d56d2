//! Other sites of the fleet. In the group of the first site these rows are the fleet's registry: whoever is in them was
//! founded, and no site twice. Elsewhere they are a copy.

use fleet_core::{Digest, GroupId, JobId, NodeId, SiteName, Timestamp};
use serde::{Deserialize, Serialize};

use super::content::Payload;
use super::token::TokenId;

/// What is left of the token that a site was founded with: it goes on at the new site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundingToken {
    /// Its id.
    pub id: TokenId,
    /// SHA-256 of its secret.
    pub secret: Digest,
    /// How many nodes may still use it.
    pub uses_left: u32,
    /// When it stops being valid.
    pub expires_at: Timestamp,
}

/// A site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteRecord {
    /// The group that agrees on its log.
    pub group: GroupId,
    /// The node that founds it; only this one may try again.
    pub founder: NodeId,
    /// SHA-256 of the founder's public key: what it is known by when it tries again.
    pub public_key: Digest,
    /// Certificate of the site's authority, DER; empty for the first site, whose authority is the fleet's root.
    pub authority: Payload,
    /// `host:port` of some of its nodes, as the site last said.
    pub contacts: Vec<String>,
    /// When it said so, by its own leader's clock; 0 for what its founder said.
    pub contacts_at: Timestamp,
    /// When it was recorded.
    pub founded_at: Timestamp,
    /// What is left of the token it was founded with; kept only in the registry.
    pub token: Option<FoundingToken>,
}

/// A site that was removed from the fleet, and how far this group has come with forgetting it. The row stays: its group
/// never comes back, whoever has the name since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedSite {
    /// What it was called.
    pub site: SiteName,
    /// When this group heard of it.
    pub at: Timestamp,
    /// Which rows about it are looked for next.
    pub sweep: Sweep,
}

/// Which rows about a removed site are looked for, in the order in which that is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sweep {
    /// Jobs that went there, those after this one.
    Moves(Option<JobId>),
    /// Jobs that came from there, those after this one.
    Origins(Option<(JobId, GroupId)>),
    /// What was decided of its moves.
    Arrivals,
    /// None are left.
    Over,
}
