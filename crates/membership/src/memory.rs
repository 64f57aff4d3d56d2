//! What membership keeps over a restart, and the port to where it is kept. Not the place itself: the store implements it.

use std::net::SocketAddr;

use fleet_core::NodeId;
use serde::{Deserialize, Serialize};

use crate::error::{Error, PersistenceError};

/// The format written, and the only one so far.
const FORMAT: u8 = 1;
/// Most members remembered: the bound of the record, not of the fleet.
pub(crate) const MEMBERS_MAX: usize = 2_048;

/// A member worth calling after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RememberedMember {
    /// Its id.
    pub node: NodeId,
    /// Where its gossip packets went.
    pub address: SocketAddr,
    /// Which life of it was seen.
    pub incarnation: u64,
    /// Whether it was part of the fleet when this was saved; the others are only called.
    pub was_active: bool,
}

/// Everything kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// Incarnation of this node in use when it was saved; 0 if it never ran.
    pub incarnation: u64,
    /// The other members that had not left, in the order of their ids.
    pub members: Vec<RememberedMember>,
}

impl Remembered {
    /// The record as bytes, for a store that keeps it without looking inside.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        postcard::to_extend(self, vec![FORMAT]).map_err(|_| Error::Remembered { reason: "cannot be encoded" })
    }

    /// The record in `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        match bytes.split_first() {
            Some((&FORMAT, body)) => postcard::from_bytes(body).map_err(|_| Error::Remembered { reason: "malformed" }),
            Some(_) => Err(Error::Remembered { reason: "unknown format" }),
            None => Err(Error::Remembered { reason: "empty" }),
        }
    }
}

/// Where membership keeps what it must remember.
///
/// [`crate::Membership::start`] calls `load` and then `save` on the caller's thread, before the first packet is sent:
/// an incarnation that was used is never used again. Later saves come one at a time from a thread of their own, at most
/// one every few seconds, and never hold up gossip.
pub trait Persistence: Send + Sync + 'static {
    /// What was saved last; the default value if nothing ever was.
    fn load(&self) -> Result<Remembered, PersistenceError>;

    /// Keeps `remembered` instead of what was saved before. Durable when it returns.
    fn save(&self, remembered: &Remembered) -> Result<(), PersistenceError>;
}

/// Remembers nothing: for tests and for nodes whose data directory dies with them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forgetful;

impl Persistence for Forgetful {
    fn load(&self) -> Result<Remembered, PersistenceError> {
        Ok(Remembered::default())
    }

    fn save(&self, _remembered: &Remembered) -> Result<(), PersistenceError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_and_other_bytes_are_refused() {
        let member = RememberedMember {
            node: NodeId::from_bytes([5; 16]),
            address: SocketAddr::from(([10, 0, 0, 1], 7000)),
            incarnation: 3 << 32,
            was_active: true,
        };
        let record = Remembered { incarnation: 4 << 32, members: vec![member] };
        let mut bytes = record.encode().unwrap();
        assert_eq!(Remembered::decode(&bytes).unwrap(), record);
        assert!(Remembered::decode(&bytes[..4]).is_err());
        bytes[0] = 9;
        assert!(Remembered::decode(&bytes).is_err());
        assert!(Remembered::decode(&[]).is_err());
    }
}
