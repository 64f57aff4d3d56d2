//! Expressions: jq by `jaq`, made safe to run on a robot and to run again on another one.
//!
//! Decided where the language is silent: an expression gives its first output, `null` if it has none; a string with
//! `${ }` among other text is text with the outputs in it. Every evaluation ends within a budget of steps and bytes,
//! counted the same way everywhere, and gives the same result or the same error each time it is replayed.
//!
//! Absent on purpose: the environment, the clock (`now` is the recorded time of the event), the local time zone,
//! input and output, recursion in an author's functions, and functions as their parameters.

mod arithmetic;
mod instrument;
mod jaq;
mod library;
mod meter;
mod natives;
mod order;
mod pattern;
pub mod program;
pub mod template;
pub mod uri;
pub mod val;

pub use meter::{
    ALLOCATED_BYTES_MAX, RESULT_BYTES_MAX, STEPS_MAX, STEPS_PER_EVENT_MAX, VALUE_BYTES_MAX, VALUE_DEPTH_MAX,
    begin_event,
};
pub use program::Program;
pub use template::Template;
pub use val::Val;

/// What an evaluation can see beside its input.
pub struct Scope<'a> {
    /// The value of a variable, by its name without `$`.
    pub variable: &'a dyn Fn(&str) -> Val,
    /// The recorded time, milliseconds since the epoch.
    pub now_ms: u64,
}

/// The text inside `${ … }` if that is the whole string.
pub fn expression_body(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("${")?;
    match template::split(text.trim(), &|_| true).ok()?.as_slice() {
        [template::Part::Expression(body)] if inner.ends_with('}') => Some(*body),
        _ => None,
    }
}

/// Checks an expression, bare or in `${ }`, that may read `variables` (named without `$`).
pub fn check(text: &str, variables: &[&str]) -> Result<(), String> {
    Template::compile_expression(text, variables).map(|_| ())
}

/// Checks a string that may have `${ }` in it.
pub fn check_text(text: &str, variables: &[&str]) -> Result<(), String> {
    Template::compile_text(text, variables).map(|_| ())
}

/// Checks code of another language, such as a shell command, that may have `${ }` in it.
pub fn check_code(text: &str, variables: &[&str]) -> Result<(), String> {
    Template::compile_code(text, variables).map(|_| ())
}
