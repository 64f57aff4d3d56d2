//! `input`, `output` and `export`: what becomes of data on its way into and out of a task.

use serde_json::Value;

use super::fields::Fields;
use super::reader::{Place, Reader};
use super::resource::{SchemaDefinition, read_schema};
use super::value::{any, expression};
use crate::source::Content;

/// How data is transformed.
#[derive(Clone, Debug, PartialEq)]
pub enum Transform {
    /// By one expression, bare or in `${ }`.
    Expression(String),
    /// By an object whose strings in `${ }` are evaluated.
    Object(Value),
}

/// What becomes of a raw input.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Schema of the raw input.
    pub schema: Option<SchemaDefinition>,
    /// Its transformation.
    pub from: Option<Transform>,
}

/// What becomes of a raw output.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Schema of the transformed output.
    pub schema: Option<SchemaDefinition>,
    /// Its transformation (`as`).
    pub transform: Option<Transform>,
}

/// What becomes of `$context`.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// Schema of the new context.
    pub schema: Option<SchemaDefinition>,
    /// The new context, made from the transformed output (`as`).
    pub transform: Option<Transform>,
}

pub(super) fn read_input(place: &Place<'_>, reader: &mut Reader) -> Option<Input> {
    let (schema, from) = read_parts(place, "`input`", "from", reader)?;
    Some(Input { schema, from })
}

pub(super) fn read_output(place: &Place<'_>, reader: &mut Reader) -> Option<Output> {
    let (schema, transform) = read_parts(place, "`output`", "as", reader)?;
    Some(Output { schema, transform })
}

pub(super) fn read_export(place: &Place<'_>, reader: &mut Reader) -> Option<Export> {
    let (schema, transform) = read_parts(place, "`export`", "as", reader)?;
    Some(Export { schema, transform })
}

fn read_parts(
    place: &Place<'_>,
    what: &str,
    key: &'static str,
    reader: &mut Reader,
) -> Option<(Option<SchemaDefinition>, Option<Transform>)> {
    let mut fields = Fields::open(place, what, reader)?;
    let schema = fields.optional("schema", reader, read_schema);
    let transform = fields.optional(key, reader, read_transform);
    fields.finish(what, reader);
    Some((schema, transform))
}

fn read_transform(place: &Place<'_>, reader: &mut Reader) -> Option<Transform> {
    match &place.node.content {
        Content::Text(_) => expression(place, reader).map(Transform::Expression),
        Content::Object(_) => any(place, reader).map(Transform::Object),
        _ => {
            reader.problem(place, format!("must be an expression or an object, not {}", place.node.kind()));
            None
        }
    }
}
