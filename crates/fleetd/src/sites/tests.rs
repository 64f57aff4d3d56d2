//! Links over real TLS on loopback, with certificates of one fleet: sites of one node and of two, of which only one side
//! can dial.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use fleet_api::pb::peer::SiteFrame;
use fleet_api::pb::peer::sites_client::SitesClient;
use fleet_api::tls::CertificateCell;
use fleet_api::{Issuer, PeerDialer, Revocations, ValidityClock};
use fleet_core::{Error, ErrorKind, GroupId, NodeId, SiteName, Timestamp};
use fleet_node::ports::{KnownSites, RobotOffer, SiteServer, SiteTopic, Sites};
use fleet_node::site_link::{Frame, GossipPacket, Hello, LINK_VERSION, SiteReport};
use fleet_store::Store;
use fleet_store::record::Payload;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::WatchStream;
use tonic::service::Routes;

use super::home::{Home, SiteContact};
use super::hub::SiteLinks;
use crate::grpc::SitesService;
use crate::listener::tests::support::{Fleet, PATIENCE, cell, soon};
use crate::listener::{Bounds, Listener, ListenerOptions, Policy, RunningListener, Runtimes, Services};
use crate::ports::Peers;
use crate::trust::authority::SigningRequest;
use crate::trust::site_key::SiteKey;
use crate::trust::verification::FleetTrust;

fn name(text: &str) -> SiteName {
    text.parse().unwrap()
}

fn group(site: &SiteName) -> GroupId {
    let mut bytes = [0; 16];
    bytes[..site.as_str().len()].copy_from_slice(site.as_str().as_bytes());
    GroupId::from_bytes(bytes)
}

/// A site made up by a test.
struct FakeHome {
    site: SiteName,
    node: NodeId,
    is_leading: AtomicBool,
    leader: Mutex<Option<NodeId>>,
    members: Mutex<BTreeSet<NodeId>>,
    holders: Mutex<BTreeMap<SiteName, Vec<NodeId>>>,
    contacts: Mutex<BTreeMap<SiteName, SiteContact>>,
    removed: Mutex<BTreeSet<GroupId>>,
    changed: watch::Sender<()>,
    reads: AtomicUsize,
}

impl Home for FakeHome {
    fn hello(&self) -> Hello {
        Hello {
            version: LINK_VERSION,
            site: self.site.clone(),
            node: self.node,
            group: group(&self.site),
            epoch: 1,
            term: 1,
            at: Timestamp(1),
        }
    }

    fn is_leading(&self) -> bool {
        self.is_leading.load(Ordering::SeqCst)
    }

    fn other_leader(&self) -> Option<NodeId> {
        *self.leader.lock().unwrap()
    }

    fn is_member(&self, node: NodeId) -> bool {
        self.members.lock().unwrap().contains(&node)
    }

    fn holders(&self, site: &SiteName) -> Vec<NodeId> {
        self.holders.lock().unwrap().get(site).cloned().unwrap_or_default()
    }

    fn all_holders(&self) -> BTreeSet<NodeId> {
        self.holders.lock().unwrap().values().flatten().copied().collect()
    }

    fn report(&self) -> SiteReport {
        let robot = RobotOffer {
            node: format!("robot-of-{}", self.site),
            tags: vec!["press".to_owned()],
            capabilities: Vec::new(),
            slots: 4,
        };
        SiteReport { leader: Some(self.node), robots: vec![robot], ..SiteReport::default() }
    }

    fn issuer(&self, site: &SiteName) -> Issuer {
        if site.as_str() == FIRST { Issuer::Root } else { Issuer::Site(site.clone()) }
    }

    fn removed(&self) -> BTreeSet<GroupId> {
        self.removed.lock().unwrap().clone()
    }

    fn contacts(&self) -> BTreeMap<SiteName, SiteContact> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.contacts.lock().unwrap().clone()
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        WatchStream::from_changes(self.changed.subscribe()).boxed()
    }
}

/// Says who was asked, by whom, what.
struct Echo(String);

impl SiteServer for Echo {
    fn answer(&self, from: SiteName, message: Payload) -> BoxFuture<'static, Result<Payload, Error>> {
        let text = format!("{} answers {from}: {}", self.0, String::from_utf8_lossy(message.as_slice()));
        async move {
            if text.ends_with("refuse") {
                return Err(Error::new(ErrorKind::Conflict, text).with_next_step("Ask otherwise."));
            }
            Ok(Payload::from(text.into_bytes()))
        }
        .boxed()
    }
}

