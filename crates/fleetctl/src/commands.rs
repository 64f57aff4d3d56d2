//! One file per noun or verb; here only who does what.

mod completion;
mod doctor;
mod follow;
pub(crate) mod job;
pub(crate) mod node;
mod paging;
mod run;
pub(crate) mod site;
mod status;
mod submit;
pub(crate) mod token;
mod top;
mod validate;
mod version;
pub(crate) mod workflow;

use std::io::{self, IsTerminal};

use fleet_core::ErrorKind;

use crate::cli::{Cli, Command};
use crate::error::Failure;
use crate::render;
use crate::session::Session;

/// Does what the command line says.
pub(crate) async fn dispatch(cli: Cli) -> Result<(), Failure> {
    let format = cli.global.output;
    match cli.command {
        Command::Run(flags) => run::run(flags, format).await,
        Command::Validate(flags) => validate::run(&flags, format),
        Command::Version => version::run(format),
        Command::Completion { shell } => completion::run(shell),
        online => {
            let session = Session::new(&cli.global)?;
            match online {
                Command::Submit(flags) => submit::run(&session, flags).await,
                Command::Job(command) => job::run(&session, command).await,
                Command::Node(command) => node::run(&session, command).await,
                Command::Site(command) => site::run(&session, command).await,
                Command::Workflow(command) => workflow::run(&session, command).await,
                Command::Token(command) => token::run(&session, command).await,
                Command::Top => top::run(&session).await,
                Command::Doctor => doctor::run(&session).await,
                _ => status::run(&session).await,
            }
        }
    }
}

/// Asks the person at the terminal, unless `yes`. A script that got this far has decided already.
fn confirm(yes: bool, question: &str) -> Result<(), Failure> {
    if yes || !is_interactive() {
        return Ok(());
    }
    ask(question)
}

/// Like [`confirm`], but a script must have said so with `flag`.
fn confirm_or_refuse(yes: bool, question: &str, flag: &str) -> Result<(), Failure> {
    if !yes && !is_interactive() {
        let error = crate::error::invalid("this loses data and asks before it does, and there is nobody to ask");
        return Err(error.with_next_step(format!("Say {flag} if that is meant.")).into());
    }
    confirm(yes, question)
}

fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn ask(question: &str) -> Result<(), Failure> {
    render::say(&format!("{question} [y/N]"));
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(|source| crate::error::internal("read the answer", source))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    render::say("Nothing was done.");
    Err(Failure::Said(ErrorKind::FailedPrecondition))
}
