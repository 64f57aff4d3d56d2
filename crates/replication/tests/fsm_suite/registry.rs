//! The registry of sites: a site is founded once, by one node, with a token for it; elsewhere the rows are a copy.

use fleet_core::{Digest, GroupId, SiteName, Timestamp};
use fleet_replication::command::{
    Action, Outcome, Refusal, SiteFounding, SiteNote, SiteRemoval, SiteRenewal, TokenGrant, TrustEntry,
};
use fleet_replication::fsm::Event;
use fleet_store::record::{FoundingToken, Payload, PeerSite, SiteRecord, TokenId, TrustKind};
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

fn peer_site(name_of: &str, number: u8) -> PeerSite {
    PeerSite { group: GroupId::from_bytes([number; 16]), site: name(name_of) }
}

fn renewal(number: u8, replaces: &[u8], serial: &str, authority: &'static str) -> Action {
    Action::RenewSite(Box::new(SiteRenewal {
        site: peer_site("plant", number),
        replaces: Digest::of(replaces),
        serial: serial.to_owned(),
        authority: Payload::from(authority),
    }))
}

fn removal(number: u8, authority: &[u8], serial: &str) -> Action {
    let (site, authority) = (peer_site("plant", number), Digest::of(authority));
    Action::RemoveSite(Box::new(SiteRemoval { site, authority, serial: serial.to_owned() }))
}

/// The serial numbers that are revoked.
fn revoked(site: &TestSite) -> Vec<String> {
    let rows = members::trust_of(&site.reader(), TrustKind::Revoked, None, 99).unwrap();
    rows.into_iter().map(|(serial, _)| serial).collect()
}

#[test]
fn a_later_certificate_of_an_authority_is_recorded_once_and_the_earlier_one_remembered() {
    let mut registry = TestSite::new();
    registry.must(grant("plant", 1));
    registry.must(found("plant", 4, Some((TOKEN, secret()))));
    assert_eq!(registry.refused(renewal(5, &[4; 9], "01", "second")), Refusal::SiteChanged(name("plant")));
    assert_eq!(registry.refused(renewal(4, b"another", "01", "second")), Refusal::SiteChanged(name("plant")));
    registry.must(renewal(4, &[4; 9], "01", "second"));
    assert_eq!(registry.must(renewal(4, &[4; 9], "01", "second")), Outcome::Unchanged);
    assert_eq!(registry.refused(renewal(4, &[4; 9], "01", "third")), Refusal::SiteChanged(name("plant")), "late");
    let record = sites::site(&registry.reader(), &name("plant")).unwrap().unwrap();
    assert_eq!(record.authority, Payload::from("second"));
    assert!(revoked(&registry).is_empty());

    let mut plant = later_site();
    let renew = |replaces: &[u8], certificate: &'static str| Action::RenewAuthority {
        replaces: Digest::of(replaces),
        certificate: Payload::from(certificate),
    };
    plant.must(renew(b"certificate", "second"));
    assert_eq!(plant.must(renew(b"certificate", "second")), Outcome::Unchanged);
    let late = plant.refused(renew(b"certificate", "third"));
    assert_eq!(late, Refusal::TrustConflict(SITE_AUTHORITY.to_owned()));
    let refused = registry.refused(renew(b"certificate", "second"));
    assert_eq!(refused, Refusal::TrustConflict(SITE_AUTHORITY.to_owned()), "the root is never renewed");
    assert_eq!(plant.refused(renewal(4, &[4; 9], "01", "second")), Refusal::NotRegistry);
}

#[test]
fn a_removed_site_is_revoked_with_every_certificate_it_had_and_its_name_is_free() {
    let mut registry = TestSite::new();
    registry.must(grant("plant", 1));
    let older = TokenId(8);
    let second =
        TokenGrant { token: older, secret: secret(), site: name("plant"), uses: 1, expires_at: Timestamp(9_000) };
    registry.must(Action::GrantFounding(second));
    registry.must(found("plant", 4, Some((TOKEN, secret()))));
    registry.must(renewal(4, &[4; 9], "01", "second"));
    assert_eq!(registry.refused(removal(4, &[4; 9], "01")), Refusal::SiteChanged(name("plant")), "renewed meanwhile");
    assert_eq!(registry.refused(removal(5, b"second", "02")), Refusal::SiteChanged(name("plant")));
    let applied = registry.propose(removal(4, b"second", "02"));
    assert!(applied.events.contains(&Event::SitesChanged) && applied.events.contains(&Event::TrustChanged));
    assert_eq!(revoked(&registry), ["01", "02"], "the earlier certificate is valid for years yet");
    assert_eq!(registry.must(removal(4, b"second", "02")), Outcome::Unchanged);
    assert_eq!(sites::sites(&registry.reader()).unwrap(), []);

    let by_old_token = registry.refused(found("plant", 6, Some((older, secret()))));
    assert_eq!(by_old_token, Refusal::TokenRevoked(older), "a thief may have it");
    assert_eq!(registry.refused(found("plant", 4, None)), Refusal::TokenNeeded, "the old founder is nobody now");
    registry.now = Timestamp(2_000);
    let (token, expires_at) = (TokenId(9), Timestamp(9_000));
    registry.must(Action::GrantFounding(TokenGrant {
        token,
        secret: secret(),
        site: name("plant"),
        uses: 1,
        expires_at,
    }));
    let anew = founded(registry.must(found("plant", 6, Some((token, secret())))));
    assert_eq!(anew.group, GroupId::from_bytes([6; 16]));
    assert_eq!(registry.must(removal(4, b"second", "02")), Outcome::Unchanged, "late, and nothing to the new one");
    assert_eq!(sites::sites(&registry.reader()).unwrap().len(), 1);
    assert_eq!(later_site().refused(removal(4, &[4; 9], "01")), Refusal::NotRegistry);
    let unknown = TestSite::new().refused(removal(4, &[4; 9], "01"));
    assert_eq!(unknown, Refusal::SiteUnknown(name("plant")));
}

#[test]
fn elsewhere_a_removed_site_is_not_noted_again_and_one_of_its_name_is() {
    let mut shop = later_site();
    shop.must(Action::NoteSites { notes: vec![note("plant", 4, "plant:1", 1)] });
    shop.must(Action::ExpelSite(peer_site("plant", 4)));
    assert_eq!(sites::sites(&shop.reader()).unwrap(), []);
    let stale = Action::NoteSites { notes: vec![note("plant", 4, "plant:1", 9)] };
    assert_eq!(shop.must(stale), Outcome::Unchanged);
    shop.must(Action::NoteSites { notes: vec![note("plant", 6, "plant:1", 1)] });
    shop.must(Action::ExpelSite(peer_site("plant", 4)));
    assert_eq!(sites::sites(&shop.reader()).unwrap().len(), 1, "another group");
}
