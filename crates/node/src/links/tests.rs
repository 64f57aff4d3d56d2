//! Two node servers in one process, joined by streams in memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ractor_cluster::{NodeServer, NodeServerMessage};
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use fleet_core::{Error, ErrorKind, JobId, NodeId, SiteName};
use fleet_membership::{Member, MemberState, Metadata, MetadataVersion, View};

use super::{Answer, Answerer, Dialer, LinkStream, Links, LinksConfig, NodeStatus, Request};

const PATIENCE: Duration = Duration::from_secs(20);

/// Actors and process groups are of the whole process: each test has nodes of its own.
fn fresh_pair() -> (NodeId, NodeId) {
    let (a, b) = (NodeId::generate(), NodeId::generate());
    (a.min(b), a.max(b))
}

/// Says its own name; a question about a job never ends; a cancel hint is refused.
struct Named(&'static str);

impl Answerer for Named {
    fn answer(&self, request: Request) -> BoxFuture<'static, Result<Answer, Error>> {
        let name = self.0.to_owned();
        async move {
            match request {
                Request::Status => Ok(Answer::Status(Box::new(NodeStatus { name, ..NodeStatus::default() }))),
                Request::JobLive(_) => std::future::pending().await,
                Request::CancelHint(job) => Err(Error::new(ErrorKind::NotFound, format!("no job {job} here"))),
                _ => Ok(Answer::Done),
            }
        }
        .boxed()
    }
}

/// Reaches nodes of this process through pipes; can be told to fail.
#[derive(Default)]
struct Pipes {
    nodes: Mutex<BTreeMap<NodeId, Arc<OnceLock<Links>>>>,
    dials: AtomicUsize,
    failing: AtomicUsize,
    says_peer: Mutex<Option<NodeId>>,
}

struct PipeDialer {
    own: NodeId,
    pipes: Arc<Pipes>,
}

impl Dialer for PipeDialer {
    fn dial(&self, node: NodeId, _address: String) -> BoxFuture<'static, Result<LinkStream, Error>> {
        self.pipes.dials.fetch_add(1, Ordering::SeqCst);
        let fails = self.pipes.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        let target = self.pipes.nodes.lock().unwrap().get(&node).cloned();
        let own = self.own;
        let proved = self.pipes.says_peer.lock().unwrap().unwrap_or(own);
        async move {
            let refused = || Error::new(ErrorKind::Unavailable, "connect");
            if fails.is_ok() {
                return Err(refused());
            }
            let target = target.as_ref().and_then(|target| target.get()).ok_or_else(refused)?;
            let (near, far) = tokio::io::duplex(64 * 1024);
            target.accept(LinkStream::new(proved, far))?;
            Ok(LinkStream::new(node, near))
        }
        .boxed()
    }
}

fn view(own: NodeId, active: &[NodeId]) -> Arc<View> {
    let member = |node: &NodeId| Member {
        node: *node,
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        incarnation: 1,
        state: MemberState::Alive,
        metadata_version: MetadataVersion::default(),
        metadata: Some(Arc::new(Metadata { grpc_address: "pipe:1".into(), ..Metadata::default() })),
    };
    Arc::new(View::new(own, 1, active.iter().map(|node| (*node, member(node))).collect()))
}

struct Pair {
    ids: (NodeId, NodeId),
    low: Links,
    high: Links,
    views: (watch::Sender<Arc<View>>, watch::Sender<Arc<View>>),
    pipes: Arc<Pipes>,
}

async fn pair(pipes: Pipes, cookies: (&str, &str)) -> Pair {
    let ids = fresh_pair();
    let pipes = Arc::new(pipes);
    let start = async |own: NodeId, name, cookie: &str| {
        let (sender, receiver) = watch::channel(view(own, &[ids.0, ids.1]));
        let config = LinksConfig { node: own, site: SiteName::default(), cookie: cookie.to_owned() };
        let slot = Arc::new(OnceLock::new());
        pipes.nodes.lock().unwrap().insert(own, Arc::clone(&slot));
        let dialer = Arc::new(PipeDialer { own, pipes: Arc::clone(&pipes) });
        let links = Links::start(config, receiver, dialer, Arc::new(Named(name))).await.unwrap();
        assert!(slot.set(links.clone()).is_ok());
        (links, sender)
    };
    // The higher one first: it waits to be dialled.
    let (high, high_view) = start(ids.1, "high", cookies.1).await;
    let (low, low_view) = start(ids.0, "low", cookies.0).await;
    Pair { ids, low, high, views: (low_view, high_view), pipes }
}

async fn until(what: &str, is_reached: impl AsyncFn() -> bool) {
    let reached = async {
        while !is_reached().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, reached).await.is_ok(), "never: {what}");
}

async fn name_of(links: &Links, node: NodeId) -> Option<String> {
    match links.ask(node, Request::Status, PATIENCE).await {
        Ok(Answer::Status(status)) => Some(status.name),
        _ => None,
    }
}

impl Pair {
    async fn until_linked(&self) {
        until("both ask each other", async || {
            name_of(&self.low, self.ids.1).await.as_deref() == Some("high")
                && name_of(&self.high, self.ids.0).await.as_deref() == Some("low")
        })
        .await;
    }

