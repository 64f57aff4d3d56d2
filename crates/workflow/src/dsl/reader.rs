//! What builds the model from a positioned tree: places, and the facts found on the way.
//!
//! A reading function takes a [`Place`] and the [`Reader`], returns the value or `None`, and in that case has reported at
//! least one problem. Nothing stops at the first problem. References, expressions and tasks that cannot run are only
//! collected here; `validate` judges them once the whole file was read.

use std::collections::BTreeSet;

use serde_json::Value;

use super::suggest::suggestion;
use crate::machine::variables::Stage;
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

/// How an expression stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    /// In a field that is an expression by definition: bare, or in `${ }`.
    Expression,
    /// In a text, as one or more `${ }`.
    Text,
    /// In code of another language, which may have `${ }` of its own.
    Code,
}

/// An expression found in the file.
pub(crate) struct FoundExpression {
    pub(crate) form: Form,
    pub(crate) text: String,
    pub(crate) pointer: String,
    pub(crate) position: Position,
    pub(crate) stage: Stage,
    pub(crate) locals: Vec<String>,
    /// Whether it stands in `use`, to be evaluated in whatever task names the component.
    pub(crate) in_component: bool,
}

/// A data schema found in the file.
pub(crate) struct FoundSchema {
    pub(crate) document: Value,
    pub(crate) pointer: String,
    pub(crate) position: Position,
}

/// Collects everything found while the model is built.
pub(crate) struct Reader {
    problems: Vec<Problem>,
    problems_not_listed: usize,
    /// Tasks and features this version cannot run.
    pub(crate) unsupported: Vec<Problem>,
    pub(crate) references: Vec<Reference>,
    pub(crate) expressions: Vec<FoundExpression>,
    pub(crate) schemas: Vec<FoundSchema>,
    /// Variables that enclosing tasks add: `$item`, `$index`, `$error`.
    pub(crate) locals: Vec<String>,
    /// Every variable that some task adds, for the components that tasks name.
    pub(crate) all_locals: BTreeSet<String>,
    /// Stage of the part being read.
    stage: Stage,
    /// Whether the part being read is `use`.
    pub(crate) in_component: bool,
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self {
            problems: Vec::new(),
            problems_not_listed: 0,
            unsupported: Vec::new(),
            references: Vec::new(),
            expressions: Vec::new(),
            schemas: Vec::new(),
            locals: Vec::new(),
            all_locals: BTreeSet::new(),
            stage: Stage::TaskBody,
            in_component: false,
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
            in_component: self.in_component,
        });
    }

    /// Notes a data schema, to be compiled later.
    pub(crate) fn note_schema(&mut self, place: &Place<'_>, document: &Value) {
        let position = place.node.position;
        self.schemas.push(FoundSchema { document: document.clone(), pointer: place.pointer.clone(), position });
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
        self.all_locals.extend(names.iter().map(|name| (*name).to_owned()));
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
