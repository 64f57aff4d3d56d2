//! The state of a machine as bytes: a version byte, the definition's fingerprint, then JSON.
//!
//! A snapshot saves replaying a long journal. It is valid for the same definition and job only; the caller keeps those.

use std::sync::Arc;

use thiserror::Error;

use super::plan::CompiledWorkflow;
use super::state::State;
use super::{JobContext, Machine};

/// Version of the bytes.
const SNAPSHOT_VERSION: u8 = 1;

/// Why a snapshot cannot be used.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// There are no bytes, or too few.
    #[error("the snapshot is empty")]
    Empty,
    /// Another version wrote it.
    #[error("the snapshot has version {0}, this one reads version {SNAPSHOT_VERSION}")]
    Version(u8),
    /// The bytes are damaged.
    #[error("cannot read the snapshot")]
    Damaged(#[source] serde_json::Error),
    /// It was made of another definition.
    #[error("the snapshot is of another workflow")]
    OtherWorkflow,
}

impl Machine {
    /// The state as bytes.
    pub fn snapshot(&self) -> Result<Vec<u8>, SnapshotError> {
        let mut bytes = vec![SNAPSHOT_VERSION];
        bytes.extend(self.workflow.fingerprint.to_be_bytes());
        serde_json::to_writer(&mut bytes, &self.state).map_err(SnapshotError::Damaged)?;
        Ok(bytes)
    }

    /// A machine with the state of a snapshot. What is outstanding is in [`Machine::outstanding`].
    pub fn restore(workflow: Arc<CompiledWorkflow>, context: JobContext, bytes: &[u8]) -> Result<Self, SnapshotError> {
        let (version, body) = bytes.split_first().ok_or(SnapshotError::Empty)?;
        if *version != SNAPSHOT_VERSION {
            return Err(SnapshotError::Version(*version));
        }
        let Some((fingerprint, body)) = body.split_first_chunk::<8>() else {
            return Err(SnapshotError::Empty);
        };
        if u64::from_be_bytes(*fingerprint) != workflow.fingerprint {
            return Err(SnapshotError::OtherWorkflow);
        }
        let state: State = serde_json::from_slice(body).map_err(SnapshotError::Damaged)?;
        Ok(Self { workflow, context, state, commands: Vec::new(), agenda: Vec::new(), entered: 0 })
    }
}
