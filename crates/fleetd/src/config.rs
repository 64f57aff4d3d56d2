//! What a node is told: flags over `FLEET_*` variables over the file over defaults, as one checked value.
//!
//! Unknown keys are refused, and all mistakes of flags, variables and the file are reported together. `config/fleetd.yaml` names every key.

mod file;
mod host;
mod places;
mod settings;

pub use file::{FileConfig, parse_file};
pub use host::HostFacts;
pub use settings::{LogFormat, NodeFlags, RobotAllow, Settings};
pub(crate) use settings::{is_host_port, is_plain};
