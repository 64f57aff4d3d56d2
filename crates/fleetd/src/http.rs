//! The HTTP listener: `/health` for people and probes, `/ready` for load balancers, `/metrics` for Prometheus.

mod health;
mod server;

pub use health::{DatabaseState, HealthCheck, HealthDocument, HealthFacts, HealthStatus, NamedCheck, QueueState};
pub use server::{Bounds, FactsSource, Server, ServerParts};
