//! `raise`: raise an error.

use super::error::{ErrorReference, read_reference};
use super::fields::Fields;
use super::reader::Reader;

/// Raises an error.
#[derive(Clone, Debug, PartialEq)]
pub struct Raise {
    /// The error.
    pub error: ErrorReference,
}

pub(super) fn read(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<Raise> {
    fields.required("raise", reader, |place, reader| {
        let what = "`raise`";
        let mut fields = Fields::open(place, what, reader)?;
        let error = fields.required("error", reader, read_reference);
        fields.finish(what, reader);
        error.map(|error| Raise { error })
    })
}
