//! The keys of a gossip ring: one to seal with, all to open with. Rotation is: install the new key everywhere, make it
//! the primary everywhere, remove the old one. Keys never show in logs and are wiped when dropped.

use std::collections::BTreeMap;
use std::fmt;

use zeroize::Zeroizing;

use crate::error::Error;

/// Bytes of a gossip key.
pub const KEY_BYTES: usize = 32;
/// Most keys of a ring: the one in use and those of rotations under way.
pub const KEYS_MAX: usize = 8;

/// One key of a ring.
#[derive(Clone)]
pub struct GossipKey(Zeroizing<[u8; KEY_BYTES]>);

impl GossipKey {
    /// The key made of these bytes.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A fresh random key.
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| Error::Crypto)?;
        Ok(Self(bytes))
    }

    /// The bytes of the key, for whoever stores or hands out keyrings.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GossipKey(..)")
    }
}

/// The keys of one ring of nodes that gossip with each other.
#[derive(Clone, Debug)]
pub struct Keyring {
    ring: u8,
    primary: u8,
    keys: BTreeMap<u8, GossipKey>,
}

impl Keyring {
    /// The ring numbered `ring` with `keys` by their ids; `primary` seals.
    pub fn new(ring: u8, primary: u8, keys: BTreeMap<u8, GossipKey>) -> Result<Self, Error> {
        if keys.len() > KEYS_MAX {
            return Err(Error::Keyring { reason: "more than 8 keys" });
        }
        if !keys.contains_key(&primary) {
            return Err(Error::Keyring { reason: "the primary key is missing" });
        }
        Ok(Self { ring, primary, keys })
    }

    /// A ring 0 with this one key, as id 0.
    pub fn single(key: GossipKey) -> Self {
        Self { ring: 0, primary: 0, keys: BTreeMap::from([(0, key)]) }
    }

    /// The same keys for the ring numbered `ring`.
    pub(crate) fn for_ring(self, ring: u8) -> Self {
        Self { ring, ..self }
    }

    /// The number of the ring.
    pub fn ring(&self) -> u8 {
        self.ring
    }

    /// Id of the key that seals.
    pub fn primary(&self) -> u8 {
        self.primary
    }

    /// The key with this id.
    pub fn key(&self, key_id: u8) -> Option<&GossipKey> {
        self.keys.get(&key_id)
    }

    /// All keys with their ids.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = (u8, &GossipKey)> {
        self.keys.iter().map(|(key_id, key)| (*key_id, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_has_its_primary_and_keeps_its_keys_to_itself() {
        let key = GossipKey::new([0xAB; KEY_BYTES]);
        assert!(Keyring::new(0, 1, BTreeMap::from([(0, key.clone())])).is_err());
        let many = (0..9).map(|id| (id, key.clone())).collect();
        assert!(Keyring::new(0, 1, many).is_err());
        let ring = Keyring::new(0, 1, BTreeMap::from([(1, key)])).unwrap();
        let shown = format!("{ring:?}");
        assert!(!shown.contains("171") && !shown.to_lowercase().contains("ab, "), "{shown}");
    }

    #[test]
    fn generated_keys_differ() {
        assert_ne!(GossipKey::generate().unwrap().as_bytes(), GossipKey::generate().unwrap().as_bytes());
    }
}
