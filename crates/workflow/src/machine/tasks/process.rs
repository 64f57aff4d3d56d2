//! `run: shell` and `run: script`: the process, with every expression evaluated, is an effect.

use super::super::Machine;
use super::super::effect::{Effect, ProcessRequest, ProcessReturn, Program, ScriptLanguage, ScriptSource};
use super::super::event::ErrorObject;
use super::super::plan::Builder;
use super::super::state::ActivationId;
use super::http::{Endpoint, Pairs, compile_endpoint};
use crate::dsl::run::{Run, RunTarget, Script, ScriptCode};
use crate::expr::Template;
use crate::expr::template::to_text;

/// A process.
#[derive(Debug)]
pub(in super::super) struct Process {
    program: Source,
    arguments: Vec<Template>,
    stdin: Option<Template>,
    environment: Pairs,
    returns: ProcessReturn,
    pub(in super::super) awaits: bool,
}

/// What to run.
#[derive(Debug)]
enum Source {
    Shell(Template),
    Code(ScriptLanguage, Template),
    Uri(ScriptLanguage, Endpoint),
}

pub(super) fn compile(builder: &mut Builder<'_>, pointer: &str, run: &Run) -> Option<Process> {
    let (program, arguments, stdin, environment) = match &run.target {
        RunTarget::Shell(shell) => {
            let command = Source::Shell(builder.code(pointer, &shell.command)?);
            (command, &shell.arguments, &shell.stdin, &shell.environment)
        }
        RunTarget::Script(script) => {
            let source = compile_script(builder, pointer, script)?;
            (source, &script.arguments, &script.stdin, &script.environment)
        }
        RunTarget::Container(_) | RunTarget::Workflow(_) => {
            builder.error(pointer, "`run` of this kind cannot run in this version");
            return None;
        }
    };
    let arguments = arguments.iter().map(|text| builder.text(pointer, text)).collect::<Option<_>>()?;
    let stdin = match stdin {
        Some(text) => Some(builder.text(pointer, text)?),
        None => None,
    };
    let environment = environment.iter().map(|(name, value)| Some((name.clone(), builder.value(pointer, value)?)));
    Some(Process {
        program,
        arguments,
        stdin,
        environment: Pairs::Entries(environment.collect::<Option<_>>()?),
        returns: run.returns,
        awaits: run.awaits,
    })
}

fn compile_script(builder: &mut Builder<'_>, pointer: &str, script: &Script) -> Option<Source> {
    let language = match script.language.as_str() {
        "python" => ScriptLanguage::Python,
        "js" | "javascript" => ScriptLanguage::Js,
        other => {
            builder.error(pointer, format!("there is no interpreter for scripts in `{other}`"));
            return None;
        }
    };
    Some(match &script.code {
        ScriptCode::Inline(code) => Source::Code(language, builder.code(pointer, code)?),
        ScriptCode::Source(resource) => Source::Uri(language, compile_endpoint(builder, pointer, &resource.endpoint)?),
    })
}

impl Machine {
    pub(super) fn start_process(&mut self, id: ActivationId, plan: &Process) -> Result<(), ErrorObject> {
        let text = |template: &Template| self.evaluate_body(id, template).map(|value| to_text(&value));
        let program = match &plan.program {
            Source::Shell(command) => Program::Shell { command: text(command)? },
            Source::Code(language, code) => {
                Program::Script { language: *language, source: ScriptSource::Code(text(code)?) }
            }
            Source::Uri(language, endpoint) => {
                let (uri, authentication) = self.evaluate_endpoint(id, endpoint)?;
                Program::Script { language: *language, source: ScriptSource::Uri { uri, authentication } }
            }
        };
        let request = ProcessRequest {
            program,
            arguments: plan.arguments.iter().map(text).collect::<Result<_, _>>()?,
            stdin: plan.stdin.as_ref().map(text).transpose()?,
            environment: self.evaluate_pairs(id, Some(&plan.environment), "environment")?,
            returns: plan.returns,
            awaits: plan.awaits,
        };
        self.start_effect(id, Effect::Process(request));
        Ok(())
    }
}
