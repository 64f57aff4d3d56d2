//! Answers the other nodes of the group. What is meant for another group, epoch or node is refused, and so is what one node
//! says in the name of another.

use std::sync::Arc;

use bytes::Bytes;
use fleet_core::{BootInstant, NodeId};
use fleet_store::{StateChunk, Store};
use openraft::Vote;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::storage::Snapshot;
use tokio::sync::{Mutex, watch};

use crate::consensus::{self, CodecError, Raft, TypeConfig, VoterId};
use crate::contact::Reign;
use crate::member::Member;
use crate::snapshot::{Meta, SnapshotData};
use crate::status::Status;
use crate::wire::{Envelope, PollAnswer, Refusal, Request, Response, TakeoverAnswer};

/// What part of the group lease a leader that takes over waits for this node's vote: less than it waits for the answer.
const TAKEOVER_WAITS_PER_LEASE: u32 = 4;

/// The snapshot that is on its way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transfer {
    sender: NodeId,
    number: u64,
    pieces: u64,
}

/// The answering side of a group.
pub(crate) struct Server {
    member: Arc<Member>,
    raft: Raft,
    store: Store,
    status: watch::Receiver<Status>,
    transfer: Mutex<Option<Transfer>>,
}

impl Server {
    pub(crate) fn new(member: Arc<Member>, raft: Raft, store: Store, status: watch::Receiver<Status>) -> Self {
        Self { member, raft, store, status, transfer: Mutex::new(None) }
    }

    /// Answers one message of `sender`, which the transport has proved to be who sent it. An error means that the bytes are
    /// no message; they change nothing.
    pub(crate) async fn handle(&self, sender: NodeId, bytes: &[u8]) -> Result<Bytes, CodecError> {
        let envelope: Envelope = consensus::decode("message of the group", bytes)?;
        let response = match self.check(sender, &envelope) {
            Ok(()) => self.answer(envelope).await,
            Err(refusal) => Response::Refused(refusal),
        };
        Ok(Bytes::from(consensus::encode("answer of the group", &response)?))
    }

    /// Whether somebody who is not a voter here asks is not looked at: a node that is behind does not know the newest
    /// voters yet, and may be the one whose vote they need.
    fn check(&self, sender: NodeId, envelope: &Envelope) -> Result<(), Refusal> {
        let member = &self.member;
        if envelope.sender != sender || !envelope.request.is_in_the_name_of(sender) {
            return Err(Refusal::OtherSender(sender));
        }
        if envelope.group != member.group {
            return Err(Refusal::OtherGroup);
        }
        if envelope.target != member.node {
            return Err(Refusal::OtherTarget(member.node));
        }
        if envelope.epoch != member.epoch {
            if self.knows(envelope.sender) {
                member.notice_epoch(envelope.epoch);
            }
            return Err(Refusal::OtherEpoch(member.epoch));
        }
        Ok(())
    }

    /// Whether `node` is a member, as far as this node knows: nobody else can declare the group void.
    fn knows(&self, node: NodeId) -> bool {
        let status = self.status.borrow();
        status.learners.contains(&node) || status.voter_sets.iter().any(|set| set.contains(&node))
    }

    async fn answer(&self, envelope: Envelope) -> Response {
        let Envelope { sender, run, request, .. } = envelope;
        match request {
            Request::Append(rpc) => self.append(sender, run, rpc).await,
            Request::Vote(rpc) => match self.raft.vote(rpc).await {
                Ok(answer) => Response::Vote(answer),
                Err(error) => failed(&error),
            },
            Request::Poll => Response::Poll(self.poll()),
            Request::Takeover { term } => self.take_over(Reign { term, node: sender, run }).await,
            Request::SnapshotPiece { transfer, number, chunk } => {
                self.keep_piece(sender, transfer, number, chunk).await
            }
            Request::SnapshotEnd { transfer, pieces, vote, meta } => {
                let expected = Transfer { sender, number: transfer, pieces };
                self.install(expected, vote, meta, run).await
            }
            Request::PutBlob { content } => match self.store.put_blob(content).await {
                Ok(_) => Response::BlobKept,
                Err(error) => failed(&error),
            },
            Request::GetBlob { digest } => match self.store.blob(digest) {
                Ok(content) => Response::Blob(content.map(Bytes::from)),
                Err(error) => failed(&error),
            },
            Request::BlobsHeld => Response::BlobsHeld(self.member.blobs().held),
        }
    }

