//! `set`: the output, given outright.

use serde_json::Value;

use super::fields::Fields;
use super::reader::{Place, Reader};
use super::value::{any, expression};
use crate::source::Content;

/// Sets the output. It replaces, it does not merge.
#[derive(Clone, Debug, PartialEq)]
pub enum Set {
    /// An object whose strings in `${ }` are evaluated.
    Object(Value),
    /// One expression.
    Expression(String),
}

pub(super) fn read(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<Set> {
    fields.required("set", reader, read_set)
}

fn read_set(place: &Place<'_>, reader: &mut Reader) -> Option<Set> {
    match &place.node.content {
        Content::Text(_) => expression(place, reader).map(Set::Expression),
        Content::Object(members) if !members.is_empty() => any(place, reader).map(Set::Object),
        Content::Object(_) => {
            reader.problem(place, "`set` needs at least one key");
            None
        }
        _ => {
            reader.problem(place, format!("`set` must be an object or an expression, not {}", place.node.kind()));
            None
        }
    }
}
