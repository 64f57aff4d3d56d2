//! A workflow made ready to run: tasks in one list, names resolved, expressions and schemas compiled.
//!
//! Compiling is the costly part (a fraction of a millisecond for each expression that needs the interpreter), so keep
//! the result by the definition's digest and share it among jobs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use super::command::OnLost;
use super::hash::hash;
use super::path;
use super::schema::Schema;
use super::tasks::Kind;
use super::variables::{self, Stage};
use crate::dsl::Workflow;
use crate::dsl::data::Transform;
use crate::dsl::duration::{Duration, Length};
use crate::dsl::resource::SchemaDefinition;
use crate::dsl::task::{Task as Definition, TaskList, Then, Timeout};
use crate::expr::{Template, Val};
use crate::problem::Problem;

/// Why a workflow cannot be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    /// JSON pointer of the task, or of the workflow if empty.
    pub pointer: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for CompileError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() { "/" } else { &self.pointer };
        write!(formatter, "{} (at {place})", self.message)
    }
}

impl std::error::Error for CompileError {}

impl From<&Problem> for CompileError {
    fn from(problem: &Problem) -> Self {
        Self { pointer: problem.pointer.clone(), message: problem.message.clone() }
    }
}

/// A workflow ready to run. Share it as `Arc<CompiledWorkflow>`.
#[derive(Debug)]
pub struct CompiledWorkflow {
    pub(super) workflow: Arc<Workflow>,
    pub(super) tasks: Vec<Task>,
    pub(super) blocks: Vec<Block>,
    pub(super) root: BlockId,
    pub(super) input: Shape,
    pub(super) output: Shape,
    pub(super) timeout: Option<Delay>,
    /// The tasks in the order of the file.
    pub(super) order: Vec<TaskId>,
    /// Tells definitions apart.
    pub(super) fingerprint: u64,
    definition: OnceLock<Val>,
}

/// Index of a task in the list.
pub(super) type TaskId = usize;
/// Index of a block in the list.
pub(super) type BlockId = usize;

/// Tasks of one scope, in order.
#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) tasks: Vec<TaskId>,
}

/// One task.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) name: String,
    pub(super) pointer: String,
    /// Its part of an effect path: index and name.
    pub(super) segment: String,
    pub(super) condition: Option<Template>,
    pub(super) input: Shape,
    pub(super) output: Shape,
    pub(super) export: Shape,
    pub(super) timeout: Option<Delay>,
    pub(super) then: Flow,
    pub(super) on_lost: OnLost,
    pub(super) kind: Kind,
    definition: OnceLock<Val>,
}

/// How data is transformed and checked.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub(super) transform: Option<Template>,
    pub(super) schema: Option<Schema>,
}

/// A duration, known or evaluated.
#[derive(Debug)]
pub(super) enum Delay {
    Fixed(Length),
    Expression(Template),
}

/// Where a scope goes on, names resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Continue,
    Exit,
    End,
    /// With the task at this place of the scope.
    Jump(usize),
}

impl CompiledWorkflow {
    /// Compiles a valid workflow. Refuses, with every reason, what this version cannot run.
    pub fn compile(workflow: Arc<Workflow>) -> Result<Self, Vec<CompileError>> {
        let unsupported: Vec<CompileError> = workflow.unsupported.iter().map(CompileError::from).collect();
        if !unsupported.is_empty() {
            return Err(unsupported);
        }
        let mut builder = Builder {
            workflow: &workflow,
            tasks: Vec::new(),
            blocks: Vec::new(),
            errors: Vec::new(),
            locals: Vec::new(),
        };
        let input = workflow.input.as_ref();
        let input = builder.shape(
            Stage::WorkflowInput,
            "",
            input.and_then(|input| input.from.as_ref()),
            input.and_then(|input| input.schema.as_ref()),
        );
        let output = workflow.output.as_ref();
        let output = builder.shape(
            Stage::WorkflowOutput,
            "",
            output.and_then(|output| output.transform.as_ref()),
            output.and_then(|output| output.schema.as_ref()),
        );
        let timeout = builder.timeout(workflow.timeout.as_ref(), Stage::WorkflowInput, "");
        let root = builder.block(&workflow.tasks);
        let Builder { tasks, blocks, errors, .. } = builder;
        if !errors.is_empty() {
            return Err(errors);
        }
        let ids: BTreeMap<&str, TaskId> =
            tasks.iter().enumerate().map(|(id, task)| (task.pointer.as_str(), id)).collect();
        let definitions = workflow.all_tasks();
        let order = definitions.iter().filter_map(|task| ids.get(task.pointer.as_str()).copied()).collect();
        let fingerprint = hash(&[&workflow.source.to_string()]);
        let definition = OnceLock::new();
        Ok(Self { tasks, blocks, root, input, output, timeout, order, fingerprint, definition, workflow })
    }

