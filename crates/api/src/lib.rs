//! The interface between processes: the generated protocol, the one mapping between error kinds and gRPC statuses, the
//! identity in a certificate, and the client side of every connection (operators' client, peer channels).
//!
//! It is not a server and decides nothing about jobs. Absent on purpose: actors, the store, any accept loop.
//!
//! Invariants: no byte leaves before the other side has proved to belong to the fleet we meant; every call has a
//! deadline; TLS sessions are never resumed, so that each handshake checks certificates and revocations anew.

pub mod chain;
pub mod client;
pub mod connect;
pub mod credential;
pub mod cut;
pub mod identity;
pub mod pb;
pub mod peer;
mod platform;
pub mod pulse;
mod reach;
pub mod revocation;
pub mod silence;
pub mod status;
pub mod tls;
pub mod validity;

pub use chain::{Chain, Issuer, SiteFacts, Voucher};
pub use client::{ClientOptions, FleetClient, JobWatch};
pub use credential::Credential;
pub use identity::{CertificateFacts, CertificateName, Subject};
pub use peer::PeerDialer;
pub use pulse::Pulse;
pub use revocation::{Revocation, Revocations};
pub use validity::ValidityClock;
