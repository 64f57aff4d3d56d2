//! `do`: tasks in sequence.

use super::fields::Fields;
use super::reader::Reader;
use super::task::{TaskList, read_list};

/// Tasks in sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Do {
    /// The tasks.
    pub tasks: TaskList,
}

pub(super) fn read(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<Do> {
    fields.required("do", reader, read_list).map(|tasks| Do { tasks })
}
