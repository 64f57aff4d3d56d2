//! Nodes of two sites towards each other: who is taken for whom, by the one that dials and by the one that is dialled.

use fleet_api::connect::{Connector, Established};
use fleet_api::tls::{ALPN_ACTORS, ALPN_PEER, CertificateCell};
use fleet_api::{Issuer, PeerDialer, Pulse, Revocation, Revocations, ValidityClock};
use fleet_core::{ErrorKind, NodeId, SiteName};
use tokio::runtime::Handle;

use crate::listener::tests::support::{Fleet, Node, Setup, call, call_on, soon, start};
use crate::trust::authority::{Authority, SigningRequest};
use crate::trust::node_key::NodeKey;
use crate::trust::site_key::SiteKey;

const JOIN: &str = "/fleet.v1.Admission/Join";
const GROUP: &str = "/fleet.peer.v1.Peer/Group";
const RENEW: &str = "/fleet.peer.v1.Peer/RenewCertificate";

fn plant_name() -> SiteName {
    "plant".parse().unwrap()
}

fn authority_of_plant(fleet: &Fleet) -> Authority {
    let key = SiteKey::generate().unwrap();
    let request = SigningRequest::parse(&key.signing_request().unwrap()).unwrap();
    let certificate = fleet.authority.issue_site(&request, &plant_name(), fleet.now).unwrap();
    key.into_authority(vec![certificate, fleet.authority.root().clone()]).unwrap()
}

/// A certificate for `node` by `authority`.
fn certificate(authority: &Authority, node: NodeId, fleet: &Fleet) -> CertificateCell {
    let key = NodeKey::generate().unwrap();
    let request = SigningRequest::parse(&key.signing_request().unwrap()).unwrap();
    key.with_chain(authority.issue_node(&request, node, fleet.now).unwrap().chain).unwrap().cell().unwrap()
}

fn dialer(fleet: &Fleet, certificate: CertificateCell) -> PeerDialer {
    PeerDialer::new(fleet.authority.root().clone(), certificate, Revocations::new(), ValidityClock::system())
}

/// What `node`, whose listener belongs to the first site, answers to a call of its group by `dialer`, which means it.
async fn call_group(dialer: &PeerDialer, node: &Node) -> Result<String, fleet_core::Error> {
    let channel = dialer.channel(&Handle::current(), &node.address.to_string(), node.id, &Pulse::default())?;
    call_on(channel, GROUP).await
}

#[tokio::test]
async fn a_node_of_another_site_may_ask_for_a_joiner_and_nothing_else() {
    let fleet = Fleet::found();
    let plant = authority_of_plant(&fleet);
    let mut node = start(&fleet, Setup::default());
    let id = NodeId::generate();
    let of_plant = certificate(&plant, id, &fleet);
    let tls = || fleet.tls(Some(of_plant.clone()));
    for path in [GROUP, RENEW, "/fleet.v1.Fleet/Submit"] {
        let refusal = call(&node, tls(), ALPN_PEER, path).await.unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::PermissionDenied, "{path}");
        assert!(refusal.message.contains("of site plant"), "{refusal}");
    }
    // The stage has no such service for nodes, and says so only to who may call it.
    let allowed = call(&node, tls(), ALPN_PEER, JOIN).await.unwrap_err();
    assert_eq!(allowed.kind, ErrorKind::Unsupported);
    let link = dialer(&fleet, certificate(&fleet.authority, id, &fleet));
    link.actor_stream(&node.address.to_string(), node.id).await.unwrap();
    assert_eq!(node.actors.recv().await.map(|link| link.node), Some(id), "a node of its own site");
    let other = Connector::new(tls(), ALPN_ACTORS, Established::Handshake);
    let _stream = other.unwrap().dial(&node.address.to_string()).await.unwrap();
    link.actor_stream(&node.address.to_string(), node.id).await.unwrap();
    assert_eq!(node.actors.recv().await.map(|link| link.node), Some(id));
    assert!(node.actors.try_recv().is_err(), "no link of actors goes to another site");
}

#[tokio::test]
async fn whoever_dials_takes_nobody_of_another_site_for_one_of_its_own() {
    let fleet = Fleet::found();
    let plant_authority = authority_of_plant(&fleet);
    let id = NodeId::generate();
    // A node of the plant that has the very id of one of the first site.
    let posing =
        start(&fleet, Setup { certificate: Some(certificate(&plant_authority, id, &fleet)), ..Setup::default() });
    let posing = Node { id, ..posing };
    let of_first = dialer(&fleet, certificate(&fleet.authority, NodeId::generate(), &fleet));
    let refusal = call_group(&of_first, &posing).await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unavailable, "{refusal}");
    let address = posing.address.to_string();
    assert!(of_first.greet(&address, id).await.is_err());
    assert!(of_first.actor_stream(&address, id).await.is_err());
    let any = of_first.channel_to_any(&Handle::current(), &address).unwrap();
    assert!(call_on(any, GROUP).await.is_err(), "any node of its own site is meant");

    let meant = of_first.channel_to_site(&Handle::current(), &address, Issuer::Site(plant_name())).unwrap();
    assert!(call_on(meant, GROUP).await.unwrap().contains("called"), "where the plant is meant");
    let shop = of_first.channel_to_site(&Handle::current(), &address, Issuer::Site("shop".parse().unwrap())).unwrap();
    assert!(call_on(shop, GROUP).await.is_err());
    let first = of_first.channel_to_site(&Handle::current(), &address, Issuer::Root).unwrap();
    assert!(call_on(first, GROUP).await.is_err());
}

#[tokio::test]
async fn a_removed_site_is_refused_and_its_open_connections_are_cut_on_both_ends() {
    let fleet = Fleet::found();
    let plant = authority_of_plant(&fleet);
    let serial = fleet_api::SiteFacts::read(&plant.chain()[0]).unwrap().serial;
    // The plant dials a node of the first site.
    let node = start(&fleet, Setup::default());
    let of_plant = certificate(&plant, NodeId::generate(), &fleet);
    let tls = || fleet.tls(Some(of_plant.clone()));
    let connect = || Connector::new(tls(), ALPN_PEER, Established::FirstByte).unwrap();
    let mut open = connect().dial(&node.address.to_string()).await.unwrap();
    node.revocations.extend([Revocation::Serial(serial.clone())]);
    // It ends, in one way or the other.
    let _ended = soon(tokio::io::copy(&mut open, &mut tokio::io::sink())).await;
    let refusal = connect().dial(&node.address.to_string()).await.unwrap_err();
    assert!(fleet_api::tls::is_revoked_here(&refusal), "{refusal:?}");

    // A node of the first site dials the plant.
    let plant_node =
        start(&fleet, Setup { certificate: Some(certificate(&plant, NodeId::generate(), &fleet)), ..Setup::default() });
    let revocations = Revocations::new();
    let own = certificate(&fleet.authority, NodeId::generate(), &fleet);
    let root = fleet.authority.root().clone();
    let of_first = PeerDialer::new(root, own, revocations.clone(), ValidityClock::system());
    let address = plant_node.address.to_string();
    let channel = || of_first.channel_to_site(&Handle::current(), &address, Issuer::Site(plant_name())).unwrap();
    let open = channel();
    assert!(call_on(open.clone(), GROUP).await.unwrap().contains("called"));
    revocations.extend([Revocation::SerialOf(Issuer::Root, serial)]);
    assert!(call_on(open, GROUP).await.is_err(), "the connection that was open");
    assert!(call_on(channel(), GROUP).await.is_err(), "and a new one");
}
