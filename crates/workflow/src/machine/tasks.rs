//! The kinds of tasks this version runs: for each, what it is compiled to and what it does.

pub(super) mod fork;
pub(super) mod http;
pub(super) mod r#loop;
pub(super) mod process;
pub(super) mod raise;
pub(super) mod retry;
pub(super) mod sequence;
pub(super) mod set;
pub(super) mod switch;
pub(super) mod r#try;
pub(super) mod wait;

use self::fork::Fork;
use self::http::Http;
use self::r#loop::For;
use self::process::Process;
use self::raise::Raise;
use self::switch::Switch;
use self::r#try::Try;
use super::Machine;
use super::event::ErrorObject;
use super::plan::{BlockId, Builder, Delay};
use super::state::ActivationId;
use super::variables::Stage;
use crate::dsl::call::Call;
use crate::dsl::task::{Task, TaskKind};
use crate::expr::Template;

/// What a task does.
#[derive(Debug)]
pub(super) enum Kind {
    Do(BlockId),
    For(Box<For>),
    Fork(Fork),
    Http(Box<Http>),
    Process(Box<Process>),
    Raise(Box<Raise>),
    Set(Template),
    Switch(Switch),
    Try(Box<Try>),
    Wait(Delay),
}

impl Kind {
    /// Compiles what a task does. `None` if an error was noted.
    pub(super) fn compile<'a>(builder: &mut Builder<'a>, task: &'a Task, names: &[&str]) -> Option<Self> {
        let pointer = task.pointer.as_str();
        match &task.kind {
            TaskKind::Do(block) => Some(Self::Do(builder.block(&block.tasks))),
            TaskKind::For(definition) => r#loop::compile(builder, pointer, definition).map(Box::new).map(Self::For),
            TaskKind::Fork(definition) => Some(Self::Fork(fork::compile(builder, definition))),
            TaskKind::Call(Call::Http(call)) => http::compile(builder, pointer, call).map(Box::new).map(Self::Http),
            TaskKind::Run(run) => process::compile(builder, pointer, run).map(Box::new).map(Self::Process),
            TaskKind::Raise(definition) => raise::compile(builder, pointer, definition).map(Box::new).map(Self::Raise),
            TaskKind::Set(definition) => set::compile(builder, pointer, definition).map(Self::Set),
            TaskKind::Switch(definition) => switch::compile(builder, pointer, definition, names).map(Self::Switch),
            TaskKind::Try(definition) => r#try::compile(builder, pointer, definition).map(Box::new).map(Self::Try),
            TaskKind::Wait(wait) => builder.delay(Stage::TaskBody, pointer, &wait.duration).map(Self::Wait),
            TaskKind::Call(_) | TaskKind::Emit(_) | TaskKind::Listen(_) => {
                builder.error(pointer, format!("`{}` of this kind cannot run in this version", task.kind.key()));
                None
            }
        }
    }
}

impl Machine {
    /// Begins the work of a task whose input is ready.
    pub(super) fn perform(&mut self, id: ActivationId) -> Result<(), ErrorObject> {
        let workflow = std::sync::Arc::clone(&self.workflow);
        let task = &workflow.tasks[self.activation(id)?.task];
        match &task.kind {
            Kind::Do(block) => self.start_do(id, *block),
            Kind::For(plan) => self.start_for(id, plan),
            Kind::Fork(plan) => self.start_fork(id, plan),
            Kind::Http(plan) => self.start_http(id, plan),
            Kind::Process(plan) => self.start_process(id, plan),
            Kind::Raise(plan) => self.raise(id, plan),
            Kind::Set(template) => self.set(id, template),
            Kind::Switch(plan) => self.switch(id, plan),
            Kind::Try(plan) => self.start_try(id, plan),
            Kind::Wait(delay) => self.start_wait(id, delay),
        }
    }
}
