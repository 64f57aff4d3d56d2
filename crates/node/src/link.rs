//! What a robot and the leader say to each other, and how it is written on the wire.
//!
//! Two streams on two connections: heartbeats, and work. Every message is bound to a session; whatever belongs to
//! another session than the one under way is dropped by its receiver. Every message may be lost, repeated or late.
//! On the wire a message is one version byte and a postcard body.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use fleet_core::limits::SLOTS_MAX;
use fleet_core::{Digest, ErrorKind, SessionId};
use fleet_replication::command::Records;
use fleet_store::record::{Payload, StopCause};

use crate::session::{Beat, BeatAnswer, LeaderTerm, Pair};

/// Version byte of the messages written here.
const WIRE_VERSION: u8 = 1;
/// Messages that wait in one direction of a stream: two for every slot a robot can have.
pub const STREAM_DEPTH: usize = 2 * SLOTS_MAX as usize;

/// What a robot can do and has free, as it says with every heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotReport {
    /// Name of its node.
    pub node_name: String,
    /// How many jobs it runs at once.
    pub slots: u32,
    /// Tags of its node, sorted.
    pub tags: Vec<String>,
    /// Capabilities it allows (`http`, `shell`, `script:python`, ...), sorted.
    pub capabilities: Vec<String>,
    /// Whether it takes no new work.
    pub is_draining: bool,
}

/// A heartbeat, upward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// What the lease depends on.
    pub beat: Beat,
    /// What the placement depends on.
    pub report: RobotReport,
}

/// An assignment with all that the robot needs to run the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The leader's term.
    pub term: LeaderTerm,
    /// The session it is bound to.
    pub session: SessionId,
    /// The job and fence.
    pub pair: Pair,
    /// Digest of the definition.
    pub definition: Digest,
    /// The definition's text; absent if the robot should have it. It asks by [`WorkUp::NeedDefinition`] if not.
    pub definition_text: Option<Payload>,
    /// The job's input, JSON.
    pub input: Payload,
    /// The interpreter version that the job is pinned to.
    pub interpreter: u32,
    /// The first records of the journal: events as JSON.
    pub journal: Vec<Payload>,
    /// How many records the journal has; what is missing follows as [`WorkDown::Journal`].
    pub journal_len: u32,
}

