//! From the command line to a running node, and from an error to what a person reads and the exit code.

use std::process::ExitCode;

use clap::Parser;
use fleet_core::error::chain;
use fleet_core::{Error, ErrorKind};
use tokio::runtime::{Builder, Runtime};

use crate::cli::{Cli, Command, JoinFlags};
use crate::config::{FileConfig, HostFacts, NodeFlags, Settings, parse_file};
use crate::daemon::{self, Beginning};
use crate::demo::{run_demo, run_dev};
use crate::telemetry;

/// Where the configuration is looked for if nobody names a file.
const CONFIG_DEFAULT: &str = "/etc/fleet/fleetd.yaml";

/// Runs the command line and says what went wrong.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli.command) {
        Ok(code) => code,
        Err(error) => {
            explain(&error);
            ExitCode::from(error.kind.exit_code())
        }
    }
}

fn execute(command: Command) -> Result<ExitCode, Error> {
    match command {
        Command::Start(flags) => run_node(&flags, None),
        Command::Join(flags) => run_node(&flags.node, Some(&flags)),
        Command::Demo(flags) => {
            let kept = runtime("fleet-demo")?.block_on(run_demo(&flags))?;
            Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Dev(flags) => runtime("fleet-dev")?.block_on(run_dev(&flags)).map(|()| ExitCode::SUCCESS),
    }
}

fn run_node(flags: &NodeFlags, join: Option<&JoinFlags>) -> Result<ExitCode, Error> {
    let settings = Settings::resolve(flags, read_file(flags)?, &HostFacts::read())?;
    telemetry::start_logs(&settings.log_level, settings.log_format)?;
    let metrics = telemetry::start_metrics()?;
    let beginning = beginning(&settings, join)?;
    let clients = runtime("fleet-client")?;
    let peers = runtime("fleet-peer")?;
    clients.block_on(async {
        let (sender, stop) = daemon::watch_signals()?;
        if settings.stop_on_stdin_close {
            daemon::watch_stdin(sender);
        }
        daemon::keep(settings, beginning, peers.handle().clone(), metrics, stop).await
    })?;
    peers.shutdown_background();
    clients.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

fn read_file(flags: &NodeFlags) -> Result<FileConfig, Error> {
    let default = std::path::Path::new(CONFIG_DEFAULT);
    let path = match &flags.config {
        Some(path) => path.as_path(),
        None if default.exists() => default,
        None => return Ok(FileConfig::default()),
    };
    let text = std::fs::read_to_string(path).map_err(|source| {
        Error::new(ErrorKind::InvalidInput, format!("read configuration {}", path.display())).with_source(source)
    })?;
    parse_file(path, &text)
}

/// Seeds in the file turn `start` into `join`.
fn beginning(settings: &Settings, join: Option<&JoinFlags>) -> Result<Beginning, Error> {
    let (seeds, token, token_file) = match join {
        Some(flags) => (flags.seeds.clone(), flags.token.clone(), flags.token_file.clone()),
        None if settings.seeds.is_empty() => return Ok(Beginning::Found),
        None => (settings.seeds.clone(), None, None),
    };
    let token = match token_file.as_ref().or(settings.token_file.as_ref()) {
        Some(path) if token.is_none() => {
            let text = std::fs::read_to_string(path).map_err(|source| {
                Error::new(ErrorKind::InvalidInput, format!("read token file {}", path.display())).with_source(source)
            })?;
            Some(text.trim().to_owned())
        }
        _ => token,
    };
    Ok(Beginning::Join { seeds, token })
}

fn runtime(name: &'static str) -> Result<Runtime, Error> {
    Builder::new_multi_thread()
        .enable_all()
        .thread_name(name)
        .build()
        .map_err(|source| Error::new(ErrorKind::Internal, format!("start runtime {name}")).with_source(source))
}

/// What happened and what to do next, each on a line of its own; the chain of causes only where it adds something.
#[expect(clippy::print_stderr, reason = "this is what a person at a terminal reads")]
fn explain(error: &Error) {
    eprintln!("fleetd: {}", chain(error));
    if let Some(next_step) = &error.next_step {
        eprintln!("{next_step}");
    }
}
