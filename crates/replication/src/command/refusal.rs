//! Why a command was refused. A refused command has changed nothing.

use fleet_core::{Digest, ErrorKind, Fence, JobId, NodeId, SiteName};
use fleet_store::record::{JobState, Serial, TokenId};
use serde::{Deserialize, Serialize};

/// Why a command was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// There is no such job.
    #[error("job {0} does not exist")]
    JobUnknown(JobId),
    /// The id is taken by a job with other content.
    #[error("job {0} exists already with other content")]
    JobConflict(JobId),
    /// The job has ended.
    #[error("job {job} has ended: it is {state}")]
    JobEnded {
        /// The job.
        job: JobId,
        /// How it ended.
        state: JobState,
    },
    /// The job is in a state that does not allow this.
    #[error("job {job} is {state}, not {wanted}")]
    WrongState {
        /// The job.
        job: JobId,
        /// Its state.
        state: JobState,
        /// The state it would have to be in.
        wanted: JobState,
    },
    /// The job was assigned meanwhile: the assignment comes late.
    #[error("job {job} was assigned {attempt} times already")]
    AttemptPassed {
        /// The job.
        job: JobId,
        /// How often it was assigned.
        attempt: u32,
    },
    /// Whoever sent this has no right to act for the job, or no more.
    #[error("fence {presented} of job {job} is not the current one")]
    StaleFence {
        /// The job.
        job: JobId,
        /// What was presented.
        presented: Fence,
    },
    /// The holder's right stands in another session, or it was absent and is back.
    #[error("the holder of job {0} is in another session or absence by now")]
    HolderMoved(JobId),
    /// Records before these are missing.
    #[error("the journal of job {job} has {length} records, fewer than expected")]
    JournalGap {
        /// The job.
        job: JobId,
        /// Records in its journal.
        length: u32,
    },
    /// The site's queue is full.
    #[error("the queue is full: {0} jobs")]
    QueueFull(u64),
    /// Nothing is dispatched until the site has reconciled after a recovery.
    #[error("dispatch is held until the site has reconciled")]
    Held,
    /// The state has no definition with this digest, and the command brought none.
    #[error("definition {0} is not known")]
    DefinitionMissing(Digest),
    /// The definition that came along has another digest.
    #[error("definition does not have digest {0}")]
    DefinitionMismatch(Digest),
    /// There is no such node.
    #[error("node {0} does not exist")]
    NodeUnknown(NodeId),
    /// No jobs are placed on this node.
    #[error("node {0} is draining")]
    NodeDraining(NodeId),
    /// The node was taken out of the fleet.
    #[error("node {0} was removed")]
    NodeRemoved(NodeId),
    /// Another node has this name.
    #[error("the name `{name}` is taken by node {node}")]
    NameTaken {
        /// The name.
        name: String,
        /// Who has it.
        node: NodeId,
    },
    /// The joiner calls itself a node that was admitted with another key.
    #[error("node {0} was admitted with another key")]
    NodeTaken(NodeId),
    /// It is meant for another site.
    #[error("this is not site {0}")]
    SiteMismatch(SiteName),
    /// There is no such token.
    #[error("token {0} does not exist")]
    TokenUnknown(TokenId),
    /// The token shown is not one of this site.
    #[error("token {0} is not one of this site")]
    TokenForeign(TokenId),
    /// A token with this id exists already, with other content.
    #[error("token {0} exists already")]
    TokenConflict(TokenId),
    /// An operator ended the token.
    #[error("token {0} was revoked")]
    TokenRevoked(TokenId),
    /// The token is too old.
    #[error("token {0} has expired")]
    TokenExpired(TokenId),
    /// As many nodes as may have used the token.
    #[error("token {0} is used up")]
    TokenUsedUp(TokenId),
    /// The secret is not the token's.
    #[error("the secret of token {0} is wrong")]
    TokenSecretWrong(TokenId),
    /// A token is needed: this is no development fleet.
    #[error("a join token is needed")]
    TokenNeeded,
    /// The site was founded already, as something else.
    #[error("the site was founded already as something else")]
    FoundedOtherwise,
    /// The site has not been founded.
    #[error("the site has not been founded")]
    NotFounded,
    /// A row of trust exists already with another value, and its kind allows no replacing.
    #[error("trust `{0}` exists already with another value")]
    TrustConflict(String),
    /// The keyring is not the next generation.
    #[error("the keyring's generation is {0}")]
    KeyringStale(u64),
    /// Another node founded this site.
    #[error("site {0} exists already")]
    SiteTaken(SiteName),
    /// The token is for another site.
    #[error("token {token} is for site {site}")]
    TokenOfSite {
        /// The token.
        token: TokenId,
        /// The site it is for.
        site: SiteName,
    },
    /// The fleet has as many sites as it takes.
    #[error("the fleet has {0} other sites and takes no more")]
    TooManySites(u64),
    /// Only the group of the first site records sites.
    #[error("this site does not keep the fleet's registry")]
    NotRegistry,
    /// As many jobs as may be are on their way to other sites.
    #[error("the outbox is full: {0} jobs wait for other sites")]
    OutboxFull(u64),
    /// The job lives at another site.
    #[error("job {job} is at site {site}")]
    JobElsewhere {
        /// The job.
        job: JobId,
        /// Where it is.
        site: SiteName,
    },
    /// The job does not go to another site, or is not there any more.
    #[error("job {0} is not under way to another site")]
    JobNotMoving(JobId),
    /// The job was moved meanwhile: what was asked for comes late.
    #[error("job {job} was moved meanwhile: its generation is {generation}")]
    GenerationPassed {
        /// The job.
        job: JobId,
        /// Its generation.
        generation: u32,
    },
    /// A robot had the job already, so that it may have acted.
    #[error("job {0} was given to a robot before: only a job that never was can move")]
    JobBegun(JobId),
    /// The job came from another site; it does not go on to a third.
    #[error("job {0} came from another site and moves no further")]
    JobMovedHere(JobId),
    /// A job cannot move to where it is.
    #[error("this is site {0} already")]
    SiteOwn(SiteName),
    /// The move was settled by its source before; what was decided is forgotten here.
    #[error("move {0} was settled before")]
    MovePassed(Serial),
    /// The source does not know yet that the move was accepted.
    #[error("move {0} is not settled yet")]
    MoveUnsettled(Serial),
    /// The job is not here by this move.
    #[error("job {job} is not here by move {number}")]
    MoveStale {
        /// The job.
        job: JobId,
        /// The move.
        number: Serial,
    },
    /// Accepting a job brings the job itself along.
    #[error("move {0} can be accepted only with its job")]
    MoveEmpty(Serial),
    /// There is no such site.
    #[error("site {0} does not exist")]
    SiteUnknown(SiteName),
    /// The site was removed from the fleet.
    #[error("site {0} was removed from the fleet")]
    SiteRemoved(SiteName),
    /// The site was founded anew, or its authority has another certificate: what was asked for comes late.
    #[error("site {0} changed meanwhile")]
    SiteChanged(SiteName),
}

