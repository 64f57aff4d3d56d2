//! The typed model of the language: CNCF Serverless Workflow DSL 1.0.3, all of it, and the settings of Fleet in its
//! `metadata`.
//!
//! It holds what the author wrote, checked in shape; it evaluates nothing. Expressions stay strings. The model is built
//! only from a positioned tree by [`crate::validate::parse`], never by deserialising, so that every problem of a file is
//! found with its place. Invariants: task names are unique in their scope, every `then` names a task of its scope, every
//! reference into `use` exists, and the tree is no deeper than [`crate::source::MAX_DEPTH`].

pub mod authentication;
pub mod call;
pub mod component;
pub mod data;
pub mod r#do;
pub mod document;
pub mod duration;
pub mod emit;
pub mod error;
pub mod event;
pub(crate) mod fields;
pub mod r#for;
pub mod fork;
pub mod listen;
pub mod raise;
pub(crate) mod reader;
pub mod resource;
pub mod retry;
pub mod run;
pub mod schedule;
pub mod set;
pub(crate) mod suggest;
pub mod switch;
pub mod task;
pub mod r#try;
pub(crate) mod value;
pub mod wait;

use std::collections::BTreeSet;

use serde_json::Value;

use self::call::Call;
use self::component::Components;
use self::data::{Input, Output};
use self::document::Document;
use self::duration::Duration;
use self::error::{ErrorDefinition, ErrorReference};
use self::fields::Fields;
use self::reader::{Place, Reader};
use self::retry::{RetryPolicy, RetryReference};
use self::schedule::Schedule;
use self::task::{Task, TaskKind, TaskList, Timeout};
use self::value::{literal, text, word};
use crate::machine::variables::Stage;
use crate::problem::Problem;
use crate::source::Node;

/// A workflow: one definition of a file, valid. Share it as `Arc<Workflow>`.
#[derive(Clone, Debug, PartialEq)]
pub struct Workflow {
    /// Who and what it is.
    pub document: Document,
    /// What becomes of the input before the first task.
    pub input: Option<Input>,
    /// Reusable components (`use`).
    pub components: Components,
    /// The tasks (`do`), in order.
    pub tasks: TaskList,
    /// When the whole run is given up.
    pub timeout: Option<Timeout>,
    /// What becomes of the last task's output.
    pub output: Option<Output>,
    /// When runs start by themselves.
    pub schedule: Option<Schedule>,
    /// How expressions are read (`evaluate`).
    pub evaluate: Evaluate,
    /// The definition as plain JSON: `$workflow.definition`.
    pub source: Value,
    /// What this version cannot run of it.
    pub(crate) unsupported: Vec<Problem>,
}

/// How expressions are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evaluate {
    /// The expression language.
    pub language: String,
    /// Which strings are expressions.
    pub mode: EvaluateMode,
}

/// Which strings are expressions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EvaluateMode {
    /// Those in `${ }`, and the fields that are expressions by definition.
    #[default]
    Strict,
    /// Every string; one that fails stands for itself.
    Loose,
}

impl Default for Evaluate {
    fn default() -> Self {
        Self { language: "jq".to_owned(), mode: EvaluateMode::Strict }
    }
}

impl Workflow {
    /// `namespace/name:version`.
    pub fn qualified_name(&self) -> String {
        let Document { namespace, name, version, .. } = &self.document;
        format!("{namespace}/{name}:{version}")
    }

    /// The definition of a task as plain JSON, by its pointer: `$task.definition`.
    pub fn task_definition(&self, pointer: &str) -> Option<&Value> {
        self.source.pointer(pointer)
    }

    /// The duration of a timeout, looked up if it is named.
    pub fn timeout_after<'a>(&'a self, timeout: &'a Timeout) -> Option<&'a Duration> {
        match timeout {
            Timeout::After(duration) => Some(duration),
            Timeout::Named(name) => self.components.timeouts.get(name),
        }
    }

    /// The definition of an error, looked up if it is named.
    pub fn error_definition<'a>(&'a self, error: &'a ErrorReference) -> Option<&'a ErrorDefinition> {
        match error {
            ErrorReference::Inline(definition) => Some(definition),
            ErrorReference::Named(name) => self.components.errors.get(name),
        }
    }

