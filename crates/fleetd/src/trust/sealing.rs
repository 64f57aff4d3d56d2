//! Sealing of a secret (the root key) for one node: only who holds that node's sealing key, which never leaves its data
//! directory, can open it. The public half travels, so that a leader can seal for a new voter.
//!
//! Format: version (1 byte) | ephemeral X25519 public key (32) | AES-256-GCM ciphertext and tag (16). The key is
//! HKDF-SHA-256 over the shared secret, salted with both public keys; the context is authenticated.
//!
//! Invariants: each sealing has a key of its own, so its nonce may be constant; what was sealed for another node or in
//! another context does not open.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use fleet_core::{Error, ErrorKind};
use zeroize::Zeroizing;

/// Length of a public sealing key, bytes.
pub const PUBLIC_KEY_BYTES: usize = 32;
const FORMAT_VERSION: u8 = 1;
const PURPOSE: &[u8] = b"fleet sealed secret 1";

/// The key in a node's data directory that opens what was sealed for it.
pub struct SealingKey {
    private: PrivateKey,
    public: [u8; PUBLIC_KEY_BYTES],
}

impl SealingKey {
    /// A new key.
    pub fn generate() -> Result<Self, Error> {
        let private = PrivateKey::generate(&X25519).map_err(|source| failed("make a sealing key", source))?;
        Self::with_private(private)
    }

    /// The key whose seed is `bytes`, as [`SealingKey::to_bytes`] gave it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let private = PrivateKey::from_private_key(&X25519, bytes)
            .map_err(|source| Error::new(ErrorKind::InvalidInput, "the sealing key is damaged").with_source(source))?;
        Self::with_private(private)
    }

    /// The seed of the key, for the data directory.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let seed: Curve25519SeedBin<'_> =
            self.private.as_be_bytes().map_err(|source| failed("read the sealing key", source))?;
        Ok(Zeroizing::new(seed.as_ref().to_vec()))
    }

    /// The half that may be known to everyone.
    pub fn public_key(&self) -> [u8; PUBLIC_KEY_BYTES] {
        self.public
    }

    /// Opens what [`seal`] made for this key in `context`.
    ///
    /// # Errors
    /// `Unsupported` for an unknown format, `PermissionDenied` if it is not for this key and context or was changed.
    pub fn open(&self, sealed: &[u8], context: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let refused = || Error::new(ErrorKind::PermissionDenied, "the sealed secret is not for this node");
        let (version, rest) = sealed.split_first().ok_or_else(refused)?;
        if *version != FORMAT_VERSION {
            return Err(Error::new(ErrorKind::Unsupported, format!("sealed format {version} is not known")));
        }
        let (ephemeral, ciphertext) = rest.split_first_chunk::<PUBLIC_KEY_BYTES>().ok_or_else(refused)?;
        let key = derive(&self.private, ephemeral, ephemeral, &self.public)?;
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let length = key
            .open_in_place(nonce(), Aad::from(context), &mut buffer)
            .map_err(|source| refused().with_source(source))?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }

    fn with_private(private: PrivateKey) -> Result<Self, Error> {
        let public = public_bytes(&private)?;
        Ok(Self { private, public })
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealingKey").finish_non_exhaustive()
    }
}

/// Seals `secret` for the holder of `recipient`, bound to `context`.
pub fn seal(secret: &[u8], recipient: &[u8; PUBLIC_KEY_BYTES], context: &[u8]) -> Result<Vec<u8>, Error> {
    let ephemeral = PrivateKey::generate(&X25519).map_err(|source| failed("make an ephemeral key", source))?;
    let public = public_bytes(&ephemeral)?;
    let key = derive(&ephemeral, recipient, &public, recipient)?;
    let mut ciphertext = Zeroizing::new(secret.to_vec());
    let tag = key
        .seal_in_place_separate_tag(nonce(), Aad::from(context), &mut ciphertext)
        .map_err(|source| failed("seal a secret", source))?;
    let mut sealed = Vec::with_capacity(1 + PUBLIC_KEY_BYTES + ciphertext.len() + tag.as_ref().len());
    sealed.push(FORMAT_VERSION);
    sealed.extend_from_slice(&public);
    sealed.extend_from_slice(&ciphertext);
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

/// The key between `private` and `peer`, the same on both sides.
fn derive(
    private: &PrivateKey,
    peer: &[u8; PUBLIC_KEY_BYTES],
    ephemeral: &[u8; PUBLIC_KEY_BYTES],
    recipient: &[u8; PUBLIC_KEY_BYTES],
) -> Result<LessSafeKey, Error> {
    let salt = [ephemeral.as_slice(), recipient].concat();
    let broken = |source: aws_lc_rs::error::Unspecified| failed("agree on a sealing key", source);
    agreement::agree(private, UnparsedPublicKey::new(&X25519, peer), aws_lc_rs::error::Unspecified, |shared| {
        let prk = Salt::new(HKDF_SHA256, &salt).extract(shared);
        let key = prk.expand(&[PURPOSE], &AES_256_GCM)?;
        Ok(LessSafeKey::new(UnboundKey::from(key)))
    })
    .map_err(broken)
}

/// Each key seals once, so one nonce is enough.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

fn public_bytes(private: &PrivateKey) -> Result<[u8; PUBLIC_KEY_BYTES], Error> {
    let public = private.compute_public_key().map_err(|source| failed("compute a public key", source))?;
    public.as_ref().try_into().map_err(|_| Error::new(ErrorKind::Internal, "a public key has the wrong length"))
}

fn failed(what: &str, source: aws_lc_rs::error::Unspecified) -> Error {
    Error::new(ErrorKind::Internal, what).with_source(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"the root key";

    #[test]
    fn only_the_recipient_opens_and_only_in_context() {
        let (mine, other) = (SealingKey::generate().unwrap(), SealingKey::generate().unwrap());
        let sealed = seal(SECRET, &mine.public_key(), b"fleet a").unwrap();
        assert_eq!(mine.open(&sealed, b"fleet a").unwrap().as_slice(), SECRET);
        for refusal in [other.open(&sealed, b"fleet a"), mine.open(&sealed, b"fleet b")] {
            assert_eq!(refusal.unwrap_err().kind, ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn a_key_comes_back_from_its_bytes() {
        let key = SealingKey::generate().unwrap();
        let again = SealingKey::from_bytes(&key.to_bytes().unwrap()).unwrap();
        assert_eq!(key.public_key(), again.public_key());
        let sealed = seal(SECRET, &key.public_key(), b"").unwrap();
        assert_eq!(again.open(&sealed, b"").unwrap().as_slice(), SECRET);
        assert_eq!(SealingKey::from_bytes(b"short").unwrap_err().kind, ErrorKind::InvalidInput);
    }

    #[test]
    fn any_change_of_any_byte_is_noticed() {
        let key = SealingKey::generate().unwrap();
        let sealed = seal(SECRET, &key.public_key(), b"c").unwrap();
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(key.open(&changed, b"c").is_err(), "byte {index}");
        }
        for length in 0..sealed.len() {
            assert!(key.open(&sealed[..length], b"c").is_err(), "length {length}");
        }
        assert_ne!(seal(SECRET, &key.public_key(), b"c").unwrap(), sealed, "each sealing is its own");
    }
}