impl Refusal {
    /// What the caller can act on.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::JobUnknown(_) | Self::NodeUnknown(_) | Self::TokenUnknown(_) | Self::SiteUnknown(_) => {
                ErrorKind::NotFound
            }
            Self::JobConflict(_)
            | Self::NameTaken { .. }
            | Self::NodeTaken(_)
            | Self::TokenConflict(_)
            | Self::FoundedOtherwise
            | Self::SiteTaken(_)
            | Self::TrustConflict(_) => ErrorKind::Conflict,
            Self::JobEnded { .. }
            | Self::WrongState { .. }
            | Self::AttemptPassed { .. }
            | Self::StaleFence { .. }
            | Self::HolderMoved(_)
            | Self::JournalGap { .. }
            | Self::DefinitionMissing(_)
            | Self::NodeDraining(_)
            | Self::NodeRemoved(_)
            | Self::NotFounded
            | Self::NotRegistry
            | Self::SiteRemoved(_)
            | Self::SiteChanged(_)
            | Self::KeyringStale(_) => ErrorKind::FailedPrecondition,
            Self::JobElsewhere { .. }
            | Self::JobNotMoving(_)
            | Self::JobBegun(_)
            | Self::GenerationPassed { .. }
            | Self::JobMovedHere(_)
            | Self::MovePassed(_)
            | Self::MoveStale { .. } => ErrorKind::FailedPrecondition,
            Self::QueueFull(_) | Self::TooManySites(_) | Self::OutboxFull(_) => ErrorKind::ResourceExhausted,
            Self::Held | Self::MoveUnsettled(_) => ErrorKind::Unavailable,
            Self::DefinitionMismatch(_) | Self::SiteMismatch(_) | Self::SiteOwn(_) | Self::MoveEmpty(_) => {
                ErrorKind::InvalidInput
            }
            Self::TokenForeign(_)
            | Self::TokenRevoked(_)
            | Self::TokenExpired(_)
            | Self::TokenUsedUp(_)
            | Self::TokenSecretWrong(_)
            | Self::TokenOfSite { .. }
            | Self::TokenNeeded => ErrorKind::PermissionDenied,
        }
    }

    /// What a person should do next, where the refusal alone does not say it.
    pub const fn next_step(&self) -> Option<&'static str> {
        match self {
            Self::TokenForeign(_)
            | Self::TokenRevoked(_)
            | Self::TokenExpired(_)
            | Self::TokenUsedUp(_)
            | Self::TokenSecretWrong(_)
            | Self::TokenNeeded => Some("Make another token with `fleetctl token create`, and pass it with --token."),
            Self::TokenOfSite { .. } => Some("Join with --site as the token says, or make a token for this site."),
            Self::SiteTaken(_) => Some("Join it with a token that was made there: `fleetctl token create`."),
            Self::NotRegistry => Some("Ask a node of the fleet's first site."),
            Self::SiteChanged(_) => Some("Look at `fleetctl site list`, and ask again if it is still meant."),
            Self::NodeRemoved(_) | Self::NodeTaken(_) => Some("Join again with an empty data directory."),
            Self::NameTaken { .. } => Some("Choose another name with --name."),
            Self::JobElsewhere { .. } => {
                Some("Ask a node of that site, with --endpoint; `job cancel` works from here too.")
            }
            Self::OutboxFull(_) => Some("Submit again later: it empties when the other sites can be reached."),
            _ => None,
        }
    }
}
