//! Tests of what the root signs, and of who passes at the handshake.

use std::sync::Arc;

use fleet_api::identity::Subject;
use fleet_api::{Revocation, Revocations, ValidityClock};
use fleet_core::{BootInstant, Clock, ErrorKind, FleetId, NodeId, SiteName, Timestamp};
use rustls::CertificateError;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use uuid::Uuid;

use crate::trust::authority::{ADMIN_LIFETIME, Authority, Issued, NODE_LIFETIME, ROOT_LIFETIME, SigningRequest};
use crate::trust::node_key::NodeKey;
use crate::trust::renewal::EXPIRED_MAX;
use crate::trust::verification::{ClientVerifier, Demand, FleetTrust};

const FOUNDED: Timestamp = Timestamp(1_800_000_000_000);
const DAY_MS: u64 = 86_400_000;

struct Still(Timestamp);

impl Clock for Still {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn boot_now(&self) -> BootInstant {
        BootInstant::default()
    }
}

fn request() -> SigningRequest {
    SigningRequest::parse(&NodeKey::generate().unwrap().signing_request().unwrap()).unwrap()
}

fn authority() -> Authority {
    Authority::found(FleetId::generate(), FOUNDED).unwrap()
}

fn node(authority: &Authority) -> Issued {
    authority.issue_node(&request(), NodeId::generate(), FOUNDED).unwrap()
}

fn verify(
    authority: &Authority,
    demand: Demand,
    now: Timestamp,
    revocations: &Revocations,
    issued: &Issued,
) -> Result<(), rustls::Error> {
    verify_at("default", authority, demand, now, revocations, &issued.chain)
}

/// The same at a node of `site`, of a certificate and what was shown with it.
fn verify_at(
    site: &str,
    authority: &Authority,
    demand: Demand,
    now: Timestamp,
    revocations: &Revocations,
    shown: &[CertificateDer<'static>],
) -> Result<(), rustls::Error> {
    let trust = FleetTrust {
        root: authority.root().clone(),
        own_site: site.parse().unwrap(),
        first_site: SiteName::default(),
        revocations: revocations.clone(),
        validity: ValidityClock::new(Arc::new(Still(now)), Timestamp(0)),
    };
    let verifier = ClientVerifier::new(trust, demand).unwrap();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_millis(now.0));
    verifier.verify_client_cert(&shown[0], &shown[1..], now).map(|_| ())
}

#[test]
fn certificates_say_what_the_issuer_said() {
    let authority = authority();
    let (id, admin) = (NodeId::generate(), Uuid::now_v7());
    let later = Timestamp(FOUNDED.0 + 5 * DAY_MS);
    let node = authority.issue_node(&request(), id, later).unwrap();
    assert_eq!(node.facts.name.subject, Subject::Node(id));
    assert_eq!(node.facts.name.fleet, authority.fleet());
    assert_eq!(node.facts.not_before, Timestamp(FOUNDED.0 - DAY_MS), "as the root, not as the issue");
    assert_eq!(node.facts.not_after, later.saturating_add(NODE_LIFETIME));
    assert_eq!(node.chain[1], *authority.root());
    let credential = authority.issue_admin(&request(), admin, later).unwrap();
    assert_eq!(credential.facts.name.subject, Subject::Admin(admin));
    assert_eq!(credential.facts.not_after, later.saturating_add(ADMIN_LIFETIME));
    assert_ne!(node.facts.serial, credential.facts.serial);
    let last = Timestamp(FOUNDED.saturating_add(ROOT_LIFETIME).0 - DAY_MS);
    let capped = authority.issue_node(&request(), id, last).unwrap();
    assert_eq!(capped.facts.not_after, FOUNDED.saturating_add(ROOT_LIFETIME));
}

#[test]
fn an_authority_comes_back_from_its_parts() {
    let authority = authority();
    let again = Authority::from_parts(authority.chain().to_vec(), &authority.key()).unwrap();
    let issued = node(&again);
    assert_eq!(verify(&authority, Demand::Node, FOUNDED, &Revocations::new(), &issued), Ok(()));
    let other = self::authority();
    assert_eq!(
        Authority::from_parts(other.chain().to_vec(), &authority.key()).unwrap_err().kind,
        ErrorKind::InvalidInput
    );
    let of_node = Authority::from_parts(node(&other).chain[..1].to_vec(), &other.key()).unwrap_err();
    assert_eq!(of_node.kind, ErrorKind::InvalidInput);
}

