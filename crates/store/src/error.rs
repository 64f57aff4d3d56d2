//! What can go wrong with the store, and what callers can act on.

use std::sync::Arc;

use fleet_core::ErrorKind;

/// A failed operation of the store.
///
/// It is `Clone` because one failed commit fails every operation that rode in it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is held by another process.
    #[error("open the store: another process holds it")]
    AlreadyOpen,
    /// The database failed; the handle is poisoned from here on.
    #[error("{operation}")]
    Database {
        /// What was tried, on what.
        operation: &'static str,
        /// The database's own error.
        source: Arc<redb::Error>,
    },
    /// An earlier failure closed this handle: reopen the store.
    #[error("{operation}: the store failed earlier and must be reopened")]
    Poisoned {
        /// What was tried.
        operation: &'static str,
    },
    /// The store was closed.
    #[error("{operation}: the store is closed")]
    Closed {
        /// What was tried.
        operation: &'static str,
    },
    /// The writer's queue is full.
    #[error("{operation}: the queue of the store's writer is full")]
    QueueFull {
        /// What was tried.
        operation: &'static str,
    },
    /// Bytes in the file are not what this version can read.
    #[error("decode {what}: {problem}")]
    Corrupt {
        /// The record's name.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The file was written by a newer version.
    #[error("open the store: its schema is {found}, this version knows up to {known}")]
    NewerSchema {
        /// Schema of the file.
        found: u32,
        /// Highest schema of this version.
        known: u32,
    },
    /// The operating system refused something beside the database file.
    #[error("{operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The system's error.
        source: Arc<std::io::Error>,
    },
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    Refused(&'static str),
}

impl Error {
    /// What the caller can act on.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::AlreadyOpen | Self::Refused(_) => ErrorKind::FailedPrecondition,
            Self::Poisoned { .. } | Self::Closed { .. } => ErrorKind::Unavailable,
            Self::QueueFull { .. } => ErrorKind::ResourceExhausted,
            Self::NewerSchema { .. } => ErrorKind::Unsupported,
            Self::Database { .. } | Self::Io { .. } | Self::Corrupt { .. } => ErrorKind::Internal,
        }
    }

    /// Wraps an error of the database met while doing `operation`.
    pub(crate) fn database(operation: &'static str, source: impl Into<redb::Error>) -> Self {
        match source.into() {
            redb::Error::DatabaseAlreadyOpen => Self::AlreadyOpen,
            source => Self::Database { operation, source: Arc::new(source) },
        }
    }

    /// Wraps an error of the operating system met while doing `operation`.
    pub(crate) fn io(operation: &'static str, source: std::io::Error) -> Self {
        Self::Io { operation, source: Arc::new(source) }
    }

    /// Names a record that cannot be decoded.
    pub fn corrupt(what: &'static str, problem: impl Into<String>) -> Self {
        Self::Corrupt { what, problem: problem.into() }
    }
}
