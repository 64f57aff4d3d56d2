//! Tests over real TLS on loopback: who is let in, to where, and who is not.

mod bounds;
mod client;
mod joining;
mod lifecycle;
mod refusal;
mod routing;
mod silence;
mod sites;
pub(crate) mod support;
