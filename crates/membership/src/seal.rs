//! The envelope of every gossip packet, as pure functions of keys and packets: what is not from a holder of the fleet's
//! key, or was seen before, goes no further.
//!
//! `ver u8 | ring u8 | key_id u8 | sender u64 | boot u32 | salt 16 B | seq u64 | ciphertext | tag 16 B`, big-endian; the
//! header is authenticated, AES-256-GCM, nonce = 0 u32 ‖ seq. The key is HKDF-SHA-256 of the ring's key with the salt,
//! bound to ring and sender. `sender` is a hash of the node's id, not the id, because a stranger's packet must be
//! openable by a member that never heard of it. The salt is fresh per boot and `seq` never repeats within it, so no nonce
//! is used twice, also when a data directory was set back; the boot number only orders boots.
//!
//! It authenticates the ring, not the node: whoever holds the key can lie. That is why gossip decides nothing.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use fleet_core::{Digest, NodeId};

use crate::error::Error;
use crate::keyring::{GossipKey, Keyring};

mod open;
mod source;
mod window;

pub use open::{Opener, Refusal};

/// The only version of the envelope so far.
const VERSION: u8 = 1;
/// Bytes of the salt.
const SALT_BYTES: usize = 16;
/// Bytes of the header.
const HEADER_BYTES: usize = 1 + 1 + 1 + 8 + 4 + SALT_BYTES + 8;
/// Bytes of the tag.
const TAG_BYTES: usize = 16;
/// What sealing adds to a packet, bytes.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

type Salt = [u8; SALT_BYTES];

/// The header of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    ring: u8,
    key_id: u8,
    sender: u64,
    boot: u32,
    salt: Salt,
    sequence: u64,
}

impl Header {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..3].copy_from_slice(&[VERSION, self.ring, self.key_id]);
        bytes[3..11].copy_from_slice(&self.sender.to_be_bytes());
        bytes[11..15].copy_from_slice(&self.boot.to_be_bytes());
        bytes[15..31].copy_from_slice(&self.salt);
        bytes[31..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }

    /// The header in `bytes`, if they are of this version.
    fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let [version, ring, key_id, rest @ ..] = bytes;
        let (sender, rest) = rest.split_first_chunk()?;
        let (boot, rest) = rest.split_first_chunk()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let sequence = rest.first_chunk()?;
        (*version == VERSION).then_some(Self {
            ring: *ring,
            key_id: *key_id,
            sender: u64::from_be_bytes(*sender),
            boot: u32::from_be_bytes(*boot),
            salt: *salt,
            sequence: u64::from_be_bytes(*sequence),
        })
    }

    fn nonce(&self) -> Nonce {
        let mut bytes = [0; 12];
        bytes[4..].copy_from_slice(&self.sequence.to_be_bytes());
        Nonce::assume_unique_for_key(bytes)
    }
}

/// The byte of the ring in the header of `packet`, before anything of it is believed.
pub(crate) fn ring_of(packet: &[u8]) -> Option<u8> {
    packet.get(1).copied()
}

/// How `node` is named in the headers of its packets.
fn sender_of(node: NodeId) -> u64 {
    let digest = Digest::of(node.as_bytes()).0;
    digest.first_chunk().map(|head| u64::from_be_bytes(*head)).unwrap_or_default()
}

fn derive(key: &GossipKey, ring: u8, sender: u64, salt: &Salt) -> Result<LessSafeKey, Error> {
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key.as_bytes());
    let info: [&[u8]; 3] = [b"fleet gossip 1", &[ring], &sender.to_be_bytes()];
    let expanded = extracted.expand(&info, &AES_256_GCM).map_err(|_| Error::Crypto)?;
    Ok(LessSafeKey::new(UnboundKey::from(expanded)))
}

/// Seals what this node sends.
pub struct Sealer {
    sender: u64,
    boot: u32,
    salt: Salt,
    sequence: u64,
    ring: u8,
    key_id: u8,
    key: LessSafeKey,
}

impl Sealer {
    /// A sealer for one boot of `node`, with a fresh salt.
    pub fn new(node: NodeId, boot: u32, keyring: &Keyring) -> Result<Self, Error> {
        let mut salt = [0; SALT_BYTES];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| Error::Crypto)?;
        Self::with_salt(node, boot, salt, keyring)
    }

    fn with_salt(node: NodeId, boot: u32, salt: Salt, keyring: &Keyring) -> Result<Self, Error> {
        let sender = sender_of(node);
        let (ring, key_id, key) = Self::primary(sender, &salt, keyring)?;
        Ok(Self { sender, boot, salt, sequence: 0, ring, key_id, key })
    }

    fn primary(sender: u64, salt: &Salt, keyring: &Keyring) -> Result<(u8, u8, LessSafeKey), Error> {
        let (ring, key_id) = (keyring.ring(), keyring.primary());
        let key = keyring.key(key_id).ok_or(Error::Keyring { reason: "the primary key is missing" })?;
        Ok((ring, key_id, derive(key, ring, sender, salt)?))
    }

    /// Seals with the primary key of `keyring` from now on. The sequence goes on.
    pub fn set_keyring(&mut self, keyring: &Keyring) -> Result<(), Error> {
        (self.ring, self.key_id, self.key) = Self::primary(self.sender, &self.salt, keyring)?;
        Ok(())
    }

    /// The packet that carries `payload`.
    pub fn seal(&mut self, payload: &[u8]) -> Result<Vec<u8>, Error> {
        self.sequence = self.sequence.checked_add(1).ok_or(Error::Crypto)?;
        let header = Header {
            ring: self.ring,
            key_id: self.key_id,
            sender: self.sender,
            boot: self.boot,
            salt: self.salt,
            sequence: self.sequence,
        };
        let head = header.encode();
        let mut body = payload.to_vec();
        let tag = self
            .key
            .seal_in_place_separate_tag(header.nonce(), Aad::from(head), &mut body)
            .map_err(|_| Error::Crypto)?;
        let mut packet = Vec::with_capacity(OVERHEAD_BYTES + body.len());
        packet.extend_from_slice(&head);
        packet.append(&mut body);
        packet.extend_from_slice(tag.as_ref());
        Ok(packet)
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("key_id", &self.key_id).field("sequence", &self.sequence).finish()
    }
}

#[cfg(test)]
mod tests;
