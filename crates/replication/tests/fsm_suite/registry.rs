//! The registry of sites: a site is founded once, by one node, with a token for it; elsewhere the rows are a copy.

use fleet_core::{Digest, SiteName, Timestamp};
use fleet_replication::command::{Action, Outcome, Refusal, SiteFounding, SiteNote, TokenGrant, TrustEntry};
use fleet_replication::fsm::Event;
use fleet_store::record::{FoundingToken, Payload, SiteRecord, TokenId, TrustKind};
use fleet_store::state::sites::SITE_AUTHORITY;
use fleet_store::state::{members, sites};

use crate::test_site::{TestSite, admission, founding, node_id};

const TOKEN: TokenId = TokenId(7);

fn name(text: &str) -> SiteName {
    text.parse().unwrap()
}

fn secret() -> Digest {
    Digest::of(b"secret")
}

fn grant(site: &str, uses: u32) -> Action {
    let expires_at = Timestamp(9_000);
    Action::GrantFounding(TokenGrant { token: TOKEN, secret: secret(), site: name(site), uses, expires_at })
}

/// Node `number` founds `site` with `token`.
fn found(site: &str, number: u8, token: Option<(TokenId, Digest)>) -> Action {
    Action::FoundSite(Box::new(SiteFounding {
        site: name(site),
        token,
        group: fleet_core::GroupId::from_bytes([number; 16]),
        founder: node_id(number),
        public_key: Digest::of(&[number]),
        authority: Payload::from(vec![number; 9]),
        contacts: vec![format!("node-{number}:7000")],
    }))
}

fn founded(outcome: Outcome) -> SiteRecord {
    match outcome {
        Outcome::SiteFounded(record) => *record,
        other => panic!("{other:?}"),
    }
}

fn note(site: &str, number: u8, contact: &str, at: u64) -> SiteNote {
    let record = SiteRecord {
        group: fleet_core::GroupId::from_bytes([number; 16]),
        founder: node_id(number),
        public_key: Digest::of(&[number]),
        authority: Payload::from(vec![number; 9]),
        contacts: vec![contact.to_owned()],
        contacts_at: Timestamp(at),
        founded_at: Timestamp(5),
        token: None,
    };
    SiteNote { site: name(site), record }
}

/// A site that is not the first: it has an authority of its own.
fn later_site() -> TestSite {
    let mut site = TestSite::new();
    let row =
        TrustEntry { kind: TrustKind::Authority, name: SITE_AUTHORITY.to_owned(), value: Payload::from("certificate") };
    site.must(Action::PutTrust { rows: vec![row] });
    site
}

#[test]
fn a_site_is_recorded_once_and_only_its_founder_hears_so_again() {
    let mut registry = TestSite::new();
    registry.must(grant("plant", 3));
    let shown = Some((TOKEN, secret()));
    let applied = registry.propose(found("plant", 4, shown));
    assert_eq!(applied.events, [Event::SitesChanged]);
    let record = founded(applied.outcome);
    let expected = FoundingToken { id: TOKEN, secret: secret(), uses_left: 2, expires_at: Timestamp(9_000) };
    assert_eq!((record.founder, record.token.clone()), (node_id(4), Some(expected)), "what is left goes with it");
    assert_eq!(members::token(&registry.reader(), TOKEN).unwrap().unwrap().uses_left, 0, "and nothing stays");

    let mut again = found("plant", 4, None);
    if let Action::FoundSite(founding) = &mut again {
        founding.authority = Payload::from("another certificate");
    }
    registry.now = Timestamp(20_000);
    assert_eq!(founded(registry.must(again)), record, "whatever became of the token");
    let taken = Refusal::SiteTaken(name("plant"));
    assert_eq!(registry.refused(found("plant", 5, shown)), taken);
    let mut posing = found("plant", 5, shown);
    if let Action::FoundSite(founding) = &mut posing {
        founding.public_key = Digest::of(&[4]);
    }
    assert_eq!(registry.refused(posing), taken, "one key, two nodes");
    assert_eq!(registry.refused(grant("plant", 1)), taken, "its tokens are its own now");
    assert_eq!(sites::sites(&registry.reader()).unwrap(), [(name("plant"), record)]);
}

