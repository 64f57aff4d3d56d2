//! The interpreter from outside: what tasks do, and that a crash changes nothing.

mod conformance;
mod driver;
mod fixtures;
mod replay;
mod semantics;
mod speed;
