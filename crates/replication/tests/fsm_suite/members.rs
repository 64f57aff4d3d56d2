//! Founding, leaders, holds, nodes, tokens, trust: every rule and every refusal.

use fleet_core::{Digest, NodeId, SiteName, Timestamp};
use fleet_replication::command::{Action, NodeAdmission, Outcome, Redeeming, Refusal, TokenGrant, TrustEntry};
use fleet_replication::fsm::Event;
use fleet_store::record::{GossipKey, Keyring, NodeCertificate, NodeStanding, Payload, TokenId, TrustKind};
use fleet_store::state::members;

use crate::test_site::{TestSite, admission, founding, job_id, node_id, session, submission};

const TOKEN: TokenId = TokenId(7);

fn secret() -> Digest {
    Digest::of(b"secret")
}

fn grant(uses: u32) -> Action {
    let (site, expires_at) = (SiteName::default(), Timestamp(10_000));
    Action::CreateToken(TokenGrant { token: TOKEN, secret: secret(), site, uses, expires_at })
}

fn redeem(node: u8, token: Option<(TokenId, Digest)>) -> Action {
    let admission = admission(node);
    let answer = Payload::from(vec![node]);
    Action::RedeemToken(Box::new(Redeeming { token, public_key: Digest::of(&[node]), admission, answer }))
}

fn certified(number: u8, serial: &str) -> NodeAdmission {
    let certificate = NodeCertificate { serial: serial.to_owned(), not_after: Timestamp(1) };
    NodeAdmission { certificate: Some(certificate), ..admission(number) }
}

fn standing(site: &TestSite, node: NodeId) -> NodeStanding {
    members::node(&site.reader(), node).unwrap().unwrap().standing
}

#[test]
fn a_site_is_founded_once() {
    let mut site = TestSite::empty();
    let group = site.group;
    assert_eq!(site.refused(Action::Submit(Box::new(submission(1)))), Refusal::NotFounded);
    assert_eq!(site.refused(Action::PutNode(Box::new(admission(1)))), Refusal::NotFounded);
    assert_eq!(site.must(Action::Lead { node: node_id(1) }), Outcome::Done, "a leader comes before the founding");
    assert_eq!(site.must(Action::Found(founding(group, false))), Outcome::Done);
    assert_eq!(site.must(Action::Found(founding(group, false))), Outcome::Unchanged);
    assert_eq!(site.refused(Action::Found(founding(group, true))), Refusal::FoundedOtherwise);
    assert_eq!(site.row().founding, Some(founding(group, false)));
}

#[test]
fn each_leader_is_noted_once() {
    let mut site = TestSite::new();
    let applied = site.propose(Action::Lead { node: node_id(2) });
    assert_eq!(applied.events, [Event::LeaderChanged { node: node_id(2), term: 1 }]);
    assert_eq!(site.must(Action::Lead { node: node_id(2) }), Outcome::Unchanged);
    site.epoch = 2;
    assert_eq!(site.must(Action::Lead { node: node_id(2) }), Outcome::Done);
    assert_eq!(site.row().leadership.unwrap().epoch, 2);
}

#[test]
fn the_gate_is_only_raised() {
    let mut site = TestSite::new();
    assert_eq!(site.row().gate, 1, "founding opens the first, whatever the program knows");
    assert_eq!(site.must(Action::Gate { version: 1 }), Outcome::Unchanged);
    assert_eq!(site.propose(Action::Gate { version: 3 }).events, [Event::GateRaised { version: 3 }]);
    assert_eq!(site.must(Action::Gate { version: 2 }), Outcome::Unchanged);
    assert_eq!(site.row().gate, 3);
}

