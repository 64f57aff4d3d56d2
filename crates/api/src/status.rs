//! The one mapping between error kinds and what travels: gRPC code and metadata both ways, and the HTTP status.
//! Not a place for decisions: whether to try again is part of the kind.
//!
//! Invariants: an error that went through a [`Status`] comes back with the same kind, message, next step, delay and
//! leader hint; causes stay on the machine where they happened.

use std::time::Duration;

use fleet_core::{Error, ErrorKind};
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

/// The word of the error kind; more exact than the gRPC code.
const KIND: &str = "fleet-kind";
/// What a person should do next, UTF-8.
const NEXT_STEP: &str = "fleet-next-step-bin";
/// Milliseconds to wait before another try.
const RETRY_AFTER_MS: &str = "fleet-retry-after-ms";
/// `host:port` where the leader answers.
const LEADER: &str = "fleet-leader";
/// What the transport calls a connection that broke.
const TRANSPORT_WORDS: [&str; 3] = ["h2 protocol error", "transport error", "error reading a body from connection"];
/// Longest message sent, bytes: it travels as a header, and headers are bounded on both sides.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// The gRPC code of `kind`.
pub const fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidInput => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Conflict => Code::AlreadyExists,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::PermissionDenied => Code::PermissionDenied,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::NotLeader | ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::Unsupported => Code::Unimplemented,
        ErrorKind::Internal => Code::Internal,
    }
}

/// The kind of a status that does not say it in its metadata: one that the transport or another program made.
pub const fn kind_of_code(code: Code) -> ErrorKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidInput,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists | Code::Aborted => ErrorKind::Conflict,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::Unavailable | Code::Cancelled => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => ErrorKind::Internal,
    }
}

/// The HTTP status of `kind`.
pub const fn http_status(kind: ErrorKind) -> u16 {
    match kind {
        ErrorKind::InvalidInput => 400,
        ErrorKind::Unauthenticated => 401,
        ErrorKind::PermissionDenied => 403,
        ErrorKind::NotFound => 404,
        ErrorKind::Conflict | ErrorKind::FailedPrecondition => 409,
        ErrorKind::ResourceExhausted => 429,
        ErrorKind::Internal => 500,
        ErrorKind::Unsupported => 501,
        ErrorKind::NotLeader | ErrorKind::Unavailable => 503,
        ErrorKind::DeadlineExceeded => 504,
    }
}

/// `error` as a gRPC status. Its causes are left out: they are for this machine's log.
pub fn status_of(error: &Error) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(KIND, MetadataValue::from_static(error.kind.as_str()));
    if let Some(next_step) = &error.next_step {
        metadata.insert_bin(NEXT_STEP, MetadataValue::from_bytes(next_step.as_bytes()));
    }
    if let Some(delay) = error.retry_after {
        let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        metadata.insert(RETRY_AFTER_MS, MetadataValue::from(delay_ms));
    }
    if let Some(leader) = error.leader_hint.as_deref().and_then(|hint| MetadataValue::try_from(hint).ok()) {
        metadata.insert(LEADER, leader);
    }
    Status::with_metadata(code(error.kind), bounded(&error.message), metadata)
}

/// The error that `status` carries, also where the transport made the status on this side.
pub fn error_of(status: &Status) -> Error {
    if let Some(error) = local_error(status) {
        return error;
    }
    let metadata = status.metadata();
    let kind = text(metadata, KIND).and_then(ErrorKind::from_word).unwrap_or_else(|| kind_of_foreign(status));
    let message = if status.message().is_empty() { status.code().description() } else { status.message() };
    let mut error = Error::new(kind, message);
    error.next_step = metadata
        .get_bin(NEXT_STEP)
        .and_then(|value| value.to_bytes().ok())
        .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
    error.retry_after =
        text(metadata, RETRY_AFTER_MS).and_then(|delay_ms| delay_ms.parse().ok()).map(Duration::from_millis);
    error.leader_hint = text(metadata, LEADER).map(str::to_owned);
    error
}

/// The kind of a status that no service of ours made. The transport reports a connection that breaks in the middle of an
/// answer as an unknown or internal error, and a node may pass such a status on without its cause: only the words are left.
fn kind_of_foreign(status: &Status) -> ErrorKind {
    let is_vague = matches!(status.code(), Code::Unknown | Code::Internal);
    let is_broken = TRANSPORT_WORDS.iter().any(|words| status.message().contains(words));
    if is_vague && is_broken { ErrorKind::Unavailable } else { kind_of_code(status.code()) }
}

/// The same error again, without its cause: for a cause that is shared and cannot be moved.
pub(crate) fn copy(error: &Error) -> Error {
    let mut copy = Error::new(error.kind, error.message.clone());
    copy.next_step.clone_from(&error.next_step);
    copy.retry_after = error.retry_after;
    copy.leader_hint.clone_from(&error.leader_hint);
    copy
}

