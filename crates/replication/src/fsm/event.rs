//! What a command changed, for the scheduler and for watchers. Events are not stored: whoever missed them reads the state.

use fleet_core::{GroupId, JobId, NodeId};
use fleet_store::record::{Assignment, JobState, StopCause};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A job is new, changed its state or its holder, or its holder must stop for another cause.
    JobChanged {
        /// The job.
        job: JobId,
        /// Its state before; `None` if it is new.
        from: Option<JobState>,
        /// Its state now.
        to: JobState,
        /// How often it was assigned.
        attempt: u32,
        /// Who holds it now.
        assignment: Option<Assignment>,
        /// Who held it until now and does no more.
        released: Option<Assignment>,
        /// Whether that holder said so itself, by its own records or by confirming a stop. If not, it may be dead.
        settled: bool,
        /// Why its holder must stop.
        stop: Option<StopCause>,
    },
    /// Records were appended to a job's journal.
    JournalAppended {
        /// The job.
        job: JobId,
        /// Position of the first new record.
        from: u32,
        /// Records in the journal now.
        length: u32,
    },
    /// A node was admitted, changed, drained, or removed.
    NodeChanged {
        /// The node.
        node: NodeId,
    },
    /// A row of trust was written.
    TrustChanged,
    /// There are new gossip keys.
    KeyringChanged {
        /// Their generation.
        generation: u64,
    },
    /// A leader committed its first entry.
    LeaderChanged {
        /// The leader.
        node: NodeId,
        /// Its term.
        term: u64,
    },
    /// Dispatch is held, or no more.
    HoldChanged {
        /// Whether it is held.
        held: bool,
    },
    /// Commands up to this version may be proposed.
    GateRaised {
        /// The version.
        version: u32,
    },
    /// More is known of other sites.
    SitesChanged,
    /// There is something new to send to another group.
    OutboxChanged {
        /// The group.
        peer: GroupId,
    },
    /// A job that lives at another site is told of for the first time, or stands otherwise there.
    MirrorChanged {
        /// The job.
        job: JobId,
    },
}
