//! The workflow language: typed model, validation, expressions, and a pure interpreter that can be replayed.
//!
//! Absent on purpose: any clock, randomness, I/O, async, store or network. The machine cannot wait, so all waiting is
//! visible to its caller as a command.

pub mod machine;
