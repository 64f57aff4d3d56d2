//! `set`: its value is the output. It replaces the input, it does not merge with it.

use super::super::Machine;
use super::super::event::ErrorObject;
use super::super::plan::Builder;
use super::super::state::ActivationId;
use super::super::variables::Stage;
use crate::dsl::set::Set;
use crate::expr::Template;

pub(super) fn compile(builder: &mut Builder<'_>, pointer: &str, set: &Set) -> Option<Template> {
    match set {
        Set::Object(value) => builder.value(pointer, value),
        Set::Expression(text) => builder.expression(Stage::TaskBody, pointer, text),
    }
}

impl Machine {
    pub(super) fn set(&mut self, id: ActivationId, template: &Template) -> Result<(), ErrorObject> {
        let output = self.evaluate_body(id, template)?;
        self.finish(id, output);
        Ok(())
    }
}
