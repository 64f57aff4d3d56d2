//! Join tokens and what they were redeemed for. Secrets are kept as digests only.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use fleet_core::{Digest, NodeId, SiteName, Timestamp};
use serde::{Deserialize, Serialize};

use super::content::Payload;

/// Names a token, without being its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenId(pub u64);

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for TokenId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// A join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// SHA-256 of its secret.
    pub secret: Digest,
    /// The site its joiners go to.
    pub site: SiteName,
    /// How many nodes may still use it.
    pub uses_left: u32,
    /// When it stops being valid.
    pub expires_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether an operator ended it.
    pub revoked: bool,
}

/// What a joiner got, kept under its public key so that a repeat gets the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redemption {
    /// The node that joined.
    pub node: NodeId,
    /// When.
    pub at: Timestamp,
    /// The answer, such as its certificate chain; this crate does not look into it.
    pub answer: Payload,
}
