//! What one command sees while it is applied: the state, the site's row, its own time and place, and where events go.

use fleet_core::{Fence, Timestamp};
use fleet_store::record::{BlobUse, CommandId, Content, Site};
use fleet_store::state::jobs;
use fleet_store::state::tables::BLOB_USES;
use fleet_store::{Error, StateTransaction};

use super::{EntryPosition, Event};
use crate::command::{Command, Refusal};

/// Why a command did not go through.
#[derive(Debug)]
pub(super) enum Halt {
    /// It was refused; nothing was changed.
    Refused(Refusal),
    /// The store failed; the whole transaction must be dropped.
    Store(Error),
}

impl From<Refusal> for Halt {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// What one command sees and changes.
///
/// The site's row is kept here for the whole entry and written once, by `apply`. A command must do all its checks before
/// its first change, to the site's row too.
pub(super) struct Scope<'a, 'txn> {
    pub(super) transaction: &'a mut StateTransaction<'txn>,
    pub(super) entry: EntryPosition,
    pub(super) site: Site,
    /// The command's id.
    pub(super) id: CommandId,
    /// The command's time.
    pub(super) now: Timestamp,
    /// The fence that this command would mint.
    pub(super) fence: Fence,
    events: Vec<Event>,
}

impl<'a, 'txn> Scope<'a, 'txn> {
    pub(super) fn new(transaction: &'a mut StateTransaction<'txn>, entry: EntryPosition, site: Site) -> Self {
        let (id, now, fence) = (CommandId::default(), Timestamp::default(), Fence::default());
        Self { transaction, entry, site, id, now, fence, events: Vec::new() }
    }

    /// Turns to the next command of the entry.
    pub(super) fn begin(&mut self, command: &Command, fence: Fence) {
        self.id = command.id;
        self.now = command.at;
        self.fence = fence;
        self.site.latest = self.site.latest.max(command.at);
    }

    pub(super) fn emit(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Counts one more row that names the blob of `content`, if it is one.
    pub(super) fn count_blob(&mut self, content: &Content) -> Result<(), Error> {
        if let Some(digest) = content.blob() {
            let uses = jobs::blob_uses(self.transaction, digest)?;
            self.transaction.put(&BLOB_USES, &digest, &BlobUse { rows: uses + 1 })?;
        }
        Ok(())
    }

    /// Counts one row less that names the blob of `content`, if it is one. What nobody names any more is swept later.
    pub(super) fn release_blob(&mut self, content: &Content) -> Result<(), Error> {
        if let Some(digest) = content.blob() {
            match jobs::blob_uses(self.transaction, digest)?.saturating_sub(1) {
                0 => drop(self.transaction.remove(&BLOB_USES, &digest)?),
                rows => self.transaction.put(&BLOB_USES, &digest, &BlobUse { rows })?,
            }
        }
        Ok(())
    }
}
