//! The binary of a node.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = fleet_effects::guard::main(std::env::args_os()) {
        return code;
    }
    fleetd::command::run()
}
