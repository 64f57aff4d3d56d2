//! What builds the model from a positioned tree: places, the fields of an object, and the facts found on the way.
//!
//! A reading function takes a [`Place`] and the [`Reader`], returns the value or `None`, and in that case has reported at
//! least one problem. Nothing stops at the first problem. References, expressions and tasks that cannot run are only
//! collected here; `validate` judges them once the whole file was read.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::suggest::suggestion;
use crate::problem::{Problem, Severity};
use crate::source::{Content, Member, Node, Position, pointer_join};

/// More problems than this are counted, not listed.
const MAX_PROBLEMS: usize = 1000;
/// Most expressions of a file: each costs time to compile.
const MAX_EXPRESSIONS: usize = 5000;

/// A node of the tree and its JSON pointer.
#[derive(Clone)]
pub(crate) struct Place<'a> {
    pub(crate) node: &'a Node,
    pub(crate) pointer: String,
}

impl<'a> Place<'a> {
    pub(crate) fn root(node: &'a Node) -> Self {
        Self { node, pointer: String::new() }
    }

    fn child(&self, segment: &str, node: &'a Node) -> Self {
        Self { node, pointer: pointer_join(&self.pointer, segment) }
    }

    /// The elements, if it is an array.
    pub(crate) fn items(&self) -> Option<Vec<Place<'a>>> {
        match &self.node.content {
            Content::Array(items) => {
                Some(items.iter().enumerate().map(|(index, item)| self.child(&index.to_string(), item)).collect())
            }
            _ => None,
        }
    }

    /// The members, if it is an object.
    pub(crate) fn members(&self) -> Option<Vec<(&'a Member, Place<'a>)>> {
        match &self.node.content {
            Content::Object(members) => {
                Some(members.iter().map(|member| (member, self.child(&member.key, &member.value))).collect())
            }
            _ => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&'a str> {
        match &self.node.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Which named component of `use` a reference wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Component {
    Authentication,
    Error,
    Function,
    Retry,
    Secret,
    Timeout,
    Catalog,
}

impl Component {
    /// The key under `use`.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Authentication => "authentications",
            Self::Error => "errors",
            Self::Function => "functions",
            Self::Retry => "retries",
            Self::Secret => "secrets",
            Self::Timeout => "timeouts",
            Self::Catalog => "catalogs",
        }
    }
}

/// A name that must exist under `use`.
pub(crate) struct Reference {
    pub(crate) component: Component,
    pub(crate) name: String,
    pub(crate) pointer: String,
    pub(crate) position: Position,
}

/// When an expression is evaluated: decides which variables it may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// `input.from` of the workflow.
    WorkflowInput,
    /// `output.as` of the workflow.
    WorkflowOutput,
    /// `if` and `input.from` of a task.
    TaskInput,
    /// The task itself.
    TaskBody,
    /// `output.as` of a task.
    TaskOutput,
    /// `export.as` of a task.
    TaskExport,
    /// A retry policy in `use`, in whatever `catch` names it.
    NamedRetry,
}

/// How an expression stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// In a field that is an expression by definition: bare, or in `${ }`.
    Expression,
    /// In a text, as one or more `${ }`.
    Text,
}

/// An expression found in the file.
pub(crate) struct FoundExpression {
    pub(crate) form: Form,
    pub(crate) text: String,
    pub(crate) pointer: String,
    pub(crate) position: Position,
    pub(crate) stage: Stage,
    pub(crate) locals: Vec<String>,
}

