//! What travels in the simulation, what a node does in one step, and what the judge is told.

use std::sync::Arc;

use fleet_core::timing::Timing;
use fleet_core::{BootInstant, JobId, NodeId, Timestamp};
use fleet_node::link::{Heartbeat, WorkDown, WorkUp};
use fleet_node::session::{BeatAnswer, Pair};
use fleet_replication::PollAnswer;
use fleet_replication::command::{Action, Outcome};
use fleet_replication::fsm::Event;
use fleet_sim::{Dice, Disk};
use fleet_store::record::{CommandId, JournalRecord};
use fleet_workflow::machine::command::EffectPath;

use crate::bugs::PlantedBug;
use crate::consensus::{DiskRecord, Place, Request, Response};

/// What one node of the group asks another.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Log(Request),
    Poll,
    Takeover { term: u64 },
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Log(Response),
    Poll(PollAnswer),
    Takeover { ago_us: u64 },
    Refused,
}

/// What a client asks.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    /// A change, named by the command id in every repeat.
    Change(CommandId, Action),
    /// Whether this job exists.
    Read(JobId),
}

/// What a client is told.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    Outcome(Outcome),
    Found(bool),
    /// Another node leads, perhaps this one.
    NotHere(Option<NodeId>),
    /// It may have happened or not.
    Unknown,
}

/// What couriers write to each other.
pub(crate) type Letter = fleet_store::record::Payload;

/// A message to a node or a client.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Ask {
        from: NodeId,
        run: u64,
        call: u64,
        ask: Ask,
    },
    /// `run` is the asker's: another run of its process has other calls.
    Said {
        from: NodeId,
        run: u64,
        call: u64,
        said: Said,
    },
    Heartbeat(Heartbeat),
    BeatAnswer(BeatAnswer),
    Up(WorkUp),
    Down(Box<WorkDown>),
    /// A node that is not a member yet wants to be one, in the place of another that is gone.
    Join {
        node: NodeId,
        machine: usize,
        replaces: NodeId,
    },
    Wish {
        number: u64,
        wish: Wish,
    },
    /// The courier of another site writes.
    Letter {
        from: NodeId,
        run: u64,
        call: u64,
        message: Letter,
    },
    /// It is answered; `None` if it cannot be.
    LetterAnswer {
        run: u64,
        call: u64,
        answer: Option<Letter>,
    },
}

/// What a process is woken for.
#[derive(Clone, Debug)]
pub(crate) enum Alarm {
    Tick,
    Synced,
    EffectOver { pair: Pair, path: EffectPath, token: u64 },
}

/// What the judge hears.
#[derive(Clone, Debug)]
pub(crate) enum Fact {
    /// Some node holds everything up to this index committed.
    Committed {
        index: u64,
    },
    /// A node applied an entry.
    Applied(Arc<AppliedFact>),
    /// A leader begins to serve, having applied so much.
    Serves {
        node: NodeId,
        term: u64,
        applied: u64,
    },
    EffectBegan {
        node: NodeId,
        pair: Pair,
        path: EffectPath,
    },
    /// A robot that is cut off has these records of a job on its disk.
    Secured {
        job: JobId,
        records: Vec<JournalRecord>,
    },
    /// A node took a snapshot over that reaches up to there.
    Installed {
        node: NodeId,
        place: Place,
    },
    /// A process broke by something that can never happen.
    Broken(String),
    /// Something that the simulation must not miss.
    Seen(Situation),
}

