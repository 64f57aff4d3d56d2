//! What the fleet's root and the authorities of its sites vouch for in the catalog: signed where their keys are at work,
//! proved on every node before it is believed.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use fleet_api::Subject;
use fleet_api::chain::SiteFacts;
use fleet_api::identity::RootFacts;
use fleet_api::revocation::Revocation;
use fleet_core::{Error, ErrorKind, FleetId};
use fleet_node::catalog::{Signatures, signed_bytes};
use fleet_store::record::{CatalogKey, Payload, SignedBy};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

use crate::trust::authority::Authority;

/// Proves signatures of a fleet's authorities.
#[derive(Clone, Debug)]
pub struct AuthoritySignatures {
    fleet: FleetId,
    /// The root's public key, a point on P-256.
    root: Vec<u8>,
}

impl AuthoritySignatures {
    /// Those of the root with this certificate, and of the sites whose authorities it signed.
    ///
    /// # Errors
    /// `InvalidInput` if it cannot be read.
    pub fn of(root: &CertificateDer<'_>) -> Result<Self, Error> {
        let fleet = RootFacts::read(root)?.fleet;
        let parsed = parse(root)
            .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "read the root certificate: it is malformed"))?;
        Ok(Self { fleet, root: point(&parsed) })
    }

    /// The public key of the site's authority with this certificate, if the root signed it.
    fn site_key(&self, certificate: &Payload) -> Option<Vec<u8>> {
        let certificate = CertificateDer::from(certificate.as_slice());
        let facts = SiteFacts::read(&certificate).ok().filter(|facts| facts.fleet == self.fleet)?;
        let parsed = parse(&certificate)?;
        let is_signed = is_signed(&self.root, parsed.tbs_certificate.as_ref(), &parsed.signature_value.data);
        tracing::trace!(site = %facts.site, is_signed, "the authority of a site vouches");
        is_signed.then(|| point(&parsed))
    }
}

impl Signatures for AuthoritySignatures {
    fn is_valid(&self, signed_by: &SignedBy, bytes: &[u8]) -> bool {
        match signed_by {
            SignedBy::Nobody => false,
            SignedBy::Root(signature) => is_signed(&self.root, bytes, signature.as_slice()),
            SignedBy::Site { authority, signature } => {
                self.site_key(authority).is_some_and(|key| is_signed(&key, bytes, signature.as_slice()))
            }
        }
    }
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    x509_parser::parse_x509_certificate(certificate).ok().map(|(_, parsed)| parsed)
}

fn point(certificate: &X509Certificate<'_>) -> Vec<u8> {
    certificate.public_key().subject_public_key.data.to_vec()
}

fn is_signed(key: &[u8], bytes: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key).verify(bytes, signature).is_ok()
}

/// The signature of `authority` under what `key` says.
///
/// # Errors
/// If signing fails.
pub fn vouch(authority: &Authority, key: &CatalogKey) -> Result<SignedBy, Error> {
    let signature = Payload::from(authority.sign(&signed_bytes(key))?);
    Ok(match authority.chain() {
        [own, _root] => SignedBy::Site { authority: Payload::from(own.to_vec()), signature },
        _ => SignedBy::Root(signature),
    })
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
    use fleet_core::{NodeId, SiteName, Timestamp};

    use super::*;
    use crate::trust::authority::SigningRequest;
    use crate::trust::node_key::NodeKey;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn found() -> Authority {
        Authority::found(FleetId::generate(), NOW).unwrap()
    }

    /// An authority of a site under `root`.
    fn site(root: &Authority) -> Authority {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let request = SigningRequest::parse(request.der()).unwrap();
        let own = root.issue_site(&request, &SiteName::default(), NOW).unwrap();
        Authority::from_parts(vec![own, root.root().clone()], &key.serialize_der()).unwrap()
    }

    #[test]
    fn only_what_an_authority_of_the_fleet_signed_is_believed_and_only_for_what_it_signed() {
        let (root, other) = (found(), found());
        let signatures = AuthoritySignatures::of(root.root()).unwrap();
        let key = CatalogKey::RevokedNode(NodeId::generate());
        let (bytes, others) = (signed_bytes(&key), signed_bytes(&CatalogKey::RevokedNode(NodeId::generate())));
        for authority in [&root, &site(&root)] {
            let signed = vouch(authority, &key).unwrap();
            assert!(signatures.is_valid(&signed, &bytes), "{authority:?}");
            assert!(!signatures.is_valid(&signed, &others), "{authority:?}");
        }
        for stranger in [&other, &site(&other)] {
            assert!(!signatures.is_valid(&vouch(stranger, &key).unwrap(), &bytes), "{stranger:?}");
        }
        assert!(!signatures.is_valid(&SignedBy::Nobody, &bytes));
    }

    #[test]
    fn a_node_vouches_for_nothing() {
        let root = found();
        let node_key = NodeKey::generate().unwrap();
        let request = SigningRequest::parse(&node_key.signing_request().unwrap()).unwrap();
        let issued = root.issue_node(&request, NodeId::generate(), NOW).unwrap();
        let key = CatalogKey::RevokedNode(NodeId::generate());
        // Whatever it signs, its certificate is not that of an authority.
        let signed =
            SignedBy::Site { authority: Payload::from(issued.chain[0].to_vec()), signature: Payload::default() };
        let signatures = AuthoritySignatures::of(root.root()).unwrap();
        assert!(signatures.site_key(&Payload::from(issued.chain[0].to_vec())).is_none());
        assert!(!signatures.is_valid(&signed, &signed_bytes(&key)));
    }

    #[test]
    fn what_is_void_has_the_same_name_in_the_catalog() {
        let node = Revocation::Subject(Subject::Node(NodeId::generate()));
        for revocation in [node, Revocation::Serial("0a".to_owned())] {
            assert_eq!(key_of(&revocation).and_then(revocation_of), Some(revocation));
        }
    }
}
