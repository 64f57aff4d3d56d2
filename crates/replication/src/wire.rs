//! What nodes of a group say to each other. Each message names group, epoch, sender and target; whoever it is not meant
//! for refuses it, so a wiped node at an old address never answers for its old self.

use bytes::Bytes;
use fleet_core::{Digest, GroupId, NodeId};
use fleet_store::StateChunk;
use openraft::Vote;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use serde::{Deserialize, Serialize};

use crate::blobs::Held;
use crate::consensus::{LogId, TypeConfig, VoterId};
use crate::snapshot::Meta;

/// A message with its address.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) group: GroupId,
    pub(crate) epoch: u64,
    pub(crate) sender: NodeId,
    pub(crate) target: NodeId,
    /// Which run of the sender's process this is; random.
    pub(crate) run: u64,
    pub(crate) request: Request,
}

/// What is asked. New kinds are added at the end, because postcard numbers them in order; a node that does not know one
/// answers with an error.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Entries, or a leader's sign of life.
    Append(AppendEntriesRequest<TypeConfig>),
    /// A vote.
    Vote(VoteRequest<VoterId>),
    /// Whether an election would make sense.
    Poll,
    /// When an earlier leader was last heard. Whoever answers confirms none of an earlier term again, even after a
    /// restart.
    Takeover {
        /// Term of the leader that asks.
        term: u64,
    },
    /// A piece of a snapshot; pieces are numbered from 0.
    SnapshotPiece {
        /// Names the transfer.
        transfer: u64,
        /// Its number.
        number: u64,
        /// Rows.
        chunk: StateChunk,
    },
    /// All pieces were sent.
    SnapshotEnd {
        /// Names the transfer.
        transfer: u64,
        /// How many pieces there were.
        pieces: u64,
        /// The leader's vote.
        vote: Vote<VoterId>,
        /// What the snapshot is.
        meta: Meta,
    },
    /// Content to be kept.
    PutBlob {
        /// Its bytes.
        content: Bytes,
    },
    /// Content by its name.
    GetBlob {
        /// Its name.
        digest: Digest,
    },
    /// What the node has of the blobs that its state names.
    BlobsHeld,
}

impl Request {
    /// Whether `sender` itself stands for election or leads, where the request says who does.
    pub(crate) fn is_in_the_name_of(&self, sender: NodeId) -> bool {
        let vote = match self {
            Self::Append(rpc) => &rpc.vote,
            Self::Vote(rpc) => &rpc.vote,
            Self::SnapshotEnd { vote, .. } => vote,
            _ => return true,
        };
        vote.leader_id.voted_for() == Some(VoterId(sender))
    }
}

/// What is answered. New kinds are added at the end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    /// To entries.
    Append(AppendEntriesResponse<VoterId>),
    /// To a request for a vote.
    Vote(VoteResponse<VoterId>),
    /// To a poll.
    Poll(PollAnswer),
    /// To a leader that takes over.
    Takeover(TakeoverAnswer),
    /// A piece is kept, or everything is installed; with the voter's vote in the latter case.
    Snapshot(Option<Vote<VoterId>>),
    /// The blob is on the disk.
    BlobKept,
    /// The blob, if it is here.
    Blob(Option<Bytes>),
    /// It was not done.
    Refused(Refusal),
    /// What is here of the blobs that the state names.
    BlobsHeld(Held),
}

/// Why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum Refusal {
    /// Meant for another group.
    #[error("the message is for another group")]
    OtherGroup,
    /// Meant for another epoch; the answer carries ours.
    #[error("the group is in epoch {0}")]
    OtherEpoch(u64),
    /// Meant for another node.
    #[error("the message is for another node than {0}")]
    OtherTarget(NodeId),
    /// A later leader takes over; the sender is confirmed no more.
    #[error("a leader of term {0} takes over")]
    Superseded(u64),
    /// The node's stored vote does not forbid earlier leaders yet; ask again.
    #[error("the node does not follow term {0} yet")]
    NotFollowing(u64),
    /// A piece of a snapshot is missing.
    #[error("the next piece of the snapshot is {0}")]
    WrongPiece(u64),
    /// The node failed.
    #[error("the node failed: {0}")]
    Failed(String),
    /// Said in another node's name; the sender's own is in the answer.
    #[error("the message is in another name than that of its sender {0}")]
    OtherSender(NodeId),
}

/// What a voter says to one who considers an election.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollAnswer {
    /// How long it heard no leader, since its start at the longest, milliseconds.
    pub silence_ms: u64,
    /// Its last log entry.
    pub last_log: Option<LogId>,
    /// Whether it leads and a quorum answered it within the group lease.
    pub leads: bool,
}

/// What a voter says to a leader that takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TakeoverAnswer {
    /// How long ago it last heard an earlier leader, its process started, or it stopped leading itself, whichever was
    /// last; microseconds.
    pub(crate) ago_us: u64,
}
