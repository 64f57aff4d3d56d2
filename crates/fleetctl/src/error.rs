//! How a command fails: what stands on standard error, and the exit code.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use fleet_core::error::chain;
use fleet_core::{Error, ErrorKind};

/// A command's failure.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An error with its kind.
    Error(Error),
    /// Everything was said already; only the exit code is left.
    Said(ErrorKind),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// The input is wrong and stays wrong.
pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

/// A fault of this process or its machine.
pub(crate) fn internal(operation: &str, source: io::Error) -> Error {
    Error::new(ErrorKind::Internal, operation).with_source(source)
}

/// Prints `failure` and gives its exit code.
pub(crate) fn report(failure: &Failure) -> ExitCode {
    let kind = match failure {
        Failure::Said(kind) => *kind,
        Failure::Error(error) => {
            // Without a standard error there is nobody to tell.
            let _ = io::stderr().write_all(text(error).as_bytes());
            error.kind
        }
    };
    ExitCode::from(kind.exit_code())
}

/// The error in one line, its next step on one of its own.
fn text(error: &Error) -> String {
    let mut text = format!("error: {}\n", chain(error));
    if let Some(next_step) = next_step(error) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "next:  {next_step}");
    }
    text
}

/// What a person can do: what the error says, else what its kind suggests.
fn next_step(error: &Error) -> Option<String> {
    if let Some(next_step) = &error.next_step {
        return Some(next_step.clone());
    }
    let text = match error.kind {
        ErrorKind::Unavailable => "Check that a node runs there, or name another with --endpoint HOST:PORT.",
        ErrorKind::DeadlineExceeded => "It may still take effect: look before you repeat it.",
        ErrorKind::ResourceExhausted => "Try again later.",
        ErrorKind::Unauthenticated => {
            "Copy `admin.json` from the data directory of the founding node and name it with --credential FILE."
        }
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_has_a_line_of_its_own() {
        let error = Error::new(ErrorKind::NotFound, "no job `0190`").with_source(io::Error::other("gone"));
        assert_eq!(text(&error), "error: no job `0190`: gone\n");
        let stepped = invalid("x").with_next_step("Do y.");
        assert_eq!(text(&stepped), "error: x\nnext:  Do y.\n");
        assert!(text(&Error::new(ErrorKind::Unavailable, "x")).contains("--endpoint"));
    }
}
