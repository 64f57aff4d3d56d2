//! Each protocol reaches its service, with the identity of who called.

use fleet_api::connect::{Connector, Established};
use fleet_api::pb::peer::GetKeyringRequest;
use fleet_api::tls::{ALPN_CLIENT, ALPN_PEER, Trust};
use fleet_api::{PeerDialer, Pulse, Revocations, ValidityClock};
use fleet_core::{ErrorKind, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::listener::tests::support::{Fleet, Node, PATIENCE, Setup, call, call_on, start};
use crate::listener::{Policy, Runtimes};
use crate::ports::Peers;

#[tokio::test]
async fn clients_are_known_by_their_certificates() {
    let fleet = Fleet::found();
    let node = start(&fleet, Setup::default());
    let (admin, credential) = fleet.admin_issued_at(fleet.now);
    let answer = call(&node, fleet.tls(Some(credential)), ALPN_CLIENT, "/fleet.v1.Fleet/Submit").await.unwrap();
    assert!(answer.starts_with(&format!("admin {admin} called /fleet.v1.Fleet/Submit")), "{answer}");
    let (other, certificate) = fleet.node();
    let tls = fleet.tls(Some(certificate));
    let answer = call(&node, tls.clone(), ALPN_CLIENT, "/fleet.v1.Admission/Join").await.unwrap();
    assert!(answer.starts_with(&format!("node {other} called")), "{answer}");
    let refusal = call(&node, tls, ALPN_CLIENT, "/fleet.v1.Fleet/Submit").await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::PermissionDenied, "a node is no operator");
    let answer = call(&node, fleet.tls(None), ALPN_CLIENT, "/fleet.v1.Admission/Join").await.unwrap();
    assert!(answer.starts_with("somebody without a certificate called"), "{answer}");
}

#[tokio::test]
async fn the_services_of_one_protocol_are_not_there_on_another() {
    let fleet = Fleet::found();
    let node = start(&fleet, Setup::default());
    let (admin, peer) = (fleet.admin_issued_at(fleet.now).1, fleet.node().1);
    let rows = [(ALPN_CLIENT, "/fleet.peer.v1.Peer/Group", admin), (ALPN_PEER, "/fleet.v1.Fleet/Submit", peer)];
    for (alpn, path, certificate) in rows {
        let refusal = call(&node, fleet.tls(Some(certificate)), alpn, path).await.unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::Unsupported, "{path}");
    }
}

fn dialer(fleet: &Fleet, certificate: fleet_api::tls::CertificateCell, revocations: &Revocations) -> PeerDialer {
    let root = fleet.authority.root().clone();
    PeerDialer::new(root, certificate, revocations.clone(), ValidityClock::system())
}

#[tokio::test]
async fn peers_call_each_other() {
    let fleet = Fleet::found();
    let node = start(&fleet, Setup::default());
    let (other, certificate) = fleet.node();
    let dialer = dialer(&fleet, certificate, &Revocations::new());
    let channel = dialer.channel(&Handle::current(), &node.address.to_string(), node.id, &Pulse::default()).unwrap();
    let answer = call_on(channel, "/fleet.peer.v1.Peer/Group").await.unwrap();
    assert!(answer.starts_with(&format!("node {other} called /fleet.peer.v1.Peer/Group")), "{answer}");
}

#[tokio::test]
async fn only_the_node_that_was_meant_is_talked_to() {
    let fleet = Fleet::found();
    let node = start(&fleet, Setup::default());
    let dialer = dialer(&fleet, fleet.node().1, &Revocations::new());
    let meant = NodeId::generate();
    let channel = dialer.channel(&Handle::current(), &node.address.to_string(), meant, &Pulse::default()).unwrap();
    let refusal = call_on(channel, "/fleet.peer.v1.Peer/Group").await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unavailable);
    let text = fleet_core::error::chain(&refusal);
    assert!(text.contains(&format!("node {} answered at the address of node {meant}", node.id)), "{text}");
}