    /// The workflow it was made of.
    pub fn workflow(&self) -> &Arc<Workflow> {
        &self.workflow
    }

    /// `$workflow.definition`.
    pub(super) fn definition(&self) -> Val {
        self.definition.get_or_init(|| Val::from(&self.workflow.source)).clone()
    }

    /// `$task.definition`.
    pub(super) fn task_definition(&self, id: TaskId) -> Val {
        let task = &self.tasks[id];
        let found = || self.workflow.task_definition(&task.pointer).map(Val::from).unwrap_or_default();
        task.definition.get_or_init(found).clone()
    }
}

/// Gathers tasks, blocks and errors while compiling.
pub(super) struct Builder<'a> {
    pub(super) workflow: &'a Workflow,
    tasks: Vec<Task>,
    blocks: Vec<Block>,
    errors: Vec<CompileError>,
    /// Variables that the tasks around add.
    locals: Vec<String>,
}

impl<'a> Builder<'a> {
    /// Compiles the tasks of a scope.
    pub(super) fn block(&mut self, list: &'a TaskList) -> BlockId {
        let names: Vec<&str> = list.iter().map(|(name, _)| name.as_str()).collect();
        let tasks = list.iter().enumerate().filter_map(|(index, (_, task))| self.task(index, task, &names)).collect();
        self.blocks.push(Block { tasks });
        self.blocks.len() - 1
    }

    fn task(&mut self, index: usize, task: &'a Definition, names: &[&str]) -> Option<TaskId> {
        let pointer = task.pointer.as_str();
        let condition = task.condition.as_ref();
        let condition = condition.and_then(|text| self.expression(Stage::TaskInput, pointer, text));
        let input = task.input.as_ref();
        let input = self.shape(
            Stage::TaskInput,
            pointer,
            input.and_then(|input| input.from.as_ref()),
            input.and_then(|input| input.schema.as_ref()),
        );
        let output = task.output.as_ref();
        let output = self.shape(
            Stage::TaskOutput,
            pointer,
            output.and_then(|output| output.transform.as_ref()),
            output.and_then(|output| output.schema.as_ref()),
        );
        let export = task.export.as_ref();
        let export = self.shape(
            Stage::TaskExport,
            pointer,
            export.and_then(|export| export.transform.as_ref()),
            export.and_then(|export| export.schema.as_ref()),
        );
        let timeout = self.timeout(task.timeout.as_ref(), Stage::TaskBody, pointer);
        let then = self.flow(&task.then, names, pointer);
        let kind = Kind::compile(self, task, names)?;
        self.tasks.push(Task {
            name: task.name.clone(),
            pointer: task.pointer.clone(),
            segment: path::segment(index, &task.name),
            condition,
            input,
            output,
            export,
            timeout,
            then,
            on_lost: task.on_lost,
            kind,
            definition: OnceLock::new(),
        });
        Some(self.tasks.len() - 1)
    }

