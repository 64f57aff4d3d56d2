//! The ports of the node's crates, implemented with this process's clients: effects, the robot link, the group's network.

mod effects;

pub use effects::EffectsPort;
