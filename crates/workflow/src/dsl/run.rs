//! `run`: a process, a container or another workflow.

use serde_json::{Map, Value};

use super::duration::{self, Duration};
use super::fields::Fields;
use super::reader::{Form, Place, Reader};
use super::resource::{ExternalResource, read_resource};
use super::value::{boolean, literal_object, object, template, templates, text, word};
use crate::machine::effect::ProcessReturn;

/// Runs a process, a container or another workflow.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// What to run.
    pub target: RunTarget,
    /// Whether to wait for its end (`await`).
    pub awaits: bool,
    /// What the result is (`return`).
    pub returns: ProcessReturn,
}

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub enum RunTarget {
    /// A container.
    Container(Box<Container>),
    /// A script.
    Script(Script),
    /// A shell command.
    Shell(Shell),
    /// Another workflow.
    Workflow(SubWorkflow),
}

/// A container.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Image.
    pub image: String,
    /// Name; an expression or a literal.
    pub name: Option<String>,
    /// Command.
    pub command: Option<String>,
    /// Port mappings.
    pub ports: Map<String, Value>,
    /// Volume mappings.
    pub volumes: Map<String, Value>,
    /// Environment.
    pub environment: Map<String, Value>,
    /// Standard input.
    pub stdin: Option<String>,
    /// Arguments.
    pub arguments: Vec<String>,
    /// When it is removed.
    pub cleanup: Cleanup,
    /// When its image is fetched.
    pub pull_policy: PullPolicy,
}

/// When a container is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cleanup {
    /// At once.
    Always,
    /// Not by the runtime.
    #[default]
    Never,
    /// After some time.
    Eventually(Duration),
}

/// When an image is fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// If it is not there.
    #[default]
    IfNotPresent,
    /// Each time.
    Always,
    /// Not at all.
    Never,
}

/// A script. Strings may be expressions in `${ }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// Language, such as `python` or `js`.
    pub language: String,
    /// Where the code is.
    pub code: ScriptCode,
    /// Standard input.
    pub stdin: Option<String>,
    /// Arguments.
    pub arguments: Vec<String>,
    /// Environment.
    pub environment: Map<String, Value>,
}

/// Where the code of a script is.
#[derive(Clone, Debug, PartialEq)]
pub enum ScriptCode {
    /// In the workflow.
    Inline(String),
    /// Somewhere else.
    Source(ExternalResource),
}

/// A shell command. Strings may be expressions in `${ }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Shell {
    /// The command line.
    pub command: String,
    /// Standard input.
    pub stdin: Option<String>,
    /// Arguments.
    pub arguments: Vec<String>,
    /// Environment.
    pub environment: Map<String, Value>,
}

/// Another workflow.
#[derive(Clone, Debug, PartialEq)]
pub struct SubWorkflow {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Version, or `latest`.
    pub version: String,
    /// Its input.
    pub input: Map<String, Value>,
}

