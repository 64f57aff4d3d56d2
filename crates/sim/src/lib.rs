//! For tests only: randomness by seed, virtual time, a network, disks and clocks with faults, and running one check over
//! many seeds. Nothing here ships, and nothing here knows what it simulates.

pub mod agenda;
pub mod clocks;
pub mod dice;
pub mod disk;
pub mod event_log;
pub mod network;
pub mod runner;

pub use agenda::Agenda;
pub use clocks::Clocks;
pub use dice::Dice;
pub use disk::{Disk, DiskError};
pub use event_log::EventLog;
pub use network::{Network, Weather};
pub use runner::{TestSize, for_each_seed};
