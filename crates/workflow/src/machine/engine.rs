//! The course of a job: entering tasks, finishing them, faults, the end.
//!
//! Work is kept on an agenda, the last first, and worked off before an event is applied: tasks go no deeper on the
//! stack than one call, however they are nested or however long they loop.

use std::io;
use std::sync::Arc;

use super::command::{Command, EffectPath};
use super::event::{ErrorObject, Event};
use super::plan::{Flow, TaskId};
use super::report::{Report, TaskState};
use super::state::{Activation, ActivationId, Purpose, Running};
use super::{Machine, OUTPUT_BYTES_MAX, fault};
use crate::expr::{VALUE_DEPTH_MAX, Val};

/// Tasks that one event may enter: an endless loop of tasks that need no effect ends here.
pub(super) const TASKS_PER_EVENT_MAX: u32 = 100_000;

/// Something to be done.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Enter a task.
    Enter { parent: Option<ActivationId>, task: TaskId, place: usize, path: String, input: Val },
    /// A task has its raw output.
    Finish { id: ActivationId, output: Val, flow: Option<Flow> },
    /// A task failed.
    Fault { id: ActivationId, error: ErrorObject },
    /// A sequence is done.
    SequenceEnded { owner: Option<ActivationId>, output: Val, exited: bool },
    /// The workflow is done.
    EndWorkflow { output: Val },
}

impl Event {
    /// When it happened, milliseconds since the epoch.
    pub fn at_ms(&self) -> u64 {
        match self {
            Self::Started { at_ms }
            | Self::EffectStarted { at_ms, .. }
            | Self::EffectEnded { at_ms, .. }
            | Self::EffectLost { at_ms, .. }
            | Self::TimerFired { at_ms, .. }
            | Self::Overrun { at_ms } => *at_ms,
        }
    }
}

impl Machine {
    /// The workflow begins.
    pub(super) fn begin(&mut self, at_ms: u64) {
        if self.state.started_ms.is_some() {
            return;
        }
        self.state.started_ms = Some(at_ms);
        if let Err(error) = self.enter_workflow() {
            self.fail(ErrorObject { instance: Some("/".to_owned()), ..error });
        }
    }

    fn enter_workflow(&mut self) -> Result<(), ErrorObject> {
        let workflow = Arc::clone(&self.workflow);
        let raw_input = self.state.raw_input.clone();
        if raw_input.depth() > VALUE_DEPTH_MAX {
            return Err(fault::validation(format!("the input is nested deeper than {VALUE_DEPTH_MAX} levels")));
        }
        if let Some(schema) = &workflow.input.schema {
            schema.check(&raw_input).map_err(|what| fault::validation(format!("the input does not fit: {what}")))?;
        }
        let input = self.transform(None, &workflow.input, &raw_input, None)?;
        self.state.context = input.clone();
        if let Some(delay) = &workflow.timeout {
            let due_ms = self.workflow_due_ms(delay)?;
            self.set_timer(None, Purpose::Timeout, "/timeout".to_owned(), due_ms);
        }
        self.enter_place(None, 0, input);
        Ok(())
    }

    /// Does everything on the agenda.
    pub(super) fn work_off(&mut self) {
        while let Some(step) = self.agenda.pop() {
            if self.state.ended.is_some() {
                self.agenda.clear();
                return;
            }
            match step {
                Step::Enter { parent, task, place, path, input } => self.enter(parent, task, place, path, input),
                Step::Finish { id, output, flow } => self.finish_now(id, output, flow),
                Step::Fault { id, error } => self.fault_now(id, error),
                Step::SequenceEnded { owner, output, exited } => self.sequence_ended(owner, output, exited),
                Step::EndWorkflow { output } => self.end_workflow(&output),
            }
        }
    }

    /// A task has this raw output.
    pub(super) fn finish(&mut self, id: ActivationId, output: Val) {
        self.finish_with(id, output, None);
    }

    /// A task has this raw output and says itself where to go on.
    pub(super) fn finish_with(&mut self, id: ActivationId, output: Val, flow: Option<Flow>) {
        self.agenda.push(Step::Finish { id, output, flow });
    }

    /// A task failed.
    pub(super) fn fault(&mut self, id: ActivationId, error: ErrorObject) {
        self.agenda.push(Step::Fault { id, error });
    }

    /// The activation of a task. That it is there is an invariant of the agenda.
    pub(super) fn activation(&self, id: ActivationId) -> Result<&Activation, ErrorObject> {
        self.state.activations.get(&id).ok_or_else(|| fault::runtime("the task is gone"))
    }

    pub(super) fn activation_mut(&mut self, id: ActivationId) -> Result<&mut Activation, ErrorObject> {
        self.state.activations.get_mut(&id).ok_or_else(|| fault::runtime("the task is gone"))
    }

