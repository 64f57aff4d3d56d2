//! The authority of a plant over the years and at its end: two groups of one, and a link between them in memory.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleet_api::SiteFacts;
use fleet_core::{Clock, Digest, Error, ErrorKind, NodeId, SiteName, SystemClock, Timestamp};
use fleet_node::ports::{KnownSites, SiteServer, SiteTopic, Sites};
use fleet_replication::command::{Action, LINKS_VERSION, SiteFounding, SiteNote, TokenGrant, TrustEntry};
use fleet_store::record::{Payload, SiteRecord, Sweep, TokenId, TrustKind};
use fleet_store::state::sites::SITE_AUTHORITY;
use fleet_store::state::{members, sites};
use futures_util::future::BoxFuture;
use rustls_pki_types::CertificateDer;
use tokio::sync::watch;

use super::removed_sites;
use super::trust_tests::Alone;
use crate::authorities::Authorities;
use crate::trust::authority::SigningRequest;
use crate::trust::keeper::site_certificate;
use crate::trust::renewal::AUTHORITY_RENEWAL_AGE;
use crate::trust::site_key::SiteKey;

fn plant_name() -> SiteName {
    "plant".parse().unwrap()
}

fn facts(certificate: &Payload) -> SiteFacts {
    SiteFacts::read(&CertificateDer::from(certificate.as_slice())).unwrap()
}

/// A link from the plant to the registry.
struct ToRegistry(Authorities);

impl Sites for ToRegistry {
    fn ask(&self, site: SiteName, topic: SiteTopic, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        assert_eq!((site, topic), (SiteName::default(), SiteTopic::Registry));
        self.0.answer(plant_name(), message)
    }

    fn known(&self) -> watch::Receiver<Arc<KnownSites>> {
        watch::channel(Arc::default()).1
    }
}

/// The first site with the registry, and a plant that it recorded, with the authority's first certificate.
async fn founded() -> (Alone, Alone, Payload) {
    let (first, plant) = (Alone::found().await, Alone::found_as(plant_name()).await);
    for alone in [&first, &plant] {
        alone.site.propose(Action::Gate { version: LINKS_VERSION }).await.unwrap();
    }
    first.site.propose(first.trust.founding_rows(&first.authority).unwrap()).await.unwrap();
    let key = SiteKey::generate().unwrap();
    let request = SigningRequest::parse(&key.signing_request().unwrap()).unwrap();
    let signed = first.authority.issue_site(&request, &plant_name(), SystemClock.now()).unwrap();
    let authority = key.into_authority(vec![signed.clone(), first.authority.root().clone()]).unwrap();
    plant.site.propose(plant.trust.founding_rows(&authority).unwrap()).await.unwrap();
    let certificate = Payload::from(signed.to_vec());
    let (token, secret, expires_at) = (TokenId(1), Digest::of(b"secret"), Timestamp(u64::MAX));
    let grant = TokenGrant { token, secret, site: plant_name(), uses: 1, expires_at };
    first.site.propose(Action::GrantFounding(grant)).await.unwrap();
    let founding = SiteFounding {
        site: plant_name(),
        token: Some((token, secret)),
        group: plant.site.group().id(),
        founder: plant.node(),
        public_key: Digest::of(b"key"),
        authority: certificate.clone(),
        contacts: vec!["plant:1".to_owned()],
    };
    first.site.propose(Action::FoundSite(Box::new(founding))).await.unwrap();
    (first, plant, certificate)
}

fn authorities(alone: &Alone) -> Authorities {
    Authorities::new(alone.site.clone(), alone.trust.clone(), SiteName::default())
}

fn recorded(first: &Alone) -> SiteRecord {
    sites::site(&first.site.reader().unwrap(), &plant_name()).unwrap().unwrap()
}

