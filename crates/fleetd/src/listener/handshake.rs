//! One handshake: read the client's first message, choose the protocol, go on where that protocol's work runs, find out
//! who it is, hand the connection over.
//!
//! Invariants: the protocol decides which certificate is asked for, before any is looked at; TLS 1.3, no resumption.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleet_api::cut::CutStream;
use fleet_api::tls::{ALPN_ACTORS, ALPN_CLIENT, ALPN_PEER, provider};
use fleet_api::{CertificateFacts, Chain};
use fleet_core::{Error, ErrorKind};
use rustls::ServerConfig;
use rustls::server::{Accepted, Acceptor, NoServerSessionStorage};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake};

use crate::listener::accept::Shared;
use crate::listener::access::Protocol;
use crate::listener::identity::PeerIdentity;
use crate::listener::metrics::{self, Outcome};
use crate::listener::pending::{Ended, Place};
use crate::listener::stream::{ActorLink, AdmittedStream};
use crate::listener::{ListenerOptions, Phase, reached};
use crate::trust::verification::{ClientVerifier, Demand};

/// How long a connection of somebody without a valid certificate may last: enough to join, or to get the next certificate.
const UNCERTIFIED_AGE_MAX: Duration = Duration::from_secs(60);

/// The TLS configuration of each protocol.
pub(super) struct Configurations {
    client: Arc<ServerConfig>,
    peer: Arc<ServerConfig>,
    actors: Arc<ServerConfig>,
}

impl Configurations {
    pub(super) fn new(options: &ListenerOptions) -> Result<Self, Error> {
        Ok(Self {
            client: configuration(options, Demand::Optional, ALPN_CLIENT)?,
            peer: configuration(options, Demand::Node, ALPN_PEER)?,
            actors: configuration(options, Demand::Node, ALPN_ACTORS)?,
        })
    }

    fn of(&self, protocol: Protocol) -> Arc<ServerConfig> {
        Arc::clone(match protocol {
            Protocol::Client => &self.client,
            Protocol::Peer => &self.peer,
            Protocol::Actors => &self.actors,
        })
    }
}

fn configuration(options: &ListenerOptions, demand: Demand, alpn: &[u8]) -> Result<Arc<ServerConfig>, Error> {
    let verifier = Arc::new(ClientVerifier::new(options.trust.clone(), demand)?);
    let mut configuration = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| Error::new(ErrorKind::Internal, "set up TLS").with_source(source))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(options.certificate.clone()));
    configuration.alpn_protocols = vec![alpn.to_vec()];
    configuration.session_storage = Arc::new(NoServerSessionStorage {});
    configuration.send_tls13_tickets = 0;
    Ok(Arc::new(configuration))
}

/// The protocol for a client that offers these, in its order of preference; the one for clients where it offers only
/// others, so that TLS itself tells it; nothing where it offers none.
fn choose<'a>(offered: impl Iterator<Item = &'a [u8]>) -> Option<Protocol> {
    let mut any = None;
    for name in offered {
        match name {
            ALPN_CLIENT => return Some(Protocol::Client),
            ALPN_PEER => return Some(Protocol::Peer),
            ALPN_ACTORS => return Some(Protocol::Actors),
            _ => any = Some(Protocol::Client),
        }
    }
    any
}

/// Reads the first message and goes on where the protocol's work runs.
pub(super) async fn begin(shared: Arc<Shared>, tcp: TcpStream, remote: SocketAddr, mut place: Place) {
    let start = match place.hold(LazyConfigAcceptor::new(Acceptor::default(), tcp)).await {
        Ok(Ok(start)) => start,
        Ok(Err(error)) => return refused(remote, &error),
        Err(ended) => return gave_up(remote, ended),
    };
    let Some(protocol) = start.client_hello().alpn().and_then(choose) else {
        tracing::debug!(%remote, "a client named no protocol");
        return metrics::handshake_ended(Outcome::NoProtocol);
    };
    let StartHandshake { accepted, io, .. } = start;
    let tcp = match io.into_std() {
        Ok(tcp) => tcp,
        Err(error) => return refused(remote, &error),
    };
    let runtime = match protocol {
        Protocol::Client => shared.runtimes.client.clone(),
        Protocol::Peer | Protocol::Actors => shared.runtimes.peer.clone(),
    };
    runtime.spawn(finish(shared, protocol, accepted, tcp, remote, place));
}

async fn finish(
    shared: Arc<Shared>,
    protocol: Protocol,
    accepted: Accepted,
    tcp: std::net::TcpStream,
    remote: SocketAddr,
    mut place: Place,
) {
    let tcp = match TcpStream::from_std(tcp) {
        Ok(tcp) => tcp,
        Err(error) => return refused(remote, &error),
    };
    let handshake = StartHandshake::from_parts(accepted, tcp).into_stream(shared.configurations.of(protocol));
    let stream = match place.hold(handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return refused(remote, &error),
        Err(ended) => return gave_up(remote, ended),
    };
    drop(place);
    metrics::handshakes_pending(shared.pending.count());
    match admit(&shared, protocol, stream, remote) {
        Ok((stream, identity)) => hand_over(&shared, protocol, stream, identity, remote).await,
        Err(error) => {
            tracing::debug!(%remote, protocol = protocol.as_str(), %error, "a connection was not admitted");
            metrics::handshake_ended(Outcome::Full);
        }
    }
}

