//! What a node remembers: one redb file, written by one thread, with group commit.
//!
//! The log of the site's group, its replicated state, remembered members, blobs and facts about the node lie in one file
//! so that one sync covers all of them. Absent on purpose: any async runtime, any decision about jobs, any knowledge of
//! what a log entry means. Every record starts with a version byte.

mod blob;
mod catalog;
pub mod codec;
mod database;
mod error;
mod facts;
mod key;
mod log;
mod memory_disk;
mod own_journal;
mod pending;
mod platform;
pub mod record;
mod snapshot;
pub mod state;
mod store;
mod sweep;
mod transaction;
mod writer;

pub use catalog::CatalogChange;
pub use codec::Record;
pub use error::Error;
pub use facts::Member;
pub use key::StateKey;
pub use log::{LogExtent, LogFact, Refounding};
pub use memory_disk::MemoryDisk;
pub use own_journal::{Evidence, OwnJournal, REFUSED_JOURNALS_BYTES_MAX, REFUSED_JOURNALS_MAX};
pub use pending::Pending;
pub use snapshot::{SnapshotSource, StateChunk};
pub use store::{CACHE_BYTES_DEFAULT, Store};
pub use transaction::{RawRow, StateRead, StateReader, StateTable, StateTransaction};