pub(super) fn read(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<Run> {
    fields.required("run", reader, read_run)
}

fn read_run(place: &Place<'_>, reader: &mut Reader) -> Option<Run> {
    let what = "`run`";
    let mut fields = Fields::open(place, what, reader)?;
    let chosen = fields.exactly_one(&["container", "script", "shell", "workflow"], what, reader);
    let awaits = fields.optional("await", reader, boolean).unwrap_or(true);
    let returns = fields.optional("return", reader, |place, reader| {
        let words = [
            ("stdout", ProcessReturn::Stdout),
            ("stderr", ProcessReturn::Stderr),
            ("code", ProcessReturn::Code),
            ("all", ProcessReturn::All),
            ("none", ProcessReturn::None),
        ];
        word(place, reader, &words)
    });
    fields.finish(what, reader);
    let (key, place) = chosen?;
    let target = match key {
        "container" => read_container(&place, reader).map(Box::new).map(RunTarget::Container),
        "script" => read_script(&place, reader).map(RunTarget::Script),
        "shell" => read_shell(&place, reader).map(RunTarget::Shell),
        _ => read_sub_workflow(&place, reader).map(RunTarget::Workflow),
    };
    Some(Run { target: target?, awaits, returns: returns.unwrap_or_default() })
}

fn read_container(place: &Place<'_>, reader: &mut Reader) -> Option<Container> {
    reader.cannot_run(place, "a container");
    let what = "a container";
    let mut fields = Fields::open(place, what, reader)?;
    let image = fields.required("image", reader, template);
    let name = fields.optional("name", reader, template);
    let command = fields.optional("command", reader, template);
    let ports = fields.optional("ports", reader, literal_object).unwrap_or_default();
    let volumes = fields.optional("volumes", reader, literal_object).unwrap_or_default();
    let environment = fields.optional("environment", reader, object).unwrap_or_default();
    let stdin = fields.optional("stdin", reader, template);
    let arguments = fields.optional("arguments", reader, templates).unwrap_or_default();
    let cleanup = fields.optional("lifetime", reader, read_lifetime).unwrap_or_default();
    let pull_policy = fields.optional("pullPolicy", reader, |place, reader| {
        let words =
            [("ifNotPresent", PullPolicy::IfNotPresent), ("always", PullPolicy::Always), ("never", PullPolicy::Never)];
        word(place, reader, &words)
    });
    fields.finish(what, reader);
    let pull_policy = pull_policy.unwrap_or_default();
    Some(Container {
        image: image?,
        name,
        command,
        ports,
        volumes,
        environment,
        stdin,
        arguments,
        cleanup,
        pull_policy,
    })
}

fn read_lifetime(place: &Place<'_>, reader: &mut Reader) -> Option<Cleanup> {
    let what = "the lifetime of a container";
    let mut fields = Fields::open(place, what, reader)?;
    let cleanup = fields.required("cleanup", reader, |place, reader| {
        word(place, reader, &[("always", "always"), ("never", "never"), ("eventually", "eventually")])
    });
    let after = fields.optional("after", reader, duration::read);
    match (cleanup, fields.has("after")) {
        (Some("eventually"), false) => reader.problem(place, "`cleanup: eventually` needs `after`"),
        (Some("always" | "never"), true) => reader.problem(place, "`after` belongs to `cleanup: eventually` only"),
        _ => {}
    }
    fields.finish(what, reader);
    match cleanup? {
        "always" => Some(Cleanup::Always),
        "never" => Some(Cleanup::Never),
        _ => after.map(Cleanup::Eventually),
    }
}

fn read_script(place: &Place<'_>, reader: &mut Reader) -> Option<Script> {
    let what = "a script";
    let mut fields = Fields::open(place, what, reader)?;
    let language = fields.required("language", reader, |place, reader| {
        let language = text(place, reader)?;
        if !matches!(language.as_str(), "python" | "js") {
            reader.cannot_run(place, format!("a script in `{language}` (python and js are known)"));
        }
        Some(language)
    });
    let code = fields.exactly_one(&["code", "source"], what, reader);
    let code = code.and_then(|(key, place)| match key {
        "code" => read_code(&place, reader).map(ScriptCode::Inline),
        _ => read_resource(&place, reader).map(ScriptCode::Source),
    });
    let stdin = fields.optional("stdin", reader, template);
    let arguments = fields.optional("arguments", reader, templates).unwrap_or_default();
    let environment = fields.optional("environment", reader, object).unwrap_or_default();
    fields.finish(what, reader);
    Some(Script { language: language?, code: code?, stdin, arguments, environment })
}

/// Code of another language: `${ }` in it is an expression only where it looks like one, as the compiler decides.
fn read_code(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    let code = text(place, reader)?;
    if code.contains("${") {
        reader.note_expression(place, Form::Code, &code);
    }
    Some(code)
}

fn read_shell(place: &Place<'_>, reader: &mut Reader) -> Option<Shell> {
    let what = "a shell command";
    let mut fields = Fields::open(place, what, reader)?;
    let command = fields.required("command", reader, read_code);
    let stdin = fields.optional("stdin", reader, template);
    let arguments = fields.optional("arguments", reader, templates).unwrap_or_default();
    let environment = fields.optional("environment", reader, object).unwrap_or_default();
    fields.finish(what, reader);
    Some(Shell { command: command?, stdin, arguments, environment })
}

fn read_sub_workflow(place: &Place<'_>, reader: &mut Reader) -> Option<SubWorkflow> {
    reader.cannot_run(place, "another workflow");
    let what = "`workflow`";
    let mut fields = Fields::open(place, what, reader)?;
    let namespace = fields.required("namespace", reader, text);
    let name = fields.required("name", reader, text);
    let version = fields.required("version", reader, text);
    let input = fields.optional("input", reader, object).unwrap_or_default();
    fields.finish(what, reader);
    Some(SubWorkflow { namespace: namespace?, name: name?, version: version?, input })
}
