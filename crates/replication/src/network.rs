//! The port through which a group reaches its other nodes, and openraft's network on it.
//!
//! What travels is opaque and versioned here. A snapshot is a sequence of calls, each a piece of at most
//! [`fleet_core::limits::CHUNK_BYTES`] and a row, so it is paced by its receiver and interleaves with everything else.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fleet_core::NodeId;
use fleet_core::limits::CHUNK_BYTES;
use openraft::error::{Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse};
use openraft::storage::Snapshot;
use openraft::{AnyError, EmptyNode, OptionalSend, Vote};

use crate::consensus::{self, CodecError, TypeConfig, VoterId};
use crate::member::Member;
use crate::snapshot::{Meta, SnapshotData};
use crate::wire::{Envelope, Refusal, Request, Response};

/// How long openraft waits before it tries a node again that could not be reached.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// How long one piece of a snapshot may take.
const PIECE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the other side may take to install a snapshot.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);

/// The answer of a node, as bytes, under way.
pub type CallFuture<'a> = Pin<Box<dyn Future<Output = Result<Bytes, CallError>> + Send + 'a>>;

/// Reaches the other nodes of the group. Implemented over gRPC in the daemon and by a router in tests.
pub trait GroupNetwork: Send + Sync + 'static {
    /// Hands `request` to [`crate::Group::handle`] of `target` and brings back its answer, within `deadline`. Must not
    /// try again by itself.
    fn call(&self, target: NodeId, request: Bytes, deadline: Duration) -> CallFuture<'_>;
}

/// Why a node did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It cannot be reached at all.
    #[error("call a node of the group: {0}")]
    Unreachable(String),
    /// Nothing came back in time; it may have been done.
    #[error("call a node of the group: no answer in time")]
    Deadline,
}

/// A failed exchange with another node of the group.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error("call a node of the group: {0}")]
    Refused(Refusal),
    #[error("call a node of the group: it answered another question")]
    OtherAnswer,
}

/// Sends `request` of `member` to `target`.
pub(crate) async fn exchange(
    member: &Member,
    target: NodeId,
    request: Request,
    deadline: Duration,
) -> Result<Response, ExchangeError> {
    let envelope =
        Envelope { group: member.group, epoch: member.epoch, sender: member.node, target, run: member.run, request };
    let bytes = Bytes::from(consensus::encode("message of the group", &envelope)?);
    let call = member.network.call(target, bytes, deadline);
    let answer = tokio::time::timeout(deadline, call).await.map_err(|_| CallError::Deadline)??;
    match consensus::decode("answer of the group", &answer)? {
        Response::Refused(refusal) => {
            if let Refusal::OtherEpoch(epoch) = refusal {
                member.notice_epoch(epoch);
            }
            Err(ExchangeError::Refused(refusal))
        }
        response => Ok(response),
    }
}

/// Makes openraft's clients.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) member: Arc<Member>,
}

/// openraft's way to one node.
pub(crate) struct Client {
    member: Arc<Member>,
    target: NodeId,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("target", &self.target).finish_non_exhaustive()
    }
}

impl RaftNetworkFactory<TypeConfig> for Clients {
    type Network = Client;

    async fn new_client(&mut self, target: VoterId, _node: &EmptyNode) -> Client {
        Client { member: Arc::clone(&self.member), target: target.0 }
    }
}

/// Why an exchange failed, as openraft takes it.
fn rpc_error<E: std::error::Error>(error: &ExchangeError) -> RPCError<VoterId, EmptyNode, E> {
    match error {
        // With a pause, so that a node that is down or refuses us is not hammered.
        ExchangeError::Call(CallError::Unreachable(_)) | ExchangeError::Refused(_) => {
            RPCError::Unreachable(Unreachable::new(error))
        }
        _ => RPCError::Network(NetworkError::new(error)),
    }
}

/// Why a transfer failed, as openraft takes it.
fn streaming_error(error: &ExchangeError) -> StreamingError<TypeConfig, Fatal<VoterId>> {
    StreamingError::Unreachable(Unreachable::new(error))
}

impl RaftNetwork<TypeConfig> for Client {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<VoterId>, RPCError<VoterId, EmptyNode, RaftError<VoterId>>> {
        let (sent_at, term) = (self.member.clock.boot_now(), rpc.vote.leader_id.term);
        let response = exchange(&self.member, self.target, Request::Append(rpc), option.hard_ttl()).await;
        match response.map_err(|error| rpc_error(&error))? {
            Response::Append(answer) => {
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    self.member.note_acknowledgement(self.target, term, sent_at);
                }
                Ok(answer)
            }
            _ => Err(rpc_error(&ExchangeError::OtherAnswer)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<VoterId>,
        option: RPCOption,
    ) -> Result<VoteResponse<VoterId>, RPCError<VoterId, EmptyNode, RaftError<VoterId>>> {
        let response = exchange(&self.member, self.target, Request::Vote(rpc), option.hard_ttl()).await;
        match response.map_err(|error| rpc_error(&error))? {
            Response::Vote(answer) => Ok(answer),
            _ => Err(rpc_error(&ExchangeError::OtherAnswer)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote<VoterId>,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<VoterId>, StreamingError<TypeConfig, Fatal<VoterId>>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send_snapshot(&self.member, self.target, vote, snapshot) => sent,
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY_DELAY))
    }
}

/// Sends `snapshot` piece by piece and waits until it is installed.
async fn send_snapshot(
    member: &Member,
    target: NodeId,
    vote: Vote<VoterId>,
    snapshot: Snapshot<TypeConfig>,
) -> Result<SnapshotResponse<VoterId>, StreamingError<TypeConfig, Fatal<VoterId>>> {
    let meta: Meta = snapshot.meta;
    let transfer = member.next_transfer();
    let mut pieces = 0;
    let mut after: Option<Vec<u8>> = None;
    let mut data = *snapshot.snapshot;
    loop {
        let read = tokio::task::spawn_blocking(move || {
            let SnapshotData::Outgoing(reader) = data else { return None };
            let chunk = reader.chunk(after.as_deref(), CHUNK_BYTES);
            Some((chunk, SnapshotData::Outgoing(reader)))
        });
        let Some((chunk, same)) = read.await.ok().flatten() else {
            return Err(StreamingError::Network(NetworkError::new(&AnyError::error("the snapshot cannot be read"))));
        };
        data = same;
        let chunk = chunk.map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        let Some((last, _)) = chunk.rows.last() else { break };
        after = Some(last.clone());
        let request = Request::SnapshotPiece { transfer, number: pieces, chunk };
        exchange(member, target, request, PIECE_TIMEOUT).await.map_err(|error| streaming_error(&error))?;
        pieces += 1;
    }
    let request = Request::SnapshotEnd { transfer, pieces, vote, meta };
    match exchange(member, target, request, INSTALL_TIMEOUT).await.map_err(|error| streaming_error(&error))? {
        Response::Snapshot(Some(vote)) => Ok(SnapshotResponse::new(vote)),
        _ => Err(streaming_error(&ExchangeError::OtherAnswer)),
    }
}
