//! `fork`: branches at the same time.

use super::fields::Fields;
use super::reader::{Place, Reader};
use super::task::{TaskList, read_list};
use super::value::boolean;

/// Branches at the same time.
#[derive(Clone, Debug, PartialEq)]
pub struct Fork {
    /// The branches, one task each.
    pub branches: TaskList,
    /// Whether the first to end wins and the others are cancelled.
    pub compete: bool,
}

pub(super) fn read(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<Fork> {
    fields.required("fork", reader, read_fork)
}

fn read_fork(place: &Place<'_>, reader: &mut Reader) -> Option<Fork> {
    let what = "`fork`";
    let mut fields = Fields::open(place, what, reader)?;
    let branches = fields.required("branches", reader, read_list);
    let compete = fields.optional("compete", reader, boolean).unwrap_or(false);
    fields.finish(what, reader);
    Some(Fork { branches: branches?, compete })
}
