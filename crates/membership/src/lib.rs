//! Who is in the fleet: SWIM gossip (foca) over sealed UDP packets, the view it gives, and metadata about each member.
//! One ring is of the nodes of a site, another of a few nodes of every site; both on one socket and one thread.
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
mod outlet;
mod payload;
mod profile;
mod recorder;
mod ring;
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
    SITE_LINKS_MAX, site_mark,
};
pub use outlet::{Outlet, Passing, Way};
pub use profile::Profile;
pub use ring::{WAN_NODES_MAX, wan_nodes};
pub use view::{Change, Member, MemberState, View};
