//! The interpreter: events in, commands out. Same definition, input, journal and interpreter version give the same
//! commands, byte for byte.

pub mod command;
pub mod effect;
pub mod event;
pub mod stack;
