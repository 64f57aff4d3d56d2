//! An admitted connection: a TLS stream that can be cut, with the identity of its other end, and a place among the
//! connections that it gives back when it is dropped.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use fleet_api::cut::CutStream;
use fleet_core::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::listener::access::Protocol;
use crate::listener::identity::PeerIdentity;
use crate::listener::metrics;

/// A stream of bytes in both directions.
pub trait LinkStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> LinkStream for S {}

/// A link of remote actors that a node has opened.
pub struct ActorLink {
    /// The node.
    pub node: NodeId,
    /// Where it connected from.
    pub remote: SocketAddr,
    /// The link.
    pub stream: Box<dyn LinkStream>,
}

impl std::fmt::Debug for ActorLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActorLink").field("node", &self.node).field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// A place among the connections of one protocol.
#[derive(Debug)]
pub(super) struct ConnectionPlace {
    protocol: Protocol,
    _permits: Vec<OwnedSemaphorePermit>,
}

impl ConnectionPlace {
    pub(super) fn new(protocol: Protocol, permits: Vec<OwnedSemaphorePermit>) -> Self {
        metrics::connection_opened(protocol);
        Self { protocol, _permits: permits }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        metrics::connection_closed(self.protocol);
    }
}

/// A connection whose other end is known.
#[derive(Debug)]
pub(super) struct AdmittedStream {
    stream: CutStream<TlsStream<TcpStream>>,
    identity: PeerIdentity,
    _place: ConnectionPlace,
}

impl AdmittedStream {
    pub(super) fn new(stream: CutStream<TlsStream<TcpStream>>, identity: PeerIdentity, place: ConnectionPlace) -> Self {
        Self { stream, identity, _place: place }
    }
}

impl Connected for AdmittedStream {
    type ConnectInfo = PeerIdentity;

    fn connect_info(&self) -> PeerIdentity {
        self.identity.clone()
    }
}

impl AsyncRead for AdmittedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for AdmittedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
