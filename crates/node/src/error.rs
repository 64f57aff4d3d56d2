//! What can go wrong in a node's actors and its handle.

use fleet_core::{ErrorKind, NodeId};
use fleet_replication::command::Refusal;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed, or holds what cannot be read.
    #[error("{operation}")]
    Store {
        /// What was being done.
        operation: &'static str,
        /// The store's error.
        #[source]
        source: fleet_store::Error,
    },
    /// JSON could not be written or read.
    #[error("{operation}")]
    Json {
        /// What was being done.
        operation: &'static str,
        /// The codec's error.
        #[source]
        source: serde_json::Error,
    },
    /// The group refused a command.
    #[error("{operation}: {refusal}")]
    Refused {
        /// What was being done.
        operation: &'static str,
        /// Why it was refused.
        refusal: Refusal,
    },
    /// Another node leads, or none.
    #[error("{operation}: this node does not lead its site")]
    NotLeader {
        /// What was being done.
        operation: &'static str,
        /// The leader, if one is known.
        leader: Option<NodeId>,
    },
    /// The group could not do it.
    #[error(transparent)]
    Group(#[from] fleet_core::Error),
    /// No job has this id or prefix.
    #[error("no job has the id or prefix `{0}`")]
    JobUnknown(String),
    /// More than one job has this prefix.
    #[error("more than one job has the prefix `{0}`")]
    JobAmbiguous(String),
    /// The job has not ended, so it cannot be retried.
    #[error("retry job {0}: it has not ended")]
    JobNotEnded(fleet_core::JobId),
    /// No site of this name is known.
    #[error("no site `{site}` is known here; known are: {known}")]
    SiteUnknown {
        /// The name.
        site: fleet_core::SiteName,
        /// The names that are known.
        known: String,
    },
    /// No node has this name or id.
    #[error("no node has the name or id `{0}`")]
    NodeUnknown(String),
    /// An actor or thread could not be started, or is gone.
    #[error("{0}")]
    Actor(String),
}

impl Error {
    /// What the caller can act on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store { source, .. } => source.kind(),
            Self::Json { .. } => ErrorKind::Internal,
            Self::Refused { refusal, .. } => refusal.kind(),
            Self::NotLeader { .. } => ErrorKind::NotLeader,
            Self::Group(error) => error.kind,
            Self::JobUnknown(_) | Self::NodeUnknown(_) | Self::SiteUnknown { .. } => ErrorKind::NotFound,
            Self::JobAmbiguous(_) => ErrorKind::InvalidInput,
            Self::JobNotEnded(_) => ErrorKind::FailedPrecondition,
            Self::Actor(_) => ErrorKind::Unavailable,
        }
    }

    /// For `map_err`: the store's error met while doing `operation`.
    pub(crate) fn store(operation: &'static str) -> impl FnOnce(fleet_store::Error) -> Self {
        move |source| Self::Store { operation, source }
    }

    /// For `map_err`: the codec's error met while doing `operation`.
    pub(crate) fn json(operation: &'static str) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Json { operation, source }
    }
}
