//! The accept loop, and what its handshakes share.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleet_api::connect::{SILENCE_MAX, tune_socket};
use fleet_core::{Error, ErrorKind};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::listener::access::Protocol;
use crate::listener::handshake::{self, Configurations};
use crate::listener::metrics;
use crate::listener::pending::Pending;
use crate::listener::stream::{ActorLink, AdmittedStream, ConnectionPlace};
use crate::listener::{ListenerOptions, Phase, Policy, Runtimes, reached};

/// The pause after an accept that failed for want of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What every handshake needs.
pub(super) struct Shared {
    pub(super) options: ListenerOptions,
    pub(super) runtimes: Runtimes,
    pub(super) configurations: Configurations,
    pub(super) pending: Pending,
    pub(super) client: mpsc::Sender<io::Result<AdmittedStream>>,
    pub(super) peer: mpsc::Sender<io::Result<AdmittedStream>>,
    pub(super) actors: mpsc::Sender<ActorLink>,
    pub(super) phases: watch::Receiver<Phase>,
    connections: Arc<Semaphore>,
    client_connections: Arc<Semaphore>,
}

impl Shared {
    pub(super) fn new(
        options: ListenerOptions,
        runtimes: Runtimes,
        client: mpsc::Sender<io::Result<AdmittedStream>>,
        peer: mpsc::Sender<io::Result<AdmittedStream>>,
        actors: mpsc::Sender<ActorLink>,
        phases: watch::Receiver<Phase>,
    ) -> Result<Self, Error> {
        let bounds = options.bounds;
        if bounds.node_connections_reserved >= bounds.connections_max {
            return Err(Error::new(ErrorKind::InvalidInput, "no connection is left for clients"));
        }
        Ok(Self {
            configurations: Configurations::new(&options)?,
            pending: Pending::new(bounds.handshakes_pending_max),
            connections: Arc::new(Semaphore::new(bounds.connections_max)),
            client_connections: Arc::new(Semaphore::new(bounds.connections_max - bounds.node_connections_reserved)),
            options,
            runtimes,
            client,
            peer,
            actors,
            phases,
        })
    }

    /// A place for a connection of `protocol`, if there is one.
    pub(super) fn place(&self, protocol: Protocol) -> Option<ConnectionPlace> {
        let mut permits = vec![Arc::clone(&self.connections).try_acquire_owned().ok()?];
        if protocol == Protocol::Client {
            permits.push(Arc::clone(&self.client_connections).try_acquire_owned().ok()?);
        }
        Some(ConnectionPlace::new(protocol, permits))
    }
}

/// Accepts until the listener drains. Closes the port when it returns.
pub(super) async fn run(socket: TcpListener, shared: Arc<Shared>) {
    let draining = reached(Phase::Draining, shared.phases.clone());
    tokio::pin!(draining);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut draining => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((tcp, remote)) => greet(&shared, tcp, remote),
            Err(error) if is_the_clients(&error) => {
                tracing::debug!(%error, "a client went away before it was accepted")
            }
            Err(error) => {
                tracing::warn!(%error, "accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn greet(shared: &Arc<Shared>, tcp: TcpStream, remote: SocketAddr) {
    if shared.options.policy == Policy::Development && !remote.ip().is_loopback() {
        tracing::warn!(%remote, "a development fleet admits nobody from another machine");
        return;
    }
    if let Err(error) = tune_socket(&tcp, SILENCE_MAX) {
        tracing::debug!(%remote, %error, "set the options of a socket");
        return;
    }
    let place = shared.pending.enter(Instant::now() + shared.options.bounds.handshake_timeout);
    metrics::handshakes_pending(shared.pending.count());
    tokio::spawn(handshake::begin(Arc::clone(shared), tcp, remote, place));
}

/// Whether `error` of an accept concerns only the connection that was about to be accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}
