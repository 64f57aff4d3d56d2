//! `wait`: a timer, and nothing else; the job costs nothing meanwhile. Its output is its input.

use super::super::Machine;
use super::super::event::ErrorObject;
use super::super::plan::Delay;
use super::super::report::TaskState;
use super::super::state::{ActivationId, Purpose};

impl Machine {
    pub(super) fn start_wait(&mut self, id: ActivationId, delay: &Delay) -> Result<(), ErrorObject> {
        let due_ms = self.due_ms(id, delay)?;
        let activation = self.activation(id)?;
        if due_ms <= self.state.now_ms {
            let output = activation.input.clone();
            self.finish(id, output);
            return Ok(());
        }
        let path = activation.path.clone();
        self.set_timer(Some(id), Purpose::Wait, path, due_ms);
        self.touch(id, TaskState::Waiting);
        Ok(())
    }

    /// The time of a `wait` has come.
    pub(in super::super) fn end_wait(&mut self, id: ActivationId) -> Result<(), ErrorObject> {
        let output = self.activation(id)?.input.clone();
        self.finish(id, output);
        Ok(())
    }
}