/// A node under test.
struct Node {
    home: Arc<FakeHome>,
    links: SiteLinks,
    peers: Peers,
    address: SocketAddr,
    certificate: CertificateCell,
    listener: Option<RunningListener>,
    task: JoinHandle<()>,
    packets: mpsc::Receiver<GossipPacket>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The fleet's first site, whose nodes have their certificates from the root.
const FIRST: &str = "north";

/// A node of `site` with its certificate.
fn issued(fleet: &Fleet, site: &str) -> (NodeId, CertificateCell) {
    if site == FIRST {
        return fleet.node();
    }
    let key = SiteKey::generate().unwrap();
    let request = SigningRequest::parse(&key.signing_request().unwrap()).unwrap();
    let signed = fleet.authority.issue_site(&request, &name(site), fleet.now).unwrap();
    let authority = key.into_authority(vec![signed, fleet.authority.root().clone()]).unwrap();
    let node = NodeId::generate();
    (node, cell(|request| authority.issue_node(request, node, fleet.now).unwrap()))
}

fn trust(fleet: &Fleet, own: &SiteName) -> FleetTrust {
    FleetTrust {
        root: fleet.authority.root().clone(),
        own_site: own.clone(),
        first_site: name(FIRST),
        revocations: Revocations::new(),
        validity: ValidityClock::system(),
    }
}

fn listen(
    fleet: &Fleet,
    certificate: &CertificateCell,
    links: &SiteLinks,
    home: &Arc<FakeHome>,
    at: SocketAddr,
) -> RunningListener {
    let options = ListenerOptions {
        policy: Policy::Certified,
        certificate: certificate.clone(),
        trust: trust(fleet, &home.site),
        bounds: Bounds::default(),
    };
    let service = SitesService::new(links.clone(), Arc::clone(home) as Arc<dyn Home>).server();
    let (actors, _) = mpsc::channel(1);
    let services = Services { client: Routes::default(), peer: Routes::new(service), actors };
    let runtimes = Runtimes { client: Handle::current(), peer: Handle::current() };
    Listener::bind(at, options).unwrap().start(services, &runtimes).unwrap()
}

fn start(fleet: &Fleet, site: &str) -> Node {
    let (node, certificate) = issued(fleet, site);
    let dialer = PeerDialer::new(
        fleet.authority.root().clone(),
        certificate.clone(),
        Revocations::new(),
        ValidityClock::system(),
    );
    let peers = Peers::new(dialer, Handle::current());
    let home = Arc::new(FakeHome {
        site: name(site),
        node,
        is_leading: AtomicBool::new(true),
        leader: Mutex::default(),
        members: Mutex::default(),
        holders: Mutex::default(),
        contacts: Mutex::default(),
        removed: Mutex::default(),
        changed: watch::Sender::new(()),
        reads: AtomicUsize::new(0),
    });
    let shown = Arc::clone(&home) as Arc<dyn Home>;
    let links = SiteLinks::new(shown, Arc::new(peers.clone()), Store::in_memory().unwrap());
    for (topic, word) in [(SiteTopic::Courier, "courier"), (SiteTopic::Catalog, "catalog")] {
        links.serve(topic, Arc::new(Echo(format!("{word} of {site}"))));
    }
    let (sender, packets) = mpsc::channel(16);
    links.set_inlet(move |packet| drop(sender.try_send(packet)));
    let listener = listen(fleet, &certificate, &links, &home, SocketAddr::from(([127, 0, 0, 1], 0)));
    let task = tokio::spawn(super::run(links.clone(), peers.clone()));
    let address = listener.local_address();
    Node { home, links, peers, address, certificate, listener: Some(listener), task, packets }
}

impl Node {
    fn knows(&self, site: &str, address: &str) {
        let contact = SiteContact { group: group(&name(site)), addresses: vec![address.to_owned()] };
        self.home.contacts.lock().unwrap().insert(name(site), contact);
        self.home.changed.send_replace(());
    }

    async fn ask(&self, site: &str, topic: SiteTopic, text: &'static str) -> Result<String, Error> {
        let answer = soon(self.links.ask(name(site), topic, Payload::from(text))).await?;
        Ok(String::from_utf8(answer.0.to_vec()).unwrap())
    }

    async fn until_known(&self, what: &str, is_reached: impl Fn(&KnownSites) -> bool) {
        let mut known: watch::Receiver<Arc<KnownSites>> = self.links.known();
        let reached = tokio::time::timeout(PATIENCE, known.wait_for(|known| is_reached(known))).await;
        assert!(reached.is_ok(), "{what}: {:#?}", self.links.known().borrow());
    }