/// Collects everything found while the model is built.
pub(crate) struct Reader {
    problems: Vec<Problem>,
    problems_not_listed: usize,
    /// Tasks and features this version cannot run.
    pub(crate) unsupported: Vec<Problem>,
    pub(crate) references: Vec<Reference>,
    pub(crate) expressions: Vec<FoundExpression>,
    /// Variables that enclosing tasks add: `$item`, `$index`, `$error`.
    pub(crate) locals: Vec<String>,
    /// The variables of all `catch`, for the retry policies that they name.
    pub(crate) catch_variables: BTreeSet<String>,
    /// Stage of the part being read.
    pub(crate) stage: Stage,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self {
            problems: Vec::new(),
            problems_not_listed: 0,
            unsupported: Vec::new(),
            references: Vec::new(),
            expressions: Vec::new(),
            locals: Vec::new(),
            catch_variables: BTreeSet::new(),
            stage: Stage::TaskBody,
        }
    }

    /// Reports a problem of the value at `place`.
    pub(crate) fn problem(&mut self, place: &Place<'_>, message: impl Into<String>) {
        self.problem_at(place.pointer.clone(), place.node.position, message);
    }

    /// Reports a problem somewhere else than at a value, such as at a key.
    pub(crate) fn problem_at(&mut self, pointer: String, position: Position, message: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem::new(pointer, position, Severity::Error, message.into()));
        } else {
            self.problems_not_listed += 1;
        }
    }

    /// The known word closest to `word`, as long as another problem will be listed at all.
    pub(crate) fn suggestion<'k>(&self, word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
        if self.problems.len() < MAX_PROBLEMS { suggestion(word, known) } else { None }
    }

    /// Notes something valid that this version cannot run.
    pub(crate) fn cannot_run(&mut self, place: &Place<'_>, what: impl Into<String>) {
        self.cannot_run_at(place.pointer.clone(), place.node.position, what);
    }

    /// Notes something valid that this version cannot run, by its place.
    pub(crate) fn cannot_run_at(&mut self, pointer: String, position: Position, what: impl Into<String>) {
        if self.unsupported.len() < MAX_PROBLEMS {
            let message = format!("{} cannot run in this version", what.into());
            self.unsupported.push(Problem::new(pointer, position, Severity::Error, message));
        }
    }

    /// Notes a name that must exist under `use`.
    pub(crate) fn reference(&mut self, component: Component, place: &Place<'_>, name: &str) {
        self.references.push(Reference {
            component,
            name: name.to_owned(),
            pointer: place.pointer.clone(),
            position: place.node.position,
        });
    }

    /// Notes a text to be compiled later.
    pub(crate) fn note_expression(&mut self, place: &Place<'_>, form: Form, text: &str) {
        if self.expressions.len() == MAX_EXPRESSIONS {
            self.problem(place, format!("a file has at most {MAX_EXPRESSIONS} expressions"));
        }
        if self.expressions.len() > MAX_EXPRESSIONS {
            return;
        }
        self.expressions.push(FoundExpression {
            form,
            text: text.to_owned(),
            pointer: place.pointer.clone(),
            position: place.node.position,
            stage: self.stage,
            locals: self.locals.clone(),
        });
    }

    /// Runs `read` with `stage` as the stage of what it reads.
    pub(crate) fn at_stage<T>(&mut self, stage: Stage, read: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.stage, stage);
        let value = read(self);
        self.stage = outer;
        value
    }

    /// Runs `read` with more local variables in scope.
    pub(crate) fn with_locals<T>(&mut self, names: &[&str], read: impl FnOnce(&mut Self) -> T) -> T {
        let depth = self.locals.len();
        self.locals.extend(names.iter().map(|name| (*name).to_owned()));
        let value = read(self);
        self.locals.truncate(depth);
        value
    }

    /// All problems, in the order of the file.
    pub(crate) fn take_problems(&mut self) -> Vec<Problem> {
        let mut problems = std::mem::take(&mut self.problems);
        problems.sort_by_key(|problem| (problem.line, problem.column));
        if let (Some(last), more @ 1..) = (problems.last(), self.problems_not_listed) {
            let position = Position { line: last.line, column: last.column };
            let message = format!("{more} more problems are not listed");
            problems.push(Problem::new(String::new(), position, Severity::Error, message));
        }
        problems
    }

    pub(crate) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }
}

