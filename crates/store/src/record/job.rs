//! Jobs: what was asked for (`JobSpec`, written once) and how it stands (`Job`, rewritten at every step and kept small).

use std::fmt;

use fleet_core::{Digest, Fence, JobId, NodeId, SessionId, SiteName, Timestamp};
use serde::{Deserialize, Serialize};

use super::content::Content;
use super::reason::Reason;

/// Names one command, so that a repeat of it is recognised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandId(pub u128);

/// Where a job is in its life. The numbers are stored in keys: never reorder them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum JobState {
    /// Accepted; waits for a slot.
    Queued = 0,
    /// A robot was chosen; nothing was heard from it yet.
    Assigned = 1,
    /// Its robot has begun.
    Running = 2,
    /// Parked until a timer or an event; nobody holds it.
    Waiting = 3,
    /// Paused by an operator; nobody holds it.
    Suspended = 4,
    /// Its holder was told to stop; it may still act.
    Stopping = 5,
    /// Under way to another site, which has not accepted it as far as is known.
    Transferring = 6,
    /// Ended with an output.
    Completed = 7,
    /// Ended with an error nobody caught.
    Failed = 8,
    /// Ended by an operator.
    Cancelled = 9,
    /// Ended by its timeout.
    TimedOut = 10,
    /// Ended because its robots were lost too often.
    DeadLettered = 11,
}

impl JobState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Queued,
        Self::Assigned,
        Self::Running,
        Self::Waiting,
        Self::Suspended,
        Self::Stopping,
        Self::Transferring,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::DeadLettered,
    ];

    /// The state's number in keys and counters.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Whether nothing follows.
    pub const fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::TimedOut | Self::DeadLettered)
    }

    /// Whether a robot has the right to act for a job in this state.
    pub const fn has_holder(self) -> bool {
        matches!(self, Self::Assigned | Self::Running | Self::Stopping)
    }

    /// The word for this state on the command line and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Suspended => "suspended",
            Self::Stopping => "stopping",
            Self::Transferring => "transferring",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::DeadLettered => "dead_lettered",
        }
    }

    /// The state whose word is `text`.
    pub fn from_word(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a workflow, as its document gives it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WorkflowName {
    /// `document.namespace`.
    pub namespace: String,
    /// `document.name`.
    pub name: String,
    /// `document.version`.
    pub version: String,
}

impl fmt::Display for WorkflowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.version)
    }
}

/// What was asked for. Never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The workflow's name, for people; what runs is `definition`.
    pub workflow: WorkflowName,
    /// Digest of the definition.
    pub definition: Digest,
    /// Version of the interpreter that the job is pinned to.
    pub interpreter: u32,
    /// The site it runs at.
    pub site: SiteName,
    /// Tags its robot must have, sorted.
    pub tags: Vec<String>,
    /// Capabilities its robot must allow, sorted.
    pub capabilities: Vec<String>,
    /// How often its robot may be lost before it is dead-lettered.
    pub lost_max: u32,
    /// `onDisconnect: finish`: how long its robot may run on while cut off, milliseconds. `None`: it stops.
    pub finish_within_ms: Option<u64>,
    /// The job that this one repeats.
    pub retry_of: Option<JobId>,
}

/// A committed assignment: who holds a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The robot's session; only within it may the robot act.
    pub session: SessionId,
    /// The right to act, minted by the commit.
    pub fence: Fence,
    /// When it was assigned.
    pub at: Timestamp,
}

/// Why a holder was told to stop. A later one of higher rank takes the place of a lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum StopCause {
    /// Its node is drained: it goes back to the queue.
    Drain,
    /// An operator paused it: it becomes suspended.
    Pause,
    /// Its time is over: it becomes timed out.
    TimeOut,
    /// An operator cancelled it: it becomes cancelled.
    Cancel,
}

/// The last batch of records by which a holder let go of the job, so that its repeat gets the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// The fence it came with.
    pub fence: Fence,
    /// Length of the journal after it.
    pub journal_length: u32,
}

/// How long the holder of a job that may finish cut off (`onDisconnect: finish`) has not been heard. Committed from time
/// to time, so that a new leader counts on from there and reassigns only past the bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Absence {
    /// Which absence of this holder it is; raised also when the holder is heard again, which begins one of zero length.
    pub number: u32,
    /// How long it has lasted, milliseconds.
    pub elapsed_ms: u64,
}

/// How a job stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its place in the order of submission at this group, from 1.
    pub number: u64,
    /// Where it is in its life.
    pub state: JobState,
    /// Priority, 0 to 20, higher first.
    pub priority: u8,
    /// How often it was moved between sites.
    pub generation: u32,
    /// How often it was assigned.
    pub attempt: u32,
    /// How often its robot was lost.
    pub lost: u32,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When it first ran.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Who holds it; present exactly where [`JobState::has_holder`].
    pub assignment: Option<Assignment>,
    /// How long its holder has not been heard, where that is counted.
    pub absence: Absence,
    /// Why its holder must stop; present exactly while `Stopping`.
    pub stop: Option<StopCause>,
    /// The node that has or last had it.
    pub node: Option<NodeId>,
    /// When a parked job must go on.
    pub wake_at: Option<Timestamp>,
    /// Why it is in its state, where there is something to say.
    pub reason: Option<Reason>,
    /// Records in its journal.
    pub journal_length: u32,
    /// Bytes of all records in its journal.
    pub journal_bytes: u64,
    /// Events delivered to it from outside.
    pub inbox_length: u32,
    /// Paths of effects whose start was journaled and whose end was not.
    pub in_flight: Vec<String>,
    /// How its last holder let go of it by its own records.
    pub settled: Option<Settled>,
    /// The last commands of operators and senders that it obeyed, oldest first.
    pub handled: Vec<CommandId>,
}

impl Job {
    /// A job that was accepted at `created_at` as the group's `number`th, and waits for a robot.
    pub fn queued(number: u64, priority: u8, created_at: Timestamp) -> Self {
        Self {
            number,
            state: JobState::Queued,
            priority,
            generation: 0,
            attempt: 0,
            lost: 0,
            created_at,
            started_at: None,
            ended_at: None,
            assignment: None,
            absence: Absence::default(),
            stop: None,
            node: None,
            wake_at: None,
            reason: None,
            journal_length: 0,
            journal_bytes: 0,
            inbox_length: 0,
            in_flight: Vec::new(),
            settled: None,
            handled: Vec::new(),
        }
    }
}

/// What an ended job left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Its output, JSON.
    Output(Content),
    /// Its error, a JSON object of RFC 7807.
    Error(Content),
}
