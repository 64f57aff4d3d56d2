//! The interpreter as the executions' port: definitions are compiled once and shared, machines come from them.

use std::sync::Arc;

use fleet_core::limits::COMPILED_BYTES_MAX;
use fleet_core::{Digest, JobId};
use fleet_node::ports::{Interpreter, JobMachine};
use fleet_workflow::machine::command::Command;
use fleet_workflow::machine::event::{ErrorObject, Event};
use fleet_workflow::machine::{CompiledWorkflow, INTERPRETER_VERSION, JobContext, Machine};

use crate::kept::Kept;

/// Memory that a compiled definition takes for each byte of its JSON, as measured with a thousand small tasks.
const BYTES_PER_BYTE: usize = 48;

/// Compiles definitions and begins machines. A cheap handle.
#[derive(Clone)]
pub struct InterpreterPort {
    compiled: Kept<CompiledWorkflow>,
}

impl Default for InterpreterPort {
    fn default() -> Self {
        Self { compiled: Kept::bounded(COMPILED_BYTES_MAX) }
    }
}

impl InterpreterPort {
    /// The compiled form of `definition`, made now unless it is at hand.
    ///
    /// # Errors
    /// A `configuration` error if this version cannot read it: an older or newer one accepted it.
    pub fn compile(&self, definition: &[u8]) -> Result<Arc<CompiledWorkflow>, ErrorObject> {
        let digest = Digest::of(definition);
        if let Some(known) = self.compiled.get(digest) {
            return Ok(known);
        }
        let unreadable = |problem: String| {
            ErrorObject::standard("configuration", 400, "definition not understood by this version", problem)
        };
        let parsed = fleet_workflow::parse_definition(definition)
            .map_err(|problems| unreadable(problems.first().map(ToString::to_string).unwrap_or_default()))?;
        let compiled = CompiledWorkflow::compile(Arc::new(parsed.workflow))
            .map_err(|problems| unreadable(problems.first().map(ToString::to_string).unwrap_or_default()))?;
        let compiled = Arc::new(compiled);
        self.compiled.keep(digest, definition.len() * BYTES_PER_BYTE, Arc::clone(&compiled));
        Ok(compiled)
    }

    /// A machine of `job` at its beginning.
    ///
    /// # Errors
    /// As [`Self::compile`]; also if the input is not JSON.
    pub fn machine(&self, job: JobId, definition: &[u8], input: &[u8]) -> Result<Machine, ErrorObject> {
        let workflow = self.compile(definition)?;
        let input = serde_json::from_slice(input)
            .map_err(|error| ErrorObject::standard("validation", 400, "the input is not JSON", error.to_string()))?;
        // The interpreter's version, not the software's: a replay after an upgrade must see the same.
        let context = JobContext { job_id: job.to_string(), runtime_version: INTERPRETER_VERSION.to_string() };
        Ok(Machine::start(workflow, context, &input))
    }
}

impl Interpreter for InterpreterPort {
    fn begin(&self, job: JobId, definition: &[u8], input: &[u8]) -> Result<Box<dyn JobMachine>, ErrorObject> {
        Ok(Box::new(RunningMachine(self.machine(job, definition, input)?)))
    }
}

struct RunningMachine(Machine);

impl JobMachine for RunningMachine {
    fn apply(&mut self, event: &Event) -> Vec<Command> {
        self.0.apply(event)
    }

    fn is_timed_out(&self) -> bool {
        self.0.is_timed_out()
    }

    fn workflow(&self) -> String {
        self.0.workflow_name()
    }
}
