//! Two groups of one, of two sites, that tell each other of the fleet's sites over a link in memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet_core::{Digest, Error, NodeId, SiteName, Timestamp};
use fleet_node::ports::{KnownSite, KnownSites, SiteServer, SiteTopic, Sites};
use fleet_replication::command::{Action, SITES_VERSION, SiteFounding, SiteNote, TokenGrant, TrustEntry};
use fleet_store::record::{Payload, SiteRecord, TokenId, TrustKind};
use fleet_store::state::sites::{SITE_AUTHORITY, sites};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::trust_tests::Alone;
use crate::notes::{Notes, own_record};

const BOUND: Duration = Duration::from_secs(20);

fn name(text: &str) -> SiteName {
    text.parse().unwrap()
}

/// A link from the site `from` to one other.
struct Direct {
    from: SiteName,
    to: Notes,
    known: watch::Sender<Arc<KnownSites>>,
}

impl Sites for Direct {
    fn ask(&self, _site: SiteName, topic: SiteTopic, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        assert_eq!(topic, SiteTopic::Registry);
        self.to.answer(self.from.clone(), message)
    }

    fn known(&self) -> watch::Receiver<Arc<KnownSites>> {
        self.known.subscribe()
    }
}

fn linked(site: &str, alone: &Alone) -> watch::Sender<Arc<KnownSites>> {
    let group = alone.site.group().id();
    let known = KnownSite { group, is_linked: true, heard_at: None, robots: Vec::new() };
    watch::Sender::new(Arc::new([(name(site), known)].into()))
}

async fn record(registry: &Alone, site: &str, founding: &SiteRecord) {
    let (token, secret) = (TokenId(u64::from(founding.contacts[0].as_bytes()[0])), Digest::of(b"secret"));
    let expires_at = Timestamp(u64::MAX);
    let grant = TokenGrant { token, secret, site: name(site), uses: 1, expires_at };
    registry.site.propose(Action::GrantFounding(grant)).await.unwrap();
    let founding = SiteFounding {
        site: name(site),
        token: Some((token, secret)),
        group: founding.group,
        founder: founding.founder,
        public_key: founding.public_key,
        authority: Payload::from("certificate"),
        contacts: founding.contacts.clone(),
    };
    registry.site.propose(Action::FoundSite(Box::new(founding))).await.unwrap();
}

async fn contacts_become(alone: &Alone, expected: &[(&str, &str)]) {
    let deadline = Instant::now() + BOUND;
    loop {
        let known = sites(&alone.site.reader().unwrap()).unwrap();
        let seen: Vec<_> = known.iter().map(|(name, record)| (name.as_str(), record.contacts[0].as_str())).collect();
        if seen == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{seen:?} is not {expected:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sites_learn_of_each_other_over_a_link_and_nobody_moves_a_third() {
    let (first, plant) = (Alone::found().await, Alone::found_as(name("plant")).await);
    for alone in [&first, &plant] {
        alone.site.propose(Action::Gate { version: SITES_VERSION }).await.unwrap();
    }
    let authority = Payload::from("certificate");
    let row = TrustEntry { kind: TrustKind::Authority, name: SITE_AUTHORITY.to_owned(), value: authority };
    plant.site.propose(Action::PutTrust { rows: vec![row] }).await.unwrap();
    let mut of_plant = own_record(&plant.site, &plant.site.reader().unwrap()).unwrap();
    of_plant.contacts = vec!["before:1".to_owned()];
    record(&first, "plant", &of_plant).await;
    let of_shop = SiteRecord { contacts: vec!["shop:1".to_owned()], founder: NodeId::generate(), ..of_plant.clone() };
    record(&first, "shop", &of_shop).await;

    let notes = |alone: &Alone| Notes::new(alone.site.clone(), SiteName::default());
    let towards_first = Direct { from: name("plant"), to: notes(&first), known: linked("default", &first) };
    let asking = tokio::spawn(notes(&plant).run(Arc::new(towards_first)));
    contacts_become(&plant, &[("default", "alone:7000"), ("shop", "shop:1")]).await;
    contacts_become(&first, &[("plant", "alone:7000"), ("shop", "shop:1")]).await;
    asking.abort();

    // What the plant has of the shop now is wrong, and the registry takes it from nobody but the shop.
    let moved = SiteRecord { contacts: vec!["stolen:1".to_owned()], contacts_at: Timestamp(9), ..of_shop };
    let note = SiteNote { site: name("shop"), record: moved };
    plant.site.propose(Action::NoteSites { notes: vec![note] }).await.unwrap();
    contacts_become(&plant, &[("default", "alone:7000"), ("shop", "stolen:1")]).await;
    let towards_plant = Direct { from: SiteName::default(), to: notes(&plant), known: linked("plant", &plant) };
    notes(&first).ask(&towards_plant, &name("plant")).await.unwrap();
    contacts_become(&first, &[("plant", "alone:7000"), ("shop", "shop:1")]).await;
    for alone in [first, plant] {
        alone.site.group().shutdown().await;
    }
}
