//! Joining over real TLS: the secret goes only to the fleet that the token names.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fleet_api::pb::v1;
use fleet_api::tls::CertificateCell;
use fleet_core::{Digest, ErrorKind, GroupId, NodeId};
use tonic::Status;

use crate::listener::Policy;
use crate::listener::tests::support::{Answer, Fleet, Node, Setup, good, start};
use crate::trust::authority::SigningRequest;
use crate::trust::joining::{Entitlement, accept, join, seed_of_other_fleet};
use crate::trust::node_key::NodeKey;
use crate::trust::token::JoinToken;

fn token(fleet: &Fleet) -> Entitlement {
    Entitlement::Token(JoinToken::generate(Digest::of(fleet.authority.root()), GroupId::generate()).unwrap())
}

/// A seed that counts the calls it gets and admits `node` with `key`.
fn seed(fleet: &Fleet, setup: Setup, response: v1::JoinResponse) -> (Node, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let answer: Answer = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        good(&response)
    });
    (start(fleet, Setup { answer, ..setup }), calls)
}

fn response(fleet: &Fleet, key: &NodeKey, node: NodeId) -> v1::JoinResponse {
    let request = SigningRequest::parse(&key.signing_request().unwrap()).unwrap();
    let issued = fleet.authority.issue_node(&request, node, fleet.now).unwrap();
    v1::JoinResponse {
        fleet_id: fleet.authority.fleet().as_bytes().to_vec(),
        certificates: issued.chain.iter().map(|certificate| certificate.to_vec()).collect(),
        root: fleet.authority.root().to_vec(),
        ..v1::JoinResponse::default()
    }
}

#[tokio::test]
async fn a_joiner_gets_its_certificate() {
    let fleet = Fleet::found();
    let (key, id) = (NodeKey::generate().unwrap(), NodeId::generate());
    let (seed, calls) = seed(&fleet, Setup::default(), response(&fleet, &key, id));
    let entitlement = token(&fleet);
    let answer = join(&seed.address.to_string(), &entitlement, v1::JoinRequest::default()).await.unwrap();
    let joined = accept(&answer, key, id, &entitlement).unwrap();
    assert_eq!(joined.root(), Some(fleet.authority.root()));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_seed_of_another_fleet_is_told_from_one_that_cannot_be_reached() {
    let (fleet, foreign) = (Fleet::found(), Fleet::found());
    let ours = start(&fleet, Setup::default()).address.to_string();
    let (here, there) = (start(&fleet, Setup::default()), start(&foreign, Setup::default()));
    let (ours_too, theirs) = (here.address.to_string(), there.address.to_string());
    let root = fleet.authority.root();
    let other = async |seeds: &[&String]| {
        let seeds: Vec<String> = seeds.iter().map(|seed| (*seed).clone()).collect();
        seed_of_other_fleet(&seeds, root).await
    };
    assert_eq!(other(&[&theirs]).await, Some(theirs.clone()));
    assert_eq!(other(&[&ours, &theirs]).await, Some(theirs.clone()), "the first is gone");
    assert_eq!(other(&[&ours_too, &theirs]).await, None, "one of ours is among them");
    assert_eq!(other(&[&ours]).await, None, "nobody is there to say");
    assert_eq!(other(&[]).await, None);
}

#[tokio::test]
async fn a_seed_of_another_fleet_never_sees_the_secret() {
    let fleet = Fleet::found();
    let foreign = Fleet::found();
    let (seed, calls) = seed(&foreign, Setup::default(), v1::JoinResponse::default());
    let refusal = join(&seed.address.to_string(), &token(&fleet), v1::JoinRequest::default()).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unauthenticated);
    assert!(refusal.message.contains("another fleet than the join token"), "{refusal}");
    assert!(refusal.next_step.is_some());
    assert_eq!(calls.load(Ordering::SeqCst), 0, "nothing was sent");
}