    async fn until_linked(&self, site: &str) {
        let site = name(site);
        self.until_known("a link", |known| {
            known.get(&site).is_some_and(|known| known.is_linked && !known.robots.is_empty())
        })
        .await;
    }
}

/// A port where nobody listens.
const NOWHERE: &str = "127.0.0.1:1";

/// Two sites of which only the second can dial the first.
async fn linked(fleet: &Fleet) -> (Node, Node) {
    let (north, south) = (start(fleet, "north"), start(fleet, "south"));
    north.knows("south", NOWHERE);
    south.knows("north", &north.address.to_string());
    north.until_linked("south").await;
    south.until_linked("north").await;
    (north, south)
}

fn packet(text: &'static str) -> GossipPacket {
    let address = |port| SocketAddr::from(([10, 0, 0, 1], port));
    GossipPacket { from: address(1), to: address(2), sealed: Payload::from(text) }
}

#[tokio::test]
async fn over_one_link_that_only_one_side_can_dial_both_ask_and_gossip() {
    let fleet = Fleet::found();
    let (mut north, mut south) = linked(&fleet).await;
    let answer = north.ask("south", SiteTopic::Courier, "a job").await.unwrap();
    assert_eq!(answer, "courier of south answers north: a job");
    let answer = south.ask("north", SiteTopic::Catalog, "a digest").await.unwrap();
    assert_eq!(answer, "catalog of north answers south: a digest");
    let refusal = north.ask("south", SiteTopic::Courier, "refuse").await.unwrap_err();
    assert_eq!((refusal.kind, refusal.next_step.as_deref()), (ErrorKind::Conflict, Some("Ask otherwise.")));
    let refusal = north.ask("south", SiteTopic::Client, "x").await.unwrap_err();
    assert_eq!(refusal.kind, ErrorKind::Unsupported, "nobody serves it");
    assert_eq!(north.ask("east", SiteTopic::Courier, "x").await.unwrap_err().kind, ErrorKind::NotFound);

    assert!(north.links.link_to(&name("south")).unwrap().packet(packet("from north")));
    assert_eq!(soon(south.packets.recv()).await, Some(packet("from north")));
    assert!(south.links.link_to(&name("north")).unwrap().packet(packet("from south")));
    assert_eq!(soon(north.packets.recv()).await, Some(packet("from south")));

    let known = north.links.known().borrow().clone();
    let robots: Vec<_> = known[&name("south")].robots.iter().map(|robot| robot.node.as_str()).collect();
    assert_eq!(robots, ["robot-of-south"]);
    assert_eq!(north.links.facts().len(), 1, "one link, though both lead and know each other");
}

#[tokio::test]
async fn a_removed_site_is_cut_off_forgotten_and_not_dialled_again() {
    let fleet = Fleet::found();
    let (north, south) = linked(&fleet).await;
    south.home.removed.lock().unwrap().insert(group(&name("north")));
    south.home.contacts.lock().unwrap().clear();
    south.until_known("nothing of it", KnownSites::is_empty).await;
    north.until_known("the loss", |known| known.values().all(|site| !site.is_linked)).await;
    assert!(south.links.heard().is_empty(), "nobody is left to be dialled");
    let asked = south.ask("north", SiteTopic::Courier, "x").await.unwrap_err();
    assert_eq!(asked.kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_link_that_is_lost_is_told_of_and_made_anew() {
    let fleet = Fleet::found();
    let (mut north, south) = linked(&fleet).await;
    north.listener.take().unwrap().shutdown(Duration::ZERO).await;
    let is_cut = |known: &KnownSites| known.values().all(|site| !site.is_linked && site.heard_at.is_some());
    north.until_known("the loss", is_cut).await;
    south.until_known("the loss", is_cut).await;
    let error = north.ask("south", SiteTopic::Courier, "x").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.starts_with("site south was last heard") && error.message.ends_with("ago"), "{error}");
    north.listener = Some(listen(&fleet, &north.certificate, &north.links, &north.home, north.address));
    north.until_linked("south").await;
    south.until_linked("north").await;
    assert!(north.ask("south", SiteTopic::Courier, "again").await.is_ok());
    assert!(south.ask("north", SiteTopic::Courier, "again").await.is_ok());
}

#[tokio::test]
async fn two_sites_that_dial_each_other_end_with_the_same_one_link() {
    let fleet = Fleet::found();
    let (north, south) = (start(&fleet, "north"), start(&fleet, "south"));
    north.knows("south", &south.address.to_string());
    south.knows("north", &north.address.to_string());
    north.until_linked("south").await;
    south.until_linked("north").await;
    let settled = async {
        loop {
            let (at_north, at_south) = (north.links.facts(), south.links.facts());
            if let ([left], [right]) = (at_north.as_slice(), at_south.as_slice())
                && left.rank == right.rank
            {
                assert_ne!(left.is_dialled, right.is_dialled);
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(settled).await;
    assert!(north.ask("south", SiteTopic::Courier, "x").await.is_ok());
}

#[tokio::test]
async fn a_node_without_the_link_asks_by_the_one_that_has_it_and_is_asked_if_it_leads() {
    let fleet = Fleet::found();
    let (north, south) = linked(&fleet).await;
    // A second node of the north, which leads now.
    let leader = start(&fleet, "north");
    leader.peers.learn([(north.home.node, north.address.to_string())]);
    north.peers.learn([(leader.home.node, leader.address.to_string())]);
    leader.links.serve(SiteTopic::Courier, Arc::new(Echo("the leader of north".to_owned())));
    leader.home.holders.lock().unwrap().insert(name("south"), vec![north.home.node]);
    north.home.is_leading.store(false, Ordering::SeqCst);
    *north.home.leader.lock().unwrap() = Some(leader.home.node);
    leader.home.changed.send_replace(());
    north.home.changed.send_replace(());

    let error = leader.ask("south", SiteTopic::Courier, "x").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "a node that is not known to belong to the site");
    north.home.members.lock().unwrap().insert(leader.home.node);
    leader.home.members.lock().unwrap().insert(north.home.node);
    let answer = leader.ask("south", SiteTopic::Courier, "x").await.unwrap();
    assert_eq!(answer, "courier of south answers north: x");
    leader.until_linked("south").await;

    let answer = south.ask("north", SiteTopic::Courier, "y").await.unwrap();
    assert_eq!(answer, "the leader of north answers south: y");
    let answer = south.ask("north", SiteTopic::Catalog, "y").await.unwrap();
    assert_eq!(answer, "catalog of north answers south: y", "any node answers about the catalog");
    *north.home.leader.lock().unwrap() = None;
    assert_eq!(south.ask("north", SiteTopic::Courier, "y").await.unwrap_err().kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn who_is_not_the_site_that_was_meant_or_recorded_is_not_linked() {
    let fleet = Fleet::found();
    let (north, south) = (start(&fleet, "north"), start(&fleet, "south"));
    // What is recorded as the east is the south; and the north is recorded with another group than it has.
    north.knows("east", &south.address.to_string());
    let wrong = SiteContact { group: GroupId::from_bytes([9; 16]), addresses: vec![north.address.to_string()] };
    south.home.contacts.lock().unwrap().insert(name("north"), wrong);
    south.home.changed.send_replace(());
    for (node, site, target) in [(&north, "east", &south), (&south, "north", &north)] {
        let issuer = node.home.issuer(&name(site));
        let address = target.address.to_string();
        let channel = node.peers.dialer().channel_to_site(node.peers.runtime(), &address, issuer).unwrap();
        let refusal = soon(super::stream::dial(node.links.clone(), name(site), channel)).await.unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::Unavailable, "{refusal}");
        assert!(node.links.linked().is_empty());
    }
}

/// What the node at `north` says to a stranger's `frames`, until it hangs up.
async fn said_to(fleet: &Fleet, north: &Node, certificate: CertificateCell, frames: Vec<Bytes>) -> Vec<Frame> {
    let dialer =
        PeerDialer::new(fleet.authority.root().clone(), certificate, Revocations::new(), ValidityClock::system());
    let channel = dialer.channel_to_site(&Handle::current(), &north.address.to_string(), Issuer::Root).unwrap();
    let frames = futures_util::stream::iter(frames).map(|bytes| SiteFrame { payload: bytes.to_vec() });
    // The stream stays open: it is for the other side to hang up.
    let frames = frames.chain(futures_util::stream::pending());
    let mut answers = SitesClient::new(channel).link(frames).await.unwrap().into_inner();
    let mut said = Vec::new();
    while let Ok(Some(frame)) = soon(answers.message()).await {
        said.push(Frame::decode(&frame.payload).unwrap());
    }
    said
}

#[tokio::test]
async fn a_stranger_that_breaks_the_rules_is_hung_up_on() {
    let fleet = Fleet::found();
    let north = start(&fleet, "north");
    let hello = |node, site: &str| {
        let home = FakeHome { node, site: name(site), ..fake() };
        Frame::Hello(home.hello()).encode().unwrap()
    };
    let (node, certificate) = issued(&fleet, "south");
    let rows = [
        ("an oversize frame", vec![hello(node, "south"), Bytes::from(vec![1; 17 * 1024])]),
        ("a huge frame", vec![Bytes::from(vec![1; 5 * 1024 * 1024])]),
        ("another node's hello", vec![hello(NodeId::generate(), "south")]),
        ("our own site", vec![hello(node, "north")]),
        ("another site than its certificate's", vec![hello(node, "west")]),
        ("no hello", vec![Frame::KeepAlive.encode().unwrap()]),
        ("rubbish", vec![Bytes::from_static(b"\xff\xff")]),
    ];
    for (what, frames) in rows {
        let said = said_to(&fleet, &north, certificate.clone(), frames).await;
        let answered = said.iter().any(|frame| matches!(frame, Frame::Piece(_)));
        assert!(!answered, "{what}: {said:?}");
        let gone = async {
            while !north.links.linked().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        soon(gone).await;
    }
}

fn fake() -> FakeHome {
    FakeHome {
        site: name("south"),
        node: NodeId::generate(),
        is_leading: AtomicBool::new(false),
        leader: Mutex::default(),
        members: Mutex::default(),
        holders: Mutex::default(),
        contacts: Mutex::default(),
        removed: Mutex::default(),
        changed: watch::Sender::new(()),
        reads: AtomicUsize::new(0),
    }
}

#[tokio::test]
async fn metrics_tell_of_each_other_site_and_of_a_fleet_of_one_site_nothing() {
    let fleet = Fleet::found();
    let (north, south) = linked(&fleet).await;
    north.ask("south", SiteTopic::Courier, "four").await.unwrap();
    north.knows("west", NOWHERE);
    let shown = |node: &Node| {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || node.links.refresh_gauges());
        recorder.handle().render()
    };
    let at_north = shown(&north);
    for line in [
        "fleet_site_link_up{site=\"south\"} 1",
        "fleet_site_link_up{site=\"west\"} 0",
        "fleet_site_link_held{site=\"south\"} 1",
        "fleet_site_silent_seconds{site=\"south\"} ",
        "fleet_site_link_round_trip_seconds{site=\"south\"} ",
        "fleet_site_link_waiting{site=\"south\",topic=\"courier\"} 0",
        "fleet_site_link_sent_bytes_total{site=\"south\",topic=\"courier\"} 4",
        "fleet_site_link_received_bytes_total{site=\"south\",topic=\"courier\"} 36",
    ] {
        assert!(at_north.lines().any(|shown| shown.starts_with(line)), "{line:?} is not in\n{at_north}");
    }
    assert!(!at_north.contains("silent_seconds{site=\"west\"}"), "it was never heard");
    // What a link carried is not forgotten with it.
    south.task.abort();
    south.links.stop().await;
    north.until_known("no link", |known| known.values().all(|site| !site.is_linked)).await;
    let sent = "fleet_site_link_sent_bytes_total{site=\"south\",topic=\"courier\"} 4";
    assert!(shown(&north).contains(sent), "{}", shown(&north));
    let alone = start(&fleet, "east");
    assert!(!shown(&alone).contains("fleet_site"));
}

#[tokio::test(start_paused = true)]
async fn a_node_of_the_only_site_looks_at_nothing_until_something_changes() {
    let fleet = Fleet::found();
    let (_, certificate) = issued(&fleet, "south");
    let dialer =
        PeerDialer::new(fleet.authority.root().clone(), certificate, Revocations::new(), ValidityClock::system());
    let peers = Peers::new(dialer, Handle::current());
    let home = Arc::new(FakeHome { is_leading: AtomicBool::new(true), ..fake() });
    let shown = Arc::clone(&home) as Arc<dyn Home>;
    let links = SiteLinks::new(shown, Arc::new(peers.clone()), Store::in_memory().unwrap());
    let dialling = tokio::spawn(super::run(links, peers));
    let rest = || tokio::time::sleep(Duration::from_secs(3_600));
    rest().await;
    let reads = || home.reads.load(Ordering::SeqCst);
    let first = reads();
    rest().await;
    assert_eq!(reads(), first, "in an hour in which nothing happened");
    home.changed.send_replace(());
    rest().await;
    assert!(reads() > first, "something may have");
    dialling.abort();
}

#[tokio::test]
async fn a_node_of_the_same_site_makes_no_link() {
    let fleet = Fleet::found();
    let north = start(&fleet, "north");
    let (_, certificate) = issued(&fleet, "north");
    let dialer =
        PeerDialer::new(fleet.authority.root().clone(), certificate, Revocations::new(), ValidityClock::system());
    let channel = dialer.channel_to_any(&Handle::current(), &north.address.to_string()).unwrap();
    let refusal = SitesClient::new(channel).link(futures_util::stream::pending()).await.unwrap_err();
    assert_eq!(refusal.code(), tonic::Code::PermissionDenied);
}
