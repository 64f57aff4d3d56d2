//! A fleet with real certificates, and listeners whose services say who called what.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use fleet_api::connect::{Connector, Established};
use fleet_api::tls::{ALPN_CLIENT, CertificateCell, ClientTls, Trust};
use fleet_api::{Revocations, ValidityClock};
use fleet_core::{Clock, Error, ErrorKind, FleetId, NodeId, SiteName, SystemClock, Timestamp};
use http_body_util::{BodyExt, Full};
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::server::NamedService;
use tonic::service::Routes;
use uuid::Uuid;

use crate::listener::{
    ActorLink, Bounds, Listener, ListenerOptions, PeerIdentity, Policy, RunningListener, Runtimes, Services,
};
use crate::trust::authority::{Authority, Issued, SigningRequest};
use crate::trust::node_key::NodeKey;
use crate::trust::verification::FleetTrust;

/// How long a test waits for what must come: much longer than it takes, much shorter than a person's patience.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The outcome of `awaited`, which must come.
pub(crate) async fn soon<T>(awaited: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, awaited).await.expect("it comes in time")
}

/// A fleet's authority and what it has issued.
pub(crate) struct Fleet {
    pub(crate) authority: Authority,
    pub(crate) now: Timestamp,
}

impl Fleet {
    pub(crate) fn found() -> Self {
        Self::found_days_ago(0)
    }

    pub(crate) fn found_days_ago(days: u64) -> Self {
        let now = SystemClock.now();
        let founded = Timestamp(now.0 - days * 86_400_000);
        Self { authority: Authority::found(FleetId::generate(), founded).unwrap(), now }
    }

    pub(crate) fn node(&self) -> (NodeId, CertificateCell) {
        self.node_issued_at(self.now)
    }

    pub(crate) fn node_issued_at(&self, at: Timestamp) -> (NodeId, CertificateCell) {
        let node = NodeId::generate();
        (node, cell(|request| self.authority.issue_node(request, node, at).unwrap()))
    }

    pub(crate) fn admin_issued_at(&self, at: Timestamp) -> (Uuid, CertificateCell) {
        let admin = Uuid::now_v7();
        (admin, cell(|request| self.authority.issue_admin(request, admin, at).unwrap()))
    }

    pub(crate) fn tls(&self, certificate: Option<CertificateCell>) -> ClientTls {
        let mut tls = ClientTls::new(Trust::Root(self.authority.root().clone()));
        tls.certificate = certificate;
        tls
    }
}

pub(crate) fn cell(issue: impl FnOnce(&SigningRequest) -> Issued) -> CertificateCell {
    let key = NodeKey::generate().unwrap();
    let request = SigningRequest::parse(&key.signing_request().unwrap()).unwrap();
    key.with_chain(issue(&request).chain).unwrap().cell().unwrap()
}

/// How a test's service answers.
pub(super) type Answer = Arc<dyn Fn(&Request<Body>) -> Response<Body> + Send + Sync>;

/// A service that answers every method of the service with number `N` below in the same way.
#[derive(Clone)]
pub(super) struct Answering<const N: usize>(pub(super) Answer);

impl<const N: usize> NamedService for Answering<N> {
    const NAME: &'static str = ["fleet.v1.Fleet", "fleet.v1.Admission", "fleet.peer.v1.Peer"][N];
}

impl<const N: usize> tower::Service<Request<Body>> for Answering<N> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        ready(Ok((self.0)(&request)))
    }
}

/// Says who called what, on which thread, as the message of a refusal.
pub(super) fn echo(request: &Request<Body>) -> Response<Body> {
    let identity = PeerIdentity::of_request(request.extensions());
    let thread = std::thread::current().name().unwrap_or_default().to_owned();
    Status::failed_precondition(format!("{identity} called {} on {thread}", request.uri().path())).into_http()
}

/// A good answer of a unary call.
pub(super) fn good(message: &impl Message) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    with_trailers(frame(message), trailers)
}

