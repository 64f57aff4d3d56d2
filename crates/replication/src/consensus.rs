//! How openraft is told about us: ids, entries, results, and how entries and ids become bytes.
//!
//! Nothing of openraft shows outside this crate's storage and tests: callers see `Group`.

use std::fmt;

use bytes::Bytes;
use fleet_core::NodeId;
use openraft::{EmptyNode, StoredMembership};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::command::Outcome;
use crate::snapshot::SnapshotData;

/// Version of everything this module writes.
const FORMAT: u8 = 1;

openraft::declare_raft_types!(
    /// Our choice of types for openraft.
    pub TypeConfig:
        D = EntryData,
        R = EntryOutcome,
        NodeId = VoterId,
        Node = EmptyNode,
        SnapshotData = SnapshotData,
);

/// A node as the consensus knows it. The same id as the node's, minted with its file.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VoterId(pub NodeId);

/// Numbers are for the storage suite, which names nodes so.
impl From<u64> for VoterId {
    fn from(number: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&number.to_be_bytes());
        Self(NodeId::from_bytes(bytes))
    }
}

impl fmt::Display for VoterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for VoterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What one log entry carries: a batch of commands, encoded.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryData(pub Bytes);

impl fmt::Debug for EntryData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryData({} bytes)", self.0.len())
    }
}

/// What came of one log entry: an outcome per command, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryOutcome {
    /// Index of the entry.
    pub index: u64,
    /// The outcomes; none for an entry without commands.
    pub outcomes: Vec<Outcome>,
}

/// Id of a log entry.
pub type LogId = openraft::LogId<VoterId>;
/// A log entry.
pub(crate) type Entry = openraft::Entry<TypeConfig>;
/// The raft of a group.
pub(crate) type Raft = openraft::Raft<TypeConfig>;

/// Index of the last entry that is applied here; openraft tells of it after the state machine has done so.
pub(crate) fn applied_index(raft: &Raft) -> Option<u64> {
    raft.data_metrics().borrow().last_applied.map(|id| id.index)
}
/// A failure of the storage as openraft takes it.
pub(crate) type StorageError = openraft::StorageError<VoterId>;

/// Up to where a state is applied, and the membership it knows: the row that lies beside the state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppliedTo {
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership<VoterId, EmptyNode>,
}

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
#[error("{action} a {what}: {problem}")]
pub struct CodecError {
    action: &'static str,
    what: &'static str,
    problem: String,
}

/// What the store has cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredError {
    /// The store failed.
    #[error("read what the group stored")]
    Store(#[from] fleet_store::Error),
    /// A record is damaged.
    #[error("read what the group stored")]
    Codec(#[from] CodecError),
}

/// `value` as bytes behind a version byte.
pub(crate) fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, CodecError> {
    postcard::to_extend(value, vec![FORMAT]).map_err(|error| CodecError {
        action: "encode",
        what,
        problem: error.to_string(),
    })
}

/// The value in `bytes`.
pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    let fail = |problem: String| CodecError { action: "decode", what, problem };
    match bytes.split_first() {
        Some((&FORMAT, body)) => match postcard::take_from_bytes(body) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(fail(format!("{} bytes too many", rest.len()))),
            Err(error) => Err(fail(error.to_string())),
        },
        Some((version, _)) => Err(fail(format!("format {version} is not known"))),
        None => Err(fail("no bytes".to_owned())),
    }
}
