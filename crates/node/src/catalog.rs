//! The catalog: what the whole fleet knows. Each node holds a copy and may write to it, cut off or not; copies that can
//! reach each other come to agree.
//!
//! - Each key has one entry. Of two, the one with the greater stamp stays (version, then time, then node), so copies agree
//!   whatever the order in which they hear of writes, and however often.
//! - Each write of a node has a number. A copy knows how many of each node's writes it has seen; what it has seen and does
//!   not have any more was outlived by a deletion, and is never taken again.
//! - A deletion is an entry of its own until every member is known to have it.
//!
//! Decisions are pure: `replica` says what changes, `exchange` what two nodes say to each other to agree. `handle`
//! carries them out on the store, `meeting` question by question with another copy, `driver` over the network within a site,
//! `between` with other sites.

mod between;
mod driver;
mod exchange;
mod handle;
#[cfg(test)]
mod handle_tests;
mod meeting;
mod message;
mod replica;
mod row;
mod sums;
mod version;

pub use between::Between;
pub use driver::{CatalogPeers, Pace, run};
pub use handle::{Catalog, Deployed, WorkflowRow, order};
pub use meeting::{Heard, Meeting};
pub use row::{NoSignatures, Signatures, signed_bytes};