#[test]
fn bad_signing_requests_are_refused() {
    let good = NodeKey::generate().unwrap().signing_request().unwrap();
    let mut forged = good.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let p384 = rcgen::CertificateParams::default().serialize_request(&p384).unwrap().der().to_vec();
    let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let ed25519 = rcgen::CertificateParams::default().serialize_request(&ed25519).unwrap().der().to_vec();
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("garbage", vec![0x30; 64]),
        ("cut", good[..good.len() / 2].to_vec()),
        ("signed by another key", forged),
        ("too large", vec![0; 9 * 1024]),
        ("another curve", p384),
        ("another algorithm", ed25519),
    ] {
        assert_eq!(SigningRequest::parse(&bytes).unwrap_err().kind, ErrorKind::InvalidInput, "{what}");
    }
}

#[test]
fn a_name_in_the_request_does_not_count() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = rcgen::CertificateParams::default();
    let authority = authority();
    let wish = format!("fleet://{}/admin/{}", authority.fleet(), Uuid::now_v7());
    params.subject_alt_names = vec![rcgen::SanType::URI(wish.as_str().try_into().unwrap())];
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = SigningRequest::parse(params.serialize_request(&key).unwrap().der()).unwrap();
    let id = NodeId::generate();
    let issued = authority.issue_node(&request, id, FOUNDED).unwrap();
    assert_eq!(issued.facts.name.subject, Subject::Node(id));
    let (_, parsed) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
    assert!(!parsed.is_ca());
}

#[test]
fn who_passes_at_the_handshake() {
    let authority = authority();
    let foreign = self::authority();
    let node = node(&authority);
    let admin = authority.issue_admin(&request(), Uuid::now_v7(), FOUNDED).unwrap();
    let none = Revocations::new();
    let end = node.facts.not_after;
    let after = |days: u64| Timestamp(end.0 + days * DAY_MS);
    let expired = || -> rustls::Error { CertificateError::Expired.into() };
    let check = |demand, now, issued: &Issued| match verify(&authority, demand, now, &none, issued) {
        Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext { .. })) => Err(expired()),
        Err(rustls::Error::InvalidCertificate(CertificateError::NotValidYetContext { .. })) => {
            Err(CertificateError::NotValidYet.into())
        }
        other => other,
    };
    assert_eq!(check(Demand::Node, FOUNDED, &node), Ok(()));
    assert_eq!(check(Demand::Optional, FOUNDED, &node), Ok(()));
    assert_eq!(check(Demand::Optional, FOUNDED, &admin), Ok(()));
    assert_eq!(
        check(Demand::Node, FOUNDED, &admin),
        Err(CertificateError::ApplicationVerificationFailure.into()),
        "an operator is not a node"
    );
    assert_eq!(check(Demand::Optional, after(1), &node), Err(expired()));
    assert_eq!(check(Demand::Node, after(1), &node), Ok(()), "to renew");
    assert_eq!(check(Demand::Node, end.saturating_add(EXPIRED_MAX), &node), Ok(()), "to renew");
    assert_eq!(check(Demand::Node, after(366), &node), Err(expired()));
    let early = Timestamp(FOUNDED.0 - 2 * DAY_MS);
    assert_eq!(check(Demand::Node, early, &node), Err(CertificateError::NotValidYet.into()));
    for demand in [Demand::Node, Demand::Optional] {
        let refusal = check(demand, FOUNDED, &self::node(&foreign)).unwrap_err();
        assert!(matches!(refusal, rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)), "{refusal}");
    }
}

#[test]
fn what_is_revoked_never_passes_not_even_to_renew() {
    let authority = authority();
    let node = node(&authority);
    let expired = Timestamp(node.facts.not_after.0 + DAY_MS);
    for revocation in [Revocation::Subject(node.facts.name.subject), Revocation::Serial(node.facts.serial.clone())] {
        let revocations = Revocations::new();
        revocations.extend([revocation]);
        for now in [FOUNDED, expired] {
            let refusal = verify(&authority, Demand::Node, now, &revocations, &node).unwrap_err();
            assert_eq!(refusal, CertificateError::Revoked.into());
        }
    }
}

#[test]
fn a_node_under_a_forged_root_of_the_same_name_is_refused() {
    let authority = authority();
    let forged = Authority::found(authority.fleet(), FOUNDED).unwrap();
    let refusal = verify(&authority, Demand::Node, FOUNDED, &Revocations::new(), &node(&forged)).unwrap_err();
    assert!(matches!(refusal, rustls::Error::InvalidCertificate(_)), "{refusal}");
}