    /// Changes the report of a running task.
    pub(super) fn report(&mut self, id: ActivationId, change: impl FnOnce(&mut Report)) {
        let task = self.state.activations.get(&id).map(|activation| activation.task);
        if let Some(report) = task.and_then(|task| self.state.reports.get_mut(task)) {
            change(report);
        }
    }

    fn enter(&mut self, parent: Option<ActivationId>, task: TaskId, place: usize, path: String, input: Val) {
        let around = parent.and_then(|parent| self.state.activations.get(&parent));
        if parent.is_some() && around.is_none() {
            return;
        }
        self.entered += 1;
        if self.entered > TASKS_PER_EVENT_MAX {
            let detail = format!("more than {TASKS_PER_EVENT_MAX} tasks ran without anything to wait for");
            let pointer = self.workflow.tasks[task].pointer.clone();
            self.fail(ErrorObject { instance: Some(pointer), ..fault::runtime(detail) });
            return;
        }
        let deadline_ms = around.and_then(|around| around.deadline_ms);
        let id = self.state.next_activation;
        self.state.next_activation += 1;
        let activation = Activation {
            task,
            parent,
            place,
            path,
            raw_input: input.clone(),
            input: input.clone(),
            raw_output: Val::Null,
            started_ms: self.state.now_ms,
            deadline_ms,
            running: Running::Single,
            children: Vec::new(),
            waits: Vec::new(),
        };
        self.state.activations.insert(id, activation);
        if let Some(around) = parent.and_then(|parent| self.state.activations.get_mut(&parent)) {
            around.children.push(id);
        }
        match self.prepare(id, task) {
            Ok(true) => {
                if let Err(error) = self.perform(id) {
                    self.fault(id, error);
                }
            }
            Ok(false) => {
                // Skipped: its input goes on to the next task, and its `then` does not count.
                self.close(id);
                self.child_done(parent, place, input, Flow::Continue);
            }
            Err(error) => self.fault(id, error),
        }
    }

    /// Everything before a task's work; false skips it.
    fn prepare(&mut self, id: ActivationId, task: TaskId) -> Result<bool, ErrorObject> {
        let workflow = Arc::clone(&self.workflow);
        let task = &workflow.tasks[task];
        let raw_input = self.activation(id)?.raw_input.clone();
        if let Some(condition) = &task.condition {
            match self.evaluate_on(id, condition, &raw_input) {
                Ok(value) if !value.is_truthy() => return Ok(false),
                Ok(_) => {}
                Err(error) => {
                    self.report_start(id);
                    return Err(error);
                }
            }
        }
        self.report_start(id);
        if let Some(schema) = &task.input.schema {
            schema.check(&raw_input).map_err(|what| fault::validation(format!("the input does not fit: {what}")))?;
        }
        let input = self.transform(Some(id), &task.input, &raw_input, None)?;
        self.report(id, |report| report.input(&input));
        self.activation_mut(id)?.input = input;
        if let Some(delay) = &task.timeout {
            let due_ms = self.due_ms(id, delay)?;
            let activation = self.activation_mut(id)?;
            activation.deadline_ms = Some(activation.deadline_ms.map_or(due_ms, |around| around.min(due_ms)));
            let path = format!("{}/timeout", activation.path);
            self.set_timer(Some(id), Purpose::Timeout, path, due_ms);
        }
        Ok(true)
    }

    fn report_start(&mut self, id: ActivationId) {
        let (now_ms, event) = (self.state.now_ms, self.state.events);
        let mut attempt = 1;
        let mut around = self.state.activations.get(&id).and_then(|activation| activation.parent);
        while let Some(parent) = around {
            if let Some(trial) = self.trial(parent) {
                attempt = trial.attempt;
                break;
            }
            around = self.state.activations.get(&parent).and_then(|activation| activation.parent);
        }
        self.report(id, |report| report.start(now_ms, event, attempt, id));
    }

    fn finish_now(&mut self, id: ActivationId, raw_output: Val, flow: Option<Flow>) {
        let Some(activation) = self.state.activations.get_mut(&id) else { return };
        activation.raw_output = raw_output;
        let (parent, place, task) = (activation.parent, activation.place, activation.task);
        match self.shape_output(id, task) {
            Err(error) => self.fault_now(id, error),
            Ok(output) => {
                let (now_ms, event) = (self.state.now_ms, self.state.events);
                self.report(id, |report| report.complete(&output, now_ms, event));
                self.close(id);
                let flow = flow.unwrap_or(self.workflow.tasks[task].then);
                self.child_done(parent, place, output, flow);
            }
        }
    }

