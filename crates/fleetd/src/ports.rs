//! The ports of the node's crates, implemented with this process's clients: effects, the robot link, actor links, peers, gossip's memory.

mod actors;
mod catalog;
mod effects;
mod interpreter;
pub(crate) mod job_logs;
mod link;
mod memory;
mod network;
mod peers;

pub use actors::{ActorDialer, NodeAnswerer, cookie};
pub use catalog::CatalogPort;
pub use effects::EffectsPort;
pub use interpreter::InterpreterPort;
pub use job_logs::JobLogs;
pub use link::{LinkPort, pump};
pub use memory::StoreMemory;
pub use network::NetworkPort;
pub use peers::{Peers, Purpose};
