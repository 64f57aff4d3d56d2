//! Clients that say nothing, or are too many, do not keep others out.

use std::time::Duration;

use fleet_api::connect::{Connector, Established};
use fleet_api::tls::{ALPN_CLIENT, ALPN_PEER};
use fleet_core::ErrorKind;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::listener::Bounds;
use crate::listener::tests::support::{Fleet, Setup, answers, call, soon, start};

#[tokio::test]
async fn a_silent_client_is_dropped_in_time_while_others_connect() {
    let fleet = Fleet::found();
    let handshake_timeout = Duration::from_millis(400);
    let node = start(&fleet, Setup { bounds: Bounds { handshake_timeout, ..Bounds::default() }, ..Setup::default() });
    let mut silent = TcpStream::connect(node.address).await.unwrap();
    let connected = Instant::now();
    assert!(answers(&fleet, &node).await);
    let mut byte = [0; 1];
    assert_eq!(soon(silent.read(&mut byte)).await.unwrap(), 0, "the node closes it");
    assert!(connected.elapsed() >= handshake_timeout / 2, "{:?}", connected.elapsed());
    assert!(answers(&fleet, &node).await);
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_its_handshake_is_dropped_too() {
    use tokio::io::AsyncWriteExt;
    let fleet = Fleet::found();
    let handshake_timeout = Duration::from_millis(400);
    let node = start(&fleet, Setup { bounds: Bounds { handshake_timeout, ..Bounds::default() }, ..Setup::default() });
    let mut slow = TcpStream::connect(node.address).await.unwrap();
    slow.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.unwrap();
    let mut byte = [0; 1];
    assert_eq!(soon(slow.read(&mut byte)).await.unwrap(), 0);
}

#[tokio::test]
async fn more_silent_clients_than_places_do_not_keep_others_out() {
    let fleet = Fleet::found();
    let bounds = Bounds { handshake_timeout: Duration::from_secs(120), ..Bounds::default() };
    let node = start(&fleet, Setup { bounds, ..Setup::default() });
    let mut silent = Vec::new();
    for _ in 0..bounds.handshakes_pending_max + 40 {
        silent.push(TcpStream::connect(node.address).await.unwrap());
    }
    assert!(answers(&fleet, &node).await);
    let mut byte = [0; 1];
    for oldest in &mut silent[..40] {
        assert_eq!(soon(oldest.read(&mut byte)).await.unwrap(), 0, "the oldest give way");
    }
}

#[tokio::test]
async fn places_are_kept_for_nodes() {
    let fleet = Fleet::found();
    let bounds = Bounds { connections_max: 4, node_connections_reserved: 2, ..Bounds::default() };
    let node = start(&fleet, Setup { bounds, ..Setup::default() });
    let address = node.address.to_string();
    let clients = Connector::new(fleet.tls(None), ALPN_CLIENT, Established::FirstByte).unwrap();
    let first = clients.dial(&address).await.unwrap();
    let _second = clients.dial(&address).await.unwrap();
    let refusal = clients.dial(&address).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unavailable, "{refusal}");
    let (_, certificate) = fleet.node();
    call(&node, fleet.tls(Some(certificate)), ALPN_PEER, "/fleet.peer.v1.Peer/Group").await.unwrap();
    drop(first);
    let deadline = Instant::now() + Duration::from_secs(10);
    while clients.dial(&address).await.is_err() {
        assert!(Instant::now() < deadline, "a place that was given back is never free");
        tokio::task::yield_now().await;
    }
}
