//! What can go wrong when membership is started or used. Nothing a packet contains is an error of this kind: bad packets
//! are dropped and counted.

use std::io;
use std::net::SocketAddr;

use fleet_core::ErrorKind;

/// The cause of a failed [`crate::Persistence`] call, kept for the log.
pub type PersistenceError = Box<dyn std::error::Error + Send + Sync>;

/// An error of membership.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The gossip socket could not be opened.
    #[error("bind the gossip socket to {address}")]
    Bind {
        /// Where it should listen.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The gossip thread or its runtime could not be started.
    #[error("start the gossip thread")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
    /// The remembered members could not be read.
    #[error("load the remembered members")]
    Load {
        /// What the store said.
        source: PersistenceError,
    },
    /// The new incarnation could not be made durable, so nothing may be sent.
    #[error("save the incarnation of this node")]
    Save {
        /// What the store said.
        source: PersistenceError,
    },
    /// Remembered members that this version cannot read.
    #[error("decode the remembered members: {reason}")]
    Remembered {
        /// What is wrong with the bytes.
        reason: &'static str,
    },
    /// The metadata does not fit into a packet even without its tags.
    #[error("encode the metadata of this node: {bytes} bytes exceed {bytes_max}")]
    MetadataTooLarge {
        /// Its size without tags.
        bytes: usize,
        /// The size allowed.
        bytes_max: usize,
    },
    /// The keys given do not make a keyring.
    #[error("build the gossip keyring: {reason}")]
    Keyring {
        /// What is wrong.
        reason: &'static str,
    },
    /// The operating system gave no randomness, or the crypto library refused.
    #[error("prepare the gossip seal")]
    Crypto,
    /// The configuration cannot work.
    #[error("check the membership configuration: {reason}")]
    Config {
        /// What is wrong.
        reason: &'static str,
    },
    /// More commands wait for the gossip thread than it may queue.
    #[error("queue a command for the gossip thread: the queue is full")]
    QueueFull,
    /// The gossip thread has ended.
    #[error("reach the gossip thread: it has stopped")]
    Stopped,
}

impl Error {
    /// The kind by which callers decide.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => ErrorKind::FailedPrecondition,
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                ErrorKind::PermissionDenied
            }
            Self::Bind { .. } | Self::MetadataTooLarge { .. } | Self::Keyring { .. } | Self::Config { .. } => {
                ErrorKind::InvalidInput
            }
            Self::Thread { .. } | Self::Load { .. } | Self::Save { .. } | Self::Remembered { .. } | Self::Crypto => {
                ErrorKind::Internal
            }
            Self::QueueFull => ErrorKind::ResourceExhausted,
            Self::Stopped => ErrorKind::Unavailable,
        }
    }
}
