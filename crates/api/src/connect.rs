//! One TLS connection to a node, and a gRPC channel over such connections. Not a policy of retries.
//!
//! Invariants: a gRPC connection counts as made only after the node has said something inside TLS, so that a refused
//! certificate shows while connecting (in TLS 1.3 the client finishes first); the root that a node shows is believed on
//! loopback only; a connection to a subject that is revoked breaks at once.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use fleet_core::{Error, ErrorKind};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::cut::CutStream;
use crate::platform;
use crate::pulse::{HeardStream, Pulse};
use crate::reach::first_of_tries;
use crate::tls::{ClientTls, Trust, error_of_tls, is_revoked_here};

/// How long connecting may take: TCP, TLS and the node's first word.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often an HTTP/2 connection is probed.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long a probe may stay unanswered, and sent bytes unacknowledged.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Longest list of headers accepted in an answer, bytes: a refusal may name many problems.
const HEADER_LIST_BYTES_MAX: u32 = 128 * 1024;

/// A TLS connection to a node that breaks when the node is revoked.
pub type NodeStream = CutStream<BufReader<TlsStream<TcpStream>>>;

/// The same under a gRPC channel, whose owner may break it too.
type ChannelStream = CutStream<HeardStream<NodeStream>>;

/// When a connection counts as made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Established {
    /// When TLS is done on this side.
    Handshake,
    /// When the node has said something inside TLS, as HTTP/2 makes it do.
    FirstByte,
}

/// Socket options of every connection, on both sides: no delay, keepalive, a bound on unacknowledged bytes.
pub fn tune_socket(stream: &TcpStream, silence_max: Duration) -> io::Result<()> {
    platform::tune(stream, silence_max)
}

/// How to reach nodes with one protocol and one set of TLS rules.
#[derive(Clone, Debug)]
pub struct Connector {
    tls: ClientTls,
    config: Arc<ClientConfig>,
    established: Established,
    timeout: Duration,
    pulse: Option<Pulse>,
}

impl Connector {
    /// Connections that speak `alpn` under the rules of `tls`.
    pub fn new(tls: ClientTls, alpn: &[u8], established: Established) -> Result<Self, Error> {
        let config = Arc::new(tls.config(alpn)?);
        Ok(Self { tls, config, established, timeout: CONNECT_TIMEOUT, pulse: None })
    }

    /// The same, with another bound on connecting.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same; `pulse` follows the connections of its one gRPC channel.
    #[must_use]
    pub fn followed_by(mut self, pulse: Pulse) -> Self {
        self.pulse = Some(pulse);
        self
    }

    /// Connects to `address`, `host:port`.
    pub async fn dial(&self, address: &str) -> Result<NodeStream, Error> {
        match tokio::time::timeout(self.timeout, self.dial_unbounded(address)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("connect to {address}: no answer within {} ms", self.timeout.as_millis()),
            )),
        }
    }

    async fn dial_unbounded(&self, address: &str) -> Result<NodeStream, Error> {
        let unreachable =
            |source: io::Error| Error::new(ErrorKind::Unavailable, format!("connect to {address}")).with_source(source);
        let resolved: Vec<SocketAddr> = tokio::net::lookup_host(address).await.map_err(unreachable)?.collect();
        if matches!(self.tls.trust, Trust::Shown) && !resolved.iter().all(|target| target.ip().is_loopback()) {
            return Err(needs_credential(address));
        }
        let targets = Arc::<[SocketAddr]>::from(resolved);
        let begin = || {
            let targets = Arc::clone(&targets);
            async move { TcpStream::connect(&targets[..]).await }
        };
        let tcp = first_of_tries(begin).await.map_err(unreachable)?;
        tune_socket(&tcp, SILENCE_MAX).map_err(unreachable)?;
        let name = ServerName::from(tcp.peer_addr().map_err(unreachable)?.ip());
        let broken = |source: io::Error| broken_tls(address, source);
        let unproven = |source: io::Error| without_revocation(address, broken_tls(address, source));
        let stream = TlsConnector::from(Arc::clone(&self.config)).connect(name, tcp).await.map_err(unproven)?;
        let (facts, voucher) = self.tls.read(stream.get_ref().1.peer_certificates().unwrap_or_default())?;
        if stream.get_ref().1.alpn_protocol() != self.config.alpn_protocols.first().map(Vec::as_slice) {
            let message = format!("the server at {address} does not speak this protocol");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let mut stream = BufReader::new(stream);
        if self.established == Established::FirstByte && stream.fill_buf().await.map_err(broken)?.is_empty() {
            return Err(Error::new(ErrorKind::Unavailable, format!("the node at {address} closed the connection")));
        }
        let revocations = self.tls.revocations.clone();
        Ok(CutStream::new(stream, async move {
            revocations.revoked(facts, voucher).await;
            "the node was removed from the fleet"
        }))
    }

    /// A gRPC channel to `address`, connected.
    pub async fn channel(&self, address: &str) -> Result<Channel, Error> {
        let endpoint = endpoint(address)?;
        let connector = self.service(address);
        endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|error| crate::status::error_of(&tonic::Status::from_error(Box::new(error))))
    }

    /// A gRPC channel to `address` that connects, and connects again, when it is used. Needs a tokio runtime around it.
    pub fn channel_lazy(&self, address: &str) -> Result<Channel, Error> {
        Ok(endpoint(address)?.connect_with_connector_lazy(self.service(address)))
    }

    fn service(&self, address: &str) -> Dialling {
        Dialling { connector: self.clone(), address: Arc::from(address) }
    }
}

/// A connector to one address, as a channel takes it. The URI of the channel is not looked at.
struct Dialling {
    connector: Connector,
    address: Arc<str>,
}

impl tower::Service<Uri> for Dialling {
    type Response = TokioIo<ChannelStream>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<ChannelStream>, Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let (connector, address) = (self.connector.clone(), Arc::clone(&self.address));
        Box::pin(async move {
            let stream = connector.dial(&address).await?;
            let (stream, breaking) = connector.pulse.unwrap_or_default().follow(stream);
            Ok(TokioIo::new(CutStream::new(stream, async move {
                breaking.await;
                "the other end was silent for too long"
            })))
        })
    }
}

/// No credential where one is needed.
pub(crate) fn needs_credential(address: &str) -> Error {
    Error::new(ErrorKind::Unauthenticated, format!("{address} asks for a credential, and there is none"))
        .with_next_step(
            "Copy `admin.json` from the data directory of the node that founded the fleet to \
         `~/.config/fleet/credential.json` (mode 0600), or name it with `--credential`.",
        )
}

fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let refused = |source: tonic::transport::Error| {
        Error::new(ErrorKind::InvalidInput, format!("`{address}` is not an address of the form host:port"))
            .with_source(source)
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(refused)?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(SILENCE_MAX)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(HEADER_LIST_BYTES_MAX))
}

fn broken_tls(address: &str, source: io::Error) -> Error {
    match source.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(tls) => error_of_tls(address, tls),
        None => Error::new(ErrorKind::Unavailable, format!("TLS with {address} failed")).with_source(source),
    }
}

/// `error` of a handshake that was not finished. A node refuses our certificate only after it proved who it is; what comes
/// sooner is in plain text and may be anybody's, so nobody may conclude from it that we were removed.
fn without_revocation(address: &str, error: Error) -> Error {
    if !is_revoked_here(&error) {
        return error;
    }
    Error::new(
        ErrorKind::Unavailable,
        format!("TLS with {address} failed: it was broken off before the node had proved who it is"),
    )
}
