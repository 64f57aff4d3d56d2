//! Every kind of command. New kinds are added at the end, because postcard numbers them in order.

use fleet_core::{Digest, Fence, GroupId, JobId, NodeId, SessionId, SiteName, Timestamp};
use fleet_store::record::{
    Absence, Content, Founding, JobSpec, JournalRecord, Keyring, NodeCertificate, NodeProfile, Payload, PeerSite,
    SiteRecord, StopCause, TokenId, TrustKind,
};
use serde::{Deserialize, Serialize};

use super::Moving;

/// The version of commands that every program knows.
pub const FIRST_VERSION: u32 = 1;
/// The version of commands that brought [`Action::SubmitAssigned`].
pub const SUBMIT_ASSIGNED_VERSION: u32 = 2;
/// The version of commands that brought [`Action::Forget`].
pub const FORGET_VERSION: u32 = 3;
/// The version of commands that brought [`Action::Admit`] and the kinds of trust of the same age.
pub const ADMIT_VERSION: u32 = 4;
/// The version of commands from which placement knows hosts among the capabilities of a job. It brought no kind.
pub const HOSTS_VERSION: u32 = 5;
/// The version of commands that brought several sites: their registry, and the moves of jobs between them.
pub const SITES_VERSION: u32 = 6;
/// The version of commands that brought the later certificates of authorities, and the removal of sites; and from which a
/// move that was settled before is answered anew where its job is known: its source was recovered and has forgotten that.
pub const LINKS_VERSION: u32 = 7;

