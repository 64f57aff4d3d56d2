//! The operator's command line: talks to any node of a fleet, and validates and runs workflows without one.
//!
//! One file per noun in `commands`; what a person or a script reads is made in `view` and `render`; how a failure ends
//! the process is decided in `error`. Names, JSON keys and exit codes are a contract.
//!
//! Absent on purpose: actors, the store, and any decision about jobs.

mod cli;
mod commands;
mod error;
mod input;
mod progress;
mod render;
mod runner;
mod session;
mod view;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;

/// Reads the command line, does what it says, and gives the exit code.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // Help and version are no failures; what cannot be printed has nobody to read it.
            let _ = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(1));
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return error::report(&error::internal("start the runtime", source).into()),
    };
    match runtime.block_on(commands::dispatch(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => error::report(&failure),
    }
}
