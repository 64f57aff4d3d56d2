//! The command line of `fleetd`. Names are a contract: scripts and unit files use them.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};

use crate::config::NodeFlags;

/// A node of a Fleet: it runs automation workflows with equal nodes, no central server and no database server.
#[derive(Parser, Debug)]
#[command(name = "fleetd", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Found a fleet on an empty data directory, or resume the node that lives there.
    Start(StartFlags),
    /// Become part of a fleet, or resume the node that lives in the data directory.
    Join(JoinFlags),
    /// Show three real nodes, a job, its node killed in the middle, and the job finishing elsewhere.
    Demo(DemoFlags),
    /// Run a development fleet in a temporary directory until Ctrl-C, and print how to reach it.
    Dev(DevFlags),
}

/// A text that does not show in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Flags of `start`. Seeds are given to it by variables or the file alone, so that one unit file founds and joins.
#[derive(Args, Clone, Debug, Default)]
pub struct StartFlags {
    /// Nodes to join by instead of founding, `host:port`, separated by commas.
    #[arg(long = "seed", env = "FLEET_SEEDS", value_delimiter = ',', hide = true, value_name = "HOST:PORT")]
    pub seeds: Vec<String>,
    /// Join token, where there are seeds.
    #[arg(long, env = "FLEET_TOKEN", conflicts_with = "token_file", hide = true, hide_env_values = true)]
    pub token: Option<Secret>,
    /// File with a join token, where there are seeds.
    #[arg(long, env = "FLEET_TOKEN_FILE", hide = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Flags that `join` has too.
    #[command(flatten)]
    pub node: NodeFlags,
}

/// Flags of `join`.
#[derive(Args, Clone, Debug, Default)]
pub struct JoinFlags {
    /// Node to join by, `host:port` (repeatable).
    #[arg(long = "seed", env = "FLEET_SEED", value_delimiter = ',', required = true, value_name = "HOST:PORT")]
    pub seeds: Vec<String>,
    /// Join token; `fleetctl token create` on any node prints one.
    #[arg(long, env = "FLEET_TOKEN", conflicts_with = "token_file", hide_env_values = true)]
    pub token: Option<Secret>,
    /// File with a join token.
    #[arg(long, env = "FLEET_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Flags of `start`.
    #[command(flatten)]
    pub node: NodeFlags,
}

/// Flags of `demo`.
#[derive(Args, Clone, Debug, Default)]
pub struct DemoFlags {
    /// Keep the directories with data and logs.
    #[arg(long)]
    pub keep: bool,
}

/// Flags of `dev`.
#[derive(Args, Clone, Debug)]
pub struct DevFlags {
    /// Number of nodes, 1 to 9.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// Words of `text` that look like a variable of ours.
    fn variables(text: &str) -> Vec<&str> {
        let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
        words.filter(|word| word.starts_with("FLEET_") && word.len() > "FLEET_".len()).collect()
    }

    #[test]
    fn what_is_delivered_names_only_variables_that_start_reads() {
        let cli = Cli::command();
        let start = cli.find_subcommand("start").expect("it is a verb");
        let mut read: Vec<_> = start.get_arguments().filter_map(|flag| flag.get_env()?.to_str()).collect();
        // `fleet.token-file` serves `start`, too.
        read.push("FLEET_TOKEN_FILE");
        for text in [include_str!("../../../deploy/fleetd.service"), include_str!("../../../config/fleetd.yaml")] {
            for variable in variables(text) {
                assert!(read.contains(&variable), "nobody reads {variable}");
            }
        }
    }

    #[test]
    fn a_token_does_not_show() {
        let cli = Cli::try_parse_from(["fleetd", "join", "--seed", "a:7000", "--token", "fleet1.secret"]).unwrap();
        assert!(!format!("{cli:?}").contains("secret"), "{cli:?}");
        let Command::Join(flags) = cli.command else { panic!("it is a join") };
        assert_eq!(flags.token, Some(Secret("fleet1.secret".to_owned())));
    }

    #[test]
    fn join_needs_a_seed() {
        assert!(Cli::try_parse_from(["fleetd", "join"]).is_err());
        assert!(Cli::try_parse_from(["fleetd", "join", "--seed", "a:7000", "--seed", "b:7000"]).is_ok());
    }
}
