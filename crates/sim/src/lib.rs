//! For tests only: randomness by seed, and running one check over many seeds. Nothing here ships.

pub mod dice;
pub mod runner;

pub use dice::Dice;
pub use runner::{TestSize, for_each_seed};