/// Finds out who is at the other end of `stream` and gives the connection a place.
fn admit(
    shared: &Shared,
    protocol: Protocol,
    stream: TlsStream<TcpStream>,
    remote: SocketAddr,
) -> Result<(AdmittedStream, PeerIdentity), Error> {
    let trust = &shared.options.trust;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.split_first());
    let read = shown.map(|(leaf, shown)| {
        let voucher = Chain::read(leaf, shown, &trust.root)?.voucher;
        Ok::<_, Error>((CertificateFacts::read(leaf)?, voucher.clone(), trust.site_of(voucher.issuer)?))
    });
    let read = read.transpose()?;
    let certificate = read.as_ref().map(|(facts, _, site)| (facts, site.clone()));
    let identity = PeerIdentity::of(certificate, &trust.own_site, shared.options.policy, trust.validity.now())?;
    let shown = read.map(|(facts, voucher, _)| (facts, voucher));
    let Some(place) = shared.place(protocol) else {
        return Err(Error::new(ErrorKind::ResourceExhausted, format!("no connection is left for {remote}")));
    };
    let revocations = shared.options.trust.revocations.clone();
    let phases = shared.phases.clone();
    let age = age_max(&identity);
    let end = async move {
        let revoked = async {
            match shown {
                Some((facts, voucher)) => revocations.revoked(facts, voucher).await,
                None => std::future::pending().await,
            }
        };
        let expired = async {
            match age {
                Some(age) => tokio::time::sleep(age).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = revoked => "its certificate was revoked",
            () = reached(Phase::Cut, phases) => "this node is stopping",
            () = expired => "it had no valid certificate and took too long",
        }
    };
    Ok((AdmittedStream::new(CutStream::new(stream, end), identity.clone(), place), identity))
}

/// How long a connection of `identity` may last. Who was known by an expired certificate stays so on this connection even
/// once it was renewed, and is to come back with the new one.
fn age_max(identity: &PeerIdentity) -> Option<Duration> {
    match identity {
        PeerIdentity::Anonymous | PeerIdentity::ExpiredNode(_) => Some(UNCERTIFIED_AGE_MAX),
        PeerIdentity::Node(_) | PeerIdentity::OtherSite(..) | PeerIdentity::Admin(_) | PeerIdentity::Development => {
            None
        }
    }
}

async fn hand_over(
    shared: &Shared,
    protocol: Protocol,
    stream: AdmittedStream,
    identity: PeerIdentity,
    remote: SocketAddr,
) {
    tracing::debug!(%remote, protocol = protocol.as_str(), %identity, "connected");
    metrics::handshake_ended(Outcome::Admitted);
    let taken = match (protocol, &identity) {
        (Protocol::Client, _) => shared.client.send(Ok(stream)).await.is_ok(),
        (Protocol::Peer, _) => shared.peer.send(Ok(stream)).await.is_ok(),
        (Protocol::Actors, PeerIdentity::Node(node)) => {
            shared.actors.try_send(ActorLink { node: *node, remote, stream: Box::new(stream) }).is_ok()
        }
        (Protocol::Actors, _) => false,
    };
    if !taken {
        tracing::debug!(%remote, protocol = protocol.as_str(), %identity, "nobody takes the connection");
    }
}

fn refused(remote: SocketAddr, error: &std::io::Error) {
    tracing::debug!(%remote, %error, "handshake failed");
    metrics::handshake_ended(Outcome::Refused);
}

fn gave_up(remote: SocketAddr, ended: Ended) {
    tracing::debug!(%remote, ?ended, "handshake given up");
    metrics::handshake_ended(match ended {
        Ended::TimedOut => Outcome::TimedOut,
        Ended::Evicted => Outcome::Evicted,
    });
}

#[cfg(test)]
mod tests {
    use fleet_core::NodeId;

    use super::*;

    #[test]
    fn the_clients_first_known_protocol_is_chosen() {
        let choose = |names: &[&[u8]]| choose(names.iter().copied());
        assert_eq!(choose(&[ALPN_CLIENT]), Some(Protocol::Client));
        assert_eq!(choose(&[b"x", ALPN_PEER, ALPN_CLIENT]), Some(Protocol::Peer));
        assert_eq!(choose(&[ALPN_ACTORS, ALPN_PEER]), Some(Protocol::Actors));
        assert_eq!(choose(&[b"http/1.1"]), Some(Protocol::Client), "TLS refuses it");
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn who_showed_no_valid_certificate_does_not_stay() {
        let node = NodeId::generate();
        assert_eq!(age_max(&PeerIdentity::Anonymous), Some(UNCERTIFIED_AGE_MAX));
        assert_eq!(age_max(&PeerIdentity::ExpiredNode(node)), Some(UNCERTIFIED_AGE_MAX));
        assert_eq!(age_max(&PeerIdentity::Node(node)), None);
        assert_eq!(age_max(&PeerIdentity::Development), None);
    }
}
