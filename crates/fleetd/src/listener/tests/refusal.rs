//! Who is not let in, and what they are told.

use std::sync::Arc;

use fleet_api::tls::{ALPN_ACTORS, ALPN_CLIENT, ALPN_PEER, CertificateCell, ClientTls, is_revoked_here};
use fleet_api::{PeerDialer, Revocation, Revocations, Subject, ValidityClock};
use fleet_core::{BootInstant, Clock, ErrorKind, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::listener::tests::support::{Fleet, Setup, answers, call, soon, start};
use crate::listener::{Listener, ListenerOptions, Policy};
use crate::trust::verification::FleetTrust;

const DAY_MS: u64 = 86_400_000;
const SUBMIT: &str = "/fleet.v1.Fleet/Submit";
const GROUP: &str = "/fleet.peer.v1.Peer/Group";
const RENEW: &str = "/fleet.peer.v1.Peer/RenewCertificate";

struct Shifted(Timestamp);

impl Clock for Shifted {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn boot_now(&self) -> BootInstant {
        BootInstant::default()
    }
}

#[tokio::test]
async fn bad_certificates_are_refused_with_the_reason() {
    let fleet = Fleet::found_days_ago(1_000);
    let foreign = Fleet::found();
    let node = start(&fleet, Setup::default());
    let days_ago = |days: u64| Timestamp(fleet.now.0 - days * DAY_MS);
    let (_, revoked_node) = fleet.node();
    let (_, revoked_admin) = fleet.admin_issued_at(fleet.now);
    let dead_revoked_node = fleet.node_issued_at(days_ago(30 + 366)).1;
    for cell in [&revoked_node, &revoked_admin, &dead_revoked_node] {
        node.revocations.extend([Revocation::Subject(cell.facts().unwrap().name.subject)]);
    }
    let admin = fleet.admin_issued_at(fleet.now).1;
    let old_admin = fleet.admin_issued_at(days_ago(366)).1;
    let old_node = fleet.node_issued_at(days_ago(31)).1;
    let dead_node = fleet.node_issued_at(days_ago(30 + 366)).1;
    let cases: Vec<(&str, Option<CertificateCell>, &[u8], &str)> = vec![
        ("no certificate", None, ALPN_PEER, "requires a certificate"),
        ("no certificate", None, ALPN_ACTORS, "requires a certificate"),
        ("an admin's", Some(admin.clone()), ALPN_PEER, "refused our certificate"),
        ("an admin's", Some(admin), ALPN_ACTORS, "refused our certificate"),
        ("a foreign node's", Some(foreign.node().1), ALPN_PEER, "it is of another fleet"),
        ("a foreign node's", Some(foreign.node().1), ALPN_ACTORS, "it is of another fleet"),
        ("a foreign node's", Some(foreign.node().1), ALPN_CLIENT, "it is of another fleet"),
        ("a foreign admin's", Some(foreign.admin_issued_at(fleet.now).1), ALPN_CLIENT, "it is of another fleet"),
        ("a revoked node's", Some(revoked_node.clone()), ALPN_PEER, "it was revoked"),
        ("a revoked node's", Some(revoked_node.clone()), ALPN_ACTORS, "it was revoked"),
        ("a revoked node's", Some(revoked_node), ALPN_CLIENT, "it was revoked"),
        ("a revoked node's, expired a year ago", Some(dead_revoked_node.clone()), ALPN_PEER, "it was revoked"),
        ("a revoked node's, expired a year ago", Some(dead_revoked_node), ALPN_CLIENT, "it was revoked"),
        ("a revoked admin's", Some(revoked_admin), ALPN_CLIENT, "it was revoked"),
        ("an expired admin's", Some(old_admin), ALPN_CLIENT, "it has expired"),
        ("an expired node's", Some(old_node), ALPN_CLIENT, "it has expired"),
        ("a node's, expired a year ago", Some(dead_node), ALPN_PEER, "it has expired"),
    ];
    for (what, certificate, alpn, expected) in cases {
        let alpn_text = String::from_utf8_lossy(alpn);
        let refusal = call(&node, fleet.tls(certificate), alpn, SUBMIT).await.expect_err(what);
        assert_eq!(refusal.kind, ErrorKind::Unauthenticated, "{what} on {alpn_text}: {refusal}");
        assert!(refusal.message.contains(expected), "{what} on {alpn_text}: {refusal}");
    }
    assert!(answers(&fleet, &node).await);
}

#[tokio::test]
async fn only_a_node_that_proved_who_it_is_can_tell_that_we_were_removed() {
    let fleet = Fleet::found();
    let node = start(&fleet, Setup::default());
    let (id, certificate) = fleet.node();
    let root = fleet.authority.root().clone();
    let dialer = PeerDialer::new(root, certificate, Revocations::new(), ValidityClock::system());
    let impostor = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = impostor.local_addr().unwrap().to_string();
    let alert = async {
        let (mut socket, _) = impostor.accept().await.unwrap();
        // A fatal alert in plain text: certificate_revoked.
        socket.write_all(&[0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 44]).await.unwrap();
        socket.read_to_end(&mut Vec::new()).await
    };
    let (refusal, _) = tokio::join!(dialer.greet(&address, node.id), soon(alert));
    let refusal = refusal.unwrap_err();
    assert!(!is_revoked_here(&refusal), "{refusal}");
    assert_eq!(refusal.kind, ErrorKind::Unavailable, "{refusal}");
    let address = node.address.to_string();
    dialer.greet(&address, node.id).await.unwrap();
    node.revocations.extend([Revocation::Subject(Subject::Node(id))]);
    let refusal = dialer.greet(&address, node.id).await.unwrap_err();
    assert!(is_revoked_here(&refusal), "{refusal}");
}

#[tokio::test]
async fn a_certificate_from_the_future_is_refused() {
    let fleet = Fleet::found();
    let early = Timestamp(fleet.now.0 - 2 * DAY_MS);
    let clock = ValidityClock::new(Arc::new(Shifted(early)), Timestamp(0));
    let node = start(&fleet, Setup { clock: clock.clone(), ..Setup::default() });
    let (_, certificate) = fleet.node();
    let refusal = call(&node, fleet.tls(Some(certificate.clone())), ALPN_PEER, GROUP).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unauthenticated);
    assert!(refusal.message.contains("not valid yet"), "{refusal}");
    // The box's clock is still wrong, but it has stored a later time before.
    clock.raise(fleet.now);
    assert!(call(&node, fleet.tls(Some(certificate)), ALPN_PEER, GROUP).await.is_ok());
}

