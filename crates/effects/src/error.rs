//! What can go wrong around effects, outside of any job. What goes wrong inside one is its outcome, in the language's terms.

use std::io;
use std::path::PathBuf;

use fleet_core::ErrorKind;

/// A failure of the machinery itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP client could not be built.
    #[error("build the http client")]
    HttpClient(#[source] reqwest::Error),
    /// The TLS settings of the HTTP client are not usable.
    #[error("set up tls for the http client")]
    Tls(#[source] rustls::Error),
    /// A configured certificate authority is not a certificate.
    #[error("read the extra certificate authority {position}")]
    Authority {
        /// Which of the configured ones, from 0.
        position: usize,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The lock that guards hold could not be opened or taken.
    #[error("lock {}", path.display())]
    GuardLock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Guards of an earlier run still hold the lock.
    #[error("guards of an earlier run still hold {}", path.display())]
    GuardsRemain {
        /// The lock file.
        path: PathBuf,
    },
}

impl Error {
    /// The kind the outside sees.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::HttpClient(_) | Self::Tls(_) | Self::GuardLock { .. } => ErrorKind::Internal,
            Self::Authority { .. } => ErrorKind::InvalidInput,
            Self::GuardsRemain { .. } => ErrorKind::DeadlineExceeded,
        }
    }
}
