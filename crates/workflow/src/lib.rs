//! The workflow language: typed model, validation, expressions, and a pure interpreter that can be replayed.
//!
//! Absent on purpose: any clock, randomness, I/O, async, store or network. The machine cannot wait, so all waiting is
//! visible to its caller as a command.

pub mod dsl;
pub mod expr;
pub mod hosts;
pub mod machine;
pub mod problem;
pub mod source;
pub mod validate;

pub use dsl::Workflow;
pub use problem::{Problem, Severity};
pub use validate::{Parsed, needs, parse, parse_definition, unsupported};
