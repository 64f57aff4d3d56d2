//! Records of a job's journal: events of the workflow language as JSON, with what the state machine must know of them.

use fleet_core::{NodeId, Timestamp};
use fleet_workflow::machine::command::EffectPath;
use fleet_workflow::machine::event::{ErrorObject, Event};
use serde::{Deserialize, Serialize};

use super::content::Content;
use crate::Error;

/// What the state machine must know of an event without reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JournalMark {
    /// Nothing.
    Plain,
    /// An effect with `onLost: fail` begins: from now on it is in flight.
    EffectStarted(String),
    /// An effect ended: it is in flight no more.
    EffectEnded(String),
}

/// One record of a journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalRecord {
    /// The node that wrote it; `None` if the group did.
    pub node: Option<NodeId>,
    /// What the state machine must know of it.
    pub mark: JournalMark,
    /// The event, JSON of [`Event`].
    pub event: Content,
}

impl JournalRecord {
    /// The record of `event`, written by `node`, its JSON in the record.
    pub fn of_event(node: Option<NodeId>, event: &Event) -> Result<Self, Error> {
        Ok(Self { node, mark: JournalMark::of_event(event), event: Content::inline(json(event)?) })
    }

    /// The group's own record that the effect at `path` was lost in flight.
    pub fn effect_lost(path: &str, at: Timestamp) -> Result<Self, Error> {
        Self::of_event(None, &Event::EffectLost { path: EffectPath(path.to_owned()), at_ms: at.0 })
    }
}

impl JournalMark {
    /// The mark of `event`.
    pub fn of_event(event: &Event) -> Self {
        match event {
            Event::EffectStarted { path, .. } => Self::EffectStarted(path.0.clone()),
            Event::EffectEnded { path, .. } => Self::EffectEnded(path.0.clone()),
            _ => Self::Plain,
        }
    }
}

/// The error of a job whose journal would have passed `bytes_max`.
pub fn journal_full(bytes_max: u64) -> Result<Content, Error> {
    standard_error("Journal full", format!("the job's journal would be larger than {bytes_max} bytes"))
}

/// The error of a job that the group itself ends.
pub(super) fn standard_error(title: &str, detail: String) -> Result<Content, Error> {
    Ok(Content::inline(json(&ErrorObject::standard("runtime", 500, title, detail))?))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::corrupt("journal's JSON", error.to_string()))
}