    /// Transforms, checks and exports an output.
    fn shape_output(&mut self, id: ActivationId, task: TaskId) -> Result<Val, ErrorObject> {
        let workflow = Arc::clone(&self.workflow);
        let task = &workflow.tasks[task];
        let raw_output = self.activation(id)?.raw_output.clone();
        let output = self.transform(Some(id), &task.output, &raw_output, None)?;
        if output.depth() > VALUE_DEPTH_MAX {
            return Err(fault::runtime(format!("the output is nested deeper than {VALUE_DEPTH_MAX} levels")));
        }
        if let Some(schema) = &task.output.schema {
            schema.check(&output).map_err(|what| fault::validation(format!("the output does not fit: {what}")))?;
        }
        let context = match &task.export.transform {
            Some(_) => Some(self.transform(Some(id), &task.export, &output, Some(&output))?),
            None => None,
        };
        if let Some(schema) = &task.export.schema {
            let exported = context.as_ref().unwrap_or(&self.state.context);
            schema.check(exported).map_err(|what| fault::validation(format!("the context does not fit: {what}")))?;
        }
        if let Some(context) = context {
            self.state.context = context;
        }
        Ok(output)
    }

    /// A task of this scope is done and went away.
    fn child_done(&mut self, parent: Option<ActivationId>, place: usize, output: Val, flow: Flow) {
        match parent.and_then(|id| Some((id, &self.state.activations.get(&id)?.running))) {
            Some((id, Running::Fork(_))) => self.branch_done(id, place, output, flow),
            _ => self.advance(parent, place, output, flow),
        }
    }

    fn fault_now(&mut self, id: ActivationId, mut error: ErrorObject) {
        let Some(activation) = self.state.activations.get(&id) else { return };
        let parent = activation.parent;
        error = error.bounded();
        if error.instance.is_none() {
            error.instance = Some(self.workflow.tasks[activation.task].pointer.clone());
        }
        let (now_ms, event) = (self.state.now_ms, self.state.events);
        self.cancel_children(id);
        self.report(id, |report| report.fault(&error, now_ms, event));
        self.close(id);
        match parent.and_then(|id| Some((id, &self.state.activations.get(&id)?.running))) {
            None => self.fail(error),
            Some((id, Running::Try(_))) => self.try_failed(id, error),
            Some((id, Running::Fork(_))) => self.branch_failed(id, error),
            Some((id, _)) => self.fault(id, error),
        }
    }

    /// Removes a task that ended, with what it still waits for.
    fn close(&mut self, id: ActivationId) {
        self.cancel_waits(id);
        let Some(activation) = self.state.activations.remove(&id) else { return };
        if let Some(around) = activation.parent.and_then(|parent| self.state.activations.get_mut(&parent)) {
            around.children.retain(|child| *child != id);
        }
    }

    /// Cancels everything that runs inside a task.
    pub(super) fn cancel_children(&mut self, id: ActivationId) {
        let Some(activation) = self.state.activations.get_mut(&id) else { return };
        let mut doomed = std::mem::take(&mut activation.children);
        let (now_ms, event) = (self.state.now_ms, self.state.events);
        while let Some(child) = doomed.pop() {
            self.cancel_waits(child);
            self.report(child, |report| report.end(TaskState::Cancelled, now_ms, event));
            if let Some(removed) = self.state.activations.remove(&child) {
                doomed.extend(removed.children);
            }
        }
    }

    fn end_workflow(&mut self, output: &Val) {
        let workflow = Arc::clone(&self.workflow);
        let shaped = self.transform(None, &workflow.output, output, None).and_then(|output| {
            if let Some(schema) = &workflow.output.schema {
                let unfit = |what| fault::validation(format!("the output does not fit: {what}"));
                schema.check(&output).map_err(unfit)?;
            }
            let output = output.to_json();
            if !fits_json(&output, OUTPUT_BYTES_MAX) {
                let detail = format!("the output has more than {OUTPUT_BYTES_MAX} bytes of JSON");
                return Err(fault::runtime(detail));
            }
            Ok(output)
        });
        match shaped {
            Ok(output) => self.end(Command::Complete { output }),
            Err(error) => self.fail(ErrorObject { instance: Some("/".to_owned()), ..error }),
        }
    }

    /// The workflow ends with an error.
    pub(super) fn fail(&mut self, error: ErrorObject) {
        self.end(Command::Fail { error: error.bounded() });
    }

    fn end(&mut self, command: Command) {
        let running: Vec<ActivationId> = self.state.activations.keys().copied().collect();
        let (now_ms, event) = (self.state.now_ms, self.state.events);
        for id in running {
            self.cancel_waits(id);
            self.report(id, |report| report.end(TaskState::Cancelled, now_ms, event));
            self.state.activations.remove(&id);
        }
        let left: Vec<EffectPath> = self.state.waiting.keys().cloned().collect();
        for path in left {
            self.take_back(&path);
        }
        self.agenda.clear();
        self.commands.push(command.clone());
        self.state.ended = Some(command);
    }
}

/// Whether `value` has at most `bytes_max` bytes as JSON. Looks at no more of it than that.
fn fits_json(value: &serde_json::Value, bytes_max: usize) -> bool {
    struct Room(usize);
    impl io::Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    serde_json::to_writer(Room(bytes_max), value).is_ok()
}