    async fn stop(self) {
        self.low.stop().await;
        self.high.stop().await;
    }
}

#[tokio::test]
async fn nodes_ask_each_other_over_one_link_that_the_lower_one_dialled() {
    let pair = pair(Pipes::default(), ("secret", "secret")).await;
    pair.until_linked().await;
    assert_eq!(pair.pipes.dials.load(Ordering::SeqCst), 1);
    assert_eq!(name_of(&pair.low, pair.ids.0).await.as_deref(), Some("low"), "oneself is asked without a link");
    let refused = pair.low.ask(pair.ids.1, Request::CancelHint(JobId::default()), PATIENCE).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::NotFound);
    let done = pair.high.ask(pair.ids.0, Request::DrainHint { is_draining: true }, PATIENCE).await.unwrap();
    assert_eq!(done, Answer::Done);
    pair.stop().await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_with_the_patience() {
    let pair = pair(Pipes::default(), ("secret", "secret")).await;
    pair.until_linked().await;
    let question = Request::JobLive(JobId::default());
    let late = pair.low.ask(pair.ids.1, question, Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(late.kind, ErrorKind::DeadlineExceeded);
    assert_eq!(name_of(&pair.low, pair.ids.1).await.as_deref(), Some("high"), "others are not held up");
    pair.stop().await;
}

#[tokio::test]
async fn dials_that_fail_are_repeated_until_one_succeeds() {
    let pipes = Pipes { failing: AtomicUsize::new(3), ..Pipes::default() };
    let pair = pair(pipes, ("secret", "secret")).await;
    pair.until_linked().await;
    assert_eq!(pair.pipes.dials.load(Ordering::SeqCst), 4);
    pair.stop().await;
}

#[tokio::test]
async fn a_link_ends_with_the_peer_in_gossip_and_comes_back_with_it() {
    let pair = pair(Pipes::default(), ("secret", "secret")).await;
    pair.until_linked().await;
    pair.views.0.send_replace(view(pair.ids.0, &[pair.ids.0]));
    until("the link is gone", async || pair.low.linked().is_empty() && pair.high.linked().is_empty()).await;
    let refused = pair.low.ask(pair.ids.1, Request::Status, PATIENCE).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Unavailable);
    pair.views.0.send_replace(view(pair.ids.0, &[pair.ids.0, pair.ids.1]));
    pair.until_linked().await;
    assert_eq!(pair.views.1.borrow().members().len(), 2);
    pair.stop().await;
}

#[tokio::test]
async fn a_peer_with_another_cookie_gets_no_link() {
    let pair = pair(Pipes::default(), ("secret", "other")).await;
    until("it was tried twice", async || pair.pipes.dials.load(Ordering::SeqCst) >= 2).await;
    assert!(pair.low.linked().is_empty() && pair.high.linked().is_empty());
    pair.stop().await;
}

#[tokio::test]
async fn a_peer_that_calls_itself_otherwise_than_its_certificate_gets_no_link() {
    let pipes = Pipes { says_peer: Mutex::new(Some(NodeId::from_bytes([9; 16]))), ..Pipes::default() };
    let pair = pair(pipes, ("secret", "secret")).await;
    until("it was tried twice", async || pair.pipes.dials.load(Ordering::SeqCst) >= 2).await;
    assert!(pair.high.linked().is_empty());
    pair.stop().await;
}

/// ractor_cluster opens a listener that nobody asked for; a peer learns its port in the handshake.
async fn stray_port(links: &Links, node: NodeId) -> u16 {
    let insider_id = NodeId::generate();
    let insider = NodeServer::new(0, "secret".into(), "fleet".into(), insider_id.to_string(), None, None);
    let (insider, _) = ractor::Actor::spawn(None, insider, ()).await.unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    links.accept(LinkStream::new(insider_id, far)).unwrap();
    let stream = Box::new(LinkStream::new(node, near));
    insider.cast(NodeServerMessage::ConnectionOpenedExternal { stream, is_server: false }).unwrap();
    until("the insider has a link", async || links.linked().contains(&insider_id)).await;
    let sessions = ractor::call!(insider, NodeServerMessage::GetSessions).unwrap();
    let told = sessions.into_values().find_map(|session| session.peer_name).unwrap().connection_string;
    insider.stop_and_wait(None, None).await.unwrap();
    told.rsplit(':').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_does_not_come_through_the_daemon_is_closed_at_once() {
    let pair = pair(Pipes::default(), ("secret", "secret")).await;
    let port = stray_port(&pair.high, pair.ids.1).await;
    let mut stray = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let read = tokio::time::timeout(PATIENCE, stray.read(&mut [0; 1])).await.unwrap();
    assert!(read.is_err() || read.is_ok_and(|length| length == 0), "closed before a word was said");
    pair.stop().await;
}

#[tokio::test]
async fn stopped_links_answer_nobody() {
    let pair = pair(Pipes::default(), ("secret", "secret")).await;
    pair.until_linked().await;
    pair.high.stop().await;
    until("the other side notices", async || pair.low.linked().is_empty()).await;
    let (stream, _) = tokio::io::duplex(64);
    assert!(pair.high.accept(LinkStream::new(pair.ids.0, stream)).is_err());
    pair.stop().await;
}