    /// A retry policy, looked up if it is named.
    pub fn retry_policy<'a>(&'a self, retry: &'a RetryReference) -> Option<&'a RetryPolicy> {
        match retry {
            RetryReference::Inline(policy) => Some(policy),
            RetryReference::Named(name) => self.components.retries.get(name),
        }
    }

    /// Every task that may run: all but those of functions that none of them calls.
    pub fn callable_tasks(&self) -> Vec<&Task> {
        let mut found = Vec::new();
        for list in std::iter::once(&self.tasks).chain(self.components.task_lists()) {
            collect(list, &mut found);
        }
        let (mut called, mut next) = (BTreeSet::new(), 0);
        while let Some(task) = found.get(next) {
            next += 1;
            if let TaskKind::Call(Call::Function(call)) = &task.kind
                && let Some((name, function)) = self.components.functions.get_key_value(&call.function)
                && called.insert(name)
            {
                collect_task(function, &mut found);
            }
        }
        found
    }

    /// Every task, those inside other tasks and in `use` too, in the order of the file.
    pub fn all_tasks(&self) -> Vec<&Task> {
        let mut found = Vec::new();
        for list in std::iter::once(&self.tasks).chain(self.components.task_lists()) {
            collect(list, &mut found);
        }
        for function in self.components.functions.values() {
            collect_task(function, &mut found);
        }
        found
    }
}

fn collect<'a>(list: &'a TaskList, found: &mut Vec<&'a Task>) {
    for (_, task) in list {
        collect_task(task, found);
    }
}

fn collect_task<'a>(task: &'a Task, found: &mut Vec<&'a Task>) {
    found.push(task);
    for list in task.kind.task_lists() {
        collect(list, found);
    }
}

/// Builds the model. `None` only if a problem was reported.
pub(crate) fn read_workflow(root: &Node, reader: &mut Reader) -> Option<Workflow> {
    let what = "the workflow";
    let place = Place::root(root);
    let mut fields = Fields::open(&place, what, reader)?;
    fields.optional("$schema", reader, text);
    let document = fields.required("document", reader, document::read);
    let input = fields.optional("input", reader, |place, reader| {
        reader.at_stage(Stage::WorkflowInput, |reader| data::read_input(place, reader))
    });
    reader.in_component = true;
    let components = fields.optional("use", reader, component::read);
    reader.in_component = false;
    let tasks = fields.required("do", reader, task::read_list);
    let timeout = fields.optional("timeout", reader, |place, reader| {
        reader.at_stage(Stage::WorkflowInput, |reader| task::read_timeout(place, reader))
    });
    let output = fields.optional("output", reader, |place, reader| {
        reader.at_stage(Stage::WorkflowOutput, |reader| data::read_output(place, reader))
    });
    let schedule = fields.optional("schedule", reader, schedule::read);
    let evaluate = fields.optional("evaluate", reader, read_evaluate).unwrap_or_default();
    fields.finish(what, reader);
    Some(Workflow {
        document: document?,
        input,
        components: components.unwrap_or_default(),
        tasks: tasks?,
        timeout,
        output,
        schedule,
        evaluate,
        source: literal(&place, reader)?,
        unsupported: Vec::new(),
    })
}

fn read_evaluate(place: &Place<'_>, reader: &mut Reader) -> Option<Evaluate> {
    let what = "`evaluate`";
    let mut fields = Fields::open(place, what, reader)?;
    let language = fields.optional("language", reader, |place, reader| {
        let language = text(place, reader)?;
        if language != "jq" {
            reader.cannot_run(place, format!("the expression language `{language}`"));
        }
        Some(language)
    });
    let mode = fields.optional("mode", reader, |place, reader| {
        let mode = word(place, reader, &[("strict", EvaluateMode::Strict), ("loose", EvaluateMode::Loose)])?;
        if mode == EvaluateMode::Loose {
            reader.cannot_run(place, "the expression mode `loose`");
        }
        Some(mode)
    });
    fields.finish(what, reader);
    Some(Evaluate { language: language.unwrap_or_else(|| "jq".to_owned()), mode: mode.unwrap_or_default() })
}
