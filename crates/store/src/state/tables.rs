//! Every table of the state on one screen. Numbers are the tables' places in the file: never change or reuse one.

use fleet_core::{Digest, GroupId, JobId, NodeId, Timestamp};

use crate::StateTable;
use crate::codec::Record;
use crate::record::{
    Arrival, BlobUse, Content, DefinitionUse, Ending, Job, JobSpec, JournalRecord, Keyring, Move, NodeRecord, Origin,
    Outgoing, Peer, Redemption, RemovedSite, Serial, Site, SiteRecord, TokenRecord, TrustRow,
};

/// The one row about the site.
pub const SITE: StateTable<(), Site> = StateTable::new(1, "site");
/// How each job stands.
pub const JOBS: StateTable<JobId, Job> = StateTable::new(2, "jobs");
/// What was asked for with each job.
pub const JOB_SPECS: StateTable<JobId, JobSpec> = StateTable::new(3, "job_specs");
/// The input of each job.
pub const JOB_INPUTS: StateTable<JobId, Content> = StateTable::new(4, "job_inputs");
/// What each ended job left.
pub const JOB_ENDINGS: StateTable<JobId, Ending> = StateTable::new(5, "job_endings");
/// Every job once, under (state, rank, number): the queue's order, and every listing.
pub const JOBS_BY_STATE: StateTable<(u8, u8, u64), JobId> = StateTable::new(6, "jobs_by_state");
/// The records of each job, by position.
pub const JOURNAL: StateTable<(JobId, u32), JournalRecord> = StateTable::new(7, "journal");
/// Events delivered to each job, by position.
pub const INBOX: StateTable<(JobId, u32), Content> = StateTable::new(8, "inbox");
/// Parked jobs with a timer, by due time.
pub const TIMERS: StateTable<(Timestamp, JobId), ()> = StateTable::new(9, "timers");
/// Definitions of workflows.
pub const DEFINITIONS: StateTable<Digest, Content> = StateTable::new(10, "definitions");
/// How many jobs use each definition.
pub const DEFINITION_USES: StateTable<Digest, DefinitionUse> = StateTable::new(11, "definition_uses");
/// How often the rows of jobs name each blob.
pub const BLOB_USES: StateTable<Digest, BlobUse> = StateTable::new(12, "blob_uses");
/// The nodes of the site, removed ones included.
pub const NODES: StateTable<NodeId, NodeRecord> = StateTable::new(13, "nodes");
/// Join tokens.
pub const TOKENS: StateTable<u64, TokenRecord> = StateTable::new(14, "tokens");
/// What joiners got, by the digest of their public key.
pub const REDEMPTIONS: StateTable<Digest, Redemption> = StateTable::new(15, "redemptions");
/// Rows of trust, under (kind, name).
pub const TRUST: StateTable<(u8, String), TrustRow> = StateTable::new(16, "trust");
/// The gossip keys.
pub const KEYRING: StateTable<(), Keyring> = StateTable::new(17, "keyring");
/// The other sites of the fleet, by name.
pub const SITES: StateTable<String, SiteRecord> = StateTable::new(18, "sites");
/// Sites that were removed from the fleet, by the group that agreed on their log.
pub const REMOVED_SITES: StateTable<GroupId, RemovedSite> = StateTable::new(19, "removed_sites");
// Numbers from 20 to 29 are left to what else comes with several sites.
/// Other groups that jobs went to or came from.
pub const PEERS: StateTable<GroupId, Peer> = StateTable::new(30, "peers");
/// Jobs that left this group, or are about to.
pub const MOVES: StateTable<JobId, Move> = StateTable::new(31, "moves");
/// Moves that their target has not answered, by (target, number).
pub const OUTBOX: StateTable<(GroupId, Serial), Outgoing> = StateTable::new(32, "outbox");
/// Jobs that are to be cancelled at the site they went to, by (target, number).
pub const CANCELS: StateTable<(GroupId, Serial), Outgoing> = StateTable::new(33, "cancels");
/// Jobs that live elsewhere, under (state there, 0, number): every listing.
pub const MIRRORS_BY_STATE: StateTable<(u8, u8, u64), JobId> = StateTable::new(34, "mirrors_by_state");
/// Moves that were decided here, by (source, number).
pub const ARRIVALS: StateTable<(GroupId, Serial), Arrival> = StateTable::new(35, "arrivals");
/// Which groups are told how a job goes.
pub const ORIGINS: StateTable<(JobId, GroupId), Origin> = StateTable::new(36, "origins");
/// Reports that their origin has not acknowledged, by (origin, number).
pub const REPORTS: StateTable<(GroupId, Serial), Outgoing> = StateTable::new(37, "reports");

impl Record for Site {
    const NAME: &'static str = "site";
}

impl Record for Job {
    const NAME: &'static str = "job";
}

impl Record for JobSpec {
    const NAME: &'static str = "job spec";
}

impl Record for Content {
    const NAME: &'static str = "content";
}

impl Record for Ending {
    const NAME: &'static str = "ending";
}

impl Record for JobId {
    const NAME: &'static str = "job id";
}

impl Record for JournalRecord {
    const NAME: &'static str = "journal record";
}

impl Record for DefinitionUse {
    const NAME: &'static str = "definition use";
}

impl Record for BlobUse {
    const NAME: &'static str = "blob use";
}

impl Record for NodeRecord {
    const NAME: &'static str = "node";
}

impl Record for TokenRecord {
    const NAME: &'static str = "token";
}

impl Record for Redemption {
    const NAME: &'static str = "redemption";
}

impl Record for TrustRow {
    const NAME: &'static str = "trust";
}

impl Record for Keyring {
    const NAME: &'static str = "keyring";
}

impl Record for SiteRecord {
    const NAME: &'static str = "other site";
}

impl Record for RemovedSite {
    const NAME: &'static str = "removed site";
}

impl Record for Peer {
    const NAME: &'static str = "peer";
}

impl Record for Move {
    const NAME: &'static str = "move";
}

impl Record for Outgoing {
    const NAME: &'static str = "outgoing";
}

impl Record for Arrival {
    const NAME: &'static str = "arrival";
}

impl Record for Origin {
    const NAME: &'static str = "origin";
}