#[tokio::test]
async fn an_authority_is_renewed_from_the_third_year_on_by_the_clocks_of_both_sites() {
    let (first, plant, certificate) = founded().await;
    let (of_plant, registry) = (authorities(&plant), ToRegistry(authorities(&first)));
    assert!(!of_plant.renew(&registry).await.unwrap(), "it is not due");
    let third_year = SystemClock.now().saturating_add(AUTHORITY_RENEWAL_AGE);
    plant.validity.raise(third_year);
    let by_one_clock = of_plant.renew(&registry).await.unwrap_err();
    assert_eq!(by_one_clock.kind, ErrorKind::Unavailable, "the plant's clock is years ahead: {by_one_clock}");
    assert_eq!(recorded(&first).authority, certificate, "and the registry signs nothing for that");

    first.validity.raise(third_year);
    assert!(of_plant.renew(&registry).await.unwrap());
    let state = plant.site.reader().unwrap();
    let later = site_certificate(&state).unwrap();
    assert!(later != certificate && facts(&later).not_after > facts(&certificate).not_after);
    assert_eq!(facts(&later).public_key, facts(&certificate).public_key, "the key stays");
    assert_eq!(recorded(&first).authority, later);
    let issued = members::trust(&first.site.reader().unwrap(), TrustKind::Issued, &facts(&certificate).serial);
    assert!(issued.unwrap().is_some(), "the earlier one is remembered: a removal revokes it as well");
    let at_work = plant.trust.authority(&state).unwrap();
    assert_eq!(at_work.chain()[0].as_ref(), later.as_slice(), "what is signed from now on shows it");
    assert!(!of_plant.renew(&registry).await.unwrap(), "it is not due for years");
    for alone in [first, plant] {
        alone.site.group().shutdown().await;
    }
}

#[tokio::test]
async fn the_registry_renews_no_other_key_and_gives_the_same_again_to_who_lost_the_answer() {
    let (first, plant, certificate) = founded().await;
    let third_year = SystemClock.now().saturating_add(AUTHORITY_RENEWAL_AGE);
    first.validity.raise(third_year);
    plant.validity.raise(third_year);
    // A node of the plant that is no voter has no key of its authority, and may want one.
    let other_key = SiteKey::generate().unwrap();
    let by_other_key = authorities(&first).certify(plant_name(), &other_key.signing_request().unwrap()).await;
    assert_eq!(by_other_key.unwrap_err().kind, ErrorKind::PermissionDenied);
    let authority = plant.trust.authority(&plant.site.reader().unwrap()).unwrap();
    let csr = SiteKey::from_bytes(&authority.key()).unwrap().signing_request().unwrap();
    let unknown = authorities(&first).certify("shop".parse().unwrap(), &csr).await;
    assert_eq!(unknown.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(recorded(&first).authority, certificate);

    let lost = authorities(&first).certify(plant_name(), &csr).await.unwrap();
    let again = authorities(&first).certify(plant_name(), &csr).await.unwrap();
    assert!(lost == again && lost != certificate, "one certificate, however often it is asked for");
    for alone in [first, plant] {
        alone.site.group().shutdown().await;
    }
}

#[tokio::test]
async fn a_site_whose_authority_is_void_is_let_go_of_and_no_other() {
    let (first, plant, certificate) = founded().await;
    let shop = Alone::found_as("shop".parse().unwrap()).await;
    shop.site.propose(Action::Gate { version: LINKS_VERSION }).await.unwrap();
    // It is not the first site: it has an authority of its own.
    let own = TrustEntry { kind: TrustKind::Authority, name: SITE_AUTHORITY.to_owned(), value: Payload::from("own") };
    shop.site.propose(Action::PutTrust { rows: vec![own] }).await.unwrap();
    let note = |site: &str, authority: Payload| {
        let record = SiteRecord { authority, founder: NodeId::generate(), token: None, ..recorded(&first) };
        SiteNote { site: site.parse().unwrap(), record }
    };
    let kept = SiteRecord { group: first.site.group().id(), ..note("default", Payload::default()).record };
    let first_noted = SiteNote { site: SiteName::default(), record: kept };
    let notes = vec![note("plant", certificate.clone()), first_noted];
    shop.site.propose(Action::NoteSites { notes }).await.unwrap();
    removed_sites::look(&shop.site, &BTreeSet::new()).await.unwrap();
    removed_sites::look(&shop.site, &BTreeSet::from(["0a".to_owned()])).await.unwrap();
    assert_eq!(sites::sites(&shop.site.reader().unwrap()).unwrap().len(), 2);
    removed_sites::look(&shop.site, &BTreeSet::from([facts(&certificate).serial])).await.unwrap();
    let state = shop.site.reader().unwrap();
    let left: Vec<_> = sites::sites(&state).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, [SiteName::default()]);
    let removed = sites::removed(&state, plant.site.group().id()).unwrap().unwrap();
    assert_eq!((removed.site, removed.sweep), (plant_name(), Sweep::Over));
    for alone in [first, plant, shop] {
        alone.site.group().shutdown().await;
    }
}
