//! `try`: tasks whose errors may be caught, tried again, or handled by other tasks.
//!
//! Decided where the language is silent: `catch.when` and `exceptWhen` see the input of the `try` as `.`. An error that
//! is caught and not retried goes to `catch.do`; without one it is swallowed, and the output is the input, unless
//! there was a retry policy: then, once the tries are used up, it fails the task. Tries share the input.

use super::super::event::ErrorObject;
use super::super::plan::{BlockId, Builder};
use super::super::state::{ActivationId, Purpose, Running, Sequence, Trial, TrialPhase};
use super::super::variables::Stage;
use super::super::{Machine, fault, path};
use super::retry::Retry;
use crate::dsl::error::ErrorFilter;
use crate::dsl::r#try::Try as Definition;
use crate::expr::{Template, Val};

/// Tasks whose errors may be caught.
#[derive(Debug)]
pub(in super::super) struct Try {
    block: BlockId,
    filter: Option<ErrorFilter>,
    pub(in super::super) variable: String,
    when: Option<Template>,
    except_when: Option<Template>,
    retry: Option<Retry>,
    handler: Option<BlockId>,
}

/// The bases of the standard error types that are in circulation.
const TYPE_BASES: [&str; 4] = [
    ErrorObject::TYPE_BASE,
    "https://serverlessworkflow.io/dsl/errors/types/",
    "https://open-workflow-specification.org/spec/1.0.0/errors/",
    "https://open-workflow-specification.org/dsl/errors/types/",
];

pub(super) fn compile<'a>(builder: &mut Builder<'a>, pointer: &str, definition: &'a Definition) -> Option<Try> {
    let block = builder.block(&definition.tasks);
    let catch = &definition.catch;
    builder.with_locals(&[catch.variable.as_str()], |builder| {
        let mut condition = |text: &Option<String>| match text {
            Some(text) => builder.expression(Stage::TaskBody, pointer, text).map(Some),
            None => Some(None),
        };
        let when = condition(&catch.when);
        let except_when = condition(&catch.except_when);
        let retry = match &catch.retry {
            Some(retry) => Some(super::retry::compile(builder, pointer, retry)?),
            None => None,
        };
        let handler = catch.handles.then(|| builder.block(&catch.tasks));
        Some(Try {
            block,
            filter: catch.errors.clone(),
            variable: catch.variable.clone(),
            when: when?,
            except_when: except_when?,
            retry,
            handler,
        })
    })
}

/// A type URI with any base of the standard types replaced by ours.
fn canonical_type(type_uri: &str) -> String {
    let slug = TYPE_BASES.iter().find_map(|base| type_uri.strip_prefix(base));
    slug.map_or_else(|| type_uri.to_owned(), |slug| format!("{}{slug}", ErrorObject::TYPE_BASE))
}

fn filter_matches(filter: &ErrorFilter, error: &ErrorObject) -> bool {
    let same = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
    let type_fits =
        filter.type_uri.as_deref().is_none_or(|wanted| canonical_type(wanted) == canonical_type(&error.type_uri));
    type_fits
        && filter.status.is_none_or(|status| status == i64::from(error.status))
        && same(&filter.instance, &error.instance)
        && same(&filter.title, &error.title)
        && same(&filter.detail, &error.detail)
}

/// What becomes of an error.
enum Verdict {
    /// Nobody here wants it.
    Pass,
    /// Another try, at this time.
    Retry(u64),
    /// To `catch.do`.
    Handle(BlockId),
    /// Caught, and that is all.
    Swallow,
}

impl Machine {
    pub(super) fn start_try(&mut self, id: ActivationId, plan: &Try) -> Result<(), ErrorObject> {
        let first_ms = self.state.now_ms;
        let sequence = Sequence::default();
        let trial = Trial { phase: TrialPhase::Trying, attempt: 0, first_ms, error: None, sequence };
        self.activation_mut(id)?.running = Running::Try(trial);
        self.begin_attempt(id, plan)
    }

    /// Begins the next try.
    fn begin_attempt(&mut self, id: ActivationId, plan: &Try) -> Result<(), ErrorObject> {
        let activation = self.activation_mut(id)?;
        let (input, path) = (activation.input.clone(), activation.path.clone());
        let Running::Try(trial) = &mut activation.running else { return Ok(()) };
        trial.attempt += 1;
        trial.phase = TrialPhase::Trying;
        let attempt = trial.attempt;
        let part = path::numbered("try", attempt);
        trial.sequence = Sequence { block: plan.block, path: format!("{path}/{part}"), visits: Vec::new() };
        self.report(id, |report| report.attempt = attempt);
        if let Some(delay) = plan.retry.as_ref().and_then(|retry| retry.attempt_duration.as_ref()) {
            let due_ms = self.due_ms(id, delay)?;
            self.set_timer(Some(id), Purpose::AttemptTimeout, format!("{path}/{part}/limit"), due_ms);
        }
        self.enter_place(Some(id), 0, input);
        Ok(())
    }

    fn try_plan(&self, id: ActivationId) -> Option<(std::sync::Arc<super::super::CompiledWorkflow>, usize)> {
        let task = self.state.activations.get(&id)?.task;
        Some((std::sync::Arc::clone(&self.workflow), task))
    }

