//! Values of a definition with `${ }` in them.
//!
//! A string that is one `${ … }` as a whole gives the value of the expression. One with `${ … }` among other text gives
//! text: each is replaced by its output, strings as they are and anything else as JSON. What evaluates from data is
//! never evaluated again.

use serde_json::Value;

use super::program::Program;
use super::val::Val;
use super::{RESULT_BYTES_MAX, Scope, VALUE_DEPTH_MAX, expression_body};

/// A compiled value.
#[derive(Debug)]
pub enum Template {
    /// Nothing to evaluate.
    Literal(Val),
    /// One expression.
    Expression(Program),
    /// Text with expressions in it.
    Text(Vec<Piece>),
    /// An array of which something is to be evaluated.
    Array(Vec<Template>),
    /// An object of which something is to be evaluated.
    Object(Vec<(String, Template)>),
}

/// A piece of text.
#[derive(Debug)]
pub enum Piece {
    /// As it is.
    Literal(String),
    /// The output of an expression.
    Expression(Program),
}

impl Template {
    /// Compiles a value. `variables` are those that its expressions may read, without `$`.
    pub fn compile(value: &Value, variables: &[&str]) -> Result<Self, String> {
        match value {
            Value::String(text) => Self::compile_text(text, variables),
            Value::Array(items) => {
                let items = items.iter().map(|item| Self::compile(item, variables)).collect::<Result<Vec<_>, _>>()?;
                Ok(match literals(items.iter()) {
                    Some(values) => Self::Literal(Val::from_items(values)),
                    None => Self::Array(items),
                })
            }
            Value::Object(members) => {
                let members = members
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), Self::compile(value, variables)?)))
                    .collect::<Result<Vec<_>, String>>()?;
                Ok(match literals(members.iter().map(|(_, value)| value)) {
                    Some(values) => {
                        let keys = members.into_iter().map(|(key, _)| key);
                        Self::Literal(Val::from_members(keys.zip(values)))
                    }
                    None => Self::Object(members),
                })
            }
            scalar => Ok(Self::Literal(Val::from(scalar))),
        }
    }

    /// Compiles a string with `${ }` in it.
    pub fn compile_text(text: &str, variables: &[&str]) -> Result<Self, String> {
        if let Some(body) = expression_body(text) {
            return Program::compile(body, variables).map(Self::Expression);
        }
        Self::of_parts(text, split(text, &|_| true)?, variables)
    }

    /// Compiles code of another language, in which `${` may mean something else: `${ }` is an expression only if it
    /// begins with `.` or with one of the variables. `${HOME}` of a shell and `${name}` of a script stay as they are.
    pub fn compile_code(text: &str, variables: &[&str]) -> Result<Self, String> {
        let is_ours = |body: &str| {
            let name =
                |body: &str| body.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().map(str::to_owned);
            let variable = body.strip_prefix('$').and_then(name);
            body.starts_with('.') || variable.is_some_and(|name| variables.contains(&name.as_str()))
        };
        let parts = split(text, &is_ours)?;
        match parts.as_slice() {
            [Part::Expression(body)] => Program::compile(body, variables).map(Self::Expression),
            _ => Self::of_parts(text, parts, variables),
        }
    }

    fn of_parts(text: &str, parts: Vec<Part<'_>>, variables: &[&str]) -> Result<Self, String> {
        if parts.iter().all(|part| matches!(part, Part::Literal(_))) {
            return Ok(Self::Literal(Val::text(text)));
        }
        let pieces = parts.into_iter().map(|part| match part {
            Part::Literal(text) => Ok(Piece::Literal(text.to_owned())),
            Part::Expression(body) => Program::compile(body, variables).map(Piece::Expression),
        });
        Ok(Self::Text(pieces.collect::<Result<_, _>>()?))
    }

    /// Compiles a field that is an expression by definition: bare, or in `${ }`.
    pub fn compile_expression(text: &str, variables: &[&str]) -> Result<Self, String> {
        Program::compile(expression_body(text).unwrap_or(text), variables).map(Self::Expression)
    }

    /// Evaluates on `input`.
    pub fn evaluate(&self, input: &Val, scope: &Scope<'_>) -> Result<Val, String> {
        let value = self.fill_in(input, scope)?;
        if value.depth() > VALUE_DEPTH_MAX || value.bytes() > RESULT_BYTES_MAX {
            return Err(format!("the result is larger than {RESULT_BYTES_MAX} bytes or {VALUE_DEPTH_MAX} levels"));
        }
        Ok(value)
    }

    fn fill_in(&self, input: &Val, scope: &Scope<'_>) -> Result<Val, String> {
        match self {
            Self::Literal(value) => Ok(value.clone()),
            Self::Expression(program) => program.evaluate(input, scope.variable, scope.now_ms),
            Self::Text(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Literal(literal) => text.push_str(literal),
                        Piece::Expression(program) => {
                            text.push_str(&to_text(&program.evaluate(input, scope.variable, scope.now_ms)?));
                        }
                    }
                }
                Ok(Val::text(text))
            }
            Self::Array(items) => {
                let items = items.iter().map(|item| item.fill_in(input, scope)).collect::<Result<Vec<_>, _>>()?;
                Ok(Val::from_items(items))
            }
            Self::Object(members) => {
                let members = members
                    .iter()
                    .map(|(key, value)| Ok((key.as_str(), value.fill_in(input, scope)?)))
                    .collect::<Result<Vec<_>, String>>()?;
                Ok(Val::from_members(members))
            }
        }
    }
}