/// An error of ours, or a deadline of this side, among the causes of `status`.
fn local_error(status: &Status) -> Option<Error> {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(ours) = error.downcast_ref::<Error>() {
            return Some(with_cause_text(ours));
        }
        if error.is::<tonic::TimeoutExpired>() {
            return Some(Error::new(ErrorKind::DeadlineExceeded, "no answer before the deadline"));
        }
        cause = error.source();
    }
    None
}

fn with_cause_text(error: &Error) -> Error {
    let copied = copy(error);
    match std::error::Error::source(error) {
        Some(source) => copied.with_source(fleet_core::error::chain(source)),
        None => copied,
    }
}

fn text<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key).and_then(|value| value.to_str().ok())
}

fn bounded(message: &str) -> String {
    if message.len() <= MESSAGE_BYTES_MAX {
        return message.to_owned();
    }
    let end = (0..=MESSAGE_BYTES_MAX).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
    format!("{} (cut; {} more bytes)", &message[..end], message.len() - end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(kind: ErrorKind) -> Error {
        Error::new(kind, "submit job ä: naïve \u{1F600}\nsecond line")
            .with_next_step("Run `fleetctl doctor`, größer denken.")
            .with_retry_after(Duration::from_millis(1_250))
            .with_leader_hint("10.0.0.7:7000")
    }

    #[test]
    fn every_kind_survives_the_wire() {
        for kind in ErrorKind::ALL {
            for error in [full(kind), Error::new(kind, "plain")] {
                let headers = status_of(&error).into_http::<()>().into_parts().0.headers;
                let status = Status::from_header_map(&headers).unwrap();
                assert_eq!(status.code(), code(kind));
                let back = error_of(&status);
                assert_eq!(back.kind, kind);
                assert_eq!(back.message, error.message);
                assert_eq!(back.next_step, error.next_step);
                assert_eq!(back.retry_after, error.retry_after);
                assert_eq!(back.leader_hint, error.leader_hint);
            }
        }
    }

    #[test]
    fn a_connection_that_broke_is_worth_another_try_and_an_error_of_ours_is_not() {
        let message = "h2 protocol error: error reading a body from connection";
        for code in [Code::Unknown, Code::Internal] {
            assert_eq!(error_of(&Status::new(code, message)).kind, ErrorKind::Unavailable);
            assert_eq!(error_of(&Status::new(code, "it panicked")).kind, ErrorKind::Internal);
        }
        let ours = status_of(&Error::new(ErrorKind::Internal, message));
        assert_eq!(error_of(&ours).kind, ErrorKind::Internal, "it says so itself");
    }

    #[test]
    fn a_status_without_metadata_still_has_its_kind() {
        for kind in ErrorKind::ALL {
            let read = error_of(&Status::new(code(kind), "x")).kind;
            let expected = if kind == ErrorKind::NotLeader { ErrorKind::Unavailable } else { kind };
            assert_eq!(read, expected);
        }
        for number in 0..=16 {
            let code = Code::from_i32(number);
            assert_eq!(error_of(&Status::new(code, "")).message, code.description());
        }
    }

    #[test]
    fn http_statuses_and_exit_codes_agree_on_whose_fault_it_is() {
        for kind in ErrorKind::ALL {
            let (status, exit) = (http_status(kind), kind.exit_code());
            match exit {
                5 => assert!([401, 403].contains(&status), "{kind}"),
                4 => assert!([429, 503, 504].contains(&status), "{kind}"),
                3 => assert_eq!(status, 404),
                2 => assert!([400, 501].contains(&status), "{kind}"),
                _ => assert!([409, 500].contains(&status), "{kind}"),
            }
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let error = Error::new(ErrorKind::InvalidInput, "é".repeat(MESSAGE_BYTES_MAX));
        let message = status_of(&error).message().to_owned();
        assert!(message.len() < MESSAGE_BYTES_MAX + 64);
        assert!(message.ends_with("more bytes)"), "{}", &message[message.len() - 40..]);
    }

    #[derive(Debug, thiserror::Error)]
    #[error("transport error")]
    struct Transport(#[source] Error);

    #[test]
    fn an_error_of_ours_inside_a_transport_error_is_found() {
        let ours = Error::new(ErrorKind::Unauthenticated, "verify the node").with_next_step("Copy the credential.");
        let read = error_of(&Status::from_error(Box::new(Transport(ours))));
        assert_eq!((read.kind, read.message.as_str()), (ErrorKind::Unauthenticated, "verify the node"));
        assert_eq!(read.next_step.as_deref(), Some("Copy the credential."));
    }
}
