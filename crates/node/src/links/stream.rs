//! A stream to another node, as the daemon hands it over.

use tokio::io::{AsyncRead, AsyncWrite};

use fleet_core::NodeId;
use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream};

/// Marks the streams that came from the daemon, in what ractor_cluster reports about sessions.
const LABEL_PREFIX: &str = "fleet:";

/// A connected stream whose other end is `peer`, as its certificate said. The daemon has set keepalive and a bound for
/// unacknowledged data on it.
pub struct LinkStream {
    peer: NodeId,
    reader: BoxRead,
    writer: BoxWrite,
}

impl LinkStream {
    /// The stream `stream` to `peer`.
    pub fn new(peer: NodeId, stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self { peer, reader: Box::new(reader), writer: Box::new(writer) }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> NodeId {
        self.peer
    }
}

impl ClusterBidiStream for LinkStream {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        (self.reader, self.writer)
    }

    fn peer_label(&self) -> Option<String> {
        Some(format!("{LABEL_PREFIX}{}", self.peer))
    }
}

impl std::fmt::Debug for LinkStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkStream").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// The node a session with this label leads to; `None` if its stream did not come from the daemon.
pub(super) fn labelled_peer(label: &str) -> Option<NodeId> {
    label.strip_prefix(LABEL_PREFIX)?.parse().ok()
}

/// The name under which `node` shows itself in the handshake of a session.
pub(super) fn session_name(node: NodeId) -> String {
    format!("fleet@{node}")
}
