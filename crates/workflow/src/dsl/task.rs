//! A task: what all twelve kinds share, and the dispatch on the key that tells the kind.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::call::Call;
use super::data::{Export, Input, Output, read_export, read_input, read_output};
use super::r#do::Do;
use super::document::fleet_place;
use super::duration::{self, Duration};
use super::emit::Emit;
use super::fields::Fields;
use super::r#for::For;
use super::fork::Fork;
use super::listen::Listen;
use super::raise::Raise;
use super::reader::{Component, Place, Reader};
use super::run::Run;
use super::set::Set;
use super::suggest::suggestion;
use super::switch::Switch;
use super::r#try::Try;
use super::value::{expression, list, literal_object, single, text, word};
use super::wait::Wait;
use crate::machine::command::OnLost;
use crate::machine::variables::Stage;
use crate::source::Content;

/// Tasks of a scope by name, in the order they run.
pub type TaskList = Vec<(String, Task)>;

/// One task.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Name, unique in its scope.
    pub name: String,
    /// JSON pointer of the task in the definition, such as `/do/2/fetch`: `$task.reference`, `error.instance`.
    pub pointer: String,
    /// Expression on the raw input; false skips the task (`if`).
    pub condition: Option<String>,
    /// What becomes of the raw input.
    pub input: Option<Input>,
    /// What becomes of the raw output.
    pub output: Option<Output>,
    /// What becomes of `$context`.
    pub export: Option<Export>,
    /// When it is given up.
    pub timeout: Option<Timeout>,
    /// Where it goes on afterwards.
    pub then: Then,
    /// Anything, that of Fleet included.
    pub metadata: Map<String, Value>,
    /// `metadata.fleet.onLost`: what becomes of its effect if the robot dies meanwhile.
    pub on_lost: OnLost,
    /// What it does.
    pub kind: TaskKind,
}

/// What a task does.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskKind {
    /// Calls a service or function.
    Call(Call),
    /// Runs tasks in sequence.
    Do(Do),
    /// Publishes an event.
    Emit(Box<Emit>),
    /// Runs tasks for each element of a collection.
    For(For),
    /// Runs branches at the same time.
    Fork(Fork),
    /// Waits for events.
    Listen(Box<Listen>),
    /// Raises an error.
    Raise(Raise),
    /// Runs a process or another workflow.
    Run(Run),
    /// Sets the output.
    Set(Set),
    /// Chooses where to go on.
    Switch(Switch),
    /// Runs tasks and catches their errors.
    Try(Box<Try>),
    /// Waits for some time.
    Wait(Wait),
}

impl TaskKind {
    /// The task lists directly inside.
    pub fn task_lists(&self) -> Vec<&TaskList> {
        match self {
            Self::Do(task) => vec![&task.tasks],
            Self::For(task) => vec![&task.tasks],
            Self::Fork(task) => vec![&task.branches],
            Self::Try(task) => vec![&task.tasks, &task.catch.tasks],
            Self::Listen(task) => task.foreach.iter().map(|each| &each.tasks).collect(),
            Self::Call(call) => call.task_lists(),
            Self::Emit(_) | Self::Raise(_) | Self::Run(_) | Self::Set(_) | Self::Switch(_) | Self::Wait(_) => vec![],
        }
    }

    /// The key that tells the kind.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Call(_) => "call",
            Self::Do(_) => "do",
            Self::Emit(_) => "emit",
            Self::For(_) => "for",
            Self::Fork(_) => "fork",
            Self::Listen(_) => "listen",
            Self::Raise(_) => "raise",
            Self::Run(_) => "run",
            Self::Set(_) => "set",
            Self::Switch(_) => "switch",
            Self::Try(_) => "try",
            Self::Wait(_) => "wait",
        }
    }
}

/// Where a scope goes on after a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// With the next task, or out of the scope after the last.
    #[default]
    Continue,
    /// Out of the scope.
    Exit,
    /// The workflow ends.
    End,
    /// With the named task of the same scope.
    Task(String),
}

/// When a task or workflow is given up.
#[derive(Clone, Debug, PartialEq)]
pub enum Timeout {
    /// After this time.
    After(Duration),
    /// As `use.timeouts` says under this name.
    Named(String),
}

