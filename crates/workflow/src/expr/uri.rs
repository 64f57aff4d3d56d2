//! URI templates: RFC 6570, simple expansion only. `{petId}` is the property `petId` of the task's input, as it is
//! named, dots included; one that is missing or `null` is empty; one that is an array or object is an error.

use super::template::Template;
use super::val::Val;
use super::{Scope, expression_body};

/// A compiled endpoint.
#[derive(Debug)]
pub enum UriTemplate {
    /// Literals and variables.
    Parts(Vec<UriPart>),
    /// An expression, or text with `${ }` in it.
    Evaluated(Template),
}

/// A part of a URI template.
#[derive(Debug, PartialEq, Eq)]
pub enum UriPart {
    /// As it is.
    Literal(String),
    /// A property of the input.
    Variable(String),
}

impl UriTemplate {
    /// Compiles a template, or text with `${ }`.
    pub fn compile(text: &str, variables: &[&str]) -> Result<Self, String> {
        if expression_body(text).is_some() || text.contains("${") {
            return Template::compile_text(text, variables).map(Self::Evaluated);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find(['{', '}']) {
            let (literal, tail) = rest.split_at(start);
            let end = tail.find('}').filter(|_| tail.starts_with('{'));
            let end = end.ok_or_else(|| format!("`{text}` has a brace without its other one"))?;
            let name = &tail[1..end];
            if !is_variable(name) {
                return Err(format!("`{{{name}}}` is not simple expansion: a name of letters, digits, _ and ."));
            }
            if !literal.is_empty() {
                parts.push(UriPart::Literal(literal.to_owned()));
            }
            parts.push(UriPart::Variable(name.to_owned()));
            rest = &tail[end + 1..];
        }
        if !rest.is_empty() {
            parts.push(UriPart::Literal(rest.to_owned()));
        }
        Ok(Self::Parts(parts))
    }

    /// The URI for this input.
    pub fn expand(&self, input: &Val, scope: &Scope<'_>) -> Result<String, String> {
        match self {
            Self::Evaluated(template) => match template.evaluate(input, scope)? {
                Val::Str(uri) => Ok(uri.to_string()),
                other => Err(format!("an endpoint must be text, not {}", other.kind())),
            },
            Self::Parts(parts) => {
                let mut uri = String::new();
                for part in parts {
                    match part {
                        UriPart::Literal(literal) => uri.push_str(literal),
                        UriPart::Variable(name) => encode(&scalar(name, input)?, &mut uri),
                    }
                }
                Ok(uri)
            }
        }
    }
}

fn is_variable(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'%');
    !name.is_empty() && name.bytes().all(plain)
}

fn scalar(name: &str, input: &Val) -> Result<String, String> {
    match input.get(name) {
        None | Some(Val::Null) => Ok(String::new()),
        Some(Val::Str(text)) => Ok(text.to_string()),
        Some(value @ (Val::Arr(_) | Val::Obj(_))) => {
            Err(format!("`{{{name}}}` of the endpoint must be text, a number or a boolean, not {}", value.kind()))
        }
        Some(value) => Ok(value.to_json().to_string()),
    }
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
pub(crate) fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            into.push(char::from(byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}