/// What a command asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Says what the site is: the first command of its log.
    Found(Founding),
    /// The leader's own first entry: before it is applied the leader serves nothing.
    Lead {
        /// The leader.
        node: NodeId,
    },
    /// Accepts a job. Repeated with the same content it gives the same answer.
    Submit(Box<Submission>),
    /// Gives a queued job to a robot and mints its fence.
    Assign {
        /// The job.
        job: JobId,
        /// How often the job was assigned before, so that a late repeat assigns nothing.
        attempt: u32,
        /// The robot's session; only within it may the robot act.
        session: SessionId,
    },
    /// Appends a holder's records to the journal and says how it goes on.
    Record(Box<Records>),
    /// Stops a job: at once if nobody holds it, else through `stopping`.
    Stop {
        /// The job.
        job: JobId,
        /// Why.
        cause: StopCause,
    },
    /// Takes a job from its holder, which has confirmed or whose lease is over.
    Release {
        /// The job.
        job: JobId,
        /// The fence that ends.
        fence: Fence,
        /// What became of the holder.
        cause: ReleaseCause,
    },
    /// Queues a suspended job again.
    Resume {
        /// The job.
        job: JobId,
    },
    /// Hands an event from outside to a job.
    Deliver {
        /// The job.
        job: JobId,
        /// The event.
        event: Content,
    },
    /// Queues parked jobs whose timers are due at the command's time, at most a thousand.
    FireTimers,
    /// Admits a node, or notes what an admitted one says of itself now.
    PutNode(Box<NodeAdmission>),
    /// Stops placing jobs on a node.
    DrainNode {
        /// The node.
        node: NodeId,
        /// When what still runs there is stopped and moved; `None`: it may end.
        deadline: Option<Timestamp>,
    },
    /// Places jobs on a drained node again.
    UndrainNode {
        /// The node.
        node: NodeId,
    },
    /// Takes a node out of the fleet for good and revokes its certificate.
    RemoveNode {
        /// The node.
        node: NodeId,
    },
    /// Makes a join token.
    CreateToken(TokenGrant),
    /// Uses a join token for a joiner's public key. A repeat by the same key gets the same answer.
    RedeemToken(Box<Redeeming>),
    /// Ends a join token.
    RevokeToken {
        /// The token.
        token: TokenId,
    },
    /// Writes rows of trust, all or none.
    PutTrust {
        /// The rows.
        rows: Vec<TrustEntry>,
    },
    /// Replaces the gossip keys by those of the next generation.
    PutKeyring(Keyring),
    /// Raises the version of commands that may be proposed. Never lowers it.
    Gate {
        /// Version that every member understands.
        version: u32,
    },
    /// Holds all dispatch until these nodes' robots have reconciled.
    Hold {
        /// The nodes.
        awaited: Vec<NodeId>,
    },
    /// A node's robot has reconciled.
    Reconciled {
        /// The node.
        node: NodeId,
    },
    /// Ends the hold by the operator's word.
    EndHold,
    /// Notes how long a holder that may finish cut off has not been heard. Only a later one than the known counts.
    NoteAbsence {
        /// The job.
        job: JobId,
        /// The holder's fence.
        fence: Fence,
        /// The absence.
        absence: Absence,
    },
    /// Accepts a job and, if it is new, gives it to a robot at once, as `Submit` and a first `Assign` would. If the robot
    /// may not be given work any more, the job is queued all the same.
    SubmitAssigned {
        /// The job.
        submission: Box<Submission>,
        /// The robot's session.
        session: SessionId,
    },
    /// Forgets jobs that ended before a time, and tokens that ran out before it; a bounded number of them.
    Forget {
        /// The time.
        before: Timestamp,
    },
    /// Uses a join token as `RedeemToken` does, and keeps the joiner's public sealing key with it: who is admitted can
    /// always be made a voter later.
    Admit {
        /// The token and the joiner.
        redeeming: Box<Redeeming>,
        /// What secrets for the joiner are sealed to.
        sealing_key: Payload,
    },
    /// Makes a join token for the founding of another site.
    GrantFounding(TokenGrant),
    /// Records another site in the registry, under the key of the node that founds it.
    FoundSite(Box<SiteFounding>),
    /// Notes what is known of other sites.
    NoteSites {
        /// The sites.
        notes: Vec<SiteNote>,
    },
    /// Moves a job between sites, or tells of one that moved.
    Moving(Moving),
    /// Binds the assignment of a job that may be finished cut off to a newer session of the same boot of its node, under the
    /// same fence, and ends the absence: the robot is back and has run on.
    Rebind {
        /// The job.
        job: JobId,
        /// The holder's fence.
        fence: Fence,
        /// The session that its robot has now.
        session: SessionId,
    },
    /// Takes a job from a holder that may finish it cut off and was absent past its bound: counts as a loss. It is refused
    /// once the holder is back, whose return begins an absence of a higher number.
    ReleaseAbsent {
        /// The job.
        job: JobId,
        /// The fence that ends.
        fence: Fence,
        /// The absence that lasted too long.
        number: u32,
    },
    /// Puts a later certificate of the site's own authority, for the same key, in the place of the one there is.
    RenewAuthority {
        /// Digest of the certificate that it replaces, so that a late repeat changes nothing.
        replaces: Digest,
        /// The later one, DER.
        certificate: Payload,
    },
    /// Records in the registry that another site's authority was given a later certificate.
    RenewSite(Box<SiteRenewal>),
    /// Takes another site out of the fleet for good, in the registry, and revokes its authority.
    RemoveSite(Box<SiteRemoval>),
    /// Forgets a site that was removed from the fleet, a bounded number of rows: jobs that it had not accepted are queued
    /// here, and nobody there is told of those that came from it.
    ExpelSite(PeerSite),
}

impl Action {
    /// The version of commands that knows this kind: it may be proposed once the group's gate has reached it.
    pub fn version(&self) -> u32 {
        match self {
            Self::GrantFounding(_) | Self::FoundSite(_) | Self::NoteSites { .. } => SITES_VERSION,
            Self::Admit { .. } => ADMIT_VERSION,
            Self::PutTrust { rows } if rows.iter().any(|row| row.kind.number() > TrustKind::Revoked.number()) => {
                ADMIT_VERSION
            }
            Self::SubmitAssigned { .. } => SUBMIT_ASSIGNED_VERSION,
            Self::Forget { .. } => FORGET_VERSION,
            Self::Moving(_) | Self::Rebind { .. } | Self::ReleaseAbsent { .. } => SITES_VERSION,
            Self::RenewAuthority { .. } | Self::RenewSite(_) | Self::RemoveSite(_) | Self::ExpelSite(_) => {
                LINKS_VERSION
            }
            _ => FIRST_VERSION,
        }
    }
}

/// A job to accept, with everything checked that can be checked without the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// The id, minted by the client or hashed from its idempotency key.
    pub job: JobId,
    /// What was asked for.
    pub spec: JobSpec,
    /// Priority, 0 to 20, higher first.
    pub priority: u8,
    /// The input, JSON.
    pub input: Content,
    /// The definition, JSON. May be left out where the state has it already.
    pub definition: Option<Content>,
}