#[tokio::test]
async fn showing_the_right_root_is_not_enough() {
    let fleet = Fleet::found();
    let foreign = Fleet::found();
    // The impostor has the real root certificate, which is public, but no certificate under it.
    let key = NodeKey::generate().unwrap();
    let request = SigningRequest::parse(&key.signing_request().unwrap()).unwrap();
    let forged = foreign.authority.issue_node(&request, NodeId::generate(), foreign.now).unwrap();
    let chain = vec![forged.chain[0].clone(), fleet.authority.root().clone()];
    let certificate: CertificateCell = key.with_chain(chain).unwrap().cell().unwrap();
    let setup = Setup { certificate: Some(certificate), ..Setup::default() };
    let (seed, calls) = seed(&foreign, setup, v1::JoinResponse::default());
    let refusal = join(&seed.address.to_string(), &token(&fleet), v1::JoinRequest::default()).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unauthenticated, "{refusal}");
    assert_eq!(calls.load(Ordering::SeqCst), 0, "nothing was sent");
}

#[tokio::test]
async fn without_a_token_only_a_development_fleet_on_this_machine_is_asked() {
    let fleet = Fleet::found();
    let (key, id) = (NodeKey::generate().unwrap(), NodeId::generate());
    let setup = Setup { policy: Policy::Development, ..Setup::default() };
    let (seed, _) = seed(&fleet, setup, response(&fleet, &key, id));
    let answer = join(&seed.address.to_string(), &Entitlement::Development, v1::JoinRequest::default()).await.unwrap();
    accept(&answer, key, id, &Entitlement::Development).unwrap();
    let refusal = join("192.0.2.1:7000", &Entitlement::Development, v1::JoinRequest::default()).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unauthenticated);
    assert!(refusal.next_step.unwrap().contains("token create"));
}

#[tokio::test]
async fn a_refusal_without_a_token_names_the_command_that_makes_one() {
    let fleet = Fleet::found();
    let answer: Answer = Arc::new(|_| Status::unauthenticated("a join token is needed").into_http());
    let seed = start(&fleet, Setup { answer, ..Setup::default() });
    let refusal =
        join(&seed.address.to_string(), &Entitlement::Development, v1::JoinRequest::default()).await.unwrap_err();
    assert_eq!(refusal.kind.exit_code(), 5);
    assert!(refusal.next_step.unwrap().contains("fleetctl token create"));
}

/// Makes a good answer a bad one.
type Spoil = Box<dyn Fn(&mut v1::JoinResponse)>;

#[test]
fn answers_that_do_not_fit_are_refused() {
    let fleet = Fleet::found();
    let foreign = Fleet::found();
    let id = NodeId::generate();
    let entitlement = token(&fleet);
    let cases: Vec<(&str, Spoil)> = vec![
        ("nothing", Box::new(|answer| answer.certificates.clear())),
        ("another root", Box::new(move |answer| answer.root = foreign.authority.root().to_vec())),
        ("no root", Box::new(|answer| answer.root.clear())),
        ("another fleet", Box::new(|answer| answer.fleet_id = vec![0; 16])),
        ("garbage", Box::new(|answer| answer.certificates[0] = b"garbage".to_vec())),
        ("only the root", Box::new(|answer| drop(answer.certificates.remove(0)))),
    ];
    for (what, spoil) in cases {
        let key = NodeKey::generate().unwrap();
        let mut answer = response(&fleet, &key, id);
        spoil(&mut answer);
        assert_eq!(accept(&answer, key, id, &entitlement).unwrap_err().kind, ErrorKind::Unauthenticated, "{what}");
    }
    let key = NodeKey::generate().unwrap();
    let answer = response(&fleet, &key, NodeId::generate());
    assert_eq!(accept(&answer, key, id, &entitlement).unwrap_err().kind, ErrorKind::Unauthenticated, "another node");
    let answer = response(&fleet, &NodeKey::generate().unwrap(), id);
    let refusal = accept(&answer, NodeKey::generate().unwrap(), id, &entitlement).unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::InvalidInput, "another key");
}
