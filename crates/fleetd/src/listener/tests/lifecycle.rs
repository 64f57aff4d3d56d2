//! Connections end when they must, and only then: revocation, renewal, shutdown.

use std::time::Duration;

use fleet_api::connect::{Connector, Established};
use fleet_api::tls::{ALPN_CLIENT, ALPN_PEER};
use fleet_api::{PeerDialer, Revocation, Revocations, Subject, ValidityClock};
use fleet_core::{ErrorKind, Timestamp};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::daemon::renewal::put_to_use;
use crate::listener::tests::support::{Fleet, Setup, call, call_on, soon, start};
use crate::ports::{Peers, Purpose};
use crate::trust::authority::SigningRequest;
use crate::trust::node_key::NodeKey;

const GROUP: &str = "/fleet.peer.v1.Peer/Group";
const RENEW: &str = "/fleet.peer.v1.Peer/RenewCertificate";

#[tokio::test]
async fn a_revocation_cuts_open_connections() {
    let fleet = Fleet::found();
    let mut node = start(&fleet, Setup::default());
    let address = node.address.to_string();
    let (id, certificate) = fleet.node();
    let connector = Connector::new(fleet.tls(Some(certificate.clone())), ALPN_PEER, Established::FirstByte).unwrap();
    let channel = connector.channel(&address).await.unwrap();
    call_on(channel.clone(), GROUP).await.unwrap();
    let root = fleet.authority.root().clone();
    let dialer = PeerDialer::new(root, certificate, Revocations::new(), ValidityClock::system());
    let mut link = dialer.actor_stream(&address, node.id).await.unwrap();
    let mut handed_over = soon(node.actors.recv()).await.unwrap();
    let (_, kept) = fleet.node();
    let other = Connector::new(fleet.tls(Some(kept)), ALPN_PEER, Established::FirstByte).unwrap();
    let other = other.channel(&address).await.unwrap();

    node.revocations.extend([Revocation::Subject(Subject::Node(id))]);

    let refusal = soon(handed_over.stream.read_u8()).await.unwrap_err();
    assert_eq!(refusal.to_string(), "its certificate was revoked");
    drop(handed_over);
    assert!(soon(link.read_u8()).await.is_err(), "the other end sees the end too");
    let refusal = call_on(channel, GROUP).await.unwrap_err();
    assert!(matches!(refusal.kind, ErrorKind::Unavailable | ErrorKind::Unauthenticated), "{refusal}");
    call_on(other, GROUP).await.unwrap();
}

#[tokio::test]
async fn we_cut_our_own_connections_to_a_revoked_node() {
    let fleet = Fleet::found();
    let mut node = start(&fleet, Setup::default());
    let revocations = Revocations::new();
    let root = fleet.authority.root().clone();
    let dialer = PeerDialer::new(root, fleet.node().1, revocations.clone(), ValidityClock::system());
    let mut link = dialer.actor_stream(&node.address.to_string(), node.id).await.unwrap();
    let _handed_over = soon(node.actors.recv()).await.unwrap();
    revocations.extend([Revocation::Subject(Subject::Node(node.id))]);
    assert_eq!(soon(link.read_u8()).await.unwrap_err().to_string(), "the node was removed from the fleet");
    let refusal = dialer.actor_stream(&node.address.to_string(), node.id).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unauthenticated);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_from_the_next_handshake_on() {
    let fleet = Fleet::found();
    let node = start(&fleet, Setup::default());
    let connector = Connector::new(fleet.tls(None), ALPN_CLIENT, Established::FirstByte).unwrap();
    let address = node.address.to_string();
    let serial = |stream: &fleet_api::connect::NodeStream| {
        let chain = stream.get_ref().get_ref().get_ref().1.peer_certificates().unwrap();
        fleet_api::CertificateFacts::read(&chain[0]).unwrap().serial
    };
    let before = connector.dial(&address).await.unwrap();
    let key = NodeKey::generate().unwrap();
    let request = SigningRequest::parse(&key.signing_request().unwrap()).unwrap();
    let renewed = fleet.authority.issue_node(&request, node.id, fleet.now).unwrap();
    key.with_chain(renewed.chain).unwrap().install(&node.certificate).unwrap();
    let after = connector.dial(&address).await.unwrap();
    assert_ne!(serial(&before), serial(&after));
    assert_eq!(serial(&after), renewed.facts.serial);
    let (_, admin) = fleet.admin_issued_at(fleet.now);
    call(&node, fleet.tls(Some(admin)), ALPN_CLIENT, "/fleet.v1.Fleet/Submit").await.unwrap();
}

#[tokio::test]
async fn a_node_that_renewed_its_expired_certificate_is_known_again_at_once() {
    let fleet = Fleet::found_days_ago(1_000);
    let node = start(&fleet, Setup::default());
    let (id, certificate) = fleet.node_issued_at(Timestamp(fleet.now.0 - 100 * 86_400_000));
    let root = fleet.authority.root().clone();
    let dialer = PeerDialer::new(root, certificate.clone(), Revocations::new(), ValidityClock::system());
    let peers = Peers::new(dialer, Handle::current());
    peers.learn([(node.id, node.address.to_string())]);
    let call = async |path| call_on(peers.channel(node.id, Purpose::Forward).unwrap(), path).await;
    call(RENEW).await.unwrap();
    assert_eq!(call(GROUP).await.unwrap_err().kind, ErrorKind::PermissionDenied);
    let key = NodeKey::generate().unwrap();
    let request = SigningRequest::parse(&key.signing_request().unwrap()).unwrap();
    let renewed = key.with_chain(fleet.authority.issue_node(&request, id, fleet.now).unwrap().chain).unwrap();
    put_to_use(&renewed, &certificate, &peers).unwrap();
    let answer = call(GROUP).await.unwrap();
    assert!(answer.starts_with(&format!("node {id} called")), "{answer}");
}

#[tokio::test]
async fn shutdown_closes_the_port_and_cuts_what_does_not_end() {
    let fleet = Fleet::found();
    let mut node = start(&fleet, Setup::default());
    let address = node.address;
    let root = fleet.authority.root().clone();
    let dialer = PeerDialer::new(root, fleet.node().1, Revocations::new(), ValidityClock::system());
    let _link = dialer.actor_stream(&address.to_string(), node.id).await.unwrap();
    let mut handed_over = soon(node.actors.recv()).await.unwrap();
    let connector = Connector::new(fleet.tls(None), ALPN_CLIENT, Established::FirstByte).unwrap();
    let mut open = connector.dial(&address.to_string()).await.unwrap();
    node.listener.shutdown(Duration::from_millis(100)).await;
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
    assert_eq!(soon(handed_over.stream.read_u8()).await.unwrap_err().to_string(), "this node is stopping");
    let mut rest = Vec::new();
    // How it ends, orderly or not, is the transport's matter.
    let _ = soon(open.read_to_end(&mut rest)).await;
}
