//! One expression, compiled once and evaluated many times.

use std::collections::BTreeSet;
use std::fmt;

use jaq_core::load::lex::{Lexer, StrPart};
use jaq_core::load::parse::{Def, Parser, Term};
use jaq_core::load::{Arena, File, Loader};
use jaq_core::path::{Opt, Part};
use jaq_core::{Compiler, Ctx, Filter, Vars};

use super::instrument::{Instrument, Origin};
use super::library;
use super::meter::{self, Limit};
use super::natives::Kind;
use super::val::{Val, cut};
use crate::machine::stack::on_big_stack;

/// Longest expression, bytes.
pub const EXPRESSION_BYTES_MAX: usize = 16 * 1024;
/// Signs and words that may take the parser a level down.
const OPENINGS_MAX: usize = 1_500;
/// Brackets within brackets.
const BRACKETS_MAX: usize = 200;
/// Openings that are parsed, and levels that are evaluated, on the caller's stack.
const SHALLOW_MAX: usize = 50;
/// Longest message of an error that an expression raises.
const MESSAGE_BYTES_MAX: usize = 1024;

/// The name under which the whole expression is defined and called.
const MAIN_CODE: &str = "whole_expression__";

/// A compiled expression. Evaluating it gives the first output; `null` if there is none.
pub struct Program {
    text: String,
    code: Code,
}

enum Code {
    /// A chain of keys on the input or on a variable: no interpreter needed.
    Keys { variable: Option<String>, keys: Vec<String> },
    /// Anything else, with the variables it reads in the order of their positions, and whether it may go so deep that
    /// it needs a stack of its own.
    Filter { filter: Box<Filter<Kind>>, variables: Vec<String>, deep: bool },
}

impl fmt::Debug for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Program").field(&self.text).finish()
    }
}

impl Program {
    /// Compiles an expression without its `${ }`. `variables` are those that it may read, without `$`.
    pub fn compile(text: &str, variables: &[&str]) -> Result<Self, String> {
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(format!("the expression is longer than {EXPRESSION_BYTES_MAX} bytes"));
        }
        if openings(text)? <= SHALLOW_MAX {
            return contained(|| Self::compile_here(text, variables), Err);
        }
        on_big_stack(|| contained(|| Self::compile_here(text, variables), Err)).map_err(|error| no_thread(&error))?
    }

    fn compile_here(text: &str, variables: &[&str]) -> Result<Self, String> {
        let term = parse(text)?;
        let code = match keys_of(&term, variables) {
            Some(code) => code,
            None => compile_filter(text, term, variables)?,
        };
        Ok(Self { text: text.to_owned(), code })
    }

    /// The expression as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Evaluates on `input`, with `variable` giving the value of each variable that is read, at the recorded time.
    /// Its steps count among those of the event ([`super::begin_event`]).
    pub fn evaluate(&self, input: &Val, variable: &dyn Fn(&str) -> Val, now_ms: u64) -> Result<Val, String> {
        match &self.code {
            Code::Keys { variable: None, keys } => follow(input.clone(), keys),
            Code::Keys { variable: Some(name), keys } => follow(variable(name), keys),
            Code::Filter { filter, variables, deep } => {
                let values: Vec<Val> = variables.iter().map(|name| variable(name)).collect();
                meter::admit_evaluation().map_err(|limit| limit.to_string())?;
                let failed = |message| (Err(message), 0);
                let (result, steps) = if *deep {
                    let work = || contained(|| run(filter, input, values, now_ms), failed);
                    on_big_stack(work).map_err(|error| no_thread(&error))?
                } else {
                    contained(|| run(filter, input, values, now_ms), failed)
                };
                meter::add_to_event(steps);
                result
            }
        }
    }
}

fn no_thread(error: &std::io::Error) -> String {
    format!("cannot start a thread for the expression: {error}")
}

/// Runs `work`, and makes an error of a panic in the engine: one bad expression must not take the robot with it, and on
/// a replay it would fail in the same way.
fn contained<T>(work: impl FnOnce() -> T, failed: impl FnOnce(String) -> T) -> T {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| failed("the expression engine failed on this expression".to_owned()))
}

/// The first output of a filter, and the steps it took.
fn run(filter: &Filter<Kind>, input: &Val, values: Vec<Val>, now_ms: u64) -> (Result<Val, String>, u64) {
    meter::begin(now_ms);
    let context = Ctx::<Kind>::new(&filter.lut, Vars::new(values));
    let first = filter.id.run((context, input.clone())).next();
    let result = match (meter::reached(), first) {
        (Some(limit), _) => Err(limit.to_string()),
        (None, None) => Ok(Val::Null),
        (None, Some(Ok(value))) if value.bytes() > meter::RESULT_BYTES_MAX => Err(Limit::ResultSize.to_string()),
        (None, Some(Ok(value))) => Ok(value),
        (None, Some(Err(exception))) => Err(match exception.get_err() {
            Ok(error) => message_of(error),
            Err(_) => "the expression breaks out of itself".to_owned(),
        }),
    };
    (result, meter::steps_taken())
}

/// How far the parser may have to go down for a text: an estimate from above that needs no stack itself.
fn openings(text: &str) -> Result<usize, String> {
    let (mut openings, mut brackets, mut deepest) = (0, 0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => brackets += 1,
            b')' | b']' | b'}' => brackets = brackets.saturating_sub(1),
            b'-' | b'|' | b'/' | b'=' | b',' | b'+' => openings += 1,
            _ => {}
        }
        deepest = deepest.max(brackets);
    }
    let words = text.split(|character: char| !character.is_alphanumeric() && character != '_');
    let prefixes = ["try", "if", "elif", "def", "label", "reduce", "foreach", "as", "and", "or"];
    openings += words.filter(|word| prefixes.contains(word)).count();
    if deepest > BRACKETS_MAX || openings > OPENINGS_MAX {
        return Err(super::instrument::too_deep());
    }
    Ok(openings + deepest)
}