    /// Compiles with more variables in scope.
    pub(super) fn with_locals<T>(&mut self, names: &[&str], compile: impl FnOnce(&mut Self) -> T) -> T {
        let depth = self.locals.len();
        self.locals.extend(names.iter().map(|name| (*name).to_owned()));
        let compiled = compile(self);
        self.locals.truncate(depth);
        compiled
    }

    /// Notes why the workflow cannot run.
    pub(super) fn error(&mut self, pointer: &str, message: impl Into<String>) {
        self.errors.push(CompileError { pointer: pointer.to_owned(), message: message.into() });
    }

    /// Compiles with the variables of a stage.
    pub(super) fn with_variables<T>(
        &mut self,
        stage: Stage,
        pointer: &str,
        compile: impl FnOnce(&[&str]) -> Result<T, String>,
    ) -> Option<T> {
        let names = variables::names(stage, &self.locals);
        match compile(&names) {
            Ok(compiled) => Some(compiled),
            Err(message) => {
                self.error(pointer, message);
                None
            }
        }
    }

    /// A field that is an expression, bare or in `${ }`.
    pub(super) fn expression(&mut self, stage: Stage, pointer: &str, text: &str) -> Option<Template> {
        self.with_variables(stage, pointer, |names| Template::compile_expression(text, names))
    }

    /// A string that may have `${ }` in it, in the body of a task.
    pub(super) fn text(&mut self, pointer: &str, text: &str) -> Option<Template> {
        self.with_variables(Stage::TaskBody, pointer, |names| Template::compile_text(text, names))
    }

    /// Code of another language that may have `${ }` in it.
    pub(super) fn code(&mut self, pointer: &str, text: &str) -> Option<Template> {
        self.with_variables(Stage::TaskBody, pointer, |names| Template::compile_code(text, names))
    }

    /// A value that may have `${ }` in it, in the body of a task.
    pub(super) fn value(&mut self, pointer: &str, value: &serde_json::Value) -> Option<Template> {
        self.with_variables(Stage::TaskBody, pointer, |names| Template::compile(value, names))
    }

    /// A duration.
    pub(super) fn delay(&mut self, stage: Stage, pointer: &str, duration: &Duration) -> Option<Delay> {
        match duration {
            Duration::Fixed(length) => Some(Delay::Fixed(*length)),
            Duration::Expression(text) => self.expression(stage, pointer, text).map(Delay::Expression),
        }
    }

    fn timeout(&mut self, timeout: Option<&Timeout>, stage: Stage, pointer: &str) -> Option<Delay> {
        let workflow = self.workflow;
        let timeout = timeout?;
        match workflow.timeout_after(timeout) {
            Some(duration) => self.delay(stage, pointer, duration),
            None => {
                self.error(pointer, "the timeout is not in `use.timeouts`");
                None
            }
        }
    }

    /// A flow directive.
    pub(super) fn flow(&mut self, then: &Then, names: &[&str], pointer: &str) -> Flow {
        match then {
            Then::Continue => Flow::Continue,
            Then::Exit => Flow::Exit,
            Then::End => Flow::End,
            Then::Task(name) => match names.iter().position(|known| known == name) {
                Some(place) => Flow::Jump(place),
                None => {
                    self.error(pointer, format!("there is no task `{name}` in this scope"));
                    Flow::Continue
                }
            },
        }
    }

    fn shape(
        &mut self,
        stage: Stage,
        pointer: &str,
        transform: Option<&Transform>,
        schema: Option<&SchemaDefinition>,
    ) -> Shape {
        let transform = transform.and_then(|transform| {
            self.with_variables(stage, pointer, |names| match transform {
                Transform::Expression(text) => Template::compile_expression(text, names),
                Transform::Object(value) => Template::compile(value, names),
            })
        });
        let schema = schema.and_then(|schema| match Schema::compile(schema) {
            Ok(schema) => Some(schema),
            Err(message) => {
                self.error(pointer, message);
                None
            }
        });
        Shape { transform, schema }
    }
}
