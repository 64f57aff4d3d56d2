//! What a site trusts: sealed keys, certificates, revocations, gossip keys. This crate does not look into any of them.

use fleet_core::Timestamp;
use serde::{Deserialize, Serialize};

use super::content::Payload;

/// The kinds of rows of trust. The numbers are stored in keys: never reorder them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum TrustKind {
    /// A certificate of an authority, under its name: `root`, or `site` for the site's own. Written once, but that a later
    /// one for the same key takes the place of the site's own.
    Authority = 0,
    /// An authority's key sealed for one voter, under `authority/voter`. Replaced when sealed anew, and by nothing (an empty
    /// value) once the node votes no more.
    SealedKey = 1,
    /// A certificate that was issued, under its serial number; the value is the sixteen bytes of the node's id, of the
    /// group's for that of another site's authority, or empty for an operator's. Written once.
    Issued = 2,
    /// A serial number that is revoked. Written once; for ever.
    Revoked = 3,
    /// What secrets for a node are sealed to: its public key, under the node's id. Replaced when the node has another.
    SealingKey = 4,
    /// A removed node, under its id, whose gossip keys were replaced since. Written once.
    Excluded = 5,
}

impl TrustKind {
    /// The kind's number in keys.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether a row of this kind may be replaced.
    pub const fn is_replaceable(self) -> bool {
        matches!(self, Self::SealedKey | Self::SealingKey)
    }
}

/// A row of trust.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustRow {
    /// What its kind says.
    pub value: Payload,
    /// When it was written.
    pub at: Timestamp,
}

/// A key that seals gossip packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKey {
    /// Its number within the ring.
    pub key_id: u8,
    /// Its bytes.
    pub key: Payload,
}

/// The gossip keys of the fleet: the first one seals, all of them open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyring {
    /// Raised by one at every change.
    pub generation: u64,
    /// The keys.
    pub keys: Vec<GossipKey>,
}
