//! The services on 7000/tcp: what clients ask, how machines join, and what nodes say to each other.
//!
//! A service maps and passes on; it decides nothing about jobs. What only the leader can answer is passed on to it once.

mod admission;
mod caller;
mod catalog;
mod contents;
mod convert;
mod doctor;
mod elsewhere;
mod fleet;
mod forward;
mod intake;
mod jobs;
mod live;
mod moving;
mod outbox;
mod page;
mod peer;
mod recover;
mod registry;
mod removal;
mod site_removal;
mod sites;
mod tasks;
mod tokens;
mod watch;

pub use admission::AdmissionService;
pub use catalog::CatalogService;
pub(crate) use convert::current_profile;
pub use elsewhere::{ClientCalls, ToMeantSite};
pub use fleet::{FleetService, FleetServiceParts};
pub use outbox::OutboxService;
pub use peer::PeerService;
pub(crate) use peer::renew_certificate;
pub use sites::SitesService;
pub(crate) use tokens::create as create_token;
#[cfg(test)]
pub(crate) use tokens::live as live_tokens;
