//! The shapes of what the state of a group keeps: plain data, one file per concern.
//!
//! Not here: how rows are found (`state`), who may change them (the state machine of `fleet-replication`), and how they
//! become bytes (`codec`). Shapes are frozen once released: a change takes a new version and a migration.

pub mod catalog;
pub mod content;
pub mod definition;
pub mod job;
pub mod journal;
pub mod known_site;
pub mod moving;
pub mod node;
pub mod reason;
pub mod site;
pub mod token;
pub mod trust;

pub use catalog::{
    CatalogContent, CatalogEntry, CatalogFacts, CatalogKey, CatalogStamp, CatalogTime, CatalogVector, SignedBy,
};
pub use content::{BlobUse, Content, Payload};
pub use definition::DefinitionUse;
pub use job::{Absence, Assignment, CommandId, Ending, Job, JobSpec, JobState, Settled, StopCause, WorkflowName};
pub use journal::{JournalMark, JournalRecord};
pub use known_site::{FoundingToken, RemovedSite, SiteRecord, Sweep};
pub use moving::{Arrival, Mirror, Move, MoveWish, Origin, Outgoing, Peer, PeerSite, Serial, Standing, Verdict};
pub use node::{NodeCertificate, NodeProfile, NodeRecord, NodeStanding};
pub use reason::Reason;
pub use site::{Counters, Founding, Hold, Leadership, Site};
pub use token::{Redemption, TokenId, TokenRecord};
pub use trust::{GossipKey, Keyring, TrustKind, TrustRow};
