//! Errors: definitions to raise, and filters to catch by.

use serde_json::Value;

use super::fields::Fields;
use super::reader::{Component, Place, Reader};
use super::resource::read_uri;
use super::value::{integer, is_evaluated, template, text};

/// An error, in place or by name.
#[derive(Clone, Debug, PartialEq)]
pub enum ErrorReference {
    /// In place.
    Inline(ErrorDefinition),
    /// By its name in `use.errors`.
    Named(String),
}

/// An error to raise. Strings may be expressions in `${ }`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorDefinition {
    /// Type URI.
    pub type_uri: String,
    /// HTTP-like status.
    pub status: u16,
    /// JSON pointer of what it comes from; the runtime fills in the task if absent.
    pub instance: Option<String>,
    /// Short summary.
    pub title: Option<String>,
    /// What happened this time.
    pub detail: Option<String>,
}

/// Which errors to catch: those equal in everything given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorFilter {
    /// Type URI.
    pub type_uri: Option<String>,
    /// Status.
    pub status: Option<i64>,
    /// Instance.
    pub instance: Option<String>,
    /// Title.
    pub title: Option<String>,
    /// Detail; the author may also write `details`, as the published schema has it.
    pub detail: Option<String>,
}

/// An error in place, or the name of one.
pub(super) fn read_reference(place: &Place<'_>, reader: &mut Reader) -> Option<ErrorReference> {
    if let Some(name) = place.as_text() {
        reader.reference(Component::Error, place, name);
        return Some(ErrorReference::Named(name.to_owned()));
    }
    read_definition(place, reader).map(ErrorReference::Inline)
}

pub(super) fn read_definition(place: &Place<'_>, reader: &mut Reader) -> Option<ErrorDefinition> {
    let what = "an error";
    let mut fields = Fields::open(place, what, reader)?;
    let type_uri = fields.required("type", reader, read_uri);
    let status = fields
        .required("status", reader, |place, reader| integer(place, reader, 0, i64::from(u16::MAX)))
        .and_then(|status| u16::try_from(status).ok());
    let instance = fields.optional("instance", reader, read_instance);
    let title = fields.optional("title", reader, template);
    let detail = fields.optional("detail", reader, template);
    fields.finish(what, reader);
    Some(ErrorDefinition { type_uri: type_uri?, status: status?, instance, title, detail })
}

/// A JSON pointer or an expression.
fn read_instance(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    let text = template(place, reader)?;
    if is_evaluated(&text) || is_pointer(&text) {
        return Some(text);
    }
    reader.problem(place, format!("`{text}` is not a JSON pointer such as /do/0/fetch"));
    None
}

fn is_pointer(text: &str) -> bool {
    let escapes_are_right = |part: &str| part.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    text.is_empty() || (text.starts_with('/') && escapes_are_right(text))
}

pub(super) fn read_filter(place: &Place<'_>, reader: &mut Reader) -> Option<ErrorFilter> {
    let what = "an error filter";
    let mut fields = Fields::open(place, what, reader)?;
    if place.node.to_value() == Value::Object(serde_json::Map::new()) {
        reader.problem(place, "an error filter needs at least one of type, status, instance, title, detail");
    }
    let filter = ErrorFilter {
        type_uri: fields.optional("type", reader, text),
        status: fields.optional("status", reader, |place, reader| integer(place, reader, i64::MIN, i64::MAX)),
        instance: fields.optional("instance", reader, text),
        title: fields.optional("title", reader, text),
        detail: read_detail(&mut fields, reader),
    };
    fields.finish(what, reader);
    Some(filter)
}

/// `detail`, or `details` as the published schema spells it.
fn read_detail(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<String> {
    let detail = fields.optional("detail", reader, text);
    let details = fields.optional("details", reader, text);
    if fields.has("detail") && fields.has("details") {
        reader.problem(&fields.place, "`detail` and `details` are the same; give one of them");
    }
    detail.or(details)
}