#[tokio::test]
async fn an_expired_node_may_renew_and_nothing_else() {
    let fleet = Fleet::found_days_ago(1_000);
    let node = start(&fleet, Setup::default());
    let (id, old) = fleet.node_issued_at(Timestamp(fleet.now.0 - 100 * DAY_MS));
    let answer = call(&node, fleet.tls(Some(old.clone())), ALPN_PEER, RENEW).await.unwrap();
    assert!(answer.starts_with(&format!("node {id} with an expired certificate called")), "{answer}");
    let refusal = call(&node, fleet.tls(Some(old.clone())), ALPN_PEER, GROUP).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::PermissionDenied, "{refusal}");
    node.revocations.extend([Revocation::Serial(old.facts().unwrap().serial)]);
    let refusal = call(&node, fleet.tls(Some(old)), ALPN_PEER, RENEW).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unauthenticated, "a removed node does not come back: {refusal}");
}

#[tokio::test]
async fn an_expired_node_opens_no_actor_link() {
    let fleet = Fleet::found_days_ago(1_000);
    let mut node = start(&fleet, Setup::default());
    let (_, old) = fleet.node_issued_at(Timestamp(fleet.now.0 - 100 * DAY_MS));
    let refusal = call(&node, fleet.tls(Some(old)), ALPN_ACTORS, GROUP).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unavailable, "{refusal}");
    assert!(node.actors.try_recv().is_err());
}

