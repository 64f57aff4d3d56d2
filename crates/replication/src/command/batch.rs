//! A batch of commands as bytes: one version byte, then postcard. This is what a log entry carries.

use serde::{Deserialize, Serialize};

use super::Command;

/// The format that is written.
const FORMAT: u8 = 1;

/// The commands of one log entry, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The commands.
    pub commands: Vec<Command>,
}

/// Bytes that are not a batch this program can read, or a batch that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// There is not even a version byte.
    #[error("decode a batch of commands: no bytes")]
    Empty,
    /// Written in a format that this program does not know.
    #[error("decode a batch of commands: format {0} is not known")]
    UnknownFormat(u8),
    /// The bytes after the version byte are damaged.
    #[error("decode a batch of commands")]
    Damaged(#[source] postcard::Error),
    /// More bytes than the commands take.
    #[error("decode a batch of commands: {0} bytes too many")]
    Trailing(usize),
    /// A command cannot be written.
    #[error("encode a batch of commands")]
    Encode(#[source] postcard::Error),
}

impl Batch {
    /// The batch as bytes.
    pub fn encode(&self) -> Result<Vec<u8>, BatchError> {
        postcard::to_extend(self, vec![FORMAT]).map_err(BatchError::Encode)
    }

    /// The batch in `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, BatchError> {
        let (&format, body) = bytes.split_first().ok_or(BatchError::Empty)?;
        if format != FORMAT {
            return Err(BatchError::UnknownFormat(format));
        }
        match postcard::take_from_bytes(body).map_err(BatchError::Damaged)? {
            (batch, []) => Ok(batch),
            (_, rest) => Err(BatchError::Trailing(rest.len())),
        }
    }
}
