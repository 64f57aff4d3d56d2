//! What a guard and the process that started it say to each other, over the guard's standard input and output.
//!
//! A frame is `version u8 | kind u8 | length u32, big-endian | payload`. Both ends are the same executable, so there is
//! one version; it is checked all the same. Output of the child travels as it is, everything else as JSON. Pure.

use std::path::PathBuf;

use fleet_core::BootInstant;
use serde::{Deserialize, Serialize};

/// Version of the frames.
const VERSION: u8 = 1;
/// Bytes before the payload.
const HEADER_BYTES: usize = 6;
/// Largest payload: a launch carries a script's code and the child's whole input.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;
const KIND_MESSAGE: u8 = 0;
const KIND_STDOUT: u8 = 1;
const KIND_STDERR: u8 = 2;

/// From the starter to its guard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum ToGuard {
    /// Start this. Said once, first.
    Start(Box<Launch>),
    /// The lease ends at this later time.
    Renew(BootInstant),
    /// End the child and everything that came of it.
    End,
}

/// What to start, and under which bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// Name of the program, looked up in the `PATH` of `environment`, or a path.
    pub(crate) program: String,
    /// Code to be put into a file of its own; the file's path becomes the first argument.
    pub(crate) script: Option<Script>,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
    /// Its whole environment.
    pub(crate) environment: Vec<(String, String)>,
    /// Where it starts; the guard's own directory if absent.
    pub(crate) work_dir: Option<PathBuf>,
    /// Its standard input.
    pub(crate) stdin: String,
    /// Whether its output is read; if not, it goes nowhere.
    pub(crate) captures: bool,
    /// Most bytes of either output stream.
    pub(crate) output_bytes_max: usize,
    /// When the lease ends.
    pub(crate) lease_end: BootInstant,
}

/// A script's code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Script {
    /// Ending of the file's name, with its dot.
    pub(crate) suffix: String,
    /// The code.
    pub(crate) code: String,
}

/// One of a child's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// From a guard to its starter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum FromGuard {
    /// It holds the lock and waits for `Start`.
    Ready,
    /// The child runs, leading a process group of this number.
    Started {
        /// Process number.
        process_id: i32,
    },
    /// Output of the child. Not sent as JSON.
    #[serde(skip)]
    Output(Stream, Vec<u8>),
    /// The child and everything that came of it is gone. Said once, last.
    Ended(Ending),
}

/// Why the child is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// It exited with this code.
    Exited(i32),
    /// This signal killed it, and not the guard's.
    Signalled(i32),
    /// It could not be started.
    NotStarted(String),
    /// It wrote more than allowed to this stream.
    OutputLimit(Stream),
    /// The guard was asked to end it.
    Asked,
    /// The lease ended.
    LeaseEnded,
    /// The starter is gone.
    StarterGone,
}

/// Bytes that are not what the other end would send.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProtocolError {
    /// Another version.
    #[error("frame of version {0}")]
    Version(u8),
    /// A frame larger than any that is sent.
    #[error("frame of {0} bytes")]
    TooLarge(usize),
    /// A kind that does not exist or does not belong here.
    #[error("frame of kind {0}")]
    Kind(u8),
    /// A message that cannot be read.
    #[error("read a message")]
    Message(#[from] serde_json::Error),
}

/// The frame for `message`.
pub(crate) fn encode_to_guard(message: &ToGuard) -> Result<Vec<u8>, ProtocolError> {
    frame(KIND_MESSAGE, &serde_json::to_vec(message)?)
}

/// The frame for `message`.
pub(crate) fn encode_from_guard(message: &FromGuard) -> Result<Vec<u8>, ProtocolError> {
    match message {
        FromGuard::Output(Stream::Stdout, bytes) => frame(KIND_STDOUT, bytes),
        FromGuard::Output(Stream::Stderr, bytes) => frame(KIND_STDERR, bytes),
        other => frame(KIND_MESSAGE, &serde_json::to_vec(other)?),
    }
}

fn frame(kind: u8, payload: &[u8]) -> Result<Vec<u8>, ProtocolError> {
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= PAYLOAD_BYTES_MAX);
    let length = length.ok_or(ProtocolError::TooLarge(payload.len()))?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&[VERSION, kind]);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

/// Puts frames together from bytes as they come.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    read: usize,
}

impl Decoder {
    /// Adds bytes that arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message for a guard.
    pub(crate) fn next_to_guard(&mut self) -> Result<Option<ToGuard>, ProtocolError> {
        match self.next_frame()? {
            None => Ok(None),
            Some((KIND_MESSAGE, payload)) => Ok(Some(serde_json::from_slice(payload)?)),
            Some((kind, _)) => Err(ProtocolError::Kind(kind)),
        }
    }

    /// The next whole message from a guard.
    pub(crate) fn next_from_guard(&mut self) -> Result<Option<FromGuard>, ProtocolError> {
        Ok(match self.next_frame()? {
            None => None,
            Some((KIND_MESSAGE, payload)) => Some(serde_json::from_slice(payload)?),
            Some((KIND_STDOUT, payload)) => Some(FromGuard::Output(Stream::Stdout, payload.to_vec())),
            Some((KIND_STDERR, payload)) => Some(FromGuard::Output(Stream::Stderr, payload.to_vec())),
            Some((kind, _)) => return Err(ProtocolError::Kind(kind)),
        })
    }

    fn next_frame(&mut self) -> Result<Option<(u8, &[u8])>, ProtocolError> {
        let rest = &self.buffer[self.read..];
        let Some((&[version, kind, a, b, c, d], payload)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        if version != VERSION {
            return Err(ProtocolError::Version(version));
        }
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > PAYLOAD_BYTES_MAX {
            return Err(ProtocolError::TooLarge(length));
        }
        if payload.len() < length {
            return Ok(None);
        }
        self.read += HEADER_BYTES + length;
        Ok(Some((kind, &payload[..length])))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn frames_survive_any_cut() {
        let messages = [
            FromGuard::Ready,
            FromGuard::Output(Stream::Stderr, vec![0, 255, 1]),
            FromGuard::Output(Stream::Stdout, Vec::new()),
            FromGuard::Ended(Ending::Exited(3)),
        ];
        let bytes: Vec<u8> = messages.iter().flat_map(|message| encode_from_guard(message).unwrap()).collect();
        for size in 1..bytes.len() {
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                while let Some(message) = decoder.next_from_guard().unwrap() {
                    seen.push(message);
                }
            }
            assert_eq!(seen, messages);
        }
    }

    #[test]
    fn what_nobody_sends_is_refused() {
        let renew = encode_to_guard(&ToGuard::Renew(BootInstant(Duration::from_millis(5)))).unwrap();
        for (position, value) in [(0, 9), (1, KIND_STDOUT), (2, 255), (7, b'?')] {
            let mut bytes = renew.clone();
            bytes[position] = value;
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            assert!(decoder.next_to_guard().is_err(), "byte {position}");
        }
        let mut decoder = Decoder::default();
        decoder.push(&renew);
        assert_eq!(decoder.next_to_guard().unwrap(), Some(ToGuard::Renew(BootInstant(Duration::from_millis(5)))));
    }
}