/// What an error says: its text, or its value as JSON.
fn message_of(error: jaq_core::Error<Val>) -> String {
    let value = error.into_val();
    match value.as_text() {
        Some(text) => cut(text, MESSAGE_BYTES_MAX).to_owned(),
        None => value.to_string(),
    }
}

fn follow(mut value: Val, keys: &[String]) -> Result<Val, String> {
    for key in keys {
        value = match value {
            Val::Null => return Ok(Val::Null),
            Val::Obj(_) => value.get(key).cloned().unwrap_or_default(),
            other => return Err(format!("cannot index {other} with {}", Val::text(key.as_str()))),
        };
    }
    Ok(value)
}

fn parse(text: &str) -> Result<Term<&str>, String> {
    let at = |found: &str| {
        let offset = text.len() - (found.len().min(text.len()));
        let start = found.as_ptr() as usize;
        let base = text.as_ptr() as usize;
        let offset = start.checked_sub(base).filter(|offset| *offset <= text.len()).unwrap_or(offset);
        let rest = cut(text.get(offset..).unwrap_or_default(), 20);
        if rest.is_empty() { "at its end".to_owned() } else { format!("at `{rest}`") }
    };
    let tokens = Lexer::new(text).lex().map_err(|errors| match errors.first() {
        Some((expected, found)) => format!("the expression is not jq: expected {} {}", expected.as_str(), at(found)),
        None => "the expression is not jq".to_owned(),
    })?;
    Parser::new(&tokens).parse(|parser| parser.term()).map_err(|errors| match errors.first() {
        Some((expected, found)) => {
            let found = found.map_or(&text[text.len()..], |token| token.as_str());
            format!("the expression is not jq: expected {} {}", expected.as_str(), at(found))
        }
        None => "the expression is not jq".to_owned(),
    })
}

/// The keys of `.a.b`, `$x.a` or `.`, if the term is no more than that.
fn keys_of(term: &Term<&str>, variables: &[&str]) -> Option<Code> {
    let (head, parts) = match term {
        Term::Path(head, path) => (&**head, path.0.as_slice()),
        head => (head, &[][..]),
    };
    let variable = match head {
        Term::Id => None,
        Term::Var(name) => {
            let name = name.strip_prefix('$')?;
            Some(variables.iter().find(|known| **known == name)?.to_string())
        }
        _ => return None,
    };
    let key = |(part, opt): &(Part<Term<&str>>, Opt)| match (part, opt) {
        (Part::Index(Term::Str(None, text)), Opt::Essential) => match text.as_slice() {
            [StrPart::Str(key)] => Some((*key).to_owned()),
            _ => None,
        },
        _ => None,
    };
    Some(Code::Keys { variable, keys: parts.iter().map(key).collect::<Option<_>>()? })
}

fn compile_filter<'s>(text: &'s str, term: Term<&'s str>, variables: &[&'s str]) -> Result<Code, String> {
    let mut instrument = Instrument::new(Origin::Author);
    let (body, height) = instrument.term(term)?;
    let Instrument { called, variables: read, .. } = instrument;
    for (name, arity) in &called {
        if !library::knows((name, *arity)) {
            return Err(unknown_function(name, *arity));
        }
    }
    let read: Vec<&'s str> = variables.iter().copied().filter(|name| mentions(&read, name)).collect();
    let globals: Vec<String> = read.iter().map(|name| format!("${name}")).collect();
    let library::Needed { definitions, functions, recursive } = library::needed(&called);
    let arena = Arena::default();
    let whole = Def { name: MAIN_CODE, args: Vec::new(), body };
    let modules = Loader::new(definitions.into_iter().chain([whole]))
        .load(&arena, File { code: MAIN_CODE, path: () })
        .map_err(|_| format!("cannot load the expression `{}`", cut(text, 80)))?;
    let filter = Compiler::default()
        .with_funs(functions)
        .with_global_vars(globals.iter().map(String::as_str))
        .compile(modules)
        .map_err(|errors| describe(errors, variables))?;
    let variables = read.into_iter().map(str::to_owned).collect();
    Ok(Code::Filter { filter: Box::new(filter), variables, deep: recursive || height > SHALLOW_MAX })
}

fn mentions(read: &BTreeSet<&str>, name: &str) -> bool {
    read.iter().any(|variable| variable.strip_prefix('$') == Some(name))
}

fn unknown_function(name: &str, arity: usize) -> String {
    let known = library::arities(name);
    if known.is_empty() {
        return format!("there is no function `{name}`");
    }
    let listed = known.iter().map(usize::to_string).collect::<Vec<_>>().join(" or ");
    format!("the function `{name}` takes {listed} arguments, not {arity}")
}

fn describe(errors: jaq_core::compile::Errors<&str, ()>, variables: &[&str]) -> String {
    let undefined = errors.into_iter().flat_map(|(_, undefined)| undefined).next();
    match undefined {
        Some((name, jaq_core::compile::Undefined::Var)) => {
            let listed = variables.iter().map(|name| format!("${name}")).collect::<Vec<_>>().join(", ");
            if listed.is_empty() {
                format!("there is no variable `{name}` here")
            } else {
                format!("there is no variable `{name}` here; there are {listed}")
            }
        }
        Some((name, kind)) => format!("there is no {} `{name}`", kind.as_str()),
        None => "the expression does not compile".to_owned(),
    }
}
