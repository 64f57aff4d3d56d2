//! What the fleet's root vouches for in the catalog: signed where the root's key is at work, proved on every node before it
//! is believed.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use fleet_api::Subject;
use fleet_api::revocation::Revocation;
use fleet_core::{Error, ErrorKind};
use fleet_node::catalog::{Signatures, signed_bytes};
use fleet_store::record::{CatalogKey, Payload, SignedBy};
use rustls_pki_types::CertificateDer;

use crate::trust::authority::Authority;

/// Proves signatures of the fleet's root.
#[derive(Clone, Debug)]
pub struct RootSignatures {
    /// The root's public key, a point on P-256.
    point: Vec<u8>,
}

impl RootSignatures {
    /// Those of the root with this certificate.
    ///
    /// # Errors
    /// `InvalidInput` if it cannot be read.
    pub fn of(root: &CertificateDer<'_>) -> Result<Self, Error> {
        let (_, parsed) = x509_parser::parse_x509_certificate(root)
            .map_err(|source| Error::new(ErrorKind::InvalidInput, "read the root certificate").with_source(source))?;
        Ok(Self { point: parsed.public_key().subject_public_key.data.to_vec() })
    }
}

impl Signatures for RootSignatures {
    fn is_valid(&self, signed_by: &SignedBy, bytes: &[u8]) -> bool {
        match signed_by {
            SignedBy::Nobody => false,
            SignedBy::Root(signature) => {
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point);
                key.verify(bytes, signature.as_slice()).is_ok()
            }
        }
    }
}

/// The signature of `root` under what `key` says.
///
/// # Errors
/// If signing fails.
pub fn vouch(root: &Authority, key: &CatalogKey) -> Result<SignedBy, Error> {
    Ok(SignedBy::Root(Payload::from(root.sign(&signed_bytes(key))?)))
}

/// What the catalog calls `revocation`; nothing for a person's, which has no key there yet.
pub fn key_of(revocation: &Revocation) -> Option<CatalogKey> {
    match revocation {
        Revocation::Subject(Subject::Node(node)) => Some(CatalogKey::RevokedNode(*node)),
        Revocation::Subject(Subject::Admin(_)) => None,
        Revocation::Serial(serial) => Some(CatalogKey::RevokedSerial(serial.clone())),
    }
}

/// What `key` of the catalog says is void.
pub fn revocation_of(key: CatalogKey) -> Option<Revocation> {
    match key {
        CatalogKey::RevokedNode(node) => Some(Revocation::Subject(Subject::Node(node))),
        CatalogKey::RevokedSerial(serial) => Some(Revocation::Serial(serial)),
        CatalogKey::Workflow(_) | CatalogKey::Acknowledgement(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::{FleetId, NodeId, Timestamp};

    use super::*;

    #[test]
    fn only_what_the_root_signed_is_believed_and_only_for_what_it_signed() {
        let found = || Authority::found(FleetId::generate(), Timestamp(1_800_000_000_000)).unwrap();
        let (root, other) = (found(), found());
        let signatures = RootSignatures::of(root.root()).unwrap();
        let key = CatalogKey::RevokedNode(NodeId::generate());
        let bytes = signed_bytes(&key);
        let signed = vouch(&root, &key).unwrap();
        assert!(signatures.is_valid(&signed, &bytes));
        assert!(!signatures.is_valid(&signed, &signed_bytes(&CatalogKey::RevokedNode(NodeId::generate()))));
        assert!(!signatures.is_valid(&vouch(&other, &key).unwrap(), &bytes));
        assert!(!signatures.is_valid(&SignedBy::Nobody, &bytes));
    }

    #[test]
    fn what_is_void_has_the_same_name_in_the_catalog() {
        let node = Revocation::Subject(Subject::Node(NodeId::generate()));
        for revocation in [node, Revocation::Serial("0a".to_owned())] {
            assert_eq!(key_of(&revocation).and_then(revocation_of), Some(revocation));
        }
    }
}
