//! From how a child ended to the result of its task. Pure.

use fleet_core::limits::{LOG_TAIL_BYTES_MAX, PROCESS_OUTPUT_BYTES_MAX};
use fleet_workflow::machine::effect::ProcessReturn;
use fleet_workflow::machine::event::{ErrorObject, Outcome};
use serde_json::{Value, json};

use crate::guard::protocol::{Ending, Stream};

/// How much of standard error goes into an error's detail, bytes.
const DETAIL_BYTES_MAX: usize = 512;
/// Added to a signal's number to make an exit code, as shells do.
const SIGNAL_CODE_BASE: i32 = 128;

/// The task's outcome for a child that wrote `stdout` and `stderr` and then ended.
pub(crate) fn outcome(returns: ProcessReturn, ending: &Ending, stdout: &[u8], stderr: &[u8]) -> Outcome {
    let (code, how) = match ending {
        Ending::Exited(code) => (*code, format!("exit code {code}")),
        Ending::Signalled(signal) => (SIGNAL_CODE_BASE + signal, format!("killed by signal {signal}")),
        other => return Outcome::Err(not_run(other)),
    };
    if code != 0 && !matches!(returns, ProcessReturn::Code | ProcessReturn::All) {
        let mut detail = how;
        let said = tail(stderr, DETAIL_BYTES_MAX);
        if !said.trim().is_empty() {
            detail.push_str(": ");
            detail.push_str(said.trim());
        }
        return Outcome::Err(ErrorObject::standard("runtime", 500, "process failed", detail));
    }
    Outcome::Ok(match returns {
        ProcessReturn::Stdout => text(stdout),
        ProcessReturn::Stderr => text(stderr),
        ProcessReturn::Code => json!(code),
        ProcessReturn::All => json!({"code": code, "stdout": text(stdout), "stderr": text(stderr)}),
        ProcessReturn::None => Value::Null,
    })
}

fn not_run(ending: &Ending) -> ErrorObject {
    let (title, detail) = match ending {
        Ending::NotStarted(message) => ("process not started", message.clone()),
        Ending::OutputLimit(stream) => {
            let name = match stream {
                Stream::Stdout => "standard output",
                Stream::Stderr => "standard error",
            };
            ("output limit exceeded", format!("more than {PROCESS_OUTPUT_BYTES_MAX} bytes on {name}"))
        }
        _ => ("process ended", "its guard was told to end it".to_owned()),
    };
    ErrorObject::standard("runtime", 500, title, detail)
}

fn text(bytes: &[u8]) -> Value {
    Value::String(String::from_utf8_lossy(bytes).into_owned())
}

/// The last bytes of `output`, as much as a journal keeps.
pub(crate) fn log_tail(output: &[u8]) -> String {
    tail(output, LOG_TAIL_BYTES_MAX)
}

/// The last `bytes_max` bytes of `output` as text, cut at a character, never longer than `bytes_max`.
fn tail(output: &[u8], bytes_max: usize) -> String {
    let mut last = &output[output.len().saturating_sub(bytes_max)..];
    if last.len() < output.len() {
        // Bytes 10xxxxxx continue a character whose start was cut off.
        while last.len() > bytes_max.saturating_sub(4) && last.first().is_some_and(|byte| byte & 0xC0 == 0x80) {
            last = &last[1..];
        }
    }
    let mut text = String::from_utf8_lossy(last).into_owned();
    while text.len() > bytes_max {
        // A replacement character is longer than the byte it stands for.
        let excess = text.len() - bytes_max;
        let cut = (excess..=text.len()).find(|position| text.is_char_boundary(*position)).unwrap_or(text.len());
        text.drain(..cut);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_return_of_a_success() {
        for (returns, expected) in [
            (ProcessReturn::Stdout, json!("out\n")),
            (ProcessReturn::Stderr, json!("err")),
            (ProcessReturn::Code, json!(0)),
            (ProcessReturn::All, json!({"code": 0, "stdout": "out\n", "stderr": "err"})),
            (ProcessReturn::None, json!(null)),
        ] {
            assert_eq!(outcome(returns, &Ending::Exited(0), b"out\n", b"err"), Outcome::Ok(expected));
        }
    }

    #[test]
    fn a_failure_is_an_error_unless_its_code_was_asked_for() {
        for returns in [ProcessReturn::Stdout, ProcessReturn::Stderr, ProcessReturn::None] {
            let Outcome::Err(error) = outcome(returns, &Ending::Exited(3), b"", b"no such thing\n") else { panic!() };
            assert_eq!(error.detail.as_deref(), Some("exit code 3: no such thing"));
            assert!(error.type_uri.ends_with("/runtime"));
        }
        assert_eq!(outcome(ProcessReturn::Code, &Ending::Signalled(9), b"", b""), Outcome::Ok(json!(137)));
        for ending in [Ending::NotStarted("x".to_owned()), Ending::OutputLimit(Stream::Stdout), Ending::Asked] {
            assert!(matches!(outcome(ProcessReturn::All, &ending, b"", b""), Outcome::Err(_)));
        }
    }

    #[test]
    fn tails_are_cut_at_characters_and_keep_their_bound() {
        assert_eq!(tail("aéb".as_bytes(), 2), "b");
        assert_eq!(tail("aéb".as_bytes(), 3), "éb");
        assert_eq!(tail(b"abc", 8), "abc");
        assert!(tail(&[0xFF; 100], 10).len() <= 10);
    }
}
