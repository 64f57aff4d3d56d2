//! From the language's request to what a guard starts. Pure.

use fleet_core::BootInstant;
use fleet_core::limits::PROCESS_OUTPUT_BYTES_MAX;
use fleet_workflow::machine::effect::{ProcessRequest, Program, ScriptLanguage};
use fleet_workflow::machine::event::ErrorObject;

use crate::effects::Options;
use crate::guard::protocol::{Launch, Script};

/// Names the task cannot set: they say who acts.
const KEY_VARIABLE: &str = "FLEET_EFFECT_KEY";
const JOB_VARIABLE: &str = "FLEET_JOB_ID";
const NODE_VARIABLE: &str = "FLEET_NODE";

/// Who acts, as the child is told.
pub(crate) struct Actor<'a> {
    /// The effect's key.
    pub(crate) key: &'a str,
    /// The job.
    pub(crate) job_id: &'a str,
    /// The node's name.
    pub(crate) node_name: &'a str,
}

/// What to start for `request`; `code` is the script's, once read.
pub(crate) fn launch(
    options: &Options,
    actor: &Actor<'_>,
    request: &ProcessRequest,
    code: Option<String>,
    lease_end: BootInstant,
) -> Result<Launch, ErrorObject> {
    let (program, script, mut arguments) = match &request.program {
        Program::Shell { command } => ("/bin/sh", None, vec!["-c".to_owned(), command.clone(), "sh".to_owned()]),
        Program::Script { language, .. } => {
            let (program, suffix) = match language {
                ScriptLanguage::Python => ("python3", ".py"),
                ScriptLanguage::Js => ("node", ".js"),
            };
            (program, Some(Script { suffix: suffix.to_owned(), code: code.unwrap_or_default() }), Vec::new())
        }
    };
    arguments.extend(request.arguments.iter().cloned());
    if let Some(argument) = arguments.iter().find(|argument| argument.contains('\0')) {
        return Err(wrong("invalid argument", format!("{argument:?} has a NUL character")));
    }
    Ok(Launch {
        program: program.to_owned(),
        script,
        arguments,
        environment: environment(options, actor, &request.environment)?,
        work_dir: options.work_dir.clone(),
        stdin: request.stdin.clone().unwrap_or_default(),
        captures: request.awaits,
        output_bytes_max: PROCESS_OUTPUT_BYTES_MAX,
        lease_end,
    })
}

/// The whole environment, each name once: the machine's three, the task's own over them, and who acts over all.
fn environment(
    options: &Options,
    actor: &Actor<'_>,
    own: &[(String, String)],
) -> Result<Vec<(String, String)>, ErrorObject> {
    let base = &options.environment;
    let mut variables = vec![
        ("PATH".to_owned(), base.path.clone()),
        ("HOME".to_owned(), base.home.clone()),
        ("LANG".to_owned(), base.lang.clone()),
    ];
    let mut set = |name: &str, value: &str| match variables.iter_mut().find(|(known, _)| known == name) {
        Some((_, current)) => value.clone_into(current),
        None => variables.push((name.to_owned(), value.to_owned())),
    };
    for (name, value) in own {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(wrong("invalid environment", format!("{name:?} cannot be set in an environment")));
        }
        set(name, value);
    }
    for (name, value) in [(KEY_VARIABLE, actor.key), (JOB_VARIABLE, actor.job_id), (NODE_VARIABLE, actor.node_name)] {
        set(name, value);
    }
    Ok(variables)
}

fn wrong(title: &str, detail: String) -> ErrorObject {
    ErrorObject::standard("configuration", 400, title, detail)
}

#[cfg(test)]
mod tests {
    use fleet_workflow::machine::effect::{ProcessReturn, ScriptSource};

    use super::*;

    const ACTOR: Actor<'_> = Actor { key: "j/p", job_id: "j", node_name: "n" };

    fn request(program: Program, environment: &[(&str, &str)]) -> ProcessRequest {
        ProcessRequest {
            program,
            arguments: vec!["a b".to_owned()],
            stdin: None,
            environment: environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            returns: ProcessReturn::Stdout,
            awaits: true,
        }
    }

    fn plan(request: &ProcessRequest) -> Result<Launch, ErrorObject> {
        launch(&Options::default(), &ACTOR, request, Some("print(1)".to_owned()), BootInstant::default())
    }

    #[test]
    fn a_shell_gets_command_and_arguments() {
        let launch = plan(&request(Program::Shell { command: "echo $1".to_owned() }, &[])).unwrap();
        assert_eq!(launch.program, "/bin/sh");
        assert_eq!(launch.arguments, ["-c", "echo $1", "sh", "a b"]);
        assert_eq!(launch.script, None);
    }

    #[test]
    fn a_script_gets_a_file_before_its_arguments() {
        let source = ScriptSource::Code(String::new());
        let launch = plan(&request(Program::Script { language: ScriptLanguage::Python, source }, &[])).unwrap();
        assert_eq!((launch.program.as_str(), launch.arguments.as_slice()), ("python3", &["a b".to_owned()][..]));
        assert_eq!(launch.script.unwrap().code, "print(1)");
    }

    #[test]
    fn the_task_may_set_all_but_who_acts() {
        let own = [("LANG", "de_DE.UTF-8"), ("FLEET_JOB_ID", "forged"), ("X", "1")];
        let launch = plan(&request(Program::Shell { command: String::new() }, &own)).unwrap();
        let names: Vec<_> = launch.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            names,
            [
                "PATH=/usr/local/bin:/usr/bin:/bin",
                "HOME=/",
                "LANG=de_DE.UTF-8",
                "FLEET_JOB_ID=j",
                "X=1",
                "FLEET_EFFECT_KEY=j/p",
                "FLEET_NODE=n"
            ]
        );
        for bad in [("", "x"), ("A=B", "x"), ("A", "x\0")] {
            assert!(plan(&request(Program::Shell { command: String::new() }, &[bad])).is_err());
        }
    }
}
