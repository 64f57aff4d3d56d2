//! From the command line to a running node, and from an error to what a person reads and the exit code.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use fleet_core::error::chain;
use fleet_core::{Error, ErrorKind};
use tokio::runtime::{Builder, Runtime};

use crate::cli::{Cli, Command, Secret};
use crate::config::{FileConfig, HostFacts, NodeFlags, Settings, parse_file};
use crate::daemon::{self, Beginning, Token};
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
        Command::Start(flags) => run_node(&flags.node, (flags.seeds, flags.token, flags.token_file)),
        Command::Join(flags) => run_node(&flags.node, (flags.seeds, flags.token, flags.token_file)),
        Command::Demo(flags) => {
            let kept = runtime("fleet-demo")?.block_on(run_demo(&flags))?;
            Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Dev(flags) => runtime("fleet-dev")?.block_on(run_dev(&flags)).map(|()| ExitCode::SUCCESS),
    }
}

fn run_node(flags: &NodeFlags, join: JoinWords) -> Result<ExitCode, Error> {
    let settings = Settings::resolve(flags, read_file(flags)?, &HostFacts::read())?;
    telemetry::start_logs(&settings.log_level, settings.log_format)?;
    let metrics = telemetry::start_metrics()?;
    let beginning = beginning(&settings, join);
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

/// What flags and variables say of joining: seeds, token, token file.
type JoinWords = (Vec<String>, Option<Secret>, Option<PathBuf>);

/// Seeds turn `start` into `join`, whether they come from a variable or the file.
fn beginning(settings: &Settings, (seeds, token, token_file): JoinWords) -> Beginning {
    let seeds: Vec<String> = seeds.into_iter().filter(|seed| !seed.is_empty()).collect();
    let seeds = if seeds.is_empty() { settings.seeds.clone() } else { seeds };
    if seeds.is_empty() {
        return Beginning::Found;
    }
    let token = match (token, token_file.or_else(|| settings.token_file.clone())) {
        (Some(token), _) => Token::Text(token),
        (None, Some(path)) => Token::File(path),
        (None, None) => Token::None,
    };
    Beginning::Join { seeds, token }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(file: FileConfig) -> Settings {
        Settings::resolve(&NodeFlags::default(), file, &HostFacts::read()).unwrap()
    }

    #[test]
    fn seeds_turn_a_start_into_a_join_wherever_they_come_from() {
        let file = FileConfig { seeds: vec!["file:7000".to_owned()], ..FileConfig::default() };
        let seeds = |beginning| match beginning {
            Beginning::Found => Vec::new(),
            Beginning::Join { seeds, .. } => seeds,
        };
        let variable = || (vec!["variable:7000".to_owned()], None, None);
        assert!(seeds(beginning(&settings(FileConfig::default()), (Vec::new(), None, None))).is_empty());
        assert!(seeds(beginning(&settings(FileConfig::default()), (vec![String::new()], None, None))).is_empty());
        assert_eq!(seeds(beginning(&settings(FileConfig::default()), variable())), ["variable:7000"]);
        assert_eq!(seeds(beginning(&settings(file.clone()), variable())), ["variable:7000"]);
        assert_eq!(seeds(beginning(&settings(file), (Vec::new(), None, None))), ["file:7000"]);
    }

    #[test]
    fn a_token_file_is_named_and_not_read() {
        let words = (vec!["a:7000".to_owned()], None, Some(PathBuf::from("/nowhere/token")));
        let Beginning::Join { token, .. } = beginning(&settings(FileConfig::default()), words) else {
            panic!("there are seeds")
        };
        assert_eq!(token.read().unwrap_err().kind, ErrorKind::InvalidInput);
    }
}
