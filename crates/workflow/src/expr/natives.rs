//! The named functions that are ours: those that count, those that jaq leaves to the value type, and replacements for
//! functions of jaq that read the clock or could run away.

use std::sync::Arc;

use jaq_core::box_iter::box_once;
use jaq_core::native::{Fun, bome, run, unary, v};
use jaq_core::{Cv, DataT, Exn, Lut, Native, ValX};

use super::arithmetic::{Error, ValR};
use super::meter::{self, Limit};
use super::pattern;
use super::val::Val;

/// The function that counts a step; [`super::instrument`] puts calls of it into every expression.
pub(super) const TICK: &str = "count_step";

/// What jaq's functions work on: our values, and no data beside the program.
pub(super) struct Kind;

impl DataT for Kind {
    type V<'a> = Val;
    type Data<'a> = &'a Lut<Self>;
}

/// Ends the evaluation with an exception that no `try` of the author can catch.
fn halted<'a>(limit: Limit) -> Exn<'a, Val> {
    let _ = meter::stop(limit);
    Exn::halt(1)
}

/// Counts the levels of a recursive update for as long as it runs, whenever its outputs are asked for.
struct CountedUpdate<I>(I);

impl<'a, I: Iterator<Item = ValX<'a, Val>>> Iterator for CountedUpdate<I> {
    type Item = ValX<'a, Val>;

    fn next(&mut self) -> Option<Self::Item> {
        let entered = meter::enter_update();
        let output = match entered {
            Ok(()) => self.0.next(),
            Err(limit) => Some(Err(halted(limit))),
        };
        meter::leave_update();
        output
    }
}

fn tick() -> Native<Kind> {
    Native::<Kind>::new(|cv| box_once(meter::step(1).map_err(halted).map(|()| cv.1)))
        .with_paths(|cv| {
            // A path is a linked list that is freed by recursion: a long one would end the process.
            let too_long = cv.1.1.iter().nth(meter::VALUE_DEPTH_MAX as usize).is_some();
            let counted = meter::step(1).and(if too_long { Err(Limit::PathLength) } else { Ok(()) });
            box_once(counted.map_err(halted).map(|()| cv.1))
        })
        .with_update(|cv, update| {
            let counted = meter::step(1).and_then(|()| meter::enter_update());
            let outputs = match counted {
                Ok(()) => update(cv.1),
                Err(limit) => box_once(Err(halted(limit))),
            };
            meter::leave_update();
            Box::new(CountedUpdate(outputs))
        })
}

/// All of ours.
pub(super) fn functions() -> Vec<Fun<Kind>> {
    let plain: [Fun<Kind>; 16] = [
        run(("length", v(0), |cv| bome(length(&cv.1)))),
        run(("contains", v(1), |cv| unary(cv, |value, part| Ok(Val::Bool(contains(&value, &part)))))),
        run(("has", v(1), |cv| unary(cv, |value, key| has(&value, &key)))),
        run(("indices", v(1), |cv| unary(cv, |value, part| indices(&value, &part)))),
        run(("bsearch", v(1), |cv| unary(cv, |value, wanted| search(&value, &wanted)))),
        run(("tojson", v(0), |cv| bome(cv.1.to_json_text().map_err(Error::from)))),
        run(("fromjson", v(0), |cv| bome(parse_json(&cv.1)))),
        run(("now", v(0), |_| bome(Ok(Val::number(meter::now_ms() as f64 / 1000.0))))),
        run(("isnan", v(0), |cv| bome(is_nan(&cv.1)))),
        run(("type", v(0), |cv| bome(Ok(Val::text(type_name(&cv.1)))))),
        run(("add", v(0), |cv| bome(sum(cv.1)))),
        run(("join", v(1), |cv| unary(cv, |value, separator| join(&value, &separator)))),
        run(("matches", v(2), |cv| bome(matched(cv, pattern::Parts::Matches)))),
        run(("split_matches", v(2), |cv| bome(matched(cv, pattern::Parts::Both)))),
        run(("split_", v(2), |cv| bome(matched(cv, pattern::Parts::Between)))),
        run(("toarray", v(0), |cv| bome(to_array(cv.1)))),
    ];
    let mut functions = Vec::from(plain);
    functions.push((TICK, v(0), tick()));
    functions
}

fn length(value: &Val) -> ValR {
    Ok(match value {
        Val::Null => Val::Int(0),
        Val::Str(text) => {
            meter::step(text.len() as u64 / 64)?;
            Val::from(text.chars().count())
        }
        Val::Arr(array) => Val::from(array.items().len()),
        Val::Obj(object) => Val::from(object.members().len()),
        Val::Int(number) => number.checked_abs().map_or(Val::Float((*number as f64).abs()), Val::Int),
        Val::Unsigned(_) => value.clone(),
        Val::Float(number) => Val::Float(number.abs()),
        Val::Bool(_) => return Err(Error::str(format_args!("{value} has no length"))),
    })
}

