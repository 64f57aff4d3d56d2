//! The two gRPC servers, fed with connections that the listener admitted.

use std::future::Future;
use std::io;

use fleet_api::connect::{KEEPALIVE_INTERVAL, SILENCE_MAX};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::listener::access::{AccessLayer, Protocol};
use crate::listener::stream::AdmittedStream;
use crate::listener::{Phase, reached};

/// Calls under way on one connection of a client.
const CLIENT_STREAMS_MAX: u32 = 256;
/// Calls under way on one connection of a node.
const PEER_STREAMS_MAX: u32 = 4_096;
/// How much a sender may have under way on one call, bytes.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// How much a sender may have under way on one connection, bytes.
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// Connections handed over to a server.
pub(super) type Incoming = mpsc::Receiver<io::Result<AdmittedStream>>;

/// Serves `routes` on what comes `incoming`, until the listener drains; ends when every connection has ended.
pub(super) fn serve(
    protocol: Protocol,
    routes: Routes,
    incoming: Incoming,
    phases: watch::Receiver<Phase>,
) -> impl Future<Output = ()> + Send + 'static {
    let streams_max = if protocol == Protocol::Peer { PEER_STREAMS_MAX } else { CLIENT_STREAMS_MAX };
    async move {
        let served = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(SILENCE_MAX))
            .max_concurrent_streams(Some(streams_max))
            .initial_stream_window_size(Some(STREAM_WINDOW_BYTES))
            .initial_connection_window_size(Some(CONNECTION_WINDOW_BYTES))
            .layer(AccessLayer::new(protocol))
            .add_routes(routes)
            .serve_with_incoming_shutdown(ReceiverStream::new(incoming), reached(Phase::Draining, phases))
            .await;
        if let Err(error) = served {
            tracing::error!(protocol = protocol.as_str(), %error, "the server of a protocol ended");
        }
    }
}