/// The keys that tell a task's kind. `for` comes before `do`, which belongs to it.
const KIND_KEYS: [&str; 12] =
    ["call", "for", "do", "emit", "fork", "listen", "raise", "run", "set", "switch", "try", "wait"];

/// Longest name of a task, bytes: it is part of the path of every effect inside, and so of every record of one.
const NAME_BYTES_MAX: usize = 255;

/// How many names of a scope a message lists.
const NAMES_LISTED: usize = 8;

/// Reads a task list and checks what only the scope as a whole tells: unique names, targets of `then`.
pub(super) fn read_list(place: &Place<'_>, reader: &mut Reader) -> Option<TaskList> {
    check_scope(place, reader);
    list(place, reader, |item, reader| {
        let (member, task) = single(item, "a task", reader)?;
        Some((member.key.clone(), read_named(&member.key, &task, reader)?))
    })
}

/// Names and targets, taken from the tree so that a task with other problems still counts.
fn check_scope(place: &Place<'_>, reader: &mut Reader) {
    let Content::Array(items) = &place.node.content else { return };
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for item in items {
        let Content::Object(members) = &item.content else { continue };
        names.extend(members.iter().map(|member| member.key.as_str()));
    }
    let mut seen = BTreeSet::new();
    for item in place.items().unwrap_or_default() {
        for (member, task) in item.members().unwrap_or_default() {
            if member.key.len() > NAME_BYTES_MAX {
                let length = member.key.len();
                let message = format!("the name of a task has at most {NAME_BYTES_MAX} bytes; this one has {length}");
                // The place of the name's list: with the name in it, it would be as long.
                reader.problem_at(item.pointer.clone(), member.position, message);
            }
            if !seen.insert(member.key.as_str()) {
                let message = format!("a task named `{}` is already in this scope", member.key);
                reader.problem_at(task.pointer.clone(), member.position, message);
            }
            for target in targets(&task) {
                check_target(&target, &names, reader);
            }
        }
    }
}

/// The places of all targets that a task names: its `then` and those of its switch cases.
fn targets<'a>(task: &Place<'a>) -> Vec<Place<'a>> {
    let mut found = Vec::new();
    for (member, value) in task.members().unwrap_or_default() {
        match member.key.as_str() {
            "then" => found.push(value),
            "switch" => {
                for (_, case) in value.items().unwrap_or_default().iter().filter_map(Place::members).flatten() {
                    let members = case.members().unwrap_or_default().into_iter();
                    found.extend(members.filter(|(member, _)| member.key == "then").map(|(_, value)| value));
                }
            }
            _ => {}
        }
    }
    found
}

fn check_target(target: &Place<'_>, names: &BTreeSet<&str>, reader: &mut Reader) {
    let Some(name) = target.as_text() else { return };
    if matches!(name, "continue" | "exit" | "end") || names.contains(name) {
        return;
    }
    let known = names.iter().copied().chain(["continue", "exit", "end"]);
    let hint = match reader.suggestion(name, known) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("it may be continue, exit, end or {}", some_of(names)),
    };
    reader.problem(target, format!("no task `{name}` in this scope; {hint}"));
}

/// The first few of some names.
fn some_of(names: &BTreeSet<&str>) -> String {
    let listed = names.iter().take(NAMES_LISTED).copied().collect::<Vec<_>>().join(", ");
    if names.len() > NAMES_LISTED { format!("one of {listed} …") } else { format!("one of {listed}") }
}

/// Reads one task under its name.
pub(super) fn read_named(name: &str, place: &Place<'_>, reader: &mut Reader) -> Option<Task> {
    let what = "the task";
    let mut fields = Fields::open(place, what, reader)?;
    let (condition, input) = reader.at_stage(Stage::TaskInput, |reader| {
        (fields.optional("if", reader, expression), fields.optional("input", reader, read_input))
    });
    let kind = reader.at_stage(Stage::TaskBody, |reader| read_kind(&mut fields, reader));
    let timeout = reader.at_stage(Stage::TaskBody, |reader| fields.optional("timeout", reader, read_timeout));
    let output = reader.at_stage(Stage::TaskOutput, |reader| fields.optional("output", reader, read_output));
    let export = reader.at_stage(Stage::TaskExport, |reader| fields.optional("export", reader, read_export));
    let then = fields.optional("then", reader, read_then).unwrap_or_default();
    let metadata_place = fields.take("metadata");
    let metadata = metadata_place.as_ref().and_then(|place| literal_object(place, reader)).unwrap_or_default();
    let on_lost = metadata_place
        .and_then(|place| fleet_place(&place))
        .and_then(|place| read_on_lost(&place, reader))
        .unwrap_or_default();
    fields.finish(what, reader);
    Some(Task {
        name: name.to_owned(),
        pointer: place.pointer.clone(),
        condition,
        input,
        output,
        export,
        timeout,
        then,
        metadata,
        on_lost,
        kind: kind?,
    })
}

