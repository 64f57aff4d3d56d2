//! What jobs keep, read for people: contents wherever they lie, journals record by record, names of nodes.

use std::collections::BTreeMap;

use fleet_core::{Error, ErrorKind, JobId, NodeId};
use fleet_store::StateReader;
use fleet_store::record::{Content, JournalRecord};
use fleet_store::state::jobs as state;
use fleet_workflow::machine::event::Event;

use crate::site::{Site, read_failed};

/// Journal records read at a time.
pub(super) const RECORDS_PER_READ: usize = 256;

/// Reads contents of one site.
#[derive(Clone)]
pub(super) struct Contents {
    site: Site,
}

/// The names of nodes, those that were removed included.
#[derive(Default)]
pub(super) struct Names(BTreeMap<NodeId, String>);

impl Names {
    /// The node's name, or its id if nobody knows it any more.
    pub(super) fn of(&self, node: NodeId) -> String {
        self.0.get(&node).cloned().unwrap_or_else(|| node.to_string())
    }

    /// The node's name; empty if there is no node.
    pub(super) fn of_some(&self, node: Option<NodeId>) -> String {
        node.map(|node| self.of(node)).unwrap_or_default()
    }
}

impl Contents {
    pub(super) fn new(site: Site) -> Self {
        Self { site }
    }

    /// The bytes of `content`.
    pub(super) async fn read(&self, content: Content) -> Result<Vec<u8>, Error> {
        match content {
            Content::Inline(payload) => Ok(payload.as_slice().to_vec()),
            Content::Blob { digest, .. } => {
                let blob = self.site.group().blob(digest).await.map_err(|error| self.site.explain(error))?;
                let missing = || Error::new(ErrorKind::Unavailable, format!("read blob {digest}: nobody has it now"));
                Ok(blob.ok_or_else(missing)?.to_vec())
            }
        }
    }

    /// The event of `record`.
    pub(super) async fn event(&self, record: JournalRecord) -> Result<Event, Error> {
        serde_json::from_slice(&self.read(record.event).await?)
            .map_err(|source| Error::new(ErrorKind::Internal, "read a record of a journal").with_source(source))
    }

    pub(super) fn names(&self) -> Result<Names, Error> {
        let nodes = fleet_store::state::members::nodes(&self.site.reader()?).map_err(read_failed)?;
        Ok(Names(nodes.into_iter().map(|node| (node.id, node.profile.name)).collect()))
    }
}

/// A journal read from a position on, a few records at a time.
pub(super) struct Records<'a> {
    reader: &'a StateReader,
    job: JobId,
    next: u32,
    is_over: bool,
}

impl<'a> Records<'a> {
    pub(super) fn from(reader: &'a StateReader, job: JobId, next: u32) -> Self {
        Self { reader, job, next, is_over: false }
    }

    /// The next records, each with its position; none after the last.
    pub(super) fn more(&mut self) -> Result<Vec<(u32, JournalRecord)>, Error> {
        if self.is_over {
            return Ok(Vec::new());
        }
        let records = state::journal(self.reader, self.job, self.next, RECORDS_PER_READ).map_err(read_failed)?;
        self.is_over = records.len() < RECORDS_PER_READ;
        let numbered: Vec<_> = (self.next..).zip(records).collect();
        self.next = numbered.last().map_or(self.next, |(position, _)| position.saturating_add(1));
        Ok(numbered)
    }
}
