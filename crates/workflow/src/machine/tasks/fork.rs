//! `fork`: branches at the same time. All must complete, and the outputs come in the order of the branches; with
//! `compete`, the first that completes wins and the others are cancelled.
//!
//! Decided where the language is silent: a branch that fails fails the fork and cancels the others; among competing
//! branches it only loses, and the fork fails when all have, with the error of the last. `then` in a branch can only end
//! it (`exit`) or the workflow (`end`).

use super::super::Machine;
use super::super::engine::Step;
use super::super::event::ErrorObject;
use super::super::plan::{BlockId, Builder, Flow};
use super::super::state::{ActivationId, Branches, Running};
use crate::dsl::fork::Fork as Definition;
use crate::expr::Val;

/// Branches.
#[derive(Debug)]
pub(in super::super) struct Fork {
    block: BlockId,
    compete: bool,
}

pub(super) fn compile<'a>(builder: &mut Builder<'a>, definition: &'a Definition) -> Fork {
    Fork { block: builder.block(&definition.branches), compete: definition.compete }
}

impl Machine {
    pub(super) fn start_fork(&mut self, id: ActivationId, plan: &Fork) -> Result<(), ErrorObject> {
        let workflow = std::sync::Arc::clone(&self.workflow);
        let branches = &workflow.blocks[plan.block].tasks;
        let activation = self.activation_mut(id)?;
        let input = activation.input.clone();
        let path = format!("{}/fork/branches", activation.path);
        activation.running = Running::Fork(Branches { outputs: vec![None; branches.len()], ended: 0 });
        if branches.is_empty() {
            self.finish(id, Val::from_items([]));
        }
        // The agenda is a stack: the first branch goes on top.
        for (place, task) in branches.iter().enumerate().rev() {
            let path = format!("{path}/{}", workflow.tasks[*task].segment);
            self.agenda.push(Step::Enter { parent: Some(id), task: *task, place, path, input: input.clone() });
        }
        Ok(())
    }

    /// A branch completed.
    pub(in super::super) fn branch_done(&mut self, id: ActivationId, place: usize, output: Val, flow: Flow) {
        if flow == Flow::End {
            self.agenda.push(Step::EndWorkflow { output });
            return;
        }
        let competes = self.competes(id);
        let Some(activation) = self.state.activations.get_mut(&id) else { return };
        let Running::Fork(branches) = &mut activation.running else { return };
        if competes {
            self.cancel_children(id);
            self.finish(id, output);
            return;
        }
        branches.ended += 1;
        if let Some(slot) = branches.outputs.get_mut(place) {
            *slot = Some(output);
        }
        if branches.ended == branches.outputs.len() {
            let outputs = std::mem::take(&mut branches.outputs).into_iter().map(Option::unwrap_or_default);
            let output = Val::from_items(outputs);
            self.finish(id, output);
        }
    }

    /// A branch failed.
    pub(in super::super) fn branch_failed(&mut self, id: ActivationId, error: ErrorObject) {
        let competes = self.competes(id);
        let Some(activation) = self.state.activations.get_mut(&id) else { return };
        let Running::Fork(branches) = &mut activation.running else { return };
        branches.ended += 1;
        if !competes || branches.ended == branches.outputs.len() {
            self.fault(id, error);
        }
    }

    fn competes(&self, id: ActivationId) -> bool {
        let task = self.state.activations.get(&id).map(|activation| &self.workflow.tasks[activation.task]);
        matches!(task.map(|task| &task.kind), Some(super::Kind::Fork(Fork { compete: true, .. })))
    }
}
