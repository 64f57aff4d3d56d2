//! JSON to a tree. What is JSON is decided by the strict reader; positions come from the lenient one that keeps them.

use jsonc_parser::ast;
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions, parse_to_ast};
use serde::de::IgnoredAny;
use serde_json::Number;

use super::builder::Builder;
use super::{Content, Lines, MAX_DEPTH, SyntaxError, Tree};

pub(super) fn parse(text: &str) -> Result<Tree, SyntaxError> {
    let lines = Lines::new(text);
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| refused(text, &error, &lines))?;
    if let Some(offset) = too_deep(text) {
        let message = format!("nested deeper than {MAX_DEPTH} levels");
        return Err(SyntaxError { position: lines.position(offset), pointer: String::new(), message });
    }
    let collect = CollectOptions { comments: CommentCollectionStrategy::Off, tokens: false };
    let parsed = parse_to_ast(text, &collect, &strict()).map_err(|error| SyntaxError {
        position: lines.position(error.range().start),
        pointer: String::new(),
        message: format!("not valid JSON: {}", error.kind().to_string().to_lowercase()),
    })?;
    let mut builder = Builder::new();
    if let Some(value) = &parsed.value {
        walk(value, &lines, &mut builder)?;
    }
    builder.finish().ok_or_else(|| SyntaxError::at_start("the file is empty".to_owned()))
}

/// What the strict reader says, at its place.
fn refused(text: &str, error: &serde_json::Error, lines: &Lines<'_>) -> SyntaxError {
    let offset = lines.offset(error.line(), error.column());
    let message = error.to_string();
    let plain = message.split(" at line ").next().unwrap_or_default();
    let before = text.get(..offset).unwrap_or_default().trim_end();
    let closes = text.get(offset..).is_some_and(|rest| rest.starts_with([']', '}']));
    let plain = if closes && before.ends_with(',') { "trailing comma" } else { plain };
    SyntaxError {
        position: lines.position(offset),
        pointer: String::new(),
        message: format!("not valid JSON: {plain}"),
    }
}

/// Where valid JSON opens one level too many. The lenient reader recurses, so this comes before it.
fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut in_text = false;
    let mut escaped = false;
    for (offset, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Some(offset);
        }
    }
    None
}

fn strict() -> ParseOptions {
    ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    }
}

/// Recursion is bounded: the builder refuses to open more levels than the limit.
fn walk(value: &ast::Value<'_>, lines: &Lines<'_>, builder: &mut Builder) -> Result<(), SyntaxError> {
    let position = lines.position(value.range().start);
    match value {
        ast::Value::NullKeyword(_) => builder.scalar(Content::Null, position),
        ast::Value::BooleanLit(literal) => builder.scalar(Content::Boolean(literal.value), position),
        ast::Value::StringLit(literal) => builder.scalar(Content::Text(literal.value.to_string()), position),
        ast::Value::NumberLit(literal) => match literal.value.parse::<Number>() {
            Ok(number) => builder.scalar(Content::Number(number), position),
            Err(_) => Err(builder.error(position, format!("the number {} is out of range", literal.value))),
        },
        ast::Value::Array(array) => {
            builder.begin_array(position)?;
            for item in &array.elements {
                walk(item, lines, builder)?;
            }
            close(builder);
            Ok(())
        }
        ast::Value::Object(object) => {
            builder.begin_object(position)?;
            for property in &object.properties {
                let key_position = lines.position(property.name.range().start);
                builder.key(property.name.as_str().to_owned(), key_position)?;
                walk(&property.value, lines, builder)?;
            }
            close(builder);
            Ok(())
        }
    }
}

fn close(builder: &mut Builder) {
    if let Some(node) = builder.end() {
        builder.add(node);
    }
}