#[tokio::test]
async fn any_node_of_the_fleet_will_do_where_that_is_what_was_meant() {
    let (fleet, foreign) = (Fleet::found(), Fleet::found());
    let dialer = dialer(&fleet, fleet.node().1, &Revocations::new());
    let peers = Peers::new(dialer, Handle::current());
    let ask = async |node: &Node| {
        let mut client = peers.client_at(&node.address.to_string()).unwrap();
        client.get_keyring(GetKeyringRequest {}).await.unwrap_err().code()
    };
    assert_eq!(ask(&start(&fleet, Setup::default())).await, tonic::Code::FailedPrecondition, "the echo answers");
    assert_ne!(ask(&start(&foreign, Setup::default())).await, tonic::Code::FailedPrecondition);
}

#[tokio::test]
async fn actor_links_are_handed_over_with_their_node() {
    let fleet = Fleet::found();
    let mut node = start(&fleet, Setup::default());
    let (other, certificate) = fleet.node();
    let dialer = dialer(&fleet, certificate, &Revocations::new());
    let mut near = dialer.actor_stream(&node.address.to_string(), node.id).await.unwrap();
    near.write_all(b"hello").await.unwrap();
    near.flush().await.unwrap();
    let mut link = node.actors.recv().await.unwrap();
    assert_eq!(link.node, other);
    assert!(link.remote.ip().is_loopback());
    let mut heard = [0; 5];
    link.stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    link.stream.write_all(b"there").await.unwrap();
    link.stream.flush().await.unwrap();
    near.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"there");
}

#[tokio::test]
async fn in_a_development_fleet_anyone_on_this_machine_is_admitted() {
    let fleet = Fleet::found();
    let node = start(&fleet, Setup { policy: Policy::Development, ..Setup::default() });
    let tls = fleet_api::tls::ClientTls::new(Trust::Shown);
    let answer = call(&node, tls, ALPN_CLIENT, "/fleet.v1.Fleet/Submit").await.unwrap();
    assert!(answer.starts_with("a developer on this machine called"), "{answer}");
    let refusal = call(&node, fleet.tls(None), ALPN_PEER, "/fleet.peer.v1.Peer/Group").await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unauthenticated, "nodes need certificates there too");
}

fn runtime(name: &'static str) -> Runtime {
    Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build().unwrap()
}

#[test]
fn clients_and_peers_run_on_runtimes_of_their_own() {
    let (clients, peers, own) = (runtime("clients"), runtime("peers"), runtime("own"));
    let fleet = Fleet::found();
    let runtimes = Runtimes { client: clients.handle().clone(), peer: peers.handle().clone() };
    own.block_on(async {
        let node = start(&fleet, Setup { runtimes, ..Setup::default() });
        let (admin, peer) = (fleet.admin_issued_at(fleet.now).1, fleet.node().1);
        let rows = [
            (ALPN_CLIENT, "/fleet.v1.Fleet/Submit", admin, "clients"),
            (ALPN_PEER, "/fleet.peer.v1.Peer/Group", peer, "peers"),
        ];
        for (alpn, path, certificate, thread) in rows {
            let answer = call(&node, fleet.tls(Some(certificate)), alpn, path).await.unwrap();
            assert!(answer.ends_with(&format!("on {thread}")), "{answer}");
        }
    });
}

#[test]
fn peers_are_served_while_the_clients_runtime_is_stuck() {
    let (clients, peers, own) = (runtime("clients"), runtime("peers"), runtime("own"));
    let fleet = Fleet::found();
    let runtimes = Runtimes { client: clients.handle().clone(), peer: peers.handle().clone() };
    own.block_on(async {
        let node = start(&fleet, Setup { runtimes, ..Setup::default() });
        let (release, stuck) = std::sync::mpsc::sync_channel::<()>(0);
        let (entered, begun) = tokio::sync::oneshot::channel();
        clients.spawn(async move {
            entered.send(()).unwrap();
            // Blocks the only worker on purpose, until the sender is dropped.
            let _ = stuck.recv();
        });
        begun.await.unwrap();
        let connector = Connector::new(fleet.tls(None), ALPN_CLIENT, Established::Handshake).unwrap();
        let address = node.address.to_string();
        let client = tokio::spawn(async move { connector.with_timeout(PATIENCE).dial(&address).await.map(drop) });
        for _ in 0..5 {
            let tls = fleet.tls(Some(fleet.node().1));
            call(&node, tls, ALPN_PEER, "/fleet.peer.v1.Peer/Group").await.unwrap();
        }
        assert!(!client.is_finished(), "a client's handshake is work of the clients' runtime");
        drop(release);
        client.await.unwrap().unwrap();
    });
}
