//! The closed set of error kinds. Each crate has an error of its own with a `kind()`; the kind alone decides what the
//! outside sees: the gRPC code, the HTTP status, the exit code, and whether trying again can help.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What went wrong, as far as a caller can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The input is wrong and stays wrong.
    InvalidInput,
    /// The thing named does not exist.
    NotFound,
    /// It exists already, with other content.
    Conflict,
    /// The thing is in a state that does not allow this.
    FailedPrecondition,
    /// Nobody showed who they are, or the proof is not valid.
    Unauthenticated,
    /// Known, but not allowed.
    PermissionDenied,
    /// A bound is reached; later there may be room.
    ResourceExhausted,
    /// This node is not the leader; the error may carry a hint who is.
    NotLeader,
    /// No quorum, no leader, no link: try again later.
    Unavailable,
    /// The deadline passed. A write may or may not have taken effect.
    DeadlineExceeded,
    /// This version cannot do it.
    Unsupported,
    /// A fault of ours, or of the disk.
    Internal,
}

impl ErrorKind {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 12] = [
        Self::InvalidInput,
        Self::NotFound,
        Self::Conflict,
        Self::FailedPrecondition,
        Self::Unauthenticated,
        Self::PermissionDenied,
        Self::ResourceExhausted,
        Self::NotLeader,
        Self::Unavailable,
        Self::DeadlineExceeded,
        Self::Unsupported,
        Self::Internal,
    ];

    /// Whether the same call may succeed later without anyone changing anything.
    pub const fn is_retryable(self) -> bool {
        matches!(self, Self::ResourceExhausted | Self::NotLeader | Self::Unavailable | Self::DeadlineExceeded)
    }

    /// The exit code of a command that ends with this kind (design: 1 failed or conflicts, 2 usage or invalid input,
    /// 3 not found, 4 unavailable, exhausted or timed out, 5 denied).
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Conflict | Self::FailedPrecondition | Self::Internal => 1,
            Self::InvalidInput | Self::Unsupported => 2,
            Self::NotFound => 3,
            Self::ResourceExhausted | Self::NotLeader | Self::Unavailable | Self::DeadlineExceeded => 4,
            Self::Unauthenticated | Self::PermissionDenied => 5,
        }
    }

    /// The stable word for this kind on the wire and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid_input",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::FailedPrecondition => "failed_precondition",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::ResourceExhausted => "resource_exhausted",
            Self::NotLeader => "not_leader",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }

    /// The kind whose word is `text`.
    pub fn from_word(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error ready to cross an interface: kind, message, and what to do next.
///
/// The message names the operation and its object, in lower case and without a final period. The source is kept for
/// the log's chain and never repeated in the message.
#[derive(Debug)]
pub struct Error {
    /// What the caller can act on.
    pub kind: ErrorKind,
    /// What happened, to what.
    pub message: String,
    /// The next step for a person, as a sentence.
    pub next_step: Option<String>,
    /// How long to wait before trying again, where the kind allows it.
    pub retry_after: Option<Duration>,
    /// Where the leader answers (`host:port`), for [`ErrorKind::NotLeader`].
    pub leader_hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), next_step: None, retry_after: None, leader_hint: None, source: None }
    }

    /// The same error with what a person should do next.
    #[must_use]
    pub fn with_next_step(mut self, next_step: impl Into<String>) -> Self {
        self.next_step = Some(next_step.into());
        self
    }

    /// The same error with the cause for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error with the time to wait before another try.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The same error with the address where the leader answers.
    #[must_use]
    pub fn with_leader_hint(mut self, address: impl Into<String>) -> Self {
        self.leader_hint = Some(address.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// Every message of the chain of `error`, outermost first, joined by `: `. For logs.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_kinds_map_both_ways() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_word(kind.as_str()), Some(kind));
            assert!((1..=5).contains(&kind.exit_code()));
        }
        assert_eq!(ErrorKind::from_word("other"), None);
    }

    #[test]
    fn the_chain_prints_every_cause_once() {
        let inner = Error::new(ErrorKind::Internal, "write page 7");
        let outer = Error::new(ErrorKind::Unavailable, "append to the log").with_source(inner);
        assert_eq!(chain(&outer), "append to the log: write page 7");
    }
}
