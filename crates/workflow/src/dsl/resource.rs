//! Endpoints, external resources and data schemas.

use serde_json::Value;

use super::authentication::{AuthenticationReference, read_reference};
use super::fields::Fields;
use super::reader::{Form, Place, Reader};
use super::value::{is_evaluated, literal, text};
use crate::expr::uri::UriTemplate;
use crate::source::Content;

/// Where something is.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// A URI template, or an expression in `${ }`.
    pub uri: String,
    /// How to authenticate there.
    pub authentication: Option<AuthenticationReference>,
}

/// A file somewhere else.
#[derive(Clone, Debug, PartialEq)]
pub struct ExternalResource {
    /// Its name.
    pub name: Option<String>,
    /// Where it is.
    pub endpoint: Endpoint,
}

/// A schema of data.
#[derive(Clone, Debug, PartialEq)]
pub struct SchemaDefinition {
    /// Its format, such as `json` or `json:2020-12`.
    pub format: Option<String>,
    /// Where it stands.
    pub content: SchemaContent,
}

/// Where a schema stands.
#[derive(Clone, Debug, PartialEq)]
pub enum SchemaContent {
    /// In the workflow.
    Document(Value),
    /// Somewhere else.
    Resource(ExternalResource),
}

pub(super) fn read_endpoint(place: &Place<'_>, reader: &mut Reader) -> Option<Endpoint> {
    if let Content::Text(_) = &place.node.content {
        return Some(Endpoint { uri: read_uri(place, reader)?, authentication: None });
    }
    let what = "an endpoint";
    let mut fields = Fields::open(place, what, reader)?;
    let uri = fields.required("uri", reader, read_uri);
    let authentication = fields.optional("authentication", reader, read_reference);
    fields.finish(what, reader);
    Some(Endpoint { uri: uri?, authentication })
}

/// A URI or URI template with a scheme, or an expression.
pub(super) fn read_uri(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    let text = text(place, reader)?;
    if is_evaluated(&text) {
        reader.note_expression(place, Form::Text, &text);
        return Some(text);
    }
    let checked = if text.contains("${") {
        reader.note_expression(place, Form::Text, &text);
        check_scheme(&text).map(drop)
    } else {
        check_uri_template(&text).and_then(|()| UriTemplate::compile(&text, &[]).map(drop))
    };
    match checked {
        Ok(()) => Some(text),
        Err(why) => {
            reader.problem(place, format!("`{text}` is not a URI: {why}"));
            None
        }
    }
}

/// A URI or URI template, no expression.
pub(super) fn read_literal_uri(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    let text = text(place, reader)?;
    match check_uri_template(&text) {
        Ok(()) => Some(text),
        Err(why) => {
            reader.problem(place, format!("`{text}` is not a URI: {why}"));
            None
        }
    }
}

/// Whether a text is an absolute URI or a template of one: a scheme, `://`, no white space, and braces only around names.
fn check_uri_template(text: &str) -> Result<(), String> {
    check_template(check_scheme(text)?)
}

/// What follows the scheme and its `://`.
fn check_scheme(text: &str) -> Result<&str, String> {
    let (scheme, rest) = text.split_once("://").ok_or_else(|| {
        let hint = "a text with `${ }` needs it too, or write it all as one expression: ${ .base + \"/path\" }";
        let hint = if text.contains("${") { format!("; {hint}") } else { String::new() };
        format!("it needs a scheme, such as https://{hint}")
    })?;
    let scheme_bytes = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(scheme_bytes) {
        return Err(format!("`{scheme}` is not a scheme"));
    }
    Ok(rest)
}

/// Whether braces are balanced around names and no character is one a URI template cannot have.
pub(super) fn check_template(text: &str) -> Result<(), String> {
    let mut open = false;
    for character in text.chars() {
        match character {
            '{' if open => return Err("a `{` inside a `{`".to_owned()),
            '{' => open = true,
            '}' if !open => return Err("a `}` without `{`".to_owned()),
            '}' => open = false,
            ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '|' | '\u{0}'..='\u{1f}' | '\u{7f}' => {
                return Err(format!("the character {character:?} is not allowed"));
            }
            _ => {}
        }
    }
    if open || text.contains("{}") {
        return Err("a `{` without a name and `}`".to_owned());
    }
    Ok(())
}

pub(super) fn read_resource(place: &Place<'_>, reader: &mut Reader) -> Option<ExternalResource> {
    let what = "an external resource";
    let mut fields = Fields::open(place, what, reader)?;
    let name = fields.optional("name", reader, text);
    let endpoint = fields.required("endpoint", reader, read_endpoint);
    fields.finish(what, reader);
    Some(ExternalResource { name, endpoint: endpoint? })
}

/// Whether a schema format is JSON Schema, of whatever version.
fn is_json(format: &str) -> bool {
    format.split(':').next() == Some("json")
}

pub(super) fn read_schema(place: &Place<'_>, reader: &mut Reader) -> Option<SchemaDefinition> {
    let what = "a schema";
    let mut fields = Fields::open(place, what, reader)?;
    let format = fields.optional("format", reader, |place, reader| {
        let format = text(place, reader)?;
        if !is_json(&format) {
            reader.cannot_run(place, format!("the schema format `{format}`"));
        }
        Some(format)
    });
    let content = fields.exactly_one(&["document", "resource"], what, reader);
    let content = content.and_then(|(key, place)| {
        if key == "document" {
            let document = literal(&place, reader)?;
            if format.as_deref().is_none_or(is_json) {
                reader.note_schema(&place, &document);
            }
            return Some(SchemaContent::Document(document));
        }
        reader.cannot_run(&place, "a schema outside the workflow");
        read_resource(&place, reader).map(SchemaContent::Resource)
    });
    fields.finish(what, reader);
    Some(SchemaDefinition { format, content: content? })
}

#[cfg(test)]
mod tests {
    use super::check_uri_template;

    #[test]
    fn uri_templates() {
        for text in ["https://a.example/pets/{petId}?x={y}", "file:///a", "http://localhost:8080", "grpc+tls://h"] {
            assert_eq!(check_uri_template(text), Ok(()), "{text}");
        }
        for text in ["a.example", "/pets", "1http://a", "http://a/{", "http://a/}", "http://a/{}", "http://a b", "://a"]
        {
            assert!(check_uri_template(text).is_err(), "{text}");
        }
    }
}
