//! Who is in the fleet: SWIM gossip (foca) over sealed UDP packets, the view it gives, and metadata about each member.
//!
//! It decides nothing but who seems alive. It knows no ownership, no log and no gRPC: gossip leads, the log guards.
//! `swim` and `seal` are pure; `driver` alone has a socket and a clock.

mod driver;
mod error;
mod handle;
mod health;
pub mod identity;
mod keyring;
mod memory;
mod metadata;
mod metrics;
mod payload;
mod profile;
mod recorder;
pub mod seal;
pub mod swim;
mod table;
mod timers;
mod view;

pub use error::{Error, PersistenceError};
pub use handle::{Membership, MembershipConfig};
pub use health::LocalHealth;
pub use keyring::{GossipKey, KEY_BYTES, KEYS_MAX, Keyring};
pub use memory::{Forgetful, Persistence, Remembered, RememberedMember};
pub use metadata::{
    GroupStatus, ITEM_BYTES_MAX, ItemProblem, Metadata, MetadataItem, MetadataVersion, NodeState, Protocols,
};
pub use profile::Profile;
pub use view::{Change, Member, MemberState, View};
