//! `raise`: an error of the author.

use super::super::Machine;
use super::super::event::ErrorObject;
use super::super::fault;
use super::super::plan::Builder;
use super::super::state::ActivationId;
use crate::dsl::raise::Raise as Definition;
use crate::expr::Template;
use crate::expr::template::to_text;

/// The error to raise.
#[derive(Debug)]
pub(in super::super) struct Raise {
    type_uri: Template,
    status: u16,
    instance: Option<Template>,
    title: Option<Template>,
    detail: Option<Template>,
}

pub(super) fn compile(builder: &mut Builder<'_>, pointer: &str, definition: &Definition) -> Option<Raise> {
    let workflow = builder.workflow;
    let Some(error) = workflow.error_definition(&definition.error) else {
        builder.error(pointer, "the error is not in `use.errors`");
        return None;
    };
    let mut optional = |text: &Option<String>| match text {
        Some(text) => builder.text(pointer, text).map(Some),
        None => Some(None),
    };
    let instance = optional(&error.instance)?;
    let title = optional(&error.title)?;
    let detail = optional(&error.detail)?;
    Some(Raise { type_uri: builder.text(pointer, &error.type_uri)?, status: error.status, instance, title, detail })
}

impl Machine {
    pub(super) fn raise(&mut self, id: ActivationId, plan: &Raise) -> Result<(), ErrorObject> {
        let optional = |template: &Option<Template>| match template {
            Some(template) => self.evaluate_body(id, template).map(|value| Some(to_text(&value))),
            None => Ok(None),
        };
        let type_uri = self.evaluate_body(id, &plan.type_uri)?;
        let type_uri = type_uri.as_text().ok_or_else(|| fault::expression("the type of an error must be text"))?;
        Err(ErrorObject {
            type_uri: type_uri.to_owned(),
            status: plan.status,
            instance: optional(&plan.instance)?,
            title: optional(&plan.title)?,
            detail: optional(&plan.detail)?,
        })
    }
}
