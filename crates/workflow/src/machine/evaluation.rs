//! Evaluating the expressions of a definition: what each variable is, and what an error of an expression becomes.

use super::event::ErrorObject;
use super::plan::{Delay, Shape};
use super::state::{Activation, ActivationId, Running, TrialPhase};
use super::tasks::Kind;
use super::{INTERPRETER_VERSION, Machine, fault, variables};
use crate::dsl::duration::Length;
use crate::expr::{Scope, Template, Val};

impl Machine {
    /// Calls `work` with what an expression can see: the variables of a task, or of the workflow.
    pub(super) fn with_scope<T>(
        &self,
        id: Option<ActivationId>,
        output: Option<&Val>,
        work: impl FnOnce(&Scope<'_>) -> T,
    ) -> T {
        let variable = |name: &str| self.variable(id, output, name);
        work(&Scope { variable: &variable, now_ms: self.state.now_ms })
    }

    fn variable(&self, id: Option<ActivationId>, output: Option<&Val>, name: &str) -> Val {
        let activation = id.and_then(|id| self.state.activations.get(&id));
        if let Some(value) = activation.and_then(|activation| self.local(activation, name)) {
            return value;
        }
        match name {
            "context" => self.state.context.clone(),
            "input" => activation.map(|activation| activation.input.clone()).unwrap_or_default(),
            "output" => output.cloned().unwrap_or_default(),
            "task" => activation.map(|activation| self.describe_task(activation)).unwrap_or_default(),
            "workflow" => self.describe_workflow(),
            "runtime" => Val::from_members([
                ("name", Val::text("fleet")),
                ("version", Val::text(self.context.runtime_version.as_str())),
                ("metadata", Val::from_members([("interpreter", Val::Int(i64::from(INTERPRETER_VERSION)))])),
            ]),
            "secrets" => Val::from_members::<&str>([]),
            // `$authorization`, and nothing else that compiles.
            _ => Val::Null,
        }
    }

    /// A variable that the task itself or one around it adds. The nearest wins.
    fn local(&self, activation: &Activation, name: &str) -> Option<Val> {
        let mut current = Some(activation);
        while let Some(activation) = current {
            match (&activation.running, &self.workflow.tasks[activation.task].kind) {
                (Running::For(each), Kind::For(plan)) => {
                    if name == plan.at {
                        return Some(Val::from(each.index));
                    }
                    if name == plan.each {
                        return Some(each.items.as_items()?.get(each.index).cloned().unwrap_or_default());
                    }
                }
                (Running::Try(trial), Kind::Try(plan))
                    if trial.phase == TrialPhase::Catching && name == plan.variable =>
                {
                    return trial.error.as_ref().map(describe_error);
                }
                _ => {}
            }
            current = activation.parent.and_then(|id| self.state.activations.get(&id));
        }
        None
    }

    fn describe_task(&self, activation: &Activation) -> Val {
        let task = &self.workflow.tasks[activation.task];
        Val::from_members([
            ("name", Val::text(task.name.as_str())),
            ("reference", Val::text(task.pointer.as_str())),
            ("definition", self.workflow.task_definition(activation.task)),
            ("input", activation.raw_input.clone()),
            ("output", activation.raw_output.clone()),
            ("startedAt", variables::date_time(activation.started_ms)),
        ])
    }

    fn describe_workflow(&self) -> Val {
        Val::from_members([
            ("id", Val::text(self.context.job_id.as_str())),
            ("definition", self.workflow.definition()),
            ("input", self.state.raw_input.clone()),
            ("startedAt", self.state.started_ms.map(variables::date_time).unwrap_or_default()),
        ])
    }

    /// A template of a task's body, on its transformed input.
    pub(super) fn evaluate_body(&self, id: ActivationId, template: &Template) -> Result<Val, ErrorObject> {
        self.evaluate_on(id, template, &self.activation(id)?.input)
    }

    /// A template of a task, on this value.
    pub(super) fn evaluate_on(&self, id: ActivationId, template: &Template, on: &Val) -> Result<Val, ErrorObject> {
        self.with_scope(Some(id), None, |scope| template.evaluate(on, scope)).map_err(fault::expression)
    }

    /// A value after its transformation, without its schema.
    pub(super) fn transform(
        &self,
        id: Option<ActivationId>,
        shape: &Shape,
        value: &Val,
        output: Option<&Val>,
    ) -> Result<Val, ErrorObject> {
        match &shape.transform {
            Some(template) => {
                self.with_scope(id, output, |scope| template.evaluate(value, scope)).map_err(fault::expression)
            }
            None => Ok(value.clone()),
        }
    }

    /// When a duration that begins now ends.
    pub(super) fn due_ms(&self, id: ActivationId, delay: &Delay) -> Result<u64, ErrorObject> {
        let length = match delay {
            Delay::Fixed(length) => *length,
            Delay::Expression(template) => {
                let value = self.evaluate_body(id, template)?;
                parse_length(&value)?
            }
        };
        self.after(length)
    }

    /// As [`Self::due_ms`], for the workflow itself.
    pub(super) fn workflow_due_ms(&self, delay: &Delay) -> Result<u64, ErrorObject> {
        let length = match delay {
            Delay::Fixed(length) => *length,
            Delay::Expression(template) => {
                let input = &self.state.raw_input;
                let value = self.with_scope(None, None, |scope| template.evaluate(input, scope));
                parse_length(&value.map_err(fault::expression)?)?
            }
        };
        self.after(length)
    }

    fn after(&self, length: Length) -> Result<u64, ErrorObject> {
        let due_ms = length.after(self.state.now_ms);
        due_ms.ok_or_else(|| fault::expression("the duration goes past the end of the calendar"))
    }
}

fn parse_length(value: &Val) -> Result<Length, ErrorObject> {
    let text = value.as_text();
    let text = text.ok_or_else(|| fault::expression(format!("a duration must be text, not {}", value.kind())))?;
    Length::parse(text).map_err(fault::expression)
}

/// An error as expressions see it.
fn describe_error(error: &ErrorObject) -> Val {
    let mut members = vec![("type", Val::text(error.type_uri.as_str())), ("status", Val::Int(i64::from(error.status)))];
    let optional = [("instance", &error.instance), ("title", &error.title), ("detail", &error.detail)];
    members.extend(optional.into_iter().filter_map(|(key, text)| Some((key, Val::text(text.as_deref()?)))));
    Val::from_members(members)
}