#[test]
fn a_hold_ends_when_everyone_awaited_has_reconciled() {
    let mut site = TestSite::new();
    let job = site.submit(1);
    let (one, two) = (node_id(1), node_id(2));
    let applied = site.propose(Action::Hold { awaited: vec![two, one, two] });
    assert_eq!(applied.events, [Event::HoldChanged { held: true }]);
    assert_eq!(site.row().hold.unwrap().awaited, [one, two]);
    assert_eq!(site.must(Action::Hold { awaited: vec![one, two] }), Outcome::Unchanged);
    assert_eq!(site.must(Action::Reconciled { node: node_id(3) }), Outcome::Unchanged);
    assert_eq!(site.must(Action::Reconciled { node: two }), Outcome::Done);
    let assign = Action::Assign { job, attempt: 0, session: session(1, 1) };
    assert_eq!(site.refused(assign.clone()), Refusal::Held);
    assert_eq!(site.propose(Action::Reconciled { node: one }).events, [Event::HoldChanged { held: false }]);
    site.must(assign);
    assert_eq!(site.must(Action::EndHold), Outcome::Unchanged);
}

#[test]
fn the_operator_can_end_a_hold() {
    let mut site = TestSite::new();
    site.must(Action::Hold { awaited: Vec::new() });
    assert_eq!(site.must(Action::Reconciled { node: node_id(1) }), Outcome::Unchanged);
    assert_eq!(site.must(Action::EndHold), Outcome::Done);
    assert_eq!(site.row().hold, None);
}

#[test]
fn a_node_that_is_admitted_again_is_updated_and_keeps_its_standing() {
    let mut site = TestSite::new();
    assert_eq!(site.must(Action::PutNode(Box::new(admission(1)))), Outcome::Unchanged);
    site.must(Action::DrainNode { node: node_id(1), deadline: Some(Timestamp(5)) });
    let mut moved = admission(1);
    moved.profile.address = "10.0.0.1:7000".to_owned();
    assert_eq!(site.propose(Action::PutNode(Box::new(moved))).events, [Event::NodeChanged { node: node_id(1) }]);
    let record = members::node(&site.reader(), node_id(1)).unwrap().unwrap();
    assert_eq!(record.profile.address, "10.0.0.1:7000");
    assert_eq!(record.standing, NodeStanding::Draining { deadline: Some(Timestamp(5)) });
    site.must(Action::UndrainNode { node: node_id(1) });
    assert_eq!(site.must(Action::UndrainNode { node: node_id(1) }), Outcome::Unchanged);
    assert_eq!(standing(&site, node_id(1)), NodeStanding::Active);
}

#[test]
fn a_name_belongs_to_one_node_until_that_is_replaced() {
    let mut site = TestSite::new();
    let mut newcomer = admission(9);
    newcomer.profile.name = "node-1".to_owned();
    let taken = Refusal::NameTaken { name: "node-1".to_owned(), node: node_id(1) };
    assert_eq!(site.refused(Action::PutNode(Box::new(newcomer.clone()))), taken);
    newcomer.replaces = Some(node_id(2));
    assert_eq!(site.refused(Action::PutNode(Box::new(newcomer.clone()))), taken);
    newcomer.replaces = Some(node_id(1));
    site.must(Action::PutNode(Box::new(newcomer)));
    assert_eq!(standing(&site, node_id(1)), NodeStanding::Removed);
    let named = members::node_named(&site.reader(), "node-1").unwrap().unwrap();
    assert_eq!(named.id, node_id(9));
}