/// A work message, downward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkDown {
    /// Run a job.
    Assign(Box<Assignment>),
    /// More of the journal of a job just assigned.
    Journal {
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
        /// Position of the first of these records.
        first: u32,
        /// The records: events as JSON.
        records: Vec<Payload>,
    },
    /// Stop a job.
    Stop {
        /// The leader's term.
        term: LeaderTerm,
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
        /// Why; a cause of higher rank may follow.
        cause: StopCause,
    },
    /// Records are committed: the journal has `journal_len` of them.
    Ack {
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
        /// Length of the journal now.
        journal_len: u32,
        /// Whether the end that came with them took effect: the robot is rid of the job.
        is_over: bool,
    },
    /// The group refused records, because the fence is stale: the job is no longer this robot's.
    Refused {
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
    /// Run a job that may be finished cut off; or, if its robot has run on with it, bind it to this session.
    AssignFinishing {
        /// The assignment.
        assignment: Box<Assignment>,
        /// How long the robot may run on since it was last confirmed, milliseconds.
        finish_within_ms: u64,
    },
    /// What the robot has of an assignment of an earlier session. Answered by [`WorkUp::Returned`] if it runs on, else by its
    /// records, if some are kept, and [`WorkUp::Gone`].
    Ask {
        /// The leader's term.
        term: LeaderTerm,
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
}

/// A work message, upward.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkUp {
    /// Records to commit, and how the job goes on after them. Answered by [`WorkDown::Ack`] or [`WorkDown::Refused`];
    /// sent again on a new stream. Contents are inline, however large: the leader makes blobs of them.
    Records {
        /// The session it is bound to.
        session: SessionId,
        /// The records.
        records: Box<Records>,
    },
    /// The job is stopped as told.
    Stopped {
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
    /// The robot does not have the job and never will under this fence.
    Gone {
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
    /// The robot lacks the definition of an assignment: send it with its text.
    NeedDefinition {
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
    /// The robot has run on with a job of an earlier session of this boot. Answered by [`WorkDown::AssignFinishing`] (or a
    /// stop) once the group has bound it to this session, or by [`WorkDown::Refused`].
    Returned {
        /// The session it is bound to.
        session: SessionId,
        /// The job and fence.
        pair: Pair,
    },
}

/// One end of a stream in both directions. Bounded; closed when either side is dropped.
#[derive(Debug)]
pub struct Duplex<Out, In> {
    /// To the other side.
    pub sender: mpsc::Sender<Out>,
    /// From the other side.
    pub receiver: mpsc::Receiver<In>,
}

/// The robot's end of a link to a leader.
#[derive(Debug)]
pub struct RobotStreams {
    /// Heartbeats up, answers down.
    pub heartbeats: Duplex<Heartbeat, BeatAnswer>,
    /// Work.
    pub work: Duplex<WorkUp, WorkDown>,
}

/// Two connected ends of a stream within one process.
pub fn duplex<Left, Right>() -> (Duplex<Left, Right>, Duplex<Right, Left>) {
    let (left_sender, right_receiver) = mpsc::channel(STREAM_DEPTH);
    let (right_sender, left_receiver) = mpsc::channel(STREAM_DEPTH);
    (Duplex { sender: left_sender, receiver: left_receiver }, Duplex { sender: right_sender, receiver: right_receiver })
}

/// `message` as it travels: a version byte and the body.
pub fn encode<M: Serialize>(message: &M) -> Result<Bytes, fleet_core::Error> {
    let bytes = postcard::to_extend(message, vec![WIRE_VERSION]).map_err(|error| {
        fleet_core::Error::new(ErrorKind::Internal, "encode a message of the robot link").with_source(error)
    })?;
    Ok(Bytes::from(bytes))
}

/// The message in `bytes`.
pub fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, fleet_core::Error> {
    let invalid = || fleet_core::Error::new(ErrorKind::InvalidInput, "decode a message of the robot link");
    match bytes.split_first() {
        Some((&WIRE_VERSION, body)) => postcard::from_bytes(body).map_err(|error| invalid().with_source(error)),
        Some((version, _)) => Err(fleet_core::Error::new(
            ErrorKind::Unsupported,
            format!("decode a message of the robot link of version {version}"),
        )),
        None => Err(invalid()),
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::{Fence, JobId, NodeId};
    use fleet_replication::command::Next;
    use fleet_store::record::{Content, JournalRecord};
    use fleet_workflow::machine::event::Event;

    use super::*;

    #[test]
    fn messages_survive_the_wire_and_damage_is_refused() {
        let session = SessionId { node: NodeId::from_bytes([1; 16]), boot: 3, number: 2 };
        let pair = Pair { job: JobId::from_bytes([7; 16]), fence: Fence::mint(1, 5, 0) };
        let event = Event::Started { at_ms: 5 };
        let records = Records {
            job: pair.job,
            fence: pair.fence,
            from: 4,
            records: vec![JournalRecord::of_event(Some(session.node), &event).unwrap()],
            next: Next::Complete { output: Content::inline("1") },
        };
        let up = WorkUp::Records { session, records: Box::new(records) };
        let bytes = encode(&up).unwrap();
        assert_eq!(decode::<WorkUp>(&bytes).unwrap(), up);
        assert_eq!(decode::<WorkUp>(&bytes[..bytes.len() - 1]).unwrap_err().kind, ErrorKind::InvalidInput);
        assert_eq!(decode::<WorkUp>(&[9, 0]).unwrap_err().kind, ErrorKind::Unsupported);
        assert_eq!(decode::<WorkUp>(&[]).unwrap_err().kind, ErrorKind::InvalidInput);
    }
}