/// What must come up in enough seeds, or the simulation shows less than it seems to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Situation {
    LeaderElected,
    /// A leader restarted and leads on in its old term.
    LeaderResumed,
    /// A follower dropped entries that another leader had not.
    LogTruncated,
    /// A node does not start, because its disk is damaged.
    DamageReported,
    /// A process ended because its disk was full.
    DiskFull,
    /// A node that lost its disk is a member again, as another one.
    NodeReplaced,
    /// Records came under a fence that was over, and were refused.
    StaleFenceRefused,
    /// A job was taken from a robot that was lost.
    RobotLost,
    RobotStopped,
    SubmitRepeated,
    SubmitConflicts,
    JobParked,
    JobSuspended,
    JobCancelled,
    JobAssignedAtOnce,
    TimersFired,
    /// A job went to the other site and was taken over there.
    MoveAccepted,
    /// A job came back that was asked for.
    MoveRecalled,
    /// A job that went ended there, and its first site knows.
    MovedJobEnded,
    /// A job went on at a robot that was cut off.
    FinishedCutOff,
    /// A robot came back with a job that had run on, and goes on with it.
    JobRejoined,
    /// A job was taken from a robot that may finish it, and was away for too long.
    AbsentTooLong,
    /// What a robot did cut off came after the job was given to another one.
    OwnJournalRefused,
    /// Two files were deployed as the same version by nodes that did not know of each other.
    CatalogConflict,
    CatalogDeletionForgotten,
    /// A node still had what was deleted and forgotten elsewhere, and dropped it.
    CatalogOutlivedDropped,
    CatalogNodeReplaced,
    CatalogNodeRemoved,
    CatalogDiskPutBack,
    CatalogPowerLostInWrite,
    /// A log lost its beginning, which the state has.
    LogPurged,
    /// A member took a snapshot over, because it needed what was gone.
    SnapshotInstalled,
    /// A new job went to the other site at once, because only that one has robots for it.
    JobRouted,
    /// A queued job went there later, because of that.
    QueuedJobRouted,
    /// The site was given up where a job went.
    MoveAbandoned,
    /// A job that was given up there ran at both sites.
    RanAtBothSites,
}

impl Situation {
    pub(crate) const ALL: [Self; 33] = [
        Self::LeaderElected,
        Self::LeaderResumed,
        Self::LogTruncated,
        Self::DamageReported,
        Self::DiskFull,
        Self::NodeReplaced,
        Self::StaleFenceRefused,
        Self::RobotLost,
        Self::RobotStopped,
        Self::SubmitRepeated,
        Self::SubmitConflicts,
        Self::JobParked,
        Self::JobSuspended,
        Self::JobCancelled,
        Self::JobAssignedAtOnce,
        Self::TimersFired,
        Self::MoveAccepted,
        Self::MoveRecalled,
        Self::MovedJobEnded,
        Self::FinishedCutOff,
        Self::JobRejoined,
        Self::CatalogConflict,
        Self::CatalogDeletionForgotten,
        Self::CatalogNodeReplaced,
        Self::CatalogNodeRemoved,
        Self::CatalogDiskPutBack,
        Self::CatalogPowerLostInWrite,
        Self::LogPurged,
        Self::SnapshotInstalled,
        Self::JobRouted,
        Self::QueuedJobRouted,
        Self::MoveAbandoned,
        Self::RanAtBothSites,
    ];
}

/// What applying an entry did.
#[derive(Clone, Debug)]
pub(crate) struct AppliedFact {
    pub(crate) node: NodeId,
    pub(crate) place: Place,
    pub(crate) actions: Vec<Action>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) events: Vec<Event>,
    /// Digest of what the entry asks.
    pub(crate) content: String,
    /// Digest of the outcomes, the events and every row of a job that changed.
    pub(crate) fingerprint: String,
}

/// What a process wants done.
#[derive(Clone, Debug)]
pub(crate) enum Out {
    Send {
        to: NodeId,
        message: Message,
    },
    /// To the other site, whichever node answers there.
    AskSite(Message),
    /// An answer to the client's request of this number.
    Tell {
        number: u64,
        told: Told,
    },
    Wake {
        delay_us: u64,
        alarm: Alarm,
    },
    Fact(Fact),
    /// The process ends: its disk failed.
    Fail(&'static str),
}

/// One step of a process: its clocks, its disk, the dice, and where its wishes go.
pub(crate) struct Step<'a> {
    pub(crate) now: BootInstant,
    pub(crate) wall: Timestamp,
    pub(crate) timing: Timing,
    pub(crate) dice: &'a mut Dice,
    pub(crate) disk: &'a mut Disk<DiskRecord>,
    /// How much longer the disk takes than usual, microseconds.
    pub(crate) disk_stall_us: u64,
    pub(crate) bug: Option<PlantedBug>,
    pub(crate) out: &'a mut Vec<Out>,
}

impl Step<'_> {
    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.out.push(Out::Send { to, message });
    }

    pub(crate) fn ask_site(&mut self, message: Message) {
        self.out.push(Out::AskSite(message));
    }

    pub(crate) fn fact(&mut self, fact: Fact) {
        self.out.push(Out::Fact(fact));
    }

    pub(crate) fn has(&self, bug: PlantedBug) -> bool {
        self.bug == Some(bug)
    }
}
