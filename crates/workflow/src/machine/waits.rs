//! What is asked of the driver: effects and timers, their answers, and taking back what is no longer wanted.

use super::command::{Command, EffectPath};
use super::effect::Effect;
use super::event::{ErrorObject, Event, Outcome};
use super::report::TaskState;
use super::state::{ActivationId, Purpose, Waiting};
use super::tasks::Kind;
use super::{Machine, fault};
use crate::expr::{VALUE_DEPTH_MAX, Val};

impl Machine {
    /// Takes one event: finds who waits for it.
    pub(super) fn take(&mut self, event: &Event) {
        match event {
            Event::Started { at_ms } => self.begin(*at_ms),
            Event::EffectStarted { path, .. } => {
                if let Some(waiting) = self.state.waiting.get_mut(path) {
                    waiting.started = true;
                }
            }
            Event::EffectEnded { path, outcome, .. } => {
                if let Some(id) = self.answered(path, |purpose| purpose == Purpose::Effect).flatten() {
                    self.effect_ended(id, outcome);
                }
            }
            Event::EffectLost { path, .. } => {
                if let Some(id) = self.answered(path, |purpose| purpose == Purpose::Effect).flatten() {
                    self.fault(id, fault::lost());
                }
            }
            Event::TimerFired { path, .. } => self.timer_fired(path),
            Event::Overrun { .. } => self.fail(ErrorObject::overrun()),
        }
    }

    /// Removes what waits at a path, if it waits for an answer of this kind; gives whose it was.
    fn answered(&mut self, path: &EffectPath, fits: impl Fn(Purpose) -> bool) -> Option<Option<ActivationId>> {
        if !self.state.waiting.get(path).is_some_and(|waiting| fits(waiting.purpose)) {
            return None;
        }
        let id = self.state.waiting.remove(path)?.activation;
        if let Some(activation) = id.and_then(|id| self.state.activations.get_mut(&id)) {
            activation.waits.retain(|wait| wait != path);
        }
        Some(id)
    }

    fn effect_ended(&mut self, id: ActivationId, outcome: &Outcome) {
        let Some(activation) = self.state.activations.get(&id) else { return };
        match outcome {
            Outcome::Err(error) => self.fault(id, ErrorObject { instance: None, ..error.clone() }),
            Outcome::Ok(value) => {
                let goes_on = match &self.workflow.tasks[activation.task].kind {
                    Kind::Process(plan) => !plan.awaits,
                    _ => false,
                };
                // A process that nobody waits for has no result: the task goes on with its input.
                let output = if goes_on { activation.input.clone() } else { Val::from(value) };
                if output.depth() > VALUE_DEPTH_MAX {
                    let detail = format!("the result is nested deeper than {VALUE_DEPTH_MAX} levels");
                    self.fault(id, fault::runtime(detail));
                } else {
                    self.finish(id, output);
                }
            }
        }
    }

    fn timer_fired(&mut self, path: &EffectPath) {
        let Some(purpose) = self.state.waiting.get(path).map(|waiting| waiting.purpose) else { return };
        let Some(owner) = self.answered(path, |purpose| purpose != Purpose::Effect) else { return };
        let done = match (purpose, owner) {
            (Purpose::Timeout, None) => {
                let error = fault::timeout("the workflow took longer than its timeout");
                self.fail(ErrorObject { instance: Some("/".to_owned()), ..error });
                Ok(())
            }
            (Purpose::Timeout, Some(id)) => Err((id, fault::timeout("the task took longer than its timeout"))),
            (Purpose::Wait, Some(id)) => self.end_wait(id).map_err(|error| (id, error)),
            (Purpose::Retry, Some(id)) => self.retry_due(id).map_err(|error| (id, error)),
            (Purpose::AttemptTimeout, Some(id)) => {
                self.attempt_timed_out(id);
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err((id, error)) = done {
            self.fault(id, error);
        }
    }

    /// Asks for an effect.
    pub(super) fn start_effect(&mut self, id: ActivationId, effect: Effect) {
        let Some(activation) = self.state.activations.get(&id) else { return };
        let task = &self.workflow.tasks[activation.task];
        let command = Command::Start {
            path: EffectPath(activation.path.clone()),
            task: task.pointer.clone(),
            effect,
            on_lost: task.on_lost,
            deadline_ms: activation.deadline_ms,
        };
        let path = EffectPath(activation.path.clone());
        self.ask(Some(id), Purpose::Effect, path, command);
    }

    /// Asks for a timer.
    pub(super) fn set_timer(&mut self, id: Option<ActivationId>, purpose: Purpose, path: String, due_ms: u64) {
        let path = EffectPath(path);
        let command = Command::SetTimer { path: path.clone(), due_ms };
        self.ask(id, purpose, path, command);
    }

    fn ask(&mut self, activation: Option<ActivationId>, purpose: Purpose, path: EffectPath, command: Command) {
        if let Some(activation) = activation.and_then(|id| self.state.activations.get_mut(&id)) {
            activation.waits.push(path.clone());
        }
        let number = self.state.next_command;
        self.state.next_command += 1;
        self.commands.push(command.clone());
        self.state.waiting.insert(path, Waiting { activation, purpose, number, command, started: false });
    }

    /// Takes back everything that a task waits for.
    pub(super) fn cancel_waits(&mut self, id: ActivationId) {
        let Some(activation) = self.state.activations.get_mut(&id) else { return };
        for path in std::mem::take(&mut activation.waits) {
            self.take_back(&path);
        }
    }

    /// Takes back the timers of a task that are for this purpose.
    pub(super) fn cancel_timers(&mut self, id: ActivationId, purpose: Purpose) {
        let Some(activation) = self.state.activations.get(&id) else { return };
        let paths: Vec<EffectPath> = activation.waits.clone();
        for path in paths {
            if self.answered(&path, |found| found == purpose).is_some() {
                self.withdraw(&path, Command::CancelTimer { path: path.clone() });
            }
        }
    }

    /// Takes back what waits at a path.
    pub(super) fn take_back(&mut self, path: &EffectPath) {
        let Some(waiting) = self.state.waiting.remove(path) else { return };
        let cancel = match waiting.purpose {
            Purpose::Effect => Command::Cancel { path: path.clone() },
            _ => Command::CancelTimer { path: path.clone() },
        };
        self.withdraw(path, cancel);
    }

    /// Removes a command that was not given yet, or gives the one that cancels it.
    fn withdraw(&mut self, path: &EffectPath, cancel: Command) {
        let asks = |command: &Command| match command {
            Command::Start { path: asked, .. } | Command::SetTimer { path: asked, .. } => asked == path,
            _ => false,
        };
        match self.commands.iter().position(asks) {
            Some(index) => drop(self.commands.remove(index)),
            None => self.commands.push(cancel),
        }
    }

    /// Notes what a task is doing.
    pub(super) fn touch(&mut self, id: ActivationId, state: TaskState) {
        let event = self.state.events;
        self.report(id, |report| report.touch(state, event));
    }
}
