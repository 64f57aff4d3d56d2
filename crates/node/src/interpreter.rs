//! The workflow language as the executions' interpreter: definitions are compiled once and kept.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use fleet_core::{Digest, JobId};
use fleet_workflow::machine::command::Command;
use fleet_workflow::machine::event::{ErrorObject, Event};
use fleet_workflow::machine::{CompiledWorkflow, INTERPRETER_VERSION, JobContext, Machine, TaskReport};

use crate::ports::{Interpreter, JobMachine};

/// Most compiled definitions kept.
const KEPT_MAX: usize = 256;

/// Compiled definitions, the oldest first.
#[derive(Default)]
struct Compiled {
    workflows: HashMap<Digest, Arc<CompiledWorkflow>>,
    order: VecDeque<Digest>,
}

/// Runs definitions of the workflow language.
#[derive(Default)]
pub struct Language {
    compiled: Mutex<Compiled>,
}

impl Language {
    fn compile(&self, definition: &[u8]) -> Result<Arc<CompiledWorkflow>, ErrorObject> {
        let digest = Digest::of(definition);
        let known = self.lock().workflows.get(&digest).cloned();
        if let Some(workflow) = known {
            return Ok(workflow);
        }
        let parsed = fleet_workflow::parse(definition)
            .map_err(|problems| invalid(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
        let compiled = CompiledWorkflow::compile(Arc::new(parsed.workflow))
            .map_err(|errors| invalid(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
        let workflow = Arc::new(compiled);
        let mut compiled = self.lock();
        if compiled.workflows.insert(digest, Arc::clone(&workflow)).is_none() {
            compiled.order.push_back(digest);
        }
        if compiled.order.len() > KEPT_MAX
            && let Some(oldest) = compiled.order.pop_front()
        {
            compiled.workflows.remove(&oldest);
        }
        Ok(workflow)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Compiled> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn invalid(detail: String) -> ErrorObject {
    ErrorObject::standard("configuration", 400, "the definition cannot be run by this version", detail)
}

impl Interpreter for Language {
    fn begin(&self, job: JobId, definition: &[u8], input: &[u8]) -> Result<Box<dyn JobMachine>, ErrorObject> {
        let workflow = self.compile(definition)?;
        let input =
            serde_json::from_slice(input).map_err(|error| invalid(format!("the input is not JSON: {error}")))?;
        let context = JobContext { job_id: job.to_string(), runtime_version: INTERPRETER_VERSION.to_string() };
        Ok(Box::new(Machine::start(workflow, context, &input)))
    }
}

impl JobMachine for Machine {
    fn apply(&mut self, event: &Event) -> Vec<Command> {
        Self::apply(self, event)
    }

    fn is_timed_out(&self) -> bool {
        Self::is_timed_out(self)
    }

    fn tasks(&self) -> Vec<TaskReport> {
        Self::tasks(self)
    }
}
