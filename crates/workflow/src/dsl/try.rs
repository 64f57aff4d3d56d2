//! `try`: tasks, and what to do about their errors.

use super::error::{ErrorFilter, read_filter};
use super::fields::Fields;
use super::r#for::variable;
use super::reader::{Place, Reader};
use super::retry::{RetryReference, read_reference};
use super::task::{TaskList, read_list};
use super::value::expression;

/// Runs tasks and catches their errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Try {
    /// The tasks (`try`).
    pub tasks: TaskList,
    /// What to do about their errors.
    pub catch: Catch,
}

/// Which errors to catch and what to do about them.
#[derive(Clone, Debug, PartialEq)]
pub struct Catch {
    /// Which errors; all if absent (`errors.with`).
    pub errors: Option<ErrorFilter>,
    /// Variable of the error (`as`), without `$`.
    pub variable: String,
    /// Expression that must be true to catch.
    pub when: Option<String>,
    /// Expression that must not be true to catch.
    pub except_when: Option<String>,
    /// Whether and how to try again.
    pub retry: Option<RetryReference>,
    /// What to run once an error is caught and not retried (`do`); empty if absent.
    pub tasks: TaskList,
    /// Whether `do` is there.
    pub handles: bool,
}

pub(super) fn read(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<Try> {
    let tasks = fields.required("try", reader, read_list);
    let catch = fields.required("catch", reader, read_catch);
    Some(Try { tasks: tasks?, catch: catch? })
}

fn read_catch(place: &Place<'_>, reader: &mut Reader) -> Option<Catch> {
    let what = "`catch`";
    let mut fields = Fields::open(place, what, reader)?;
    let errors = fields.optional("errors", reader, read_errors).flatten();
    let variable = fields.optional("as", reader, variable).unwrap_or_else(|| "error".to_owned());
    let handles = fields.has("do");
    let catch = reader.with_locals(&[&variable], |reader| Catch {
        errors,
        variable: variable.clone(),
        when: fields.optional("when", reader, expression),
        except_when: fields.optional("exceptWhen", reader, expression),
        retry: fields.optional("retry", reader, read_reference),
        tasks: fields.optional("do", reader, read_list).unwrap_or_default(),
        handles,
    });
    fields.finish(what, reader);
    Some(catch)
}

fn read_errors(place: &Place<'_>, reader: &mut Reader) -> Option<Option<ErrorFilter>> {
    let what = "`errors`";
    let mut fields = Fields::open(place, what, reader)?;
    let filter = fields.optional("with", reader, read_filter);
    fields.finish(what, reader);
    Some(filter)
}
