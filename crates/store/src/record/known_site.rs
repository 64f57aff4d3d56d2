//! Other sites of the fleet. In the group of the first site these rows are the fleet's registry: whoever is in them was
//! founded, and no site twice. Elsewhere they are a copy.

use fleet_core::{Digest, GroupId, NodeId, Timestamp};
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

impl SiteRecord {
    /// Whether it is the first site of the fleet.
    pub fn is_first(&self) -> bool {
        self.authority.as_slice().is_empty()
    }
}
