//! The ports of the node's crates, implemented with this process's clients: effects, the robot link, peers, gossip's memory.

mod effects;
mod interpreter;
mod link;
mod memory;
mod network;
mod peers;

pub use effects::EffectsPort;
pub use interpreter::InterpreterPort;
pub use link::{LinkPort, pump};
pub use memory::StoreMemory;
pub use network::NetworkPort;
pub use peers::{Peers, Purpose};
