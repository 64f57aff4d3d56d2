//! The group of a site: its log, its commands and its deterministic state machine.

pub mod autopilot;
pub mod command;
pub mod fsm;
