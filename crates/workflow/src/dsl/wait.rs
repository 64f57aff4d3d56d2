//! `wait`: some time.

use super::duration::{self, Duration};
use super::fields::Fields;
use super::reader::Reader;

/// Waits for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// How long.
    pub duration: Duration,
}

pub(super) fn read(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<Wait> {
    fields.required("wait", reader, duration::read).map(|duration| Wait { duration })
}