/// A value inside text: strings as they are, anything else as JSON.
pub fn to_text(value: &Val) -> String {
    match value {
        Val::Str(text) => text.to_string(),
        value => value.to_json().to_string(),
    }
}

fn literals<'a>(templates: impl Iterator<Item = &'a Template>) -> Option<Vec<Val>> {
    templates
        .map(|template| match template {
            Template::Literal(value) => Some(value.clone()),
            _ => None,
        })
        .collect()
}

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    Literal(&'a str),
    Expression(&'a str),
}

/// Splits a text at those of its `${ … }` whose body is accepted. Braces count, those in jq strings and comments do not.
pub(crate) fn split<'a>(text: &'a str, accept: &dyn Fn(&str) -> bool) -> Result<Vec<Part<'a>>, String> {
    let mut parts = Vec::new();
    let (mut done, mut from) = (0, 0);
    while let Some(start) = text[from..].find("${").map(|start| from + start) {
        let body = &text[start + 2..];
        if !accept(body.trim_start()) {
            from = start + 2;
            continue;
        }
        let end = closing(body).ok_or_else(|| format!("`${{` without `}}` in `{}`", super::val::cut(text, 80)))?;
        if start > done {
            parts.push(Part::Literal(&text[done..start]));
        }
        parts.push(Part::Expression(body[..end].trim()));
        done = start + 2 + end + 1;
        from = done;
    }
    if done < text.len() {
        parts.push(Part::Literal(&text[done..]));
    }
    Ok(parts)
}

/// What surrounds a place in an expression.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Brace,
    Text,
    Interpolation,
}

/// The index of the brace that closes an expression.
fn closing(body: &str) -> Option<usize> {
    let mut around = vec![Inside::Brace];
    let mut characters = body.char_indices().peekable();
    while let Some((index, character)) = characters.next() {
        let inside = *around.last()?;
        match (inside, character) {
            (Inside::Text, '\\') => {
                if let Some((_, '(')) = characters.next() {
                    around.push(Inside::Interpolation);
                }
            }
            (Inside::Text, '"') => drop(around.pop()),
            (Inside::Text, _) => {}
            (_, '"') => around.push(Inside::Text),
            (_, '#') => while characters.next_if(|(_, character)| *character != '\n').is_some() {},
            (_, '{') => around.push(Inside::Brace),
            (_, '(') => around.push(Inside::Interpolation),
            (Inside::Brace, '}') | (Inside::Interpolation, ')') => {
                around.pop();
                if around.is_empty() {
                    return Some(index);
                }
            }
            _ => {}
        }
    }
    None
}
