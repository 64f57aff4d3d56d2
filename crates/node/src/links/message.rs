//! What nodes ask each other over links, and the bytes it travels as: a format byte, then postcard. Bytes that cannot be
//! read become a refusal, never a panic; kinds added later are refused as unsupported by nodes that do not know them.

use serde::{Deserialize, Serialize};

use fleet_core::limits::{ACTOR_MESSAGE_BYTES_MAX, LOG_TAIL_BYTES_MAX};
use fleet_core::{Error, ErrorKind, JobId, NodeId};

/// The format written, and the only one so far.
const FORMAT: u8 = 1;

/// A question to another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// How are you?
    Status,
    /// What is this job doing on your robot?
    JobLive(JobId),
    /// The end of an effect's output, as your robot has it.
    LogTail {
        /// The job.
        job: JobId,
        /// The effect path.
        path: String,
        /// Which output.
        stream: OutputStream,
        /// How much of it at most, bytes; never more than 64 KiB are given.
        bytes_max: u32,
    },
    /// The job was asked to stop: look sooner than the next assignment message would make you.
    CancelHint(JobId),
    /// Take no new work, or take it again. Only a hint: the group's log has the decision.
    DrainHint {
        /// Whether to drain.
        is_draining: bool,
    },
}

/// Which output of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<NodeStatus>),
    /// To [`Request::JobLive`]; `None` if the job is not on this robot.
    JobLive(Option<JobLive>),
    /// To [`Request::LogTail`].
    LogTail(LogTail),
    /// The hint was taken.
    Done,
}

/// A node as it sees itself at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// How long it has been up, milliseconds.
    pub uptime_ms: u64,
    /// Slots of its robot.
    pub slots: u32,
    /// Slots at work.
    pub slots_busy: u32,
    /// Whether it takes no new work.
    pub is_draining: bool,
    /// Free bytes where its store lies.
    pub store_free_bytes: u64,
    /// Index of the last log entry it applied.
    pub applied_index: u64,
}

/// A job as the robot that runs it sees it at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLive {
    /// The job.
    pub job: JobId,
    /// JSON pointer of the task at work.
    pub task: String,
    /// Paths of the effects in flight.
    pub effects: Vec<String>,
    /// How long the robot has held it, milliseconds.
    pub held_ms: u64,
}

/// The end of an output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogTail {
    /// Position of `content` in the whole output, bytes.
    pub offset: u64,
    /// The bytes, at most 64 KiB.
    pub content: Vec<u8>,
    /// Whether the output has ended.
    pub is_complete: bool,
}

/// What an answer carries on the wire.
#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Answered(Answer),
    Refused { kind: ErrorKind, message: String },
}

impl Request {
    /// The request as bytes.
    pub(super) fn encode(&self) -> Result<Vec<u8>, Error> {
        encode(self, "encode the question to another node")
    }

    /// The request in `bytes`.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let request = decode(bytes, "read the question of another node")?;
        match request {
            Self::LogTail { job, path, stream, bytes_max } => {
                let bytes_max = bytes_max.min(u32::try_from(LOG_TAIL_BYTES_MAX).unwrap_or(u32::MAX));
                Ok(Self::LogTail { job, path, stream, bytes_max })
            }
            request => Ok(request),
        }
    }
}

/// An answer or a refusal as bytes; what cannot be sent becomes a refusal that can.
pub(super) fn encode_reply(outcome: Result<Answer, Error>) -> Vec<u8> {
    let refused = |error: Error| Reply::Refused { kind: error.kind, message: error.message };
    let reply = outcome.map_or_else(refused, Reply::Answered);
    encode(&reply, "answer another node")
        .or_else(|error| encode(&refused(error), "refuse another node"))
        // A refusal without its message always fits; an empty reply reads as malformed.
        .unwrap_or_default()
}

/// The outcome in `bytes`.
pub(super) fn decode_reply(bytes: &[u8]) -> Result<Answer, Error> {
    match decode(bytes, "read the answer of another node")? {
        Reply::Answered(answer) => Ok(answer),
        Reply::Refused { kind, message } => Err(Error::new(kind, message)),
    }
}