    /// The time for the next try has come.
    pub(in super::super) fn retry_due(&mut self, id: ActivationId) -> Result<(), ErrorObject> {
        let Some((workflow, task)) = self.try_plan(id) else { return Ok(()) };
        match &workflow.tasks[task].kind {
            super::Kind::Try(plan) => self.begin_attempt(id, plan),
            _ => Ok(()),
        }
    }

    /// A try took too long.
    pub(in super::super) fn attempt_timed_out(&mut self, id: ActivationId) {
        self.cancel_children(id);
        let mut error = fault::timeout("the try took longer than its limit");
        error.instance = self.state.activations.get(&id).map(|task| self.workflow.tasks[task.task].pointer.clone());
        self.try_failed(id, error);
    }

    /// A task of the `try`, or of its `catch.do`, failed.
    pub(in super::super) fn try_failed(&mut self, id: ActivationId, error: ErrorObject) {
        let Some((workflow, task)) = self.try_plan(id) else { return };
        let super::Kind::Try(plan) = &workflow.tasks[task].kind else { return };
        self.cancel_timers(id, Purpose::AttemptTimeout);
        if !self.trial(id).is_some_and(|trial| trial.phase == TrialPhase::Trying) {
            self.fault(id, error);
            return;
        }
        // Before the verdict, so that its expressions see the error.
        if let Some(trial) = self.trial_mut(id) {
            trial.error = Some(error.clone());
            trial.phase = TrialPhase::Catching;
        }
        match self.judge(id, plan, &error).map(|verdict| self.carry_out(id, verdict, error)) {
            Ok(()) => {}
            Err(expression) => self.fault(id, expression),
        }
    }

    fn judge(&mut self, id: ActivationId, plan: &Try, error: &ErrorObject) -> Result<Verdict, ErrorObject> {
        let holds = |machine: &Self, template: &Option<Template>| match template {
            Some(template) => machine.evaluate_body(id, template).map(|value| Some(value.is_truthy())),
            None => Ok(None),
        };
        if !plan.filter.as_ref().is_none_or(|filter| filter_matches(filter, error))
            || holds(self, &plan.when)? == Some(false)
            || holds(self, &plan.except_when)? == Some(true)
        {
            return Ok(Verdict::Pass);
        }
        if let Some(retry) = &plan.retry
            && let Some(due_ms) = self.next_attempt_ms(id, retry)?
        {
            return Ok(Verdict::Retry(due_ms));
        }
        Ok(match plan.handler {
            Some(block) => Verdict::Handle(block),
            None if plan.retry.is_some() => Verdict::Pass,
            None => Verdict::Swallow,
        })
    }

    fn carry_out(&mut self, id: ActivationId, verdict: Verdict, error: ErrorObject) {
        let Some(activation) = self.state.activations.get_mut(&id) else { return };
        let (input, path) = (activation.input.clone(), activation.path.clone());
        let Running::Try(trial) = &mut activation.running else { return };
        let attempt = trial.attempt;
        match verdict {
            Verdict::Pass => self.fault(id, error),
            Verdict::Swallow => self.finish(id, input),
            Verdict::Retry(due_ms) => {
                trial.phase = TrialPhase::Pausing;
                let path = format!("{path}/{}", path::numbered("retry", attempt));
                self.set_timer(Some(id), Purpose::Retry, path, due_ms);
            }
            Verdict::Handle(block) => {
                trial.sequence = Sequence { block, path: format!("{path}/catch/do"), visits: Vec::new() };
                self.enter_place(Some(id), 0, input);
            }
        }
    }

    /// The tasks of `try`, or of `catch.do`, are done.
    pub(super) fn end_try_block(&mut self, id: ActivationId, output: Val) {
        self.cancel_timers(id, Purpose::AttemptTimeout);
        self.finish(id, output);
    }

    pub(in super::super) fn trial(&self, id: ActivationId) -> Option<&Trial> {
        match &self.state.activations.get(&id)?.running {
            Running::Try(trial) => Some(trial),
            _ => None,
        }
    }

    fn trial_mut(&mut self, id: ActivationId) -> Option<&mut Trial> {
        match &mut self.state.activations.get_mut(&id)?.running {
            Running::Try(trial) => Some(trial),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{canonical_type, filter_matches};
    use crate::dsl::error::ErrorFilter;
    use crate::machine::event::ErrorObject;

    #[test]
    fn the_four_bases_of_standard_types_are_equal() {
        let error = ErrorObject::standard("timeout", 408, "t", "d");
        for base in super::TYPE_BASES {
            let filter = ErrorFilter { type_uri: Some(format!("{base}timeout")), ..ErrorFilter::default() };
            assert!(filter_matches(&filter, &error), "{base}");
        }
        let other = ErrorFilter { type_uri: Some("https://example.com/timeout".to_owned()), ..ErrorFilter::default() };
        assert!(!filter_matches(&other, &error));
        assert_eq!(canonical_type("https://example.com/x"), "https://example.com/x");
    }
}
