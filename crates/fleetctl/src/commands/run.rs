//! `run`: a workflow in this process, without a fleet. Nothing is durable: what Ctrl-C ends is gone.

use std::sync::Arc;

use fleet_core::{Error, ErrorKind, JobId};
use fleet_effects::{BaseEnvironment, Effects, Options};
use fleet_workflow::machine::effect::Effect;
use fleet_workflow::machine::event::ErrorObject;
use fleet_workflow::machine::{CompiledWorkflow, JobContext, Machine};

use crate::cli::RunFlags;
use crate::commands::validate;
use crate::error::{Failure, internal};
use crate::input::{read_input, read_workflow};
use crate::progress;
use crate::render::{self, Format};
use crate::runner::{Ended, Runner};

/// Name of the node where there is none.
const NODE_NAME: &str = "local";

pub(crate) async fn run(flags: RunFlags, format: Format) -> Result<(), Failure> {
    let bytes = read_workflow(&flags.file)?;
    let input = read_input(&flags.file, flags.input.as_deref())?;
    let workflow = compile(&flags.file, &bytes)?;
    let job_id = JobId::generate();
    let context = JobContext { job_id: job_id.to_string(), runtime_version: env!("CARGO_PKG_VERSION").to_owned() };
    let machine = Machine::start(workflow, context, &input);
    // Its user is its operator: it may do and call whatever they can.
    let allowed_hosts = vec!["*".to_owned()];
    let allowed = Effect::CAPABILITIES.map(str::to_owned).into();
    let options = Options { allowed, allowed_hosts, environment: environment(), ..Options::default() };
    let effects =
        Effects::new(options).map_err(|error| Error::new(error.kind(), error.to_string()).with_source(error))?;
    let run = Runner::new(machine, effects, job_id, NODE_NAME, flags.verbose).run();
    // Whoever sees the tasks sees that it goes on.
    let ended = if flags.verbose { run.await } else { progress::during(&format!("running {}", flags.file), run).await };
    match ended? {
        Ended::Completed(output) => Ok(render::output(format, &output)?),
        Ended::Failed(error) => Err(failed(&error).into()),
        Ended::Interrupted => Err(Error::new(ErrorKind::FailedPrecondition, "the run was interrupted").into()),
    }
}

/// The workflow, ready to run; every problem of the file on standard error if it is not.
fn compile(file: &str, bytes: &[u8]) -> Result<Arc<CompiledWorkflow>, Failure> {
    let refuse = |problems: &[fleet_workflow::Problem]| {
        problems.iter().for_each(|problem| render::say(&validate::line(file, problem)));
        Failure::Said(ErrorKind::InvalidInput)
    };
    let parsed = fleet_workflow::parse(bytes).map_err(|problems| refuse(&problems))?;
    if !parsed.warnings.is_empty() {
        return Err(refuse(&fleet_workflow::unsupported(&parsed.workflow)));
    }
    let compiled = fleet_workflow::machine::on_big_stack(|| CompiledWorkflow::compile(Arc::new(parsed.workflow)))
        .map_err(|source| internal("start a thread", source))?;
    compiled.map(Arc::new).map_err(|errors| {
        errors.iter().for_each(|error| render::say(&render::plain(&format!("{file}: {error}"))));
        Failure::Said(ErrorKind::InvalidInput)
    })
}

/// What children of the run find in their environment.
fn environment() -> BaseEnvironment {
    let default = BaseEnvironment::default();
    let variable = |name, otherwise| std::env::var(name).unwrap_or(otherwise);
    BaseEnvironment {
        path: variable("PATH", default.path),
        home: variable("HOME", default.home),
        lang: variable("LANG", default.lang),
    }
}

fn failed(error: &ErrorObject) -> Error {
    let mut message = "the workflow failed".to_owned();
    if let Some(instance) = &error.instance {
        message.push_str(&format!(" at {instance}"));
    }
    for part in [&error.title, &error.detail].into_iter().flatten() {
        message.push_str(": ");
        message.push_str(part);
    }
    message.push_str(&format!(" ({} {})", error.type_uri, error.status));
    Error::new(ErrorKind::FailedPrecondition, render::plain(&message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_where_and_why() {
        let mut error = ErrorObject::standard("communication", 503, "busy", "come back");
        error.instance = Some("/do/0/call".to_owned());
        let message = failed(&error).message;
        assert!(message.starts_with("the workflow failed at /do/0/call: busy: come back ("), "{message}");
        assert!(message.ends_with("communication 503)"));
    }
}
