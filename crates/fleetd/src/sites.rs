//! The links to other sites as this process makes them: gRPC streams in both roles, the table of links, what is known of
//! each site, and the ways within the site for who holds no link itself. It implements [`fleet_node::ports::Sites`].
//!
//! Absent on purpose: decisions. What a frame means and who dials is decided in `fleet_node::site_link`.

mod age;
mod dialling;
mod home;
mod hub;
mod known;
mod metrics;
mod relay;
mod standing;
mod stream;

#[cfg(test)]
mod tests;

pub use dialling::run;
pub use home::{Home, SiteContact};
pub use hub::SiteLinks;
pub use relay::{Told, Within};
pub use standing::{FailedDial, LinkStanding, SiteStanding};
pub use stream::{OutgoingFrames, accept};

pub(crate) use relay::{known_of, message_of, topic_of};
