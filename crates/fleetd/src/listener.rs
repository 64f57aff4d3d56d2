//! The one TCP port of a node: TLS, three protocols told apart by ALPN, each connection with a known identity. `h2` is
//! gRPC for clients; `fleet-peer/1` is gRPC between nodes; `fleet-actors/1` is handed over as a stream. What a call does
//! is the services' part; who a certificate speaks for is `trust`'s.
//!
//! Invariants: a client that says nothing costs a place among the pending handshakes for at most
//! [`HANDSHAKE_TIMEOUT`], and never keeps others out; clients' work, handshake included, runs on another runtime than
//! peers'; places are kept free for nodes however many clients come; what is revoked is cut off.

mod accept;
mod access;
mod handshake;
mod identity;
mod metrics;
mod pending;
mod server;
mod stream;

#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::limits::{CONNECTIONS_MAX, HANDSHAKE_TIMEOUT, HANDSHAKES_PENDING_MAX};
use fleet_core::{Error, ErrorKind};
use socket2::{Domain, Protocol as SocketProtocol, Socket, Type};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::listener::accept::Shared;
use crate::trust::verification::FleetTrust;

pub use access::Protocol;
pub use identity::PeerIdentity;
pub use stream::{ActorLink, LinkStream};

/// Connections that the kernel holds for us before we accept them.
const BACKLOG: i32 = 1_024;
/// Connections handed to a server that it has not taken yet.
const HANDOVER_QUEUE: usize = 64;
/// How long the servers have to end after every connection was cut.
const CUT_GRACE: Duration = Duration::from_secs(2);
/// Of the places for connections, those that only nodes may take.
pub const NODE_CONNECTIONS_RESERVED: usize = CONNECTIONS_MAX / 4;

/// Who is admitted without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nobody, but for asking to join.
    Certified,
    /// Anyone on this machine: a development fleet, which listens on loopback only.
    Development,
}

/// The bounds of a listener. The defaults are those of `fleet_core::limits`.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections, all protocols together.
    pub connections_max: usize,
    /// Of them, those that only nodes may take.
    pub node_connections_reserved: usize,
    /// Handshakes under way.
    pub handshakes_pending_max: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            node_connections_reserved: NODE_CONNECTIONS_RESERVED,
            handshakes_pending_max: HANDSHAKES_PENDING_MAX,
            handshake_timeout: HANDSHAKE_TIMEOUT,
        }
    }
}

/// What a listener shows, believes and allows.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// Who is admitted without a certificate.
    pub policy: Policy,
    /// The certificate shown; exchanging what is in it takes effect at the next handshake.
    pub certificate: fleet_api::tls::CertificateCell,
    /// Who is believed.
    pub trust: FleetTrust,
    /// Its bounds.
    pub bounds: Bounds,
}

/// What answers on each protocol.
pub struct Services {
    /// gRPC for clients.
    pub client: Routes,
    /// gRPC between nodes.
    pub peer: Routes,
    /// Takes the links of remote actors. One that cannot be taken at once is dropped; its node dials again.
    pub actors: mpsc::Sender<ActorLink>,
}

/// Where the work runs.
#[derive(Clone, Debug)]
pub struct Runtimes {
    /// Clients' calls and handshakes.
    pub client: Handle,
    /// The accept loop, and peers' calls and handshakes.
    pub peer: Handle,
}

/// How far a listener has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Draining,
    Cut,
}

/// A bound port that does not accept yet.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    local_address: SocketAddr,
    options: ListenerOptions,
}

impl Listener {
    /// Takes the port.
    ///
    /// # Errors
    /// `InvalidInput` for a development fleet on an address that others can reach; `Conflict` if the port is taken.
    pub fn bind(address: SocketAddr, options: ListenerOptions) -> Result<Self, Error> {
        if options.policy == Policy::Development && !address.ip().is_loopback() {
            let message = format!("a development fleet may not listen on {address}, which others can reach");
            return Err(Error::new(ErrorKind::InvalidInput, message)
                .with_next_step("Listen on 127.0.0.1, or found a fleet without --dev."));
        }
        let failed = |source: io::Error| {
            let kind = match source.kind() {
                io::ErrorKind::AddrInUse => ErrorKind::Conflict,
                io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::Unavailable,
            };
            Error::new(kind, format!("listen on {address}")).with_source(source)
        };
        let socket = listen(address).map_err(failed)?;
        let local_address = socket.local_addr().map_err(failed)?;
        Ok(Self { socket, local_address, options })
    }

    /// Where it listens: the port that was found, if 0 was asked for.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Accepts from now on.
    pub fn start(self, services: Services, runtimes: &Runtimes) -> Result<RunningListener, Error> {
        let (phase, phases) = watch::channel(Phase::Serving);
        let (client_sender, client_incoming) = mpsc::channel(HANDOVER_QUEUE);
        let (peer_sender, peer_incoming) = mpsc::channel(HANDOVER_QUEUE);
        let client = server::serve(Protocol::Client, services.client, client_incoming, phases.clone());
        let peer = server::serve(Protocol::Peer, services.peer, peer_incoming, phases.clone());
        let shared = Shared::new(self.options, runtimes.clone(), client_sender, peer_sender, services.actors, phases)?;
        let socket = {
            let _context = runtimes.peer.enter();
            tokio::net::TcpListener::from_std(self.socket).map_err(|source| {
                Error::new(ErrorKind::Internal, format!("listen on {}", self.local_address)).with_source(source)
            })?
        };
        metrics::describe();
        let tasks = vec![
            runtimes.peer.spawn(accept::run(socket, Arc::new(shared))),
            runtimes.client.spawn(client),
            runtimes.peer.spawn(peer),
        ];
        Ok(RunningListener { local_address: self.local_address, phase, tasks })
    }
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(SocketProtocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A listener at work. Dropping it cuts every connection.
#[derive(Debug)]
pub struct RunningListener {
    local_address: SocketAddr,
    phase: watch::Sender<Phase>,
    tasks: Vec<JoinHandle<()>>,
}

impl RunningListener {
    /// Where it listens.
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Closes the port, lets calls under way end for at most `grace`, then cuts what is left.
    pub async fn shutdown(mut self, grace: Duration) {
        let mut tasks = std::mem::take(&mut self.tasks);
        self.phase.send_replace(Phase::Draining);
        if tokio::time::timeout(grace, ended(&mut tasks)).await.is_ok() {
            return;
        }
        self.phase.send_replace(Phase::Cut);
        if tokio::time::timeout(CUT_GRACE, ended(&mut tasks)).await.is_err() {
            tracing::warn!("the listener did not end after its connections were cut");
            tasks.iter().for_each(JoinHandle::abort);
        }
    }
}

impl Drop for RunningListener {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Cut);
    }
}

async fn ended(tasks: &mut Vec<JoinHandle<()>>) {
    while let Some(task) = tasks.last_mut() {
        if let Err(error) = task.await
            && error.is_panic()
        {
            tracing::error!(%error, "a task of the listener panicked");
        }
        tasks.pop();
    }
}

/// Resolves once the listener has come to `phase`, or is gone.
async fn reached(phase: Phase, mut phases: watch::Receiver<Phase>) {
    // An error means that the listener was dropped, which is further than any phase.
    let _ = phases.wait_for(|current| *current >= phase).await;
}
