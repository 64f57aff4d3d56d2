//! What the fleet's root and the authorities of its sites vouch for in the catalog: signed where their keys are at work,
//! proved on every node before it is believed.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use fleet_api::Subject;
use fleet_api::chain::SiteFacts;
use fleet_api::identity::RootFacts;
use fleet_api::revocation::Revocation;
use fleet_core::{Error, ErrorKind, FleetId, SiteName};
use fleet_node::catalog::{Signatures, signed_bytes};
use fleet_store::record::{CatalogKey, Payload, SignedBy};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

use crate::trust::authority::Authority;
use crate::trust::verification::FleetTrust;

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

    /// Whether `certificate` is one of the authority of `site`, signed by the root.
    pub fn is_authority(&self, certificate: &Payload, site: &SiteName) -> bool {
        self.site_key(certificate, site).is_some()
    }

    /// The public key of the authority of `site`, if `certificate` is its and the root signed it.
    fn site_key(&self, certificate: &Payload, site: &SiteName) -> Option<Vec<u8>> {
        let certificate = CertificateDer::from(certificate.as_slice());
        SiteFacts::read(&certificate).ok().filter(|facts| facts.fleet == self.fleet && facts.site == *site)?;
        let parsed = parse(&certificate)?;
        let is_signed = is_signed(&self.root, parsed.tbs_certificate.as_ref(), &parsed.signature_value.data);
        tracing::trace!(%site, is_signed, "the authority of a site vouches");
        is_signed.then(|| point(&parsed))
    }
}

impl Signatures for AuthoritySignatures {
    fn is_valid(&self, signed_by: &SignedBy, site: &SiteName, bytes: &[u8]) -> bool {
        match signed_by {
            SignedBy::Nobody => false,
            SignedBy::Root(signature) => is_signed(&self.root, bytes, signature.as_slice()),
            SignedBy::Site { authority, signature } => {
                self.site_key(authority, site).is_some_and(|key| is_signed(&key, bytes, signature.as_slice()))
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

/// What the catalog calls `revocation` by the authority of `site`; nothing for a person's, which has no key there yet, nor
/// for what is known from the catalog.
pub fn key_of(revocation: &Revocation, site: &SiteName) -> Option<CatalogKey> {
    match revocation {
        Revocation::Subject(Subject::Node(node)) => Some(CatalogKey::RevokedNode(site.clone(), *node)),
        Revocation::Serial(serial) => Some(CatalogKey::RevokedSerial(site.clone(), serial.clone())),
        Revocation::Subject(Subject::Admin(_)) | Revocation::NodeOf(..) | Revocation::SerialOf(..) => None,
    }
}

/// What `key` of the catalog says is void to who sees the fleet as `trust`: never what another authority issued than that
/// of the key's site.
pub fn revocation_of(key: CatalogKey, trust: &FleetTrust) -> Option<Revocation> {
    match key {
        CatalogKey::RevokedNode(site, node) => Some(Revocation::NodeOf(trust.issuer_of(&site), node)),
        CatalogKey::RevokedSerial(site, serial) => Some(Revocation::SerialOf(trust.issuer_of(&site), serial)),
        CatalogKey::Workflow(_) | CatalogKey::Acknowledgement(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use fleet_api::Issuer;
    use fleet_core::{NodeId, Timestamp};

    use super::*;
    use crate::trust::authority::SigningRequest;
    use crate::trust::node_key::NodeKey;

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    fn found() -> Authority {
        Authority::found(FleetId::generate(), NOW).unwrap()
    }

    fn plant() -> SiteName {
        "plant".parse().unwrap()
    }

    /// The authority of the site `plant` under `root`.
    fn site(root: &Authority) -> Authority {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
        let request = SigningRequest::parse(request.der()).unwrap();
        let own = root.issue_site(&request, &plant(), NOW).unwrap();
        Authority::from_parts(vec![own, root.root().clone()], &key.serialize_der()).unwrap()
    }

    /// Whether an entry under `key` with this signature is believed under `root`.
    fn is_believed(root: &Authority, signed: &SignedBy, key: &CatalogKey) -> bool {
        let site = key.revoking_site().unwrap();
        AuthoritySignatures::of(root.root()).unwrap().is_valid(signed, site, &signed_bytes(key))
    }

    #[test]
    fn only_what_an_authority_of_the_fleet_signed_is_believed_and_only_for_what_it_signed() {
        let (root, other) = (found(), found());
        let key = CatalogKey::RevokedNode(plant(), NodeId::generate());
        for authority in [&root, &site(&root)] {
            let signed = vouch(authority, &key).unwrap();
            assert!(is_believed(&root, &signed, &key), "{authority:?}");
            let another = CatalogKey::RevokedNode(plant(), NodeId::generate());
            assert!(!is_believed(&root, &signed, &another), "{authority:?}");
        }
        for stranger in [&other, &site(&other)] {
            assert!(!is_believed(&root, &vouch(stranger, &key).unwrap(), &key), "{stranger:?}");
        }
        assert!(!is_believed(&root, &SignedBy::Nobody, &key));
    }

    #[test]
    fn a_site_vouches_for_what_is_its_own_and_the_root_for_all() {
        let root = found();
        for of in [SiteName::default(), "shop".parse().unwrap()] {
            let keys = [
                CatalogKey::RevokedNode(of.clone(), NodeId::generate()),
                CatalogKey::RevokedSerial(of, "0a".to_owned()),
            ];
            for key in keys {
                assert!(!is_believed(&root, &vouch(&site(&root), &key).unwrap(), &key), "{key:?}");
                assert!(is_believed(&root, &vouch(&root, &key).unwrap(), &key), "{key:?}");
            }
        }
    }

    #[test]
    fn a_node_vouches_for_nothing() {
        let root = found();
        let node_key = NodeKey::generate().unwrap();
        let request = SigningRequest::parse(&node_key.signing_request().unwrap()).unwrap();
        let issued = root.issue_node(&request, NodeId::generate(), NOW).unwrap();
        let key = CatalogKey::RevokedNode(SiteName::default(), NodeId::generate());
        // Whatever it signs, its certificate is not that of an authority.
        let certificate = Payload::from(issued.chain[0].to_vec());
        let signatures = AuthoritySignatures::of(root.root()).unwrap();
        assert!(signatures.site_key(&certificate, &SiteName::default()).is_none());
        let signed = SignedBy::Site { authority: certificate, signature: Payload::default() };
        assert!(!is_believed(&root, &signed, &key));
    }

    #[test]
    fn what_is_void_by_the_catalog_is_what_the_authority_of_its_site_issued() {
        let trust = FleetTrust {
            root: found().root().clone(),
            own_site: plant(),
            first_site: SiteName::default(),
            revocations: Default::default(),
            validity: fleet_api::ValidityClock::system(),
        };
        let node = NodeId::generate();
        let (void, serial) = (Revocation::Subject(Subject::Node(node)), Revocation::Serial("0a".to_owned()));
        for (site, issuer) in [(SiteName::default(), Issuer::Root), (plant(), Issuer::Site(plant()))] {
            let of = |void| key_of(void, &site).and_then(|key| revocation_of(key, &trust));
            assert_eq!(of(&void), Some(Revocation::NodeOf(issuer.clone(), node)));
            assert_eq!(of(&serial), Some(Revocation::SerialOf(issuer, "0a".to_owned())));
        }
    }
}