#[tokio::test]
async fn without_a_certificate_one_may_only_ask_to_join() {
    let fleet = Fleet::found();
    let node = start(&fleet, Setup::default());
    let refusal = call(&node, fleet.tls(None), ALPN_CLIENT, SUBMIT).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unauthenticated);
    assert!(refusal.next_step.unwrap().contains("admin.json"));
    assert!(answers(&fleet, &node).await);
}

#[tokio::test]
async fn a_client_of_another_fleet_does_not_believe_the_node() {
    let fleet = Fleet::found();
    let foreign = Fleet::found();
    let node = start(&fleet, Setup::default());
    let (_, credential) = foreign.admin_issued_at(foreign.now);
    let refusal = call(&node, foreign.tls(Some(credential)), ALPN_CLIENT, SUBMIT).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unauthenticated);
    assert!(refusal.message.contains("belongs to another fleet"), "{refusal}");
}

#[tokio::test]
async fn an_admin_cannot_pose_as_a_node() {
    let fleet = Fleet::found();
    let (_, credential) = fleet.admin_issued_at(fleet.now);
    let node = start(&fleet, Setup { certificate: Some(credential), ..Setup::default() });
    let refusal = call(&node, fleet.tls(None), ALPN_CLIENT, SUBMIT).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unauthenticated, "{refusal}");
}

async fn handshake_with(node: &crate::listener::tests::support::Node, tls: ClientTls, protocols: &[&[u8]]) -> String {
    let mut config = tls.config(ALPN_CLIENT).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let tcp = TcpStream::connect(node.address).await.unwrap();
    let name = rustls_pki_types::ServerName::from(node.address.ip());
    match TlsConnector::from(Arc::new(config)).connect(name, tcp).await {
        Ok(stream) => format!("{:?}", stream.get_ref().1.alpn_protocol()),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn other_protocols_are_refused() {
    let fleet = Fleet::found();
    let node = start(&fleet, Setup::default());
    let told = handshake_with(&node, fleet.tls(None), &[b"http/1.1"]).await;
    assert!(told.contains("NoApplicationProtocol"), "{told}");
    let told = handshake_with(&node, fleet.tls(None), &[]).await;
    assert!(told.contains("eof") || told.contains("reset"), "{told}");
    let told = handshake_with(&node, fleet.tls(None), &[b"http/1.1", b"h2"]).await;
    assert!(told.contains("Some"), "{told}");
}

#[tokio::test]
async fn garbage_is_dropped_and_harms_nobody() {
    let fleet = Fleet::found();
    let node = start(&fleet, Setup::default());
    let garbage: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        vec![0; 4_096],
        vec![0xff; 70_000],
        vec![0x16, 0x03, 0x01, 0x00, 0x05, 0x01, 0x00, 0x00, 0x01, 0x00],
        vec![0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x28],
        b"SSH-2.0-x\r\n".to_vec(),
    ];
    for bytes in garbage {
        let mut socket = TcpStream::connect(node.address).await.unwrap();
        // The node may close before everything is written.
        let _ = socket.write_all(&bytes).await;
        let mut rest = Vec::new();
        // It may answer with an alert; what counts is that it ends.
        let _ = soon(socket.read_to_end(&mut rest)).await;
        assert!(rest.len() < 64, "{rest:?}");
    }
    assert!(answers(&fleet, &node).await);
}

#[tokio::test]
async fn a_development_fleet_refuses_addresses_that_others_reach() {
    let fleet = Fleet::found();
    let trust = FleetTrust {
        root: fleet.authority.root().clone(),
        own_site: fleet_core::SiteName::default(),
        first_site: fleet_core::SiteName::default(),
        revocations: fleet_api::Revocations::new(),
        validity: ValidityClock::system(),
    };
    let certificate = fleet.node().1;
    let options =
        ListenerOptions { policy: Policy::Development, certificate, trust, bounds: crate::listener::Bounds::default() };
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let refusal = Listener::bind(address.parse().unwrap(), options.clone()).unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::InvalidInput, "{address}");
    }
    let held = Listener::bind("127.0.0.1:0".parse().unwrap(), options.clone()).unwrap();
    let refusal = Listener::bind(held.local_address(), options).unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Conflict);
}
