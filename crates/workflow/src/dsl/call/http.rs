//! `call: http`.

use serde_json::Value;

use crate::dsl::fields::Fields;
use crate::dsl::reader::{Form, Place, Reader};
use crate::dsl::resource::{Endpoint, read_endpoint};
use crate::dsl::value::{any, boolean, entries, is_evaluated, template, word};
use crate::machine::effect::HttpOutput;
use crate::source::Content;

/// An HTTP call. Strings may be expressions in `${ }`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpCall {
    /// Method, as written.
    pub method: String,
    /// Where to.
    pub endpoint: Endpoint,
    /// Headers.
    pub headers: Option<TextMap>,
    /// Body.
    pub body: Option<Value>,
    /// Query parameters.
    pub query: Option<TextMap>,
    /// Shape of the result.
    pub output: HttpOutput,
    /// Whether redirects are followed.
    pub redirect: bool,
}

/// Names and texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextMap {
    /// In the author's order; values are literals or expressions in `${ }`.
    Entries(Vec<(String, String)>),
    /// An expression in `${ }` that gives an object.
    Expression(String),
}

pub(super) fn read(place: &Place<'_>, reader: &mut Reader) -> Option<HttpCall> {
    let what = "`with` of `call: http`";
    let mut fields = Fields::open(place, what, reader)?;
    let method = fields.required("method", reader, template);
    let endpoint = fields.required("endpoint", reader, read_endpoint);
    let headers = fields.optional("headers", reader, read_text_map);
    let body = fields.optional("body", reader, any);
    let query = fields.optional("query", reader, read_text_map);
    let output = fields.optional("output", reader, read_output).unwrap_or_default();
    let redirect = fields.optional("redirect", reader, boolean).unwrap_or(false);
    fields.finish(what, reader);
    Some(HttpCall { method: method?, endpoint: endpoint?, headers, body, query, output, redirect })
}

/// Shape of the result of a call over HTTP.
pub(super) fn read_output(place: &Place<'_>, reader: &mut Reader) -> Option<HttpOutput> {
    let words = [("raw", HttpOutput::Raw), ("content", HttpOutput::Content), ("response", HttpOutput::Response)];
    word(place, reader, &words)
}

fn read_text_map(place: &Place<'_>, reader: &mut Reader) -> Option<TextMap> {
    match &place.node.content {
        Content::Text(text) if is_evaluated(text) => {
            reader.note_expression(place, Form::Text, text);
            Some(TextMap::Expression(text.clone()))
        }
        Content::Text(text) => {
            reader.problem(place, format!("must be an object or an expression in ${{ }}, not the text `{text}`"));
            None
        }
        _ => entries(place, reader, template).map(TextMap::Entries),
    }
}