/// A holder's records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// The job.
    pub job: JobId,
    /// The right to act for it.
    pub fence: Fence,
    /// Position of the first record in the journal, so that a repeat appends nothing twice.
    pub from: u32,
    /// The records; may be empty.
    pub records: Vec<JournalRecord>,
    /// How the job goes on after them.
    pub next: Next,
}

/// How a job goes on after a batch of its holder's records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Next {
    /// The holder runs on.
    Continue,
    /// The holder lets go until a timer is due or an event comes.
    Park {
        /// When the earliest timer is due.
        wake_at: Option<Timestamp>,
        /// How many delivered events the holder has read.
        inbox_read: u32,
    },
    /// The workflow ended with an output.
    Complete {
        /// The output, JSON.
        output: Content,
    },
    /// The workflow ended with an error nobody caught.
    Fail {
        /// The error, a JSON object of RFC 7807.
        error: Content,
    },
    /// The workflow's own timeout ended it.
    TimeOut {
        /// The error, a JSON object of RFC 7807.
        error: Content,
    },
    /// The holder lets go of a job that has not ended, such as on its own shutdown or when it was told to stop.
    HandBack,
}

/// What became of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReleaseCause {
    /// Its lease ended, or its node opened a newer session: counts as a loss.
    Lost,
    /// It answered that it holds no such assignment and never will.
    Gone,
    /// It confirmed the stop.
    Stopped,
}

/// A node to admit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAdmission {
    /// Its id.
    pub node: NodeId,
    /// What it says of itself.
    pub profile: NodeProfile,
    /// Its certificate; `None` leaves the one that is known.
    pub certificate: Option<NodeCertificate>,
    /// A node of the same name that is down and whose place it takes.
    pub replaces: Option<NodeId>,
}

/// A token to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenGrant {
    /// Its id, random.
    pub token: TokenId,
    /// SHA-256 of its secret.
    pub secret: Digest,
    /// The site its joiners go to.
    pub site: SiteName,
    /// How many nodes may use it.
    pub uses: u32,
    /// When it stops being valid.
    pub expires_at: Timestamp,
}

/// A token being used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redeeming {
    /// The token and the SHA-256 of the secret shown; `None` only in a development fleet.
    pub token: Option<(TokenId, Digest)>,
    /// SHA-256 of the joiner's public key.
    pub public_key: Digest,
    /// The joiner.
    pub admission: NodeAdmission,
    /// What the joiner gets, if it was the first with this key.
    pub answer: Payload,
}

/// A row of trust to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustEntry {
    /// Its kind.
    pub kind: TrustKind,
    /// Its name within the kind.
    pub name: String,
    /// Its value.
    pub value: Payload,
}

/// A site to be founded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteFounding {
    /// The site.
    pub site: SiteName,
    /// The token and the SHA-256 of the secret shown; `None` only in a development fleet.
    pub token: Option<(TokenId, Digest)>,
    /// The group that will agree on its log.
    pub group: GroupId,
    /// The node that founds it.
    pub founder: NodeId,
    /// SHA-256 of the founder's public key.
    pub public_key: Digest,
    /// Certificate of the site's authority, DER, if the founder was the first with this key.
    pub authority: Payload,
    /// `host:port` where the founder answers.
    pub contacts: Vec<String>,
}

/// What is known of another site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteNote {
    /// The site.
    pub site: SiteName,
    /// What is known of it.
    pub record: SiteRecord,
}

/// A later certificate of another site's authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteRenewal {
    /// The site.
    pub site: PeerSite,
    /// Digest of the certificate that the registry has of it, so that a late repeat changes nothing.
    pub replaces: Digest,
    /// Serial number of that one, lower-case hexadecimal. It stays valid until it ends, or the site is removed.
    pub serial: String,
    /// The later one, DER.
    pub authority: Payload,
}

/// A site to be removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteRemoval {
    /// The site.
    pub site: PeerSite,
    /// Digest of the certificate that the registry has of its authority: if it has another by now, that one has to be
    /// revoked.
    pub authority: Digest,
    /// Serial number of that one, lower-case hexadecimal.
    pub serial: String,
}