/// Dispatches on the key that tells the kind.
fn read_kind(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<TaskKind> {
    let mut present: Vec<&str> = KIND_KEYS.iter().copied().filter(|key| fields.has(key)).collect();
    if present.contains(&"for") {
        present.retain(|key| *key != "do");
    }
    let [key] = present.as_slice() else {
        report_kinds(fields, &present, reader);
        return None;
    };
    match *key {
        "call" => super::call::read(fields, reader).map(TaskKind::Call),
        "do" => super::r#do::read(fields, reader).map(TaskKind::Do),
        "emit" => super::emit::read(fields, reader).map(Box::new).map(TaskKind::Emit),
        "for" => super::r#for::read(fields, reader).map(TaskKind::For),
        "fork" => super::fork::read(fields, reader).map(TaskKind::Fork),
        "listen" => super::listen::read(fields, reader).map(Box::new).map(TaskKind::Listen),
        "raise" => super::raise::read(fields, reader).map(TaskKind::Raise),
        "run" => super::run::read(fields, reader).map(TaskKind::Run),
        "set" => super::set::read(fields, reader).map(TaskKind::Set),
        "switch" => super::switch::read(fields, reader).map(TaskKind::Switch),
        "try" => super::r#try::read(fields, reader).map(Box::new).map(TaskKind::Try),
        _ => super::wait::read(fields, reader).map(TaskKind::Wait),
    }
}

/// Reports a task of no kind or of several.
fn report_kinds(fields: &mut Fields<'_>, present: &[&str], reader: &mut Reader) {
    for key in KIND_KEYS {
        fields.take(key);
    }
    let members = fields.place.members().unwrap_or_default();
    // A misspelt kind is reported as an unknown key; that is all there is to say.
    let is_misspelt = |key: &str| suggestion(key, KIND_KEYS).is_some_and(|kind| kind != key);
    if present.is_empty() && !members.iter().any(|(member, _)| is_misspelt(&member.key)) {
        let mut sorted = KIND_KEYS;
        sorted.sort_unstable();
        let message = format!("this task does nothing; it needs exactly one of {}", sorted.join(", "));
        reader.problem(&fields.place, message);
    }
    if !present.is_empty() {
        let listed = present.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(" and ");
        reader.problem(&fields.place, format!("a task does one thing; this one has {listed}"));
    }
}

/// A flow directive. Whether the target exists is checked with the scope.
pub(super) fn read_then(place: &Place<'_>, reader: &mut Reader) -> Option<Then> {
    Some(match text(place, reader)?.as_str() {
        "continue" => Then::Continue,
        "exit" => Then::Exit,
        "end" => Then::End,
        name => Then::Task(name.to_owned()),
    })
}

/// A timeout, inline or by name.
pub(super) fn read_timeout(place: &Place<'_>, reader: &mut Reader) -> Option<Timeout> {
    if let Some(name) = place.as_text() {
        reader.reference(Component::Timeout, place, name);
        return Some(Timeout::Named(name.to_owned()));
    }
    read_timeout_after(place, reader).map(Timeout::After)
}

/// `{after: DURATION}`.
pub(super) fn read_timeout_after(place: &Place<'_>, reader: &mut Reader) -> Option<Duration> {
    let what = "a timeout";
    let mut fields = Fields::open(place, what, reader)?;
    let after = fields.required("after", reader, duration::read);
    fields.finish(what, reader);
    after
}

fn read_on_lost(place: &Place<'_>, reader: &mut Reader) -> Option<OnLost> {
    let what = "`metadata.fleet` of a task";
    let mut fields = Fields::open(place, what, reader)?;
    let on_lost = fields.optional("onLost", reader, |place, reader| {
        word(place, reader, &[("retry", OnLost::Retry), ("fail", OnLost::Fail)])
    });
    fields.finish(what, reader);
    on_lost
}