    async fn append(&self, sender: NodeId, run: u64, rpc: AppendEntriesRequest<TypeConfig>) -> Response {
        let reign = Reign { term: rpc.vote.leader_id.term, node: sender, run };
        if let Some(term) = self.member.contact().forbids(reign) {
            return Response::Refused(Refusal::Superseded(term));
        }
        match self.raft.append_entries(rpc).await {
            Ok(AppendEntriesResponse::HigherVote(vote)) => Response::Append(AppendEntriesResponse::HigherVote(vote)),
            Ok(answer) => self.confirm(reign, Response::Append(answer)),
            Err(error) => failed(&error),
        }
    }

    /// Notes that `reign` was heard and gives `response`, unless a later leader took over meanwhile.
    fn confirm(&self, reign: Reign, response: Response) -> Response {
        let mut contact = self.member.contact();
        if let Some(term) = contact.forbids(reign) {
            return Response::Refused(Refusal::Superseded(term));
        }
        contact.heard(reign, self.member.clock.boot_now());
        response
    }

    fn poll(&self) -> PollAnswer {
        let silent_since = {
            let contact = self.member.contact();
            let heard = contact.last_heard().map(|(_, at)| at);
            heard.map_or(contact.started_at(), |at| at.max(contact.started_at()))
        };
        let silence = self.member.clock.boot_now().saturating_since(silent_since);
        let leads = self.status.borrow().is_followed;
        PollAnswer {
            silence_ms: u64::try_from(silence.as_millis()).unwrap_or(u64::MAX),
            last_log: self.raft.data_metrics().borrow().last_log,
            leads,
        }
    }

    /// Pledges this node to `reign`. The pledge lasts only as long as the process, so it is given only once the vote on
    /// the disk forbids earlier terms too; until then the leader has to ask again.
    async fn take_over(&self, reign: Reign) -> Response {
        let wait = self.raft.wait(Some(self.member.timing.group_lease / TAKEOVER_WAITS_PER_LEASE));
        let stored =
            wait.metrics(|metrics| metrics.vote.leader_id.term >= reign.term, "the stored vote reaches the term");
        if stored.await.is_err() {
            return Response::Refused(Refusal::NotFollowing(reign.term));
        }
        let now: BootInstant = self.member.clock.boot_now();
        let serves = self.member.serving_term(&self.status).is_some_and(|term| term < reign.term);
        let mut contact = self.member.contact();
        if serves {
            contact.stopped_leading(now);
        }
        match contact.take_over(reign) {
            Some(at) => {
                let ago = self.member.clock.boot_now().saturating_since(at);
                Response::Takeover(TakeoverAnswer { ago_us: u64::try_from(ago.as_micros()).unwrap_or(u64::MAX) })
            }
            None => Response::Refused(Refusal::Superseded(reign.term)),
        }
    }

    async fn keep_piece(&self, sender: NodeId, transfer: u64, number: u64, chunk: StateChunk) -> Response {
        let mut current = self.transfer.lock().await;
        let expected = Transfer { sender, number: transfer, pieces: number };
        if number == 0 {
            *current = None;
            if let Err(error) = self.store.discard_spool(self.member.group).await {
                return failed(&error);
            }
        } else if *current != Some(expected) {
            let next = current.filter(|t| t.sender == sender && t.number == transfer).map_or(0, |t| t.pieces);
            return Response::Refused(Refusal::WrongPiece(next));
        }
        if let Err(error) = self.store.spool(self.member.group, chunk).await {
            return failed(&error);
        }
        *current = Some(Transfer { pieces: number + 1, ..expected });
        Response::Snapshot(None)
    }

    async fn install(&self, expected: Transfer, vote: Vote<VoterId>, meta: Meta, run: u64) -> Response {
        let reign = Reign { term: vote.leader_id.term, node: expected.sender, run };
        let mut current = self.transfer.lock().await;
        if expected.pieces == 0 {
            // An empty state has no pieces, but an earlier transfer may have left some.
            if let Err(error) = self.store.discard_spool(self.member.group).await {
                return failed(&error);
            }
        } else if *current != Some(expected) {
            return Response::Refused(Refusal::WrongPiece(0));
        }
        *current = None;
        let snapshot = Snapshot { meta, snapshot: Box::new(SnapshotData::Incoming) };
        match self.raft.install_full_snapshot(vote, snapshot).await {
            Ok(answer) => self.confirm(reign, Response::Snapshot(Some(answer.vote))),
            Err(error) => failed(&error),
        }
    }
}

fn failed(error: &dyn std::error::Error) -> Response {
    Response::Refused(Refusal::Failed(error.to_string()))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