#[test]
fn a_removed_node_never_comes_back_and_all_its_certificates_are_revoked() {
    let mut site = TestSite::new();
    site.must(Action::PutNode(Box::new(certified(1, "0a"))));
    site.must(Action::PutNode(Box::new(certified(1, "0b"))));
    site.must(Action::PutNode(Box::new(certified(2, "0c"))));
    assert_eq!(site.must(Action::RemoveNode { node: node_id(1) }), Outcome::Done);
    assert_eq!(site.must(Action::RemoveNode { node: node_id(1) }), Outcome::Unchanged);
    let revoked = members::trust_of(&site.reader(), TrustKind::Revoked, None, 10).unwrap();
    let serials: Vec<_> = revoked.iter().map(|(serial, _)| serial.as_str()).collect();
    assert_eq!(serials, ["0a", "0b"], "renewed certificates too, nobody else's");
    let removed = Refusal::NodeRemoved(node_id(1));
    assert_eq!(site.refused(Action::PutNode(Box::new(admission(1)))), removed);
    assert_eq!(site.refused(Action::DrainNode { node: node_id(1), deadline: None }), removed);
    assert_eq!(site.refused(Action::UndrainNode { node: node_id(1) }), removed);
    assert_eq!(site.refused(Action::RemoveNode { node: node_id(8) }), Refusal::NodeUnknown(node_id(8)));
    assert_eq!(members::nodes(&site.reader()).unwrap().len(), 3, "its name is still known for old jobs");
}

#[test]
fn a_node_of_another_site_is_refused() {
    let mut site = TestSite::new();
    let mut foreign = admission(9);
    foreign.profile.site = "plant-7".parse().unwrap();
    let refusal = site.refused(Action::PutNode(Box::new(foreign)));
    assert_eq!(refusal, Refusal::SiteMismatch("plant-7".parse().unwrap()));
}

#[test]
fn a_token_admits_as_many_as_it_may_and_the_same_key_gets_the_same_answer() {
    let mut site = TestSite::new();
    site.must(grant(1));
    assert_eq!(site.must(grant(1)), Outcome::Unchanged);
    let shown = Some((TOKEN, secret()));
    let redeemed = Outcome::Redeemed { node: node_id(4), answer: Payload::from(vec![4]) };
    assert_eq!(site.must(redeem(4, shown)), redeemed);
    assert_eq!(site.refused(redeem(5, shown)), Refusal::TokenUsedUp(TOKEN));
    let mut again = redeem(4, shown);
    if let Action::RedeemToken(redeeming) = &mut again {
        redeeming.answer = Payload::from("another certificate");
    }
    assert_eq!(site.must(again.clone()), redeemed);
    site.must(Action::RevokeToken { token: TOKEN });
    site.now = Timestamp(20_000);
    assert_eq!(site.must(again), redeemed, "whatever became of the token");
    assert_eq!(standing(&site, node_id(4)), NodeStanding::Active);
    site.must(Action::RemoveNode { node: node_id(4) });
    assert_eq!(site.refused(redeem(4, shown)), Refusal::NodeRemoved(node_id(4)));
}

#[test]
fn tokens_are_refused_each_for_its_own_reason() {
    let mut site = TestSite::new();
    site.must(grant(3));
    let wrong = Digest::of(b"guess");
    assert_eq!(site.refused(redeem(4, None)), Refusal::TokenNeeded);
    assert_eq!(site.refused(redeem(4, Some((TokenId(8), secret())))), Refusal::TokenForeign(TokenId(8)));
    assert_eq!(site.refused(redeem(4, Some((TOKEN, wrong)))), Refusal::TokenSecretWrong(TOKEN));
    let conflict = Action::CreateToken(TokenGrant {
        token: TOKEN,
        secret: wrong,
        site: SiteName::default(),
        uses: 1,
        expires_at: Timestamp(1),
    });
    assert_eq!(site.refused(conflict), Refusal::TokenConflict(TOKEN));
    let known = site.refused(redeem(1, Some((TOKEN, secret()))));
    assert_eq!(known, Refusal::NodeTaken(node_id(1)), "a token lets nobody become a known node");
    site.now = Timestamp(9_999);
    assert_eq!(site.refused(redeem(4, Some((TOKEN, secret())))), Refusal::TokenExpired(TOKEN));
    assert_eq!(site.must(Action::RevokeToken { token: TOKEN }), Outcome::Done);
    assert_eq!(site.must(Action::RevokeToken { token: TOKEN }), Outcome::Unchanged);
    assert_eq!(site.refused(redeem(4, Some((TOKEN, secret())))), Refusal::TokenRevoked(TOKEN));
    assert_eq!(site.refused(Action::RevokeToken { token: TokenId(8) }), Refusal::TokenUnknown(TokenId(8)));
    let listed = members::tokens(&site.reader(), None, 10).unwrap();
    assert_eq!(listed.iter().map(|(id, record)| (*id, record.uses_left)).collect::<Vec<_>>(), [(TOKEN, 3)]);
}

