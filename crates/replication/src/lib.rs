//! The group of a site: its log, its commands and its deterministic state machine.
//!
//! [`Group`] is what the rest of the node sees. openraft orders the log; gossip only hints who should lead; nothing
//! irreversible happens without a committed entry. Absent on purpose: gossip itself, gRPC, placement, robots.

pub mod autopilot;
mod blob_keeper;
mod blobs;
pub mod command;
mod consensus;
pub mod contact;
mod election;
mod error;
pub mod fsm;
mod gate;
mod group;
mod leadership;
mod log_storage;
mod member;
mod network;
pub mod outgoing;
mod promotion;
mod proposer;
mod read_index;
mod recover;
mod remembered;
mod server;
mod site_view;
mod snapshot;
mod state_machine;
mod status;
mod survey;
pub mod takeover;
mod upkeep;
pub mod watchdog;
mod wire;

pub use consensus::{CodecError, EntryData, EntryOutcome, LogId, TypeConfig, VoterId};
pub use error::Error;
pub use group::{Group, GroupConfig};
pub use log_storage::LogStorage;
pub use network::{CallError, CallFuture, GroupNetwork};
pub use read_index::Confirmed;
pub use recover::{NodeFact, Recovered, recover, rejoin, unapplied};
pub use remembered::Remembered;
pub use site_view::{SiteNode, SiteView};
pub use snapshot::SnapshotData;
pub use state_machine::{AppliedEntry, ApplyCommands, StateMachine};
pub use status::{Role, Status};
pub use survey::Survey;
pub use wire::PollAnswer;
