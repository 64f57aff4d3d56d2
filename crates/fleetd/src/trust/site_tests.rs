//! Tests of what the authorities of sites may vouch for, on both sides of a handshake.

use std::sync::Arc;
use std::time::Duration;

use fleet_api::chain::{Chain, Issuer, SiteFacts};
use fleet_api::identity::CertificateFacts;
use fleet_api::{Revocation, Revocations, ValidityClock};
use fleet_core::{BootInstant, Clock, ErrorKind, FleetId, NodeId, SiteName, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer as Signer, KeyPair, SanType};
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::listener::{PeerIdentity, Policy};
use crate::trust::authority::{Authority, NODE_LIFETIME, SITE_LIFETIME, SigningRequest};
use crate::trust::node_key::NodeKey;
use crate::trust::renewal::AUTHORITY_RENEWAL_AGE;
use crate::trust::site_key::SiteKey;
use crate::trust::verification::{ClientVerifier, Demand, FleetTrust};

const FOUNDED: Timestamp = Timestamp(1_800_000_000_000);

struct Still(Timestamp);

impl Clock for Still {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn boot_now(&self) -> BootInstant {
        BootInstant::default()
    }
}

fn site(name: &str) -> SiteName {
    name.parse().unwrap()
}

fn request() -> SigningRequest {
    SigningRequest::parse(&NodeKey::generate().unwrap().signing_request().unwrap()).unwrap()
}

/// The authority of the site `name` under `root`, as a founder comes to have it.
fn authority_of(root: &Authority, name: &str, now: Timestamp) -> Authority {
    let key = SiteKey::generate().unwrap();
    let request = SigningRequest::parse(&key.signing_request().unwrap()).unwrap();
    let certificate = root.issue_site(&request, &site(name), now).unwrap();
    key.into_authority(vec![certificate, root.root().clone()]).unwrap()
}

/// A fleet with the sites `default`, `plant` and `shop`.
struct Fleet {
    root: Authority,
    plant: Authority,
    shop: Authority,
}

impl Fleet {
    fn found() -> Self {
        let root = Authority::found(FleetId::generate(), FOUNDED).unwrap();
        let (plant, shop) = (authority_of(&root, "plant", FOUNDED), authority_of(&root, "shop", FOUNDED));
        Self { root, plant, shop }
    }

    /// The authority of the plant with the certificate that it is given at `now`.
    fn renewed_plant(&self, now: Timestamp) -> Authority {
        let key = SiteKey::from_bytes(&self.plant.key()).unwrap();
        let request = SigningRequest::parse(&key.signing_request().unwrap()).unwrap();
        let certificate = self.root.issue_site(&request, &site("plant"), now).unwrap();
        key.into_authority(vec![certificate, self.root.root().clone()]).unwrap()
    }

    fn trust(&self, own: &str, now: Timestamp) -> FleetTrust {
        FleetTrust {
            root: self.root.root().clone(),
            own_site: site(own),
            first_site: site("default"),
            revocations: Revocations::new(),
            validity: ValidityClock::new(Arc::new(Still(now)), Timestamp(0)),
        }
    }

