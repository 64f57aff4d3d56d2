//! Connections that went silent, as after a cut: a relay between two nodes stops passing bytes on, and new connections pass.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet_api::pb::peer::GroupMessage;
use fleet_api::{PeerDialer, Revocations, ValidityClock};
use fleet_core::ErrorKind;
use fleet_replication::GroupNetwork;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::support::{Fleet, Setup, call_on, good, start};
use crate::ports::{NetworkPort, Peers, Purpose};

/// Calls that may go by until a silent connection is given up: together they take less than [`SOONER_THAN_TRANSPORT`].
const CALLS_MAX: usize = 40;
/// How long each of them waits.
const CALL_DEADLINE: Duration = Duration::from_millis(150);
/// Less than TLS, HTTP/2 or TCP would need to give a silent connection up: 10 s of silence, beginning with a probe.
const SOONER_THAN_TRANSPORT: Duration = Duration::from_secs(8);
/// A little more than nobody may be silent.
const SILENCE: Duration = Duration::from_millis(1_100);
const GROUP: &str = "/fleet.peer.v1.Peer/Group";

/// Passes connections on to `target`, until they are cut.
struct Relay {
    address: SocketAddr,
    /// How often all connections that there were have been cut.
    cuts: watch::Sender<u32>,
}

impl Relay {
    async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = watch::Sender::new(0);
        let seen = cuts.clone();
        // Ends with the test's runtime.
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut cut = seen.subscribe();
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ended = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                        _cut = cut.changed() => {}
                    }
                    // Both ends believe that they are connected.
                    std::future::pending::<()>().await;
                });
            }
        });
        Self { address, cuts }
    }

    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

fn peers(fleet: &Fleet) -> Peers {
    let root = fleet.authority.root().clone();
    let dialer = PeerDialer::new(root, fleet.node().1, Revocations::new(), ValidityClock::system());
    Peers::new(dialer, Handle::current())
}

#[tokio::test]
async fn where_answers_stay_away_another_connection_is_made_and_used() {
    let fleet = Fleet::found();
    let setup = Setup { answer: Arc::new(|_| good(&GroupMessage { payload: vec![7] })), ..Setup::default() };
    let node = start(&fleet, setup);
    let relay = Relay::start(node.address).await;
    let peers = peers(&fleet);
    peers.learn([(node.id, relay.address.to_string())]);
    let network = NetworkPort::new(peers);
    let call = || network.call(node.id, Bytes::from_static(b"question"), CALL_DEADLINE);
    while call().await.is_err() {}
    relay.cut();
    for _ in 0..CALLS_MAX {
        if call().await.is_ok() {
            return;
        }
    }
    panic!("{CALLS_MAX} calls had no answer");
}

#[tokio::test]
async fn who_waits_for_a_node_on_a_silent_connection_is_told_once_the_node_is_heard_again() {
    let fleet = Fleet::found();
    let node = start(&fleet, Setup::default());
    let relay = Relay::start(node.address).await;
    let peers = peers(&fleet);
    peers.learn([(node.id, relay.address.to_string())]);
    let call = || call_on(peers.channel(node.id, Purpose::Forward).unwrap(), GROUP);
    call().await.unwrap();
    relay.cut();
    peers.lost(node.id);
    let waiting = tokio::spawn(call());
    // What is waited for is the silence itself.
    tokio::time::sleep(SILENCE).await;
    assert!(!waiting.is_finished(), "nothing has ended it yet");
    peers.heard(node.id);
    let told = tokio::time::timeout(SOONER_THAN_TRANSPORT, waiting).await.expect("it waits no more");
    let refusal = told.unwrap().unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unavailable, "{refusal}");
    call().await.expect("the next call connects anew");
}