/// Several messages of one stream, ended well or by `end`.
pub(super) fn stream(messages: &[impl Message], end: Option<&Error>) -> Response<Body> {
    let mut frames = Vec::new();
    for message in messages {
        frames.extend_from_slice(&frame(message));
    }
    let mut trailers = HeaderMap::new();
    match end {
        Some(error) => fleet_api::status::status_of(error).add_header(&mut trailers).unwrap(),
        None => drop(trailers.insert("grpc-status", HeaderValue::from_static("0"))),
    }
    with_trailers(frames, trailers)
}

fn frame(message: &impl Message) -> Vec<u8> {
    let encoded = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(encoded.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&encoded);
    frame
}

fn with_trailers(frames: Vec<u8>, trailers: HeaderMap) -> Response<Body> {
    let body = Full::new(Bytes::from(frames)).with_trailers(ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// A listener under test.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) address: SocketAddr,
    pub(super) listener: RunningListener,
    pub(super) actors: mpsc::Receiver<ActorLink>,
    pub(super) revocations: Revocations,
    pub(super) certificate: CertificateCell,
}

/// What a listener under test is like.
pub(super) struct Setup {
    pub(super) policy: Policy,
    pub(super) bounds: Bounds,
    pub(super) answer: Answer,
    pub(super) clock: ValidityClock,
    pub(super) certificate: Option<CertificateCell>,
    pub(super) runtimes: Runtimes,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            policy: Policy::Certified,
            bounds: Bounds::default(),
            answer: Arc::new(echo),
            clock: ValidityClock::system(),
            certificate: None,
            runtimes: Runtimes { client: Handle::current(), peer: Handle::current() },
        }
    }
}

pub(super) fn start(fleet: &Fleet, setup: Setup) -> Node {
    let (id, issued) = fleet.node();
    let certificate = setup.certificate.unwrap_or(issued);
    let revocations = Revocations::new();
    let trust = FleetTrust {
        root: fleet.authority.root().clone(),
        own_site: SiteName::default(),
        first_site: SiteName::default(),
        revocations: revocations.clone(),
        validity: setup.clock,
    };
    let options =
        ListenerOptions { policy: setup.policy, certificate: certificate.clone(), trust, bounds: setup.bounds };
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), options).unwrap();
    let (sender, actors) = mpsc::channel(8);
    let client =
        Routes::new(Answering::<0>(Arc::clone(&setup.answer))).add_service(Answering::<1>(Arc::clone(&setup.answer)));
    let services = Services { client, peer: Routes::new(Answering::<2>(setup.answer)), actors: sender };
    let listener = listener.start(services, &setup.runtimes).unwrap();
    Node { id, address: listener.local_address(), listener, actors, revocations, certificate }
}

/// What the echo says to a call of `path` over a new connection that speaks `alpn`.
pub(super) async fn call(node: &Node, tls: ClientTls, alpn: &[u8], path: &'static str) -> Result<String, Error> {
    let connector = Connector::new(tls, alpn, Established::FirstByte)?;
    let channel = connector.channel(&node.address.to_string()).await?;
    call_on(channel, path).await
}

/// What the echo says to a call of `path` over `channel`.
pub(super) async fn call_on(channel: tonic::transport::Channel, path: &'static str) -> Result<String, Error> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|source| Error::new(ErrorKind::Unavailable, "not ready").with_source(source))?;
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
    match client.unary(tonic::Request::new(()), path, codec).await {
        Ok(_) => Ok(String::new()),
        Err(status) if status.code() == tonic::Code::FailedPrecondition => Ok(status.message().to_owned()),
        Err(status) => Err(fleet_api::status::error_of(&status)),
    }
}

/// Whether an anonymous client gets an answer.
pub(super) async fn answers(fleet: &Fleet, node: &Node) -> bool {
    call(node, fleet.tls(None), ALPN_CLIENT, "/fleet.v1.Admission/Join").await.is_ok()
}