    /// Who the holder of the first certificate of `shown` is to a node of `own`; `None`: it does not pass.
    fn identity(&self, own: &str, now: Timestamp, shown: &[CertificateDer<'static>]) -> Option<PeerIdentity> {
        let trust = self.trust(own, now);
        let verifier = ClientVerifier::new(trust.clone(), Demand::Optional).unwrap();
        let time = UnixTime::since_unix_epoch(Duration::from_millis(now.0));
        let as_client = verifier.verify_client_cert(&shown[0], &shown[1..], time).is_ok();
        let peer = ClientVerifier::new(trust.clone(), Demand::Node).unwrap();
        let as_peer = peer.verify_client_cert(&shown[0], &shown[1..], time).is_ok();
        if !as_client && !as_peer {
            return None;
        }
        let issuer = Chain::read(&shown[0], &shown[1..], &trust.root).unwrap().voucher.issuer;
        let facts = CertificateFacts::read(&shown[0]).unwrap();
        PeerIdentity::of(Some((&facts, trust.site_of(issuer).unwrap())), &trust.own_site, Policy::Certified, now).ok()
    }
}

fn node(authority: &Authority) -> (NodeId, Vec<CertificateDer<'static>>) {
    let node = NodeId::generate();
    (node, authority.issue_node(&request(), node, FOUNDED).unwrap().chain)
}

/// `params` signed by `signer`, whatever they say.
fn forged(params: &CertificateParams, key: &KeyPair, signer: &Authority) -> CertificateDer<'static> {
    let signing_key = rustls_pki_types::PrivatePkcs8KeyDer::from(signer.key().as_slice().to_vec());
    let signing_key = KeyPair::from_pkcs8_der_and_sign_algo(&signing_key, &rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let signer = Signer::from_ca_cert_der(&signer.chain()[0], signing_key).unwrap();
    params.signed_by(key, &signer).unwrap().der().clone()
}

fn params(name: &str, uri: String, ca: IsCa) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
    params.is_ca = ca;
    params.use_authority_key_identifier_extension = true;
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

#[test]
fn a_node_is_known_with_its_site_and_only_to_its_own_as_one_of_it() {
    let fleet = Fleet::found();
    for (of, authority) in [("default", &fleet.root), ("plant", &fleet.plant), ("shop", &fleet.shop)] {
        let (id, chain) = node(authority);
        for at in ["default", "plant", "shop"] {
            let expected = if at == of { PeerIdentity::Node(id) } else { PeerIdentity::OtherSite(id, site(of)) };
            assert_eq!(fleet.identity(at, FOUNDED, &chain), Some(expected), "{of} at {at}");
        }
    }
}

#[test]
fn what_a_site_revoked_is_void_only_where_it_issued_it() {
    let fleet = Fleet::found();
    let (id, chain) = node(&fleet.plant);
    for by in [Issuer::Root, Issuer::Site(site("shop")), Issuer::Site(site("plant"))] {
        let serial = CertificateFacts::read(&chain[0]).unwrap().serial;
        for void in [Revocation::NodeOf(by.clone(), id), Revocation::SerialOf(by.clone(), serial)] {
            let trust = fleet.trust("shop", FOUNDED);
            trust.revocations.extend([void]);
            let time = UnixTime::since_unix_epoch(Duration::from_millis(FOUNDED.0));
            let verifier = ClientVerifier::new(trust, Demand::Node).unwrap();
            let passes = verifier.verify_client_cert(&chain[0], &chain[1..], time).is_ok();
            assert_eq!(passes, by != Issuer::Site(site("plant")), "{by:?}");
        }
    }
}

#[test]
fn what_a_site_signs_begins_with_the_root_and_ends_with_its_authority() {
    let fleet = Fleet::found();
    let facts = SiteFacts::read(&fleet.plant.chain()[0]).unwrap();
    assert_eq!((facts.site, facts.fleet), (site("plant"), fleet.root.fleet()));
    assert_eq!(facts.not_after, FOUNDED.saturating_add(SITE_LIFETIME));
    let late = Timestamp(facts.not_after.0 - 86_400_000);
    let issued = fleet.plant.issue_node(&request(), NodeId::generate(), late).unwrap();
    assert_eq!((issued.facts.not_before, issued.facts.not_after), (facts.not_before, facts.not_after));
    assert_eq!(issued.chain[1..], [fleet.plant.chain()[0].clone(), fleet.root.root().clone()]);
}

#[test]
fn a_sites_authority_signs_neither_operators_nor_authorities() {
    let fleet = Fleet::found();
    let refused = fleet.plant.issue_admin(&request(), uuid::Uuid::now_v7(), FOUNDED).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::FailedPrecondition);
    let refused = fleet.plant.issue_site(&request(), &site("other"), FOUNDED).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::FailedPrecondition);
    // Nor does it help one that does so all the same.
    let name = format!("fleet://{}/admin/{}", fleet.root.fleet(), uuid::Uuid::now_v7());
    let admin = forged(&params("admin", name, IsCa::ExplicitNoCa), &new_key(), &fleet.plant);
    let shown = [&[admin][..], fleet.plant.chain()].concat();
    for at in ["default", "plant"] {
        assert_eq!(fleet.identity(at, FOUNDED, &shown), None, "an operator by a site's word at {at}");
    }
}