#[test]
fn only_a_development_fleet_admits_without_a_token() {
    let mut site = TestSite::empty();
    let group = site.group;
    site.must(Action::Found(founding(group, true)));
    let redeemed = Outcome::Redeemed { node: node_id(4), answer: Payload::from(vec![4]) };
    assert_eq!(site.must(redeem(4, None)), redeemed);
}

#[test]
fn a_refused_admission_does_not_use_the_token_up() {
    let mut site = TestSite::new();
    site.must(grant(1));
    let mut namesake = redeem(4, Some((TOKEN, secret())));
    if let Action::RedeemToken(redeeming) = &mut namesake {
        redeeming.admission.profile.name = "node-1".to_owned();
    }
    assert!(matches!(site.refused(namesake), Refusal::NameTaken { .. }));
    assert_eq!(members::token(&site.reader(), TOKEN).unwrap().unwrap().uses_left, 1);
}

#[test]
fn trust_is_written_once_where_its_kind_says_so_all_rows_or_none() {
    let mut site = TestSite::new();
    let entry = |kind, name: &str, value: &'static str| TrustEntry { kind, name: name.to_owned(), value: value.into() };
    let first =
        vec![entry(TrustKind::Authority, "root", "certificate"), entry(TrustKind::SealedKey, "root/node-1", "sealed")];
    assert_eq!(site.must(Action::PutTrust { rows: first.clone() }), Outcome::Done);
    assert_eq!(site.must(Action::PutTrust { rows: first }), Outcome::Unchanged);
    let resealed = vec![entry(TrustKind::SealedKey, "root/node-1", "sealed anew")];
    assert_eq!(site.must(Action::PutTrust { rows: resealed }), Outcome::Done);
    let forged = vec![entry(TrustKind::Revoked, "0a", ""), entry(TrustKind::Authority, "root", "forged")];
    assert_eq!(site.refused(Action::PutTrust { rows: forged }), Refusal::TrustConflict("root".to_owned()));
    let twice = vec![entry(TrustKind::Revoked, "0a", "one"), entry(TrustKind::Revoked, "0a", "two")];
    assert_eq!(site.refused(Action::PutTrust { rows: twice }), Refusal::TrustConflict("0a".to_owned()));
    let row = members::trust(&site.reader(), TrustKind::SealedKey, "root/node-1").unwrap().unwrap();
    assert_eq!(row.value, "sealed anew".into());
}

#[test]
fn gossip_keys_follow_one_another() {
    let mut site = TestSite::new();
    let ring = |generation, key: &'static str| {
        Action::PutKeyring(Keyring { generation, keys: vec![GossipKey { key_id: 1, key: key.into() }] })
    };
    assert_eq!(site.propose(ring(1, "a")).events, [Event::KeyringChanged { generation: 1 }]);
    assert_eq!(site.must(ring(1, "a")), Outcome::Unchanged);
    assert_eq!(site.refused(ring(1, "b")), Refusal::KeyringStale(1));
    assert_eq!(site.refused(ring(3, "b")), Refusal::KeyringStale(1));
    site.must(ring(2, "b"));
    assert_eq!(members::keyring(&site.reader()).unwrap().generation, 2);
}

#[test]
fn the_latest_time_never_goes_back() {
    let mut site = TestSite::new();
    site.now = Timestamp(90_000);
    site.must(Action::EndHold);
    site.now = Timestamp(10);
    site.refused(Action::Resume { job: job_id(1) });
    assert_eq!(site.row().latest, Timestamp(90_001));
}