fn encode<T: Serialize>(value: &T, operation: &str) -> Result<Vec<u8>, Error> {
    let bytes = postcard::to_extend(value, vec![FORMAT])
        .map_err(|error| Error::new(ErrorKind::Internal, operation).with_source(error))?;
    if bytes.len() > ACTOR_MESSAGE_BYTES_MAX {
        let message = format!("{operation}: {} bytes exceed {ACTOR_MESSAGE_BYTES_MAX}", bytes.len());
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    Ok(bytes)
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8], operation: &str) -> Result<T, Error> {
    if bytes.len() > ACTOR_MESSAGE_BYTES_MAX {
        let message = format!("{operation}: {} bytes exceed {ACTOR_MESSAGE_BYTES_MAX}", bytes.len());
        return Err(Error::new(ErrorKind::ResourceExhausted, message));
    }
    match bytes.split_first() {
        Some((&FORMAT, body)) => postcard::from_bytes(body).map_err(|error| {
            Error::new(ErrorKind::Unsupported, format!("{operation}: unknown kind")).with_source(error)
        }),
        Some((format, _)) => Err(Error::new(ErrorKind::Unsupported, format!("{operation}: unknown format {format}"))),
        None => Err(Error::new(ErrorKind::InvalidInput, format!("{operation}: it is empty"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::*;

    fn job() -> JobId {
        JobId::from_bytes([4; 16])
    }

    #[test]
    fn questions_and_answers_survive_the_wire() {
        let tail = Request::LogTail { job: job(), path: "/do/0".into(), stream: OutputStream::Stderr, bytes_max: 10 };
        for request in [
            Request::Status,
            Request::JobLive(job()),
            tail,
            Request::CancelHint(job()),
            Request::DrainHint { is_draining: true },
        ] {
            assert_eq!(Request::decode(&request.encode().unwrap()).unwrap(), request);
        }
        let status = Answer::Status(Box::new(NodeStatus { name: "n".into(), ..NodeStatus::default() }));
        assert_eq!(decode_reply(&encode_reply(Ok(status.clone()))).unwrap(), status);
        let refused = decode_reply(&encode_reply(Err(Error::new(ErrorKind::NotFound, "no such job")))).unwrap_err();
        assert_eq!((refused.kind, refused.message.as_str()), (ErrorKind::NotFound, "no such job"));
    }

    #[test]
    fn what_is_too_large_is_refused_and_not_sent() {
        let tail = LogTail { offset: 0, content: vec![1; ACTOR_MESSAGE_BYTES_MAX], is_complete: true };
        let bytes = encode_reply(Ok(Answer::LogTail(tail)));
        assert!(bytes.len() < 1_000);
        assert_eq!(decode_reply(&bytes).unwrap_err().kind, ErrorKind::ResourceExhausted);
        assert_eq!(decode_reply(&vec![1; ACTOR_MESSAGE_BYTES_MAX + 1]).unwrap_err().kind, ErrorKind::ResourceExhausted);
    }

    #[test]
    fn a_tail_is_never_asked_for_beyond_its_bound() {
        let greedy =
            Request::LogTail { job: job(), path: String::new(), stream: OutputStream::Stdout, bytes_max: u32::MAX };
        let Request::LogTail { bytes_max, .. } = Request::decode(&greedy.encode().unwrap()).unwrap() else { panic!() };
        assert_eq!(bytes_max as usize, LOG_TAIL_BYTES_MAX);
    }

    #[test]
    fn unknown_formats_and_kinds_are_unsupported() {
        assert_eq!(Request::decode(&[9, 0]).unwrap_err().kind, ErrorKind::Unsupported);
        assert_eq!(Request::decode(&[FORMAT, 99]).unwrap_err().kind, ErrorKind::Unsupported);
        assert_eq!(Request::decode(&[]).unwrap_err().kind, ErrorKind::InvalidInput);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _read_or_not = (Request::decode(&bytes), decode_reply(&bytes));
            if let Some(first) = bytes.first_mut() {
                *first = FORMAT;
            }
            let _read_or_not = (Request::decode(&bytes), decode_reply(&bytes));
        }
    }
}