#[test]
fn nobody_passes_by_a_chain_that_is_not_the_issuers() {
    let fleet = Fleet::found();
    let (id, of_plant) = node(&fleet.plant);
    let (_, of_root) = node(&fleet.root);
    let (leaf, plant, root) = (of_plant[0].clone(), of_plant[1].clone(), of_plant[2].clone());
    let shop = fleet.shop.chain()[0].clone();
    let shown: [(&str, Vec<CertificateDer<'static>>); 6] = [
        ("another site's authority", vec![leaf.clone(), shop.clone(), root.clone()]),
        ("no authority", vec![leaf.clone(), root.clone()]),
        ("two authorities, the other's first", vec![leaf.clone(), shop.clone(), plant.clone(), root.clone()]),
        ("two authorities", vec![leaf.clone(), plant.clone(), shop.clone(), root.clone()]),
        ("a root's leaf with a site's authority", vec![of_root[0].clone(), shop, root.clone()]),
        ("an authority of its own", vec![plant.clone(), root.clone()]),
    ];
    for (what, shown) in shown {
        for at in ["default", "plant", "shop"] {
            assert_eq!(fleet.identity(at, FOUNDED, &shown), None, "{what} at {at}");
        }
    }
    assert_eq!(fleet.identity("plant", FOUNDED, &[leaf, plant]), Some(PeerIdentity::Node(id)), "the root is known");
}

#[test]
fn a_leaf_of_the_root_is_the_first_sites_whatever_is_shown_with_it() {
    let fleet = Fleet::found();
    let (_, of_root) = node(&fleet.root);
    // Named like the root, it seems to have issued what the root did; and it says that it speaks for the shop.
    let key = new_key();
    let mut posing = CertificateParams::default();
    posing.distinguished_name = rcgen::DistinguishedName::new();
    posing.distinguished_name.push(rcgen::DnType::CommonName, format!("fleet {}", fleet.root.fleet()));
    let name = format!("fleet://{}/site/shop", fleet.root.fleet());
    posing.subject_alt_names = vec![SanType::URI(name.as_str().try_into().unwrap())];
    posing.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let posing = posing.self_signed(&key).unwrap().der().clone();
    let shown = [of_root[0].clone(), posing, of_root[1].clone()];
    for at in ["default", "plant", "shop"] {
        assert_eq!(fleet.identity(at, FOUNDED, &shown), None, "{at}");
    }
}

#[test]
fn an_authority_of_the_same_name_that_the_root_did_not_sign_is_nothing() {
    let fleet = Fleet::found();
    let stranger = Authority::found(fleet.root.fleet(), FOUNDED).unwrap();
    let forged = authority_of(&stranger, "plant", FOUNDED);
    let (_, mut chain) = node(&forged);
    chain[2] = fleet.root.root().clone();
    assert_eq!(fleet.identity("plant", FOUNDED, &chain), None);
}

#[test]
fn an_authority_under_an_authority_and_a_leaf_under_a_leaf_are_nothing() {
    let fleet = Fleet::found();
    let id = fleet.root.fleet();
    let key = new_key();
    let under = params("shop", format!("fleet://{id}/site/shop"), IsCa::Ca(BasicConstraints::Unconstrained));
    let under = forged(&under, &key, &fleet.plant);
    let below = Authority::from_parts(vec![under, fleet.root.root().clone()], &key.serialize_der()).unwrap();
    let (_, chain) = node(&below);
    let with_plant = [&chain[..2], fleet.plant.chain()].concat();
    for at in ["default", "plant", "shop"] {
        assert_eq!(fleet.identity(at, FOUNDED, &chain), None, "an authority signed by one at {at}");
        assert_eq!(fleet.identity(at, FOUNDED, &with_plant), None, "the same with all that signed at {at}");
    }
    // A node's key signs as if it were an authority; its certificate says that it is none, or lies that it is.
    let leaf_key = new_key();
    let leaf_request = CertificateParams::default().serialize_request(&leaf_key).unwrap();
    let leaf_request = SigningRequest::parse(leaf_request.der()).unwrap();
    let leaf = fleet.plant.issue_node(&leaf_request, NodeId::generate(), FOUNDED).unwrap().chain[0].clone();
    let name = format!("fleet://{id}/node/{}", NodeId::generate());
    let signer = Signer::from_ca_cert_der(&leaf, leaf_key).unwrap();
    let below = params("node", name, IsCa::ExplicitNoCa).signed_by(&new_key(), &signer).unwrap().der().clone();
    let shown = vec![below.clone(), leaf.clone(), fleet.root.root().clone()];
    let with_plant = [&[below, leaf][..], fleet.plant.chain()].concat();
    for at in ["default", "plant", "shop"] {
        assert_eq!(fleet.identity(at, FOUNDED, &shown), None, "a leaf signed by one at {at}");
        assert_eq!(fleet.identity(at, FOUNDED, &with_plant), None, "the same with all that signed at {at}");
    }
}

#[test]
fn an_expired_authority_vouches_for_nobody_and_an_expired_node_only_renews_at_home() {
    let fleet = Fleet::found();
    let end = FOUNDED.saturating_add(SITE_LIFETIME);
    let (id, _) = node(&fleet.plant);
    let late = Timestamp(end.0 - 3_600_000);
    let chain = fleet.plant.issue_node(&request(), id, late).unwrap().chain;
    assert_eq!(fleet.identity("plant", late, &chain), Some(PeerIdentity::Node(id)));
    // A leaf that outlives its authority, as no honest one does.
    let name = format!("fleet://{}/node/{id}", fleet.root.fleet());
    let mut outliving = params("node", name, IsCa::ExplicitNoCa);
    outliving.not_before = rcgen::date_time_ymd(2000, 1, 1);
    outliving.not_after = rcgen::date_time_ymd(2100, 1, 1);
    let shown = [&[forged(&outliving, &new_key(), &fleet.plant)][..], fleet.plant.chain()].concat();
    assert_eq!(fleet.identity("plant", late, &shown), Some(PeerIdentity::Node(id)), "the forgery is a good one");
    let after = Timestamp(end.0 + 3_600_000);
    for at in ["default", "plant", "shop"] {
        assert_eq!(fleet.identity(at, after, &shown), None, "{at}");
    }
    let (id, chain) = node(&fleet.plant);
    let expired = Timestamp(FOUNDED.0 + 1_000).saturating_add(NODE_LIFETIME);
    assert_eq!(fleet.identity("plant", expired, &chain), Some(PeerIdentity::ExpiredNode(id)));
    assert_eq!(fleet.identity("shop", expired, &chain), None, "it renews at home");
    assert_eq!(fleet.identity("default", expired, &chain), None);
}

#[test]
fn an_authority_that_names_the_first_site_is_none() {
    let fleet = Fleet::found();
    let (_, chain) = node(&authority_of(&fleet.root, "default", FOUNDED));
    assert_eq!(fleet.identity("default", FOUNDED, &chain), None);
    assert_eq!(fleet.identity("plant", FOUNDED, &chain), None);
    assert_eq!(
        Chain::read(&chain[0], &chain[1..], fleet.root.root()).unwrap().voucher.issuer,
        Issuer::Site(site("default"))
    );
}

#[test]
fn while_an_authority_is_renewed_both_its_certificates_vouch_and_afterwards_the_later_one() {
    let fleet = Fleet::found();
    let third_year = FOUNDED.saturating_add(AUTHORITY_RENEWAL_AGE);
    let renewed = fleet.renewed_plant(third_year);
    let (old, new) = (SiteFacts::read(&fleet.plant.chain()[0]), SiteFacts::read(&renewed.chain()[0]));
    let (old, new) = (old.unwrap(), new.unwrap());
    assert_eq!((old.public_key, &old.site), (new.public_key, &new.site), "the key stays");
    assert!(old.serial != new.serial && new.not_after == third_year.saturating_add(SITE_LIFETIME));
    let end = old.not_after;
    let before = Timestamp(end.0 - NODE_LIFETIME.as_millis() as u64);
    let (first, second) = (NodeId::generate(), NodeId::generate());
    let by_old = fleet.plant.issue_node(&request(), first, before).unwrap().chain;
    let by_new = renewed.issue_node(&request(), second, before).unwrap().chain;
    for at in ["default", "plant", "shop"] {
        assert!(fleet.identity(at, before, &by_old).is_some(), "the earlier one at {at}");
        assert!(fleet.identity(at, before, &by_new).is_some(), "the later one at {at}");
        let shown = [&by_old[..1], renewed.chain()].concat();
        assert!(fleet.identity(at, before, &shown).is_some(), "signed before, shown with the later one at {at}");
    }
    let after = Timestamp(end.0 + 86_400_000);
    let by_new = renewed.issue_node(&request(), second, after).unwrap().chain;
    for at in ["default", "plant", "shop"] {
        let at_home = (at == "plant").then_some(PeerIdentity::ExpiredNode(first));
        assert_eq!(fleet.identity(at, after, &by_old), at_home, "it may ask for a certificate at home: {at}");
        assert!(fleet.identity(at, after, &by_new).is_some(), "{at}");
    }
}

#[test]
fn with_an_authority_all_its_nodes_are_void_whoever_signs_more_of_them_and_no_other_site_is() {
    let fleet = Fleet::found();
    let anew = authority_of(&fleet.root, "plant", FOUNDED);
    let void = SiteFacts::read(&fleet.plant.chain()[0]).unwrap().serial;
    for at in ["default", "plant", "shop"] {
        for revocation in [Revocation::Serial(void.clone()), Revocation::SerialOf(Issuer::Root, void.clone())] {
            let trust = fleet.trust(at, FOUNDED);
            trust.revocations.extend([revocation]);
            let verifier = ClientVerifier::new(trust, Demand::Node).unwrap();
            let time = UnixTime::since_unix_epoch(Duration::from_millis(FOUNDED.0));
            let passes = |authority: &Authority| {
                let (_, shown) = node(authority);
                verifier.verify_client_cert(&shown[0], &shown[1..], time).is_ok()
            };
            assert!(!passes(&fleet.plant), "signed by who stole the key, at {at}");
            assert!(passes(&fleet.root) && passes(&fleet.shop), "{at}");
            assert!(passes(&anew), "the name was founded anew, at {at}");
        }
    }
}
