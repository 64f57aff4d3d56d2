//! The fleet as an operator meets it: the built `fleetctl` against live nodes, and their HTTP listener. Exit codes, keys and
//! names are a contract for scripts; here each is asked for by its name.

#[path = "../harness/mod.rs"]
mod harness;

mod faults;
mod http;
mod jobs;
mod large;
mod nodes;
mod tool;
