//! What this node writes itself.

use fleet_core::limits::{CATALOG_BYTES_MAX, CATALOG_ENTRIES_MAX, CATALOG_ENTRY_BYTES_MAX};
use fleet_core::{Digest, Error, ErrorKind, Timestamp};
use fleet_store::CatalogChange;
use fleet_store::record::{
    CatalogContent, CatalogEntry, CatalogFacts, CatalogKey, CatalogStamp, CatalogTime, SignedBy, WorkflowName,
};

use super::super::row::measure;
use super::{Kind, Replica, is_ahead};

impl Replica {
    /// The change that deploys `files`, each the content of a workflow, all or none; what is here already is left out of it.
    ///
    /// # Errors
    /// `Conflict` if another file is or was known by one of the names; `ResourceExhausted` past the catalog's bounds.
    pub(in super::super) fn plan_deploy(
        &self,
        files: Vec<(WorkflowName, CatalogContent)>,
        now: Timestamp,
    ) -> Result<CatalogChange, Error> {
        let mut change = CatalogChange::default();
        let (mut written, mut bytes) = (self.facts.written, self.bytes());
        for (name, content) in files {
            if !self.is_news(&name, &content, now)? {
                continue;
            }
            let mut row = self.row(CatalogKey::Workflow(name.clone()), content, SignedBy::Nobody, now);
            written = written.saturating_add(1);
            row.1.number = written;
            let (_, more_bytes) = measure(&row.0, &row.1)?;
            bytes += more_bytes as u64;
            check_bounds(&name, self.len() + change.put.len(), bytes, more_bytes)?;
            change.put.push(row);
        }
        change.facts = (!change.put.is_empty()).then(|| self.facts_after(written));
        Ok(change)
    }

    /// Whether deploying `content` as `name` would change anything.
    fn is_news(&self, name: &WorkflowName, content: &CatalogContent, now: Timestamp) -> Result<bool, Error> {
        let CatalogContent::Workflow { digest: new, .. } = content else {
            return Err(Error::new(ErrorKind::Internal, format!("deploy {name}: the content is no workflow")));
        };
        let Some(head) = self.head(&CatalogKey::Workflow(name.clone())) else { return Ok(true) };
        match &head.kind {
            // What a wrong clock stamped is held back elsewhere; deploying it again mends that.
            Kind::Workflow { digest, .. } if digest == new => Ok(is_ahead(head.stamp.time, now)),
            Kind::Workflow { .. } => Err(conflict(name, "is in the catalog already, with")),
            Kind::Deleted { digest } if digest != new => Err(conflict(name, "was deleted, and was")),
            _ => Ok(true),
        }
    }

    /// The change that deletes `name`; nothing if it is deleted already.
    ///
    /// # Errors
    /// `NotFound` if nothing is known by that name.
    pub(in super::super) fn plan_delete(&self, name: &WorkflowName, now: Timestamp) -> Result<CatalogChange, Error> {
        let key = CatalogKey::Workflow(name.clone());
        let digest: Digest = match self.head(&key).map(|head| &head.kind) {
            Some(Kind::Workflow { digest, .. }) => *digest,
            Some(Kind::Deleted { .. }) => return Ok(CatalogChange::default()),
            _ => return Err(Error::new(ErrorKind::NotFound, format!("workflow `{name}` is not in the catalog"))),
        };
        Ok(self.change_by(self.row(key, CatalogContent::Deleted { digest }, SignedBy::Nobody, now)))
    }

    /// The change that revokes what `keys` say, each with who vouches for it; what is revoked already is left as it is.
    pub(in super::super) fn plan_revoke(&self, revoked: Vec<(CatalogKey, SignedBy)>, now: Timestamp) -> CatalogChange {
        let mut change = CatalogChange::default();
        let mut written = self.facts.written;
        for (key, signed_by) in revoked.into_iter().filter(|(key, _)| self.head(key).is_none()) {
            written = written.saturating_add(1);
            let mut row = self.row(key, CatalogContent::Revocation, signed_by, now);
            row.1.number = written;
            change.put.push(row);
        }
        change.facts = (!change.put.is_empty()).then(|| self.facts_after(written));
        change
    }

    /// The row that this node writes under `key` next.
    pub(super) fn row(
        &self,
        key: CatalogKey,
        content: CatalogContent,
        signed_by: SignedBy,
        now: Timestamp,
    ) -> (CatalogKey, CatalogEntry) {
        let seen = self.head(&key).map_or(self.facts.outlived, |head| head.stamp.version);
        let next = self.facts.written.saturating_add(1);
        let number = if matches!(content, CatalogContent::Acknowledgement(_)) { 0 } else { next };
        let stamp = CatalogStamp { version: seen.saturating_add(1), time: self.next_time(&key, now), node: self.node };
        (key, CatalogEntry { stamp, number, content, signed_by })
    }

    /// The time of a write to `key`: the clock's, or that of what was there, moved on, where that is later. A time that no
    /// clock may show now is not carried on.
    fn next_time(&self, key: &CatalogKey, now: Timestamp) -> CatalogTime {
        let clock = CatalogTime { at: now, count: 0 };
        match self.head(key).map(|head| head.stamp.time) {
            Some(time) if time >= clock && !is_ahead(time, now) => {
                CatalogTime { at: time.at, count: time.count.saturating_add(1) }
            }
            _ => clock,
        }
    }

    fn change_by(&self, row: (CatalogKey, CatalogEntry)) -> CatalogChange {
        let facts = self.facts_after(row.1.number);
        CatalogChange { put: vec![row], remove: Vec::new(), facts: Some(facts) }
    }

    /// What is known once this node's writes reach `written`. It has seen all of them, unless its disk once lost some.
    pub(super) fn facts_after(&self, written: u64) -> CatalogFacts {
        let mut facts = CatalogFacts { written, ..self.facts.clone() };
        let seen = facts.seen.entry(self.node).or_default();
        if *seen == self.facts.written {
            *seen = written;
        }
        facts
    }
}

/// Refuses a deployment of `name`, an entry of `more_bytes`, to a catalog that has `entries` without it and `bytes` with it.
fn check_bounds(name: &WorkflowName, entries: usize, bytes: u64, more_bytes: usize) -> Result<(), Error> {
    let full = |bound: String| {
        let message = format!("deploy {name}: the catalog may have {bound}");
        let step = "Delete versions that nobody needs: `fleetctl workflow list` shows them.";
        Err(Error::new(ErrorKind::ResourceExhausted, message).with_next_step(step))
    };
    if entries >= CATALOG_ENTRIES_MAX {
        return full(format!("{CATALOG_ENTRIES_MAX} entries"));
    }
    if more_bytes > CATALOG_ENTRY_BYTES_MAX {
        return full(format!("{CATALOG_ENTRY_BYTES_MAX} bytes in one entry, deflated"));
    }
    if bytes > CATALOG_BYTES_MAX {
        return full(format!("{CATALOG_BYTES_MAX} bytes"));
    }
    Ok(())
}

fn conflict(name: &WorkflowName, known: &str) -> Error {
    let message = format!("deploy {name}: this version {known} another file");
    Error::new(ErrorKind::Conflict, message).with_next_step("A version never changes: give the file a new one.")
}
