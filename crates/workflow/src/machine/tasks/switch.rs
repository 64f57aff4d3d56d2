//! `switch`: goes on as the first case says that matches; without a match, as the task's own `then` says.

use super::super::Machine;
use super::super::event::ErrorObject;
use super::super::plan::{Builder, Flow};
use super::super::state::ActivationId;
use super::super::variables::Stage;
use crate::dsl::switch::Switch as Definition;
use crate::expr::Template;

/// The cases in the order they are tried.
#[derive(Debug)]
pub(in super::super) struct Switch {
    cases: Vec<(Option<Template>, Flow)>,
}

pub(super) fn compile(
    builder: &mut Builder<'_>,
    pointer: &str,
    definition: &Definition,
    names: &[&str],
) -> Option<Switch> {
    let mut cases = Vec::with_capacity(definition.cases.len());
    for (_, case) in &definition.cases {
        let when = match &case.when {
            Some(text) => Some(builder.expression(Stage::TaskBody, pointer, text)?),
            None => None,
        };
        cases.push((when, builder.flow(&case.then, names, pointer)));
    }
    Some(Switch { cases })
}

impl Machine {
    pub(super) fn switch(&mut self, id: ActivationId, plan: &Switch) -> Result<(), ErrorObject> {
        let output = self.activation(id)?.input.clone();
        for (when, flow) in &plan.cases {
            let matches = match when {
                Some(when) => self.evaluate_body(id, when)?.is_truthy(),
                None => true,
            };
            if matches {
                self.finish_with(id, output, Some(*flow));
                return Ok(());
            }
        }
        self.finish(id, output);
        Ok(())
    }
}
