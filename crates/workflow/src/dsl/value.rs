//! The plain values that the model is made of: texts, numbers, lists and objects, read with the place of every problem.

use serde_json::{Map, Value};

use super::reader::{Form, Place, Reader};
use crate::source::{Content, Member};

/// Whether a text begins and ends as an expression in `${ }` does: the language's own test of what may stand for a value
/// of another form. More expressions may stand within.
pub(crate) fn is_evaluated(text: &str) -> bool {
    let body = text.trim().strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    body.is_some_and(|body| !body.is_empty())
}

/// A string.
pub(crate) fn text(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    match &place.node.content {
        Content::Text(text) => Some(text.clone()),
        Content::Number(_) | Content::Boolean(_) => {
            reader.problem(place, format!("must be a string, not {}; put it in quotes", place.node.kind()));
            None
        }
        _ => {
            reader.problem(place, format!("must be a string, not {}", place.node.kind()));
            None
        }
    }
}

/// A string that may have expressions in it, each in `${ }`.
pub(crate) fn template(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    let text = text(place, reader)?;
    if text.contains("${") {
        reader.note_expression(place, Form::Text, &text);
    }
    Some(text)
}

/// An expression, bare or in `${ }`.
pub(crate) fn expression(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    let text = text(place, reader)?;
    reader.note_expression(place, Form::Expression, &text);
    Some(text)
}

/// A boolean.
pub(crate) fn boolean(place: &Place<'_>, reader: &mut Reader) -> Option<bool> {
    match &place.node.content {
        Content::Boolean(boolean) => Some(*boolean),
        _ => {
            reader.problem(place, format!("must be true or false, not {}", place.node.kind()));
            None
        }
    }
}

/// An integer of a range. A number such as `3.0` counts as one, as in JSON Schema.
pub(crate) fn integer(place: &Place<'_>, reader: &mut Reader, least: i64, most: i64) -> Option<i64> {
    let Content::Number(number) = &place.node.content else {
        reader.problem(place, format!("must be an integer, not {}", place.node.kind()));
        return None;
    };
    let whole = number.as_i64().or_else(|| {
        let float = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9.0e15)?;
        Some(float as i64)
    });
    match whole {
        Some(integer) if (least..=most).contains(&integer) => Some(integer),
        Some(_) => {
            reader.problem(place, format!("must be between {least} and {most}, not {number}"));
            None
        }
        None => {
            reader.problem(place, format!("must be an integer, not {number}"));
            None
        }
    }
}

/// One of a fixed set of words.
pub(crate) fn word<T: Copy>(place: &Place<'_>, reader: &mut Reader, words: &[(&'static str, T)]) -> Option<T> {
    let text = text(place, reader)?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Some(*value);
    }
    let listed = words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
    let hint = match reader.suggestion(&text, words.iter().map(|(word, _)| *word)) {
        Some(close) => format!("did you mean `{close}`?"),
        None => format!("it must be one of {listed}"),
    };
    reader.problem(place, format!("`{text}` is not known here; {hint}"));
    None
}

/// Anything. Expressions in `${ }` anywhere in it are noted.
pub(crate) fn any(place: &Place<'_>, reader: &mut Reader) -> Option<Value> {
    note_expressions_within(place, reader);
    Some(place.node.to_value())
}

fn note_expressions_within(place: &Place<'_>, reader: &mut Reader) {
    if let Some(text) = place.as_text().filter(|text| text.contains("${")) {
        reader.note_expression(place, Form::Text, text);
    }
    for item in place.items().unwrap_or_default() {
        note_expressions_within(&item, reader);
    }
    for (_, value) in place.members().unwrap_or_default() {
        note_expressions_within(&value, reader);
    }
}

/// Anything, taken as it stands: data, not to be evaluated.
pub(crate) fn literal(place: &Place<'_>, _reader: &mut Reader) -> Option<Value> {
    Some(place.node.to_value())
}

/// An object of anything. Expressions in it are noted.
pub(crate) fn object(place: &Place<'_>, reader: &mut Reader) -> Option<Map<String, Value>> {
    match any(place, reader)? {
        Value::Object(map) => Some(map),
        _ => {
            reader.problem(place, format!("must be an object, not {}", place.node.kind()));
            None
        }
    }
}

/// An object of anything, taken as it stands.
pub(crate) fn literal_object(place: &Place<'_>, reader: &mut Reader) -> Option<Map<String, Value>> {
    match place.node.to_value() {
        Value::Object(map) => Some(map),
        _ => {
            reader.problem(place, format!("must be an object, not {}", place.node.kind()));
            None
        }
    }
}

/// An array, each element read by `read`.
pub(crate) fn list<'a, T>(
    place: &Place<'a>,
    reader: &mut Reader,
    mut read: impl FnMut(&Place<'a>, &mut Reader) -> Option<T>,
) -> Option<Vec<T>> {
    let Some(items) = place.items() else {
        reader.problem(place, format!("must be an array, not {}", place.node.kind()));
        return None;
    };
    let found: Vec<Option<T>> = items.iter().map(|item| read(item, reader)).collect();
    found.into_iter().collect()
}

/// An array of strings, each a literal or an expression.
pub(crate) fn templates(place: &Place<'_>, reader: &mut Reader) -> Option<Vec<String>> {
    list(place, reader, template)
}

/// An object, each value read by `read`, in the author's order.
pub(crate) fn entries<'a, T>(
    place: &Place<'a>,
    reader: &mut Reader,
    mut read: impl FnMut(&Place<'a>, &mut Reader) -> Option<T>,
) -> Option<Vec<(String, T)>> {
    let Some(members) = place.members() else {
        reader.problem(place, format!("must be an object, not {}", place.node.kind()));
        return None;
    };
    let found: Vec<Option<(String, T)>> =
        members.iter().map(|(member, value)| Some((member.key.clone(), read(value, reader)?))).collect();
    found.into_iter().collect()
}

/// An object with exactly one member, as in the items of task lists: its key and value.
pub(crate) fn single<'a>(place: &Place<'a>, what: &str, reader: &mut Reader) -> Option<(&'a Member, Place<'a>)> {
    let Some(mut members) = place.members() else {
        reader.problem(place, format!("{what} must be an object with one key, its name; it is {}", place.node.kind()));
        return None;
    };
    if members.len() == 1 {
        return members.pop();
    }
    let names = members.iter().map(|(member, _)| format!("`{}`", member.key)).collect::<Vec<_>>().join(", ");
    let message = if members.is_empty() {
        format!("{what} must have one key, its name; it has none")
    } else {
        format!("{what} must have one key, its name; it has {}: {names}", members.len())
    };
    reader.problem(place, message);
    None
}