#[test]
fn a_site_is_founded_only_with_a_token_for_it() {
    let mut registry = TestSite::new();
    registry.must(grant("plant", 1));
    let own = TokenGrant {
        token: TokenId(8),
        secret: secret(),
        site: SiteName::default(),
        uses: 1,
        expires_at: Timestamp(9_000),
    };
    registry.must(Action::CreateToken(own));
    let of_site = |token, site: &str| Refusal::TokenOfSite { token, site: name(site) };
    assert_eq!(registry.refused(found("plant", 4, None)), Refusal::TokenNeeded);
    assert_eq!(registry.refused(found("shop", 4, Some((TOKEN, secret())))), of_site(TOKEN, "plant"));
    assert_eq!(registry.refused(found("plant", 4, Some((TokenId(8), secret())))), of_site(TokenId(8), "default"));
    let guess = Digest::of(b"guess");
    assert_eq!(registry.refused(found("plant", 4, Some((TOKEN, guess)))), Refusal::TokenSecretWrong(TOKEN));
    let redeeming = Action::RedeemToken(Box::new(fleet_replication::command::Redeeming {
        token: Some((TOKEN, secret())),
        public_key: Digest::of(b"key"),
        admission: admission(4),
        answer: Payload::from("chain"),
    }));
    assert_eq!(registry.refused(redeeming), of_site(TOKEN, "plant"), "it admits nobody to the first site");
    registry.now = Timestamp(9_000);
    assert_eq!(registry.refused(found("plant", 4, Some((TOKEN, secret())))), Refusal::TokenExpired(TOKEN));
    assert_eq!(registry.refused(grant("default", 1)), Refusal::SiteTaken(SiteName::default()));
    assert_eq!(registry.refused(found("default", 4, None)), Refusal::SiteTaken(SiteName::default()));
}

#[test]
fn a_development_fleet_founds_sites_without_tokens() {
    let mut registry = TestSite::empty();
    let group = registry.group;
    registry.must(Action::Found(founding(group, true)));
    let record = founded(registry.must(found("plant", 4, None)));
    assert_eq!(record.token, None);
    assert_eq!(registry.refused(found("plant", 5, None)), Refusal::SiteTaken(name("plant")));
}

#[test]
fn only_the_first_site_keeps_the_registry() {
    let mut site = later_site();
    assert_eq!(site.refused(grant("shop", 1)), Refusal::NotRegistry);
    assert_eq!(site.refused(found("shop", 4, Some((TOKEN, secret())))), Refusal::NotRegistry);
}

#[test]
fn the_registry_learns_addresses_from_others_and_no_sites() {
    let mut registry = TestSite::new();
    registry.must(grant("plant", 1));
    registry.must(found("plant", 4, Some((TOKEN, secret()))));
    let later = |site, number, contact| note(site, number, contact, 5_000);
    let other_group = Action::NoteSites { notes: vec![later("plant", 5, "x:1")] };
    assert_eq!(registry.must(other_group), Outcome::Unchanged, "a group that it has not recorded");
    assert_eq!(registry.must(Action::NoteSites { notes: vec![later("shop", 6, "x:1")] }), Outcome::Unchanged);
    assert_eq!(registry.must(Action::NoteSites { notes: vec![later("default", 6, "x:1")] }), Outcome::Unchanged);
    assert_eq!(registry.must(Action::NoteSites { notes: vec![later("plant", 4, "moved:1")] }), Outcome::Done);
    assert_eq!(registry.must(Action::NoteSites { notes: vec![note("plant", 4, "old:1", 4_999)] }), Outcome::Unchanged);
    let known = sites::sites(&registry.reader()).unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].1.contacts, ["moved:1"]);
    assert!(known[0].1.token.is_some(), "its founder may still ask again");
}

#[test]
fn another_site_notes_what_it_hears_and_its_own_name_never() {
    let mut site = later_site();
    let mut shop = note("shop", 6, "shop:1", 10);
    shop.record.token = Some(FoundingToken { id: TOKEN, secret: secret(), uses_left: 1, expires_at: Timestamp(9_000) });
    let notes = vec![shop, note("default", 3, "default:1", 10), note("plant", 5, "plant:1", 10)];
    assert_eq!(site.must(Action::NoteSites { notes: notes.clone() }), Outcome::Done);
    assert_eq!(site.must(Action::NoteSites { notes }), Outcome::Unchanged);
    let known = sites::sites(&site.reader()).unwrap();
    assert_eq!(known.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["plant", "shop"]);
    assert!(known.iter().all(|(_, record)| record.token.is_none()), "tokens are the registry's and the site's");
}