/// The fields of an object, each asked for by name. Those never asked for are unknown.
pub(crate) struct Fields<'a> {
    pub(crate) place: Place<'a>,
    members: Vec<(&'a Member, Place<'a>)>,
    known: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Opens an object; `what` names it in messages.
    pub(crate) fn open(place: &Place<'a>, what: &str, reader: &mut Reader) -> Option<Self> {
        match place.members() {
            Some(members) => Some(Self { place: place.clone(), members, known: Vec::new() }),
            None => {
                reader.problem(place, format!("{what} must be an object, not {}", place.node.kind()));
                None
            }
        }
    }

    /// The place of a field, if it is there.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Place<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.members.iter().find(|(member, _)| member.key == key).map(|(_, place)| place.clone())
    }

    /// Whether a field is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.members.iter().any(|(member, _)| member.key == key)
    }

    /// Reads a field that may be absent.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        reader: &mut Reader,
        read: impl FnOnce(&Place<'a>, &mut Reader) -> Option<T>,
    ) -> Option<T> {
        self.take(key).and_then(|place| read(&place, reader))
    }

    /// Reads a field that must be there.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        reader: &mut Reader,
        read: impl FnOnce(&Place<'a>, &mut Reader) -> Option<T>,
    ) -> Option<T> {
        match self.take(key) {
            Some(place) => read(&place, reader),
            None => {
                self.missing(key, reader);
                None
            }
        }
    }

    /// Reports that `key` is missing, unless a misspelt one will be reported as unknown with `key` as suggestion.
    fn missing(&self, key: &str, reader: &mut Reader) {
        let known = |name: &str| self.known.contains(&name);
        let misspelt = self
            .members
            .iter()
            .any(|(member, _)| !known(&member.key) && reader.suggestion(&member.key, [key]).is_some());
        let hint = if misspelt { " (a key beside it looks like it)" } else { "" };
        reader.problem(&self.place, format!("`{key}` is missing{hint}"));
    }

    /// Exactly one of `keys`: reports none or several, gives the one.
    pub(crate) fn exactly_one(
        &mut self,
        keys: &[&'static str],
        what: &str,
        reader: &mut Reader,
    ) -> Option<(&'static str, Place<'a>)> {
        let mut found = Vec::new();
        for key in keys {
            if let Some(place) = self.take(key) {
                found.push((*key, place));
            }
        }
        if found.len() == 1 {
            return found.pop();
        }
        let listed = keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let message = if found.is_empty() {
            format!("{what} needs exactly one of {listed}; none is there")
        } else {
            let there = found.iter().map(|(key, _)| format!("`{key}`")).collect::<Vec<_>>().join(" and ");
            format!("{what} needs exactly one of {listed}; it has {there}")
        };
        reader.problem(&self.place, message);
        None
    }

    /// The fields that were never asked for, where any key is allowed.
    pub(crate) fn unknown(self) -> Vec<(&'a Member, Place<'a>)> {
        let Self { members, known, .. } = self;
        members.into_iter().filter(|(member, _)| !known.iter().any(|key| *key == member.key)).collect()
    }

    /// Reports every field that was never asked for.
    pub(crate) fn finish(self, what: &str, reader: &mut Reader) {
        let free: Vec<&str> = self.known.iter().copied().filter(|key| !self.has(key)).collect();
        for (member, place) in &self.members {
            if self.known.iter().any(|known| *known == member.key) {
                continue;
            }
            let hint = match reader.suggestion(&member.key, free.iter().copied()) {
                Some(close) => format!("did you mean `{close}`?"),
                None if self.known.is_empty() => "no key is known here".to_owned(),
                None => format!("known keys: {}", self.known.join(", ")),
            };
            reader.problem_at(
                place.pointer.clone(),
                member.position,
                format!("unknown key `{}` in {what}; {hint}", member.key),
            );
        }
    }
}

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
