//! Tasks one after another: `do`, and the scopes inside `for` and `try` and of the workflow itself.

use super::super::engine::Step;
use super::super::event::ErrorObject;
use super::super::plan::{BlockId, Flow};
use super::super::state::{ActivationId, Running, Sequence};
use super::super::{Machine, path};
use crate::expr::Val;

impl Machine {
    pub(super) fn start_do(&mut self, id: ActivationId, block: BlockId) -> Result<(), ErrorObject> {
        let activation = self.activation_mut(id)?;
        let input = activation.input.clone();
        let path = format!("{}/do", activation.path);
        activation.running = Running::Sequence(Sequence { block, path, visits: Vec::new() });
        self.enter_place(Some(id), 0, input);
        Ok(())
    }

    /// The sequence that a task, or the workflow, is running.
    fn sequence_mut(&mut self, owner: Option<ActivationId>) -> Option<&mut Sequence> {
        let Some(id) = owner else { return Some(&mut self.state.root) };
        match &mut self.state.activations.get_mut(&id)?.running {
            Running::Sequence(sequence) => Some(sequence),
            Running::For(each) => Some(&mut each.sequence),
            Running::Try(trial) => Some(&mut trial.sequence),
            Running::Single | Running::Fork(_) => None,
        }
    }

    /// Enters the task at a place of the sequence, or ends the sequence after its last.
    pub(in super::super) fn enter_place(&mut self, owner: Option<ActivationId>, place: usize, input: Val) {
        let workflow = std::sync::Arc::clone(&self.workflow);
        let Some(sequence) = self.sequence_mut(owner) else { return };
        let tasks = &workflow.blocks[sequence.block].tasks;
        let Some(task) = tasks.get(place).copied() else {
            self.agenda.push(Step::SequenceEnded { owner, output: input, exited: false });
            return;
        };
        sequence.visits.resize(tasks.len(), 0);
        sequence.visits[place] += 1;
        let segment = path::numbered(&workflow.tasks[task].segment, sequence.visits[place]);
        let path = format!("{}/{segment}", sequence.path);
        self.agenda.push(Step::Enter { parent: owner, task, place, path, input });
    }

    /// Goes on after a task of the sequence.
    pub(in super::super) fn advance(&mut self, owner: Option<ActivationId>, place: usize, output: Val, flow: Flow) {
        match flow {
            Flow::Continue => self.enter_place(owner, place + 1, output),
            Flow::Jump(target) => self.enter_place(owner, target, output),
            Flow::Exit => self.agenda.push(Step::SequenceEnded { owner, output, exited: true }),
            Flow::End => self.agenda.push(Step::EndWorkflow { output }),
        }
    }

    /// All tasks of a sequence are done, or one said `exit`.
    pub(in super::super) fn sequence_ended(&mut self, owner: Option<ActivationId>, output: Val, exited: bool) {
        let Some(id) = owner else {
            self.agenda.push(Step::EndWorkflow { output });
            return;
        };
        let Some(activation) = self.state.activations.get(&id) else { return };
        match &activation.running {
            // `exit` leaves the whole loop: it is the scope.
            Running::For(_) if !exited => self.next_round(id, output),
            Running::Try(_) => self.end_try_block(id, output),
            _ => self.finish(id, output),
        }
    }
}
