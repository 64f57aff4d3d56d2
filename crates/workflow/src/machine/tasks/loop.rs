//! `for`: its tasks once for each element. A round gets the output of the round before; the output is that of the last
//! round, or the input if there was none. `while` is asked before each round.

use super::super::Machine;
use super::super::event::ErrorObject;
use super::super::fault;
use super::super::plan::{BlockId, Builder};
use super::super::state::{ActivationId, Loop, Running, Sequence};
use super::super::variables::Stage;
use crate::dsl::r#for::For as Definition;
use crate::expr::{Template, Val};

/// A loop.
#[derive(Debug)]
pub(in super::super) struct For {
    pub(in super::super) each: String,
    pub(in super::super) at: String,
    collection: Template,
    condition: Option<Template>,
    block: BlockId,
}

pub(super) fn compile<'a>(builder: &mut Builder<'a>, pointer: &str, definition: &'a Definition) -> Option<For> {
    let collection = builder.expression(Stage::TaskBody, pointer, &definition.collection);
    let locals = [definition.each.as_str(), definition.at.as_str()];
    let (condition, block) = builder.with_locals(&locals, |builder| {
        let condition = definition.condition.as_ref();
        let condition = condition.map(|text| builder.expression(Stage::TaskBody, pointer, text));
        (condition, builder.block(&definition.tasks))
    });
    let condition = match condition {
        Some(compiled) => Some(compiled?),
        None => None,
    };
    Some(For { each: definition.each.clone(), at: definition.at.clone(), collection: collection?, condition, block })
}

impl Machine {
    pub(super) fn start_for(&mut self, id: ActivationId, plan: &For) -> Result<(), ErrorObject> {
        let items = self.evaluate_body(id, &plan.collection)?;
        if items.as_items().is_none() {
            return Err(fault::expression(format!("`for.in` must give an array, not {}", items.kind())));
        }
        let activation = self.activation_mut(id)?;
        let input = activation.input.clone();
        let sequence = Sequence { block: plan.block, ..Sequence::default() };
        activation.running = Running::For(Loop { items, index: 0, sequence });
        self.begin_round(id, plan, input)
    }

    /// Begins the round that the state names, or ends the loop.
    fn begin_round(&mut self, id: ActivationId, plan: &For, input: Val) -> Result<(), ErrorObject> {
        let Running::For(each) = &self.activation(id)?.running else { return Ok(()) };
        if each.index >= each.items.as_items().map_or(0, <[Val]>::len) {
            self.finish(id, input);
            return Ok(());
        }
        if let Some(condition) = &plan.condition
            && !self.evaluate_on(id, condition, &input)?.is_truthy()
        {
            self.finish(id, input);
            return Ok(());
        }
        let activation = self.activation_mut(id)?;
        let path = activation.path.clone();
        if let Running::For(each) = &mut activation.running {
            each.sequence.path = format!("{path}/{}/do", each.index);
            each.sequence.visits.clear();
        }
        self.enter_place(Some(id), 0, input);
        Ok(())
    }

    /// A round ended with this output.
    pub(super) fn next_round(&mut self, id: ActivationId, output: Val) {
        let workflow = std::sync::Arc::clone(&self.workflow);
        let Some(activation) = self.state.activations.get_mut(&id) else { return };
        let super::Kind::For(plan) = &workflow.tasks[activation.task].kind else { return };
        if let Running::For(each) = &mut activation.running {
            each.index += 1;
        }
        if let Err(error) = self.begin_round(id, plan, output) {
            self.fault(id, error);
        }
    }
}
