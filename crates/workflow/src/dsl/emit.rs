//! `emit`: publish an event.

use super::event::{EventProperties, read_properties};
use super::fields::Fields;
use super::reader::{Place, Reader};

/// Publishes an event.
#[derive(Clone, Debug, PartialEq)]
pub struct Emit {
    /// The event's attributes.
    pub event: EventProperties,
}

pub(super) fn read(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<Emit> {
    fields.required("emit", reader, |place, reader| {
        reader.cannot_run(place, "an `emit` task");
        let what = "`emit`";
        let mut fields = Fields::open(place, what, reader)?;
        let event = fields.required("event", reader, read_event);
        fields.finish(what, reader);
        event.map(|event| Emit { event })
    })
}

fn read_event(place: &Place<'_>, reader: &mut Reader) -> Option<EventProperties> {
    let what = "`event`";
    let mut fields = Fields::open(place, what, reader)?;
    let event = fields.required("with", reader, |place, reader| read_properties(place, &["source", "type"], reader));
    fields.finish(what, reader);
    event
}
