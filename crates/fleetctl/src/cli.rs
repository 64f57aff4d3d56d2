//! The command line, as types. Help texts are the documentation. What a verb does is in `commands`.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::{job, node, site, token, workflow};
use crate::input::{parse_duration, parse_priority};
use crate::render::Format;

/// Talk to a fleet: submit workflows, watch jobs, look after nodes. Or run a workflow right here.
///
/// Exit codes: 0 done; 1 the job or the operation failed, or conflicts; 2 wrong usage or input; 3 not found;
/// 4 unavailable, exhausted or timed out; 5 denied.
#[derive(Debug, Parser)]
#[command(name = "fleetctl", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    /// What holds for every verb.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that work before and after the verb.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// A node to talk to; may be repeated, the first that answers is used [default: 127.0.0.1:7000]
    #[arg(long = "endpoint", global = true, env = "FLEET_ENDPOINT", value_delimiter = ',', value_name = "HOST:PORT")]
    pub(crate) endpoints: Vec<String>,
    /// Who you are: a copy of a node's `admin.json` [default: ~/.config/fleet/credential.json]
    #[arg(long, global = true, env = "FLEET_CREDENTIAL", value_name = "FILE")]
    pub(crate) credential: Option<PathBuf>,
    /// How to print data
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// The verbs and nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Give the fleet a workflow to run
    Submit(SubmitFlags),
    /// Run a workflow in this process, without a fleet
    Run(RunFlags),
    /// Check workflow files, without a fleet
    Validate(ValidateFlags),
    /// Workflows that the fleet knows by name: deploy, list, get, delete
    #[command(subcommand)]
    Workflow(workflow::Command),
    /// Jobs: list, look into, steer
    #[command(subcommand)]
    Job(job::Command),
    /// Nodes: list, drain, remove
    #[command(subcommand)]
    Node(node::Command),
    /// Sites: list, recover
    #[command(subcommand)]
    Site(site::Command),
    /// Join tokens: create, list, revoke
    #[command(subcommand)]
    Token(token::Command),
    /// The state of fleet, site and queue at a glance
    Status,
    /// Nodes and jobs, live; Ctrl-C ends it
    Top,
    /// Check the fleet's health, with what to do about each finding; exit 1 if a check fails
    Doctor,
    /// The version of this program
    Version,
    /// Print a completion script
    Completion {
        /// For which shell
        shell: Shell,
    },
}

/// Flags of `submit`.
#[derive(Args, Debug)]
pub(crate) struct SubmitFlags {
    /// Workflow file, JSON or YAML; `-` reads standard input. Where there is no such file: a workflow of the catalog,
    /// NAMESPACE/NAME for its highest version or NAMESPACE/NAME:VERSION
    #[arg(value_name = "FILE|-|NAMESPACE/NAME[:VERSION]")]
    pub(crate) file: String,
    /// Input of the workflow: JSON, `@FILE`, or `-` for standard input [default: {}]
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub(crate) input: Option<String>,
    /// Site that shall run it [default: the site of the node asked]
    #[arg(long)]
    pub(crate) site: Option<String>,
    /// Tag that a robot must have; may be repeated
    #[arg(long = "tag")]
    pub(crate) tags: Vec<String>,
    /// Priority, 0 to 20, higher first, or low (5), normal (10), high (15), critical (20)
    #[arg(long, value_parser = parse_priority)]
    pub(crate) priority: Option<u32>,
    /// Submitting again with the same key gives the same job
    #[arg(long, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) idempotency_key: Option<String>,
    /// Wait for the end and print the output; exit 1 if the job did not complete
    #[arg(long)]
    pub(crate) wait: bool,
    /// Stop waiting after this long, such as 30s or 5m; the job goes on (exit 4)
    #[arg(long, value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Option<Duration>,
    /// Show each change until the end
    #[arg(long)]
    pub(crate) watch: bool,
    /// Show the tasks too, while waiting or watching
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// Flags of `run`.
#[derive(Args, Debug)]
pub(crate) struct RunFlags {
    /// Workflow file, JSON or YAML; `-` reads standard input
    #[arg(value_name = "FILE|-")]
    pub(crate) file: String,
    /// Input of the workflow: JSON, `@FILE`, or `-` for standard input [default: {}]
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub(crate) input: Option<String>,
    /// Show each task as it goes
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

/// Flags of `validate`.
#[derive(Args, Debug)]
pub(crate) struct ValidateFlags {
    /// Workflow files, JSON or YAML; `-` reads standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_work_before_and_after_the_verb() {
        for line in [
            ["fleetctl", "--endpoint", "a:1", "-o", "json", "job", "list"],
            ["fleetctl", "job", "list", "-o", "json", "--endpoint", "a:1"],
            ["fleetctl", "job", "--endpoint", "a:1", "list", "-o", "json"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!((cli.global.endpoints, cli.global.output), (vec!["a:1".to_owned()], Format::Json));
        }
        let twice = Cli::try_parse_from(["fleetctl", "status", "--endpoint", "a:1", "--endpoint", "b:2"]).unwrap();
        assert_eq!(twice.global.endpoints, ["a:1", "b:2"]);
    }
}
