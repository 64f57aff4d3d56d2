//! The interpreter from outside: what tasks do, and that a crash changes nothing.

mod driver;
mod semantics;
