//! The operator's command. Everything is in the library beside it.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = fleet_effects::guard::main(std::env::args_os()) {
        return code;
    }
    fleetctl::run()
}
