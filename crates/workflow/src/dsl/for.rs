//! `for`: tasks for each element of a collection.

use super::fields::Fields;
use super::reader::{Place, Reader};
use super::task::{TaskList, read_list};
use super::value::{expression, text};

/// Tasks for each element of a collection.
#[derive(Clone, Debug, PartialEq)]
pub struct For {
    /// Variable of the element (`each`), without `$`.
    pub each: String,
    /// Expression of the collection (`in`).
    pub collection: String,
    /// Variable of the index (`at`), without `$`.
    pub at: String,
    /// Expression that ends the loop when false (`while`).
    pub condition: Option<String>,
    /// The tasks.
    pub tasks: TaskList,
}

pub(super) fn read(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<For> {
    let head = fields.required("for", reader, read_head);
    let names = head.as_ref().map_or(["item", "index"], |(each, _, at)| [each.as_str(), at.as_str()]);
    let (condition, tasks) = reader.with_locals(&names, |reader| {
        (fields.optional("while", reader, expression), fields.required("do", reader, read_list))
    });
    let (each, collection, at) = head?;
    Some(For { each, collection, at, condition, tasks: tasks? })
}

fn read_head(place: &Place<'_>, reader: &mut Reader) -> Option<(String, String, String)> {
    let what = "`for`";
    let mut fields = Fields::open(place, what, reader)?;
    let each = fields.optional("each", reader, variable);
    let collection = fields.required("in", reader, expression);
    let at = fields.optional("at", reader, variable);
    fields.finish(what, reader);
    Some((each.unwrap_or_else(|| "item".to_owned()), collection?, at.unwrap_or_else(|| "index".to_owned())))
}

/// The name of a variable that expressions can use as `$name`.
pub(super) fn variable(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    let name = text(place, reader)?;
    let first = |character: char| character.is_ascii_alphabetic() || character == '_';
    let rest = |character: char| character.is_ascii_alphanumeric() || character == '_';
    if name.starts_with(first) && name.chars().all(rest) {
        return Some(name);
    }
    let bare = name.strip_prefix('$').filter(|bare| bare.starts_with(first));
    let hint = bare.map_or_else(|| "letters, digits and _".to_owned(), |bare| format!("write `{bare}`"));
    reader.problem(place, format!("`{name}` is not the name of a variable; {hint}"));
    None
}
