//! The daemon: it reads the configuration, wires the parts of a node together, and exposes them over gRPC and HTTP.
//!
//! Absent on purpose: decisions. What may run, who leads, what a job does next is decided in the crates below.

pub mod authorities;
pub mod cli;
pub mod command;
pub mod config;
pub mod daemon;
pub mod demo;
pub mod grpc;
pub mod http;
pub mod identity;
mod kept;
pub mod listener;
pub mod notes;
mod platform;
pub mod ports;
pub mod site;
pub mod sites;
pub mod telemetry;
pub mod trust;
