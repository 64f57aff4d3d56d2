//! The robot link over gRPC: two streams on two connections. A robot whose own node leads needs none of this.

use fleet_api::pb::peer::LinkFrame;
use fleet_api::status::error_of;
use fleet_core::{Error, NodeId};
use fleet_node::link::{Duplex, RobotStreams, STREAM_DEPTH, decode, encode};
use fleet_node::ports::RobotLink;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::peers::{Peers, Purpose};

/// Opens robot links.
#[derive(Clone)]
pub struct LinkPort {
    peers: Peers,
}

impl LinkPort {
    /// Links through `peers`.
    pub fn new(peers: Peers) -> Self {
        Self { peers }
    }

    async fn dial(self, leader: NodeId) -> Result<RobotStreams, Error> {
        let (beats_up, beats_out) = mpsc::channel(STREAM_DEPTH);
        let (work_up, work_out) = mpsc::channel(STREAM_DEPTH);
        let mut heartbeats = self.peers.client(leader, Purpose::Heartbeats)?;
        let mut work = self.peers.client(leader, Purpose::Work)?;
        let (beat_answers, work_answers) =
            tokio::try_join!(heartbeats.heartbeats(outgoing(beats_out)), work.work(outgoing(work_out)),)
                .map_err(|status| error_of(&status))?;
        Ok(RobotStreams {
            heartbeats: Duplex { sender: beats_up, receiver: incoming(beat_answers.into_inner()) },
            work: Duplex { sender: work_up, receiver: incoming(work_answers.into_inner()) },
        })
    }
}

impl RobotLink for LinkPort {
    fn connect(&self, leader: NodeId) -> BoxFuture<'static, Result<RobotStreams, Error>> {
        self.clone().dial(leader).boxed()
    }
}

/// Frames of the messages that come out of `receiver`. A message that cannot be encoded ends the stream: both sides then
/// begin anew, as after any broken link.
fn outgoing<M: Serialize + Send + 'static>(receiver: mpsc::Receiver<M>) -> impl Stream<Item = LinkFrame> + Send {
    ReceiverStream::new(receiver)
        .map(|message| encode(&message).map_err(|error| tracing::error!(%error, "robot link message not sent")))
        .take_while(|frame| std::future::ready(frame.is_ok()))
        .filter_map(|frame| std::future::ready(frame.ok()))
        .map(|bytes| LinkFrame { payload: bytes.into() })
}

/// The messages in `frames`, until the stream or the receiver ends.
fn incoming<M: DeserializeOwned + Send + 'static>(
    mut frames: impl Stream<Item = Result<LinkFrame, Status>> + Send + Unpin + 'static,
) -> mpsc::Receiver<M> {
    let (sender, receiver) = mpsc::channel(STREAM_DEPTH);
    // Owned by its stream: it ends when the stream or its reader does.
    tokio::spawn(async move {
        loop {
            let frame = tokio::select! {
                frame = frames.next() => frame,
                () = sender.closed() => return,
            };
            let Some(Ok(frame)) = frame else { return };
            let message = match decode(&frame.payload) {
                Ok(message) => message,
                Err(error) => {
                    tracing::warn!(%error, "robot link message not understood, link closed");
                    return;
                }
            };
            if sender.send(message).await.is_err() {
                return;
            }
        }
    });
    receiver
}

/// A server's side of one stream: the ends for the scheduler's side, and the frames to answer with.
pub fn pump<Up, Down>(
    frames: impl Stream<Item = Result<LinkFrame, Status>> + Send + Unpin + 'static,
) -> (Duplex<Down, Up>, impl Stream<Item = Result<LinkFrame, Status>> + Send)
where
    Up: DeserializeOwned + Send + 'static,
    Down: Serialize + Send + 'static,
{
    let (down, answers) = mpsc::channel(STREAM_DEPTH);
    (Duplex { sender: down, receiver: incoming(frames) }, outgoing(answers).map(Ok))
}
