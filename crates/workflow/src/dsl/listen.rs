//! `listen`: wait for events.

use super::event::{ConsumptionStrategy, SubscriptionIterator, read_iterator, read_strategy};
use super::fields::Fields;
use super::reader::{Place, Reader};
use super::value::word;

/// Waits for events.
#[derive(Clone, Debug, PartialEq)]
pub struct Listen {
    /// Which events (`to`).
    pub to: ConsumptionStrategy,
    /// What of an event the workflow sees.
    pub read: ReadAs,
    /// What is done for each event.
    pub foreach: Option<SubscriptionIterator>,
}

/// What of an event the workflow sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadAs {
    /// Its data.
    #[default]
    Data,
    /// Its attributes and data.
    Envelope,
    /// The message as it came.
    Raw,
}

pub(super) fn read(fields: &mut Fields<'_>, reader: &mut Reader) -> Option<Listen> {
    let head = fields.required("listen", reader, read_head);
    let foreach = fields.optional("foreach", reader, read_iterator);
    let (to, read) = head?;
    Some(Listen { to, read, foreach })
}

fn read_head(place: &Place<'_>, reader: &mut Reader) -> Option<(ConsumptionStrategy, ReadAs)> {
    reader.cannot_run(place, "a `listen` task");
    let what = "`listen`";
    let mut fields = Fields::open(place, what, reader)?;
    let to = fields.required("to", reader, read_strategy);
    let read = fields.optional("read", reader, |place, reader| {
        let words = [("data", ReadAs::Data), ("envelope", ReadAs::Envelope), ("raw", ReadAs::Raw)];
        word(place, reader, &words)
    });
    fields.finish(what, reader);
    Some((to?, read.unwrap_or_default()))
}
