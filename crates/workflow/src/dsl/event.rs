//! Events: their attributes, filters, strategies to consume them, and what is done for each.

use serde_json::Value;

use super::data::{Export, Output, read_export, read_output};
use super::fields::Fields;
use super::r#for::variable;
use super::reader::{Place, Reader};
use super::resource::read_uri;
use super::task::{TaskList, read_list};
use super::value::{any, entries, expression, is_evaluated, list, template};
use crate::machine::variables::Stage;
use crate::source::Content;

/// Attributes of an event (CloudEvents 1.0). Strings may be expressions in `${ }`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventProperties {
    /// `id`.
    pub id: Option<String>,
    /// `source`.
    pub source: Option<String>,
    /// `type`.
    pub type_name: Option<String>,
    /// `time`.
    pub time: Option<String>,
    /// `subject`.
    pub subject: Option<String>,
    /// `datacontenttype`.
    pub data_content_type: Option<String>,
    /// `dataschema`.
    pub data_schema: Option<String>,
    /// `data`.
    pub data: Option<Value>,
    /// Extension attributes.
    pub extensions: Vec<(String, Value)>,
}

/// Which events to take.
#[derive(Clone, Debug, PartialEq)]
pub struct EventFilter {
    /// The attributes they must have.
    pub with: EventProperties,
    /// What must agree between events, by key.
    pub correlate: Vec<(String, Correlation)>,
}

/// What must agree between events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Correlation {
    /// Expression on the event.
    pub from: String,
    /// What it must give: a constant or an expression; the first event's value if absent.
    pub expect: Option<String>,
}

/// How many of which events to consume.
#[derive(Clone, Debug, PartialEq)]
pub enum ConsumptionStrategy {
    /// One for each filter.
    All(Vec<EventFilter>),
    /// One for any filter, or many until something is so.
    Any {
        /// The filters; empty takes every event.
        filters: Vec<EventFilter>,
        /// When to stop; after the first event if absent.
        until: Option<Box<Until>>,
    },
    /// One event.
    One(Box<EventFilter>),
}

/// When to stop consuming.
#[derive(Clone, Debug, PartialEq)]
pub enum Until {
    /// When an expression on the consumed events is true.
    Condition(String),
    /// When other events came.
    Consumed(ConsumptionStrategy),
}

/// What is done for each consumed event or message (`foreach`).
#[derive(Clone, Debug, PartialEq)]
pub struct SubscriptionIterator {
    /// Variable of the item.
    pub item: String,
    /// Variable of the index.
    pub at: String,
    /// The tasks.
    pub tasks: TaskList,
    /// What becomes of an item's output.
    pub output: Option<Output>,
    /// What becomes of `$context`.
    pub export: Option<Export>,
}

/// Attributes; those in `required` must be there.
pub(super) fn read_properties(place: &Place<'_>, required: &[&str], reader: &mut Reader) -> Option<EventProperties> {
    let mut fields = Fields::open(place, "the attributes of an event", reader)?;
    for key in required.iter().filter(|key| !fields.has(key)) {
        reader.problem(place, format!("`{key}` is missing"));
    }
    let mut properties = EventProperties {
        id: fields.optional("id", reader, template),
        source: fields.optional("source", reader, read_uri),
        type_name: fields.optional("type", reader, template),
        time: fields.optional("time", reader, read_time),
        subject: fields.optional("subject", reader, template),
        data_content_type: fields.optional("datacontenttype", reader, template),
        data_schema: fields.optional("dataschema", reader, read_uri),
        data: fields.optional("data", reader, any),
        extensions: Vec::new(),
    };
    for (member, value) in fields.unknown() {
        properties.extensions.push((member.key.clone(), any(&value, reader)?));
    }
    Some(properties)
}

/// An RFC 3339 time or an expression.
fn read_time(place: &Place<'_>, reader: &mut Reader) -> Option<String> {
    let text = template(place, reader)?;
    if is_evaluated(&text) || text.parse::<jiff::Timestamp>().is_ok() {
        return Some(text);
    }
    reader.problem(place, format!("`{text}` is not an RFC 3339 time such as 2026-01-31T12:00:00Z"));
    None
}

pub(super) fn read_filter(place: &Place<'_>, reader: &mut Reader) -> Option<EventFilter> {
    let what = "an event filter";
    let mut fields = Fields::open(place, what, reader)?;
    let with = fields.required("with", reader, |place, reader| {
        if place.members().is_some_and(|members| members.is_empty()) {
            reader.problem(place, "an event filter needs at least one attribute");
        }
        read_properties(place, &[], reader)
    });
    let correlate = fields.optional("correlate", reader, |place, reader| entries(place, reader, read_correlation));
    fields.finish(what, reader);
    Some(EventFilter { with: with?, correlate: correlate.unwrap_or_default() })
}

fn read_correlation(place: &Place<'_>, reader: &mut Reader) -> Option<Correlation> {
    let what = "a correlation";
    let mut fields = Fields::open(place, what, reader)?;
    let from = fields.required("from", reader, expression);
    let expect = fields.optional("expect", reader, template);
    fields.finish(what, reader);
    Some(Correlation { from: from?, expect })
}

pub(super) fn read_strategy(place: &Place<'_>, reader: &mut Reader) -> Option<ConsumptionStrategy> {
    read_strategy_with(place, true, reader)
}

fn read_strategy_with(place: &Place<'_>, until_allowed: bool, reader: &mut Reader) -> Option<ConsumptionStrategy> {
    let what = "an event strategy";
    let mut fields = Fields::open(place, what, reader)?;
    let chosen = fields.exactly_one(&["all", "any", "one"], what, reader);
    let is_any = chosen.as_ref().is_some_and(|(key, _)| *key == "any");
    let until = if is_any && until_allowed { fields.optional("until", reader, read_until).map(Box::new) } else { None };
    fields.finish(what, reader);
    let (key, place) = chosen?;
    match key {
        "all" => list(&place, reader, read_filter).map(ConsumptionStrategy::All),
        "any" => list(&place, reader, read_filter).map(|filters| ConsumptionStrategy::Any { filters, until }),
        _ => read_filter(&place, reader).map(Box::new).map(ConsumptionStrategy::One),
    }
}

fn read_until(place: &Place<'_>, reader: &mut Reader) -> Option<Until> {
    match &place.node.content {
        Content::Text(_) => expression(place, reader).map(Until::Condition),
        _ => read_strategy_with(place, false, reader).map(Until::Consumed),
    }
}

pub(super) fn read_iterator(place: &Place<'_>, reader: &mut Reader) -> Option<SubscriptionIterator> {
    let what = "`foreach`";
    let mut fields = Fields::open(place, what, reader)?;
    let item = fields.optional("item", reader, variable).unwrap_or_else(|| "item".to_owned());
    let at = fields.optional("at", reader, variable).unwrap_or_else(|| "index".to_owned());
    let iterator = reader.with_locals(&[&item, &at], |reader| {
        let tasks = fields.optional("do", reader, read_list).unwrap_or_default();
        let output = reader.at_stage(Stage::TaskOutput, |reader| fields.optional("output", reader, read_output));
        let export = reader.at_stage(Stage::TaskExport, |reader| fields.optional("export", reader, read_export));
        SubscriptionIterator { item: item.clone(), at: at.clone(), tasks, output, export }
    });
    fields.finish(what, reader);
    Some(iterator)
}