fn contains(value: &Val, part: &Val) -> bool {
    if meter::step(1).is_err() {
        return false;
    }
    match (value, part) {
        (Val::Str(text), Val::Str(part)) => {
            let _ = meter::step(text.len() as u64 / 64);
            text.contains(&**part)
        }
        (Val::Arr(items), Val::Arr(parts)) => {
            parts.items().iter().all(|part| items.items().iter().any(|item| contains(item, part)))
        }
        (Val::Obj(members), Val::Obj(parts)) => {
            let found = |key: &Arc<str>, part| members.members().get(key).is_some_and(|value| contains(value, part));
            parts.members().iter().all(|(key, part)| found(key, part))
        }
        _ => value == part,
    }
}

fn has(value: &Val, key: &Val) -> ValR {
    match (value, key) {
        (Val::Obj(object), Val::Str(key)) => Ok(Val::Bool(object.members().contains_key(key))),
        (Val::Arr(array), Val::Int(index)) => {
            Ok(Val::Bool(usize::try_from(*index).is_ok_and(|index| index < array.items().len())))
        }
        _ => Err(Error::str(format_args!("cannot check whether {value} has the key {key}"))),
    }
}

fn indices(value: &Val, part: &Val) -> ValR {
    match (value, part) {
        (Val::Null, _) => Ok(Val::Null),
        (Val::Str(text), Val::Str(part)) => {
            meter::step(text.len() as u64 / 16)?;
            if part.is_empty() {
                return Ok(Val::from_items([]));
            }
            let starts = text.char_indices().enumerate();
            let found = starts.filter(|(_, (byte, _))| text[*byte..].starts_with(&**part));
            Ok(Val::array(found.map(|(index, _)| Val::from(index)))?)
        }
        (Val::Arr(_), Val::Arr(_)) => value.index_by(part),
        (Val::Arr(array), part) => {
            let found = array.items().iter().enumerate().filter(|(_, item)| *item == part);
            Ok(Val::array(found.map(|(index, _)| Val::from(index)))?)
        }
        _ => Err(Error::index(value.clone(), part.clone())),
    }
}

fn search(value: &Val, wanted: &Val) -> ValR {
    let items = value.as_items().ok_or_else(|| Error::typ(value.clone(), "array"))?;
    Ok(match items.binary_search(wanted) {
        Ok(index) => Val::from(index),
        Err(index) => Val::Int(-1 - i64::try_from(index).unwrap_or(i64::MAX)),
    })
}

fn parse_json(value: &Val) -> ValR {
    let text = value.as_text().ok_or_else(|| Error::typ(value.clone(), "string"))?;
    // A parsed value may take many times the bytes of its text: `[[],[],…`.
    meter::allocate((text.len() as u64).saturating_mul(8))?;
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(parsed) => Ok(Val::from(&parsed)),
        Err(_) if text == "nan" => Ok(Val::Float(f64::NAN)),
        Err(error) => Err(Error::str(format_args!("cannot parse {value} as JSON: {error}"))),
    }
}

fn is_nan(value: &Val) -> ValR {
    let number = value.as_float().ok_or_else(|| Error::typ(value.clone(), "number"))?;
    Ok(Val::Bool(number.is_nan()))
}

fn type_name(value: &Val) -> &'static str {
    match value {
        Val::Null => "null",
        Val::Bool(_) => "boolean",
        Val::Int(_) | Val::Unsigned(_) | Val::Float(_) => "number",
        Val::Str(_) => "string",
        Val::Arr(_) => "array",
        Val::Obj(_) => "object",
    }
}

/// The sum of the items or member values; strings in one go, not one copy for each.
fn sum(value: Val) -> ValR {
    let are_texts = |items: &&[Val]| !items.is_empty() && items.iter().all(|item| item.as_text().is_some());
    if let Some(items) = value.as_items().filter(are_texts) {
        return join_texts(items, "");
    }
    jaq_core::ValT::values(value).try_fold(Val::Null, |sum, item| sum + item?)
}

fn join(value: &Val, separator: &Val) -> ValR {
    let items = value.as_items().ok_or_else(|| Error::typ(value.clone(), "array"))?;
    let separator = separator.as_text().ok_or_else(|| Error::typ(separator.clone(), "string"))?;
    join_texts(items, separator)
}

fn join_texts(items: &[Val], separator: &str) -> ValR {
    let mut joined = String::new();
    for (index, item) in items.iter().enumerate() {
        meter::allocate(separator.len() as u64 + item.bytes())?;
        if index > 0 {
            joined.push_str(separator);
        }
        match item {
            Val::Null => {}
            Val::Str(text) => joined.push_str(text),
            Val::Arr(_) | Val::Obj(_) => return Err(Error::str(format_args!("cannot join {item}"))),
            scalar => joined.push_str(&scalar.to_json().to_string()),
        }
    }
    Ok(Val::new_text(joined)?)
}

fn matched(mut cv: Cv<'_, Kind>, parts: pattern::Parts) -> ValR {
    let flags = cv.0.pop_var();
    let pattern = cv.0.pop_var();
    pattern::apply(&cv.1, &pattern, &flags, parts)
}

fn to_array(value: Val) -> ValR {
    if value.as_items().is_some() { Ok(value) } else { Ok(Val::array([value])?) }
}
