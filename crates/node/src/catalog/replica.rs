//! One copy of the catalog without the files themselves, and every decision about it: pure. A plan says what would change;
//! it takes effect by [`Replica::apply`], once the store has it.
//!
//! What makes copies agree: of two entries of a key the greater (stamp, then digest) stays. What makes deletions last: a
//! write that this copy has seen, by its node's number, and that is not here any more was outlived, and is not taken again.

mod believed;
mod deletion;
mod write;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::limits::{CATALOG_BYTES_MAX, CATALOG_CLOCK_AHEAD_MAX, CATALOG_ENTRIES_MAX, CATALOG_ENTRY_BYTES_MAX};
use fleet_core::{Digest, Error, NodeId, Timestamp};
use fleet_store::CatalogChange;
use fleet_store::record::{
    CatalogContent, CatalogEntry, CatalogFacts, CatalogKey, CatalogStamp, CatalogTime, CatalogVector, WorkflowName,
};

use self::believed::is_believable;
use super::row::{NODES_MAX, Row, hash_of, measure};
use super::sums::{Sums, bounds, short};

/// What is kept in memory of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) stamp: CatalogStamp,
    pub(super) number: u64,
    /// Digest of key and entry.
    pub(super) digest: u128,
    /// Bytes of key and entry.
    pub(super) bytes: usize,
    pub(super) kind: Kind,
}

/// What an entry says, without the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Workflow { digest: Digest, file_bytes: u32 },
    Deleted { digest: Digest },
    Revocation,
    Acknowledgement(CatalogVector),
}

impl Head {
    pub(super) fn of((key, entry): &Row) -> Result<Self, Error> {
        let (digest, bytes) = measure(key, entry)?;
        let kind = match &entry.content {
            CatalogContent::Workflow { digest, file_bytes, .. } => {
                Kind::Workflow { digest: *digest, file_bytes: *file_bytes }
            }
            CatalogContent::Deleted { digest } => Kind::Deleted { digest: *digest },
            CatalogContent::Revocation => Kind::Revocation,
            CatalogContent::Acknowledgement(seen) => Kind::Acknowledgement(seen.clone()),
        };
        Ok(Self { stamp: entry.stamp, number: entry.number, digest, bytes, kind })
    }

    /// Bytes of the file that it says it is.
    pub(super) fn file_bytes(&self) -> usize {
        match self.kind {
            Kind::Workflow { file_bytes, .. } => file_bytes as usize,
            _ => 0,
        }
    }

    /// Its place in the order of the key's entries: total, so that the same one stays everywhere.
    fn rank(&self) -> (CatalogStamp, u128) {
        (self.stamp, self.digest)
    }
}

/// The name of an exact entry between copies: hash of its key, and digest as it is sent.
pub(super) type Exact = (u64, u64);

/// What comes of rows from elsewhere.
#[derive(Debug, Default)]
pub(super) struct Merge {
    pub(super) change: CatalogChange,
    /// Rows that were outlived: whoever still has them may drop them.
    pub(super) gone: Vec<Exact>,
    /// Keys of which this copy has a later entry.
    pub(super) later_here: Vec<u64>,
    /// Rows that are not taken, for whatever reason.
    pub(super) not_taken: Vec<Exact>,
    /// Those of them that would not be taken again either, and until when.
    pub(super) waiting: Vec<(Exact, Timestamp)>,
    /// How many of those are stamped too far ahead of the clock here.
    pub(super) held_back: usize,
    /// How many of those find no room.
    pub(super) no_room: usize,
    /// How many of those have numbers that nothing known here comes near.
    pub(super) unbelievable: usize,
    /// Workflows of which two files were written that did not know of each other; one of them is lost.
    pub(super) conflicts: Vec<WorkflowName>,
}

/// One copy.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    node: NodeId,
    heads: BTreeMap<CatalogKey, Head>,
    by_hash: BTreeMap<u64, CatalogKey>,
    /// This node's own writes that are here, by number.
    own: BTreeMap<u64, CatalogKey>,
    deleted: BTreeSet<CatalogKey>,
    sums: Sums,
    bytes: u64,
    facts: CatalogFacts,
}

impl Replica {
    /// The empty copy of `node`, which knows `facts`.
    pub(super) fn new(node: NodeId, facts: CatalogFacts) -> Self {
        Self {
            node,
            heads: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            own: BTreeMap::new(),
            deleted: BTreeSet::new(),
            sums: Sums::new(),
            bytes: 0,
            facts,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.heads.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn sums(&self) -> &Sums {
        &self.sums
    }

    pub(super) fn seen(&self) -> &CatalogVector {
        &self.facts.seen
    }

    pub(super) fn head(&self, key: &CatalogKey) -> Option<&Head> {
        self.heads.get(key)
    }

    pub(super) fn heads(&self) -> impl Iterator<Item = (&CatalogKey, &Head)> {
        self.heads.iter()
    }

    /// What is revoked.
    pub(super) fn revoked(&self) -> impl Iterator<Item = &CatalogKey> {
        // They stand last before the acknowledgements.
        let end = CatalogKey::Acknowledgement(NodeId::from_bytes([0; 16]));
        let before = self.heads.range(..end).rev().map(|(key, _)| key);
        before.take_while(|key| key.revoking_site().is_some())
    }

    pub(super) fn key_of(&self, hash: u64) -> Option<&CatalogKey> {
        self.by_hash.get(&hash)
    }

    /// Own writes with numbers above `number`, in their order.
    pub(super) fn own_after(&self, number: u64) -> impl Iterator<Item = (u64, &CatalogKey)> {
        self.own.range(number.saturating_add(1)..).map(|(number, key)| (*number, key))
    }

    /// Every entry of `part` out of `2^bits`: hash, key and head.
    pub(super) fn part(&self, part: u16, bits: u8) -> impl Iterator<Item = (u64, &CatalogKey, &Head)> {
        let (first, last) = bounds(part, bits);
        self.by_hash.range(first..=last).filter_map(|(hash, key)| Some((*hash, key, self.heads.get(key)?)))
    }

    /// Whether the write `number` of `node` is known here, whatever became of it.
    fn has_seen(&self, node: NodeId, number: u64) -> bool {
        number > 0 && self.facts.seen.get(&node).is_some_and(|seen| *seen >= number)
    }

    /// Makes `change` true of this copy.
    pub(super) fn apply(&mut self, change: &CatalogChange) -> Result<(), Error> {
        for row in &change.put {
            let head = Head::of(row)?;
            self.take_out(&row.0);
            self.put_in(&row.0, head);
        }
        for key in &change.remove {
            self.take_out(key);
        }
        if let Some(facts) = &change.facts {
            self.facts = facts.clone();
        }
        Ok(())
    }

    fn put_in(&mut self, key: &CatalogKey, head: Head) {
        let hash = hash_of(key);
        self.by_hash.insert(hash, key.clone());
        self.sums.add(hash, head.digest);
        self.bytes += head.bytes as u64;
        if head.stamp.node == self.node && head.number > 0 {
            self.own.insert(head.number, key.clone());
        }
        if matches!(head.kind, Kind::Deleted { .. }) {
            self.deleted.insert(key.clone());
        }
        self.heads.insert(key.clone(), head);
    }

    fn take_out(&mut self, key: &CatalogKey) {
        let Some(head) = self.heads.remove(key) else { return };
        let hash = hash_of(key);
        self.by_hash.remove(&hash);
        self.sums.subtract(hash, head.digest);
        self.bytes -= head.bytes as u64;
        if head.stamp.node == self.node {
            self.own.remove(&head.number);
        }
        self.deleted.remove(key);
    }

    /// What comes of `rows`, each acceptable on its own, at `now` by this node's wall clock.
    pub(super) fn plan_merge(&self, rows: Vec<Row>, now: Timestamp) -> Result<Merge, Error> {
        let mut merge = Merge::default();
        let mut taken: BTreeMap<CatalogKey, (Head, CatalogEntry)> = BTreeMap::new();
        let (mut entries, mut bytes) = (self.len(), self.bytes);
        let mut written = self.facts.written;
        for row in rows {
            let head = Head::of(&row)?;
            let exact = (hash_of(&row.0), short(head.digest));
            if !self.believes(&row.0, &head, now) {
                merge.unbelievable += 1;
                merge.waiting.push((exact, now.saturating_add(CATALOG_CLOCK_AHEAD_MAX)));
                merge.not_taken.push(exact);
                continue;
            }
            if head.stamp.node == self.node {
                // An older state of this node's disk came back: its numbers are used up all the same.
                written = written.max(head.number);
            }
            let here = taken.get(&row.0).map(|(head, _)| head).or_else(|| self.heads.get(&row.0));
            if here.is_some_and(|here| here.digest == head.digest) {
                continue;
            }
            let is_later = here.is_none_or(|here| head.rank() > here.rank());
            let is_revocation = head.kind == Kind::Revocation;
            if !is_later {
                // Seen or not: who has it keeps it until it takes what came later, which may have to wait there.
                merge.later_here.push(exact.0);
            } else if !is_revocation && self.has_seen(head.stamp.node, head.number) {
                merge.gone.push(exact);
            } else if !is_revocation && is_ahead(head.stamp.time, now) {
                merge.held_back += 1;
                merge.waiting.push((exact, Timestamp(head.stamp.time.at.0.saturating_sub(ahead_max_ms()))));
            } else if here.is_none() && !is_revocation && !has_room(entries, bytes, head.bytes)
                || head.bytes > CATALOG_ENTRY_BYTES_MAX
            {
                // What is revoked is signed by whoever may, so nobody fills the catalog with it, and it always has room.
                merge.no_room += 1;
                merge.waiting.push((exact, now.saturating_add(CATALOG_CLOCK_AHEAD_MAX)));
            } else {
                entries += usize::from(here.is_none());
                bytes += head.bytes as u64;
                merge.conflicts.extend(conflict(&row.0, here, &head));
                taken.insert(row.0, (head, row.1));
                continue;
            }
            merge.not_taken.push(exact);
        }
        merge.change.put = taken.into_iter().map(|(key, (_, entry))| (key, entry)).collect();
        if written > self.facts.written {
            merge.change.facts = Some(CatalogFacts { written, ..self.facts.clone() });
        }
        Ok(merge)
    }

    /// The change that drops what another copy says was outlived, as far as it is still exactly that here.
    pub(super) fn plan_drop(&self, gone: &[Exact]) -> CatalogChange {
        let still = gone.iter().filter_map(|(hash, digest)| {
            let key = self.by_hash.get(hash)?;
            let head = self.heads.get(key)?;
            (short(head.digest) == *digest && head.number > 0 && head.kind != Kind::Revocation).then_some((key, head))
        });
        let (mut remove, mut outlived) = (Vec::new(), self.facts.outlived);
        for (key, head) in still {
            remove.push(key.clone());
            outlived = outlived.max(head.stamp.version);
        }
        let facts = (outlived > self.facts.outlived).then(|| CatalogFacts { outlived, ..self.facts.clone() });
        CatalogChange { put: Vec::new(), remove, facts }
    }

    /// The change that takes over what another copy has seen, which had the same entries as this one, as far as it can be
    /// believed.
    pub(super) fn plan_adopt(&self, seen: &CatalogVector, outlived: u64, now: Timestamp) -> CatalogChange {
        let mut facts = self.facts.clone();
        for (node, number) in seen {
            let is_new = !facts.seen.contains_key(node);
            let has_place = *node == self.node || facts.seen.len() < NODES_MAX - 1;
            if !is_believable(*number, self.reached_by(*node), now) || is_new && !has_place {
                continue;
            }
            let known = facts.seen.entry(*node).or_default();
            *known = (*known).max(*number);
            if *node == self.node {
                facts.written = facts.written.max(*number);
            }
        }
        if is_believable(outlived, facts.outlived, now) {
            facts.outlived = facts.outlived.max(outlived);
        }
        // What this node once wrote and neither copy has: its disk lost it when it was put back. While it has not seen all of
        // its writes, nobody sees its later ones; so they are let go of.
        if facts.written > 0 {
            let own = facts.seen.entry(self.node).or_default();
            *own = (*own).max(facts.written);
        }
        CatalogChange { facts: (facts != self.facts).then_some(facts), ..CatalogChange::default() }
    }

    pub(super) fn outlived(&self) -> u64 {
        self.facts.outlived
    }
}

fn ahead_max_ms() -> u64 {
    u64::try_from(CATALOG_CLOCK_AHEAD_MAX.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a write stamped `time` must wait, by a clock that shows `now`.
fn is_ahead(time: CatalogTime, now: Timestamp) -> bool {
    time.at > now.saturating_add(CATALOG_CLOCK_AHEAD_MAX)
}

/// Whether a copy may grow by an entry that others hold already: an eighth past the bounds at which new writes are
/// refused, because writes that did not know of each other can pass those together.
fn has_room(entries: usize, bytes: u64, more_bytes: usize) -> bool {
    entries < CATALOG_ENTRIES_MAX + CATALOG_ENTRIES_MAX / 8
        && bytes + more_bytes as u64 <= CATALOG_BYTES_MAX + CATALOG_BYTES_MAX / 8
}

/// The workflow whose file `here` is lost to another one, `head`, that did not know of it.
fn conflict(key: &CatalogKey, here: Option<&Head>, head: &Head) -> Option<WorkflowName> {
    let (CatalogKey::Workflow(name), Kind::Workflow { digest, .. }) = (key, &head.kind) else { return None };
    match &here?.kind {
        Kind::Workflow { digest: lost, .. } if lost != digest => Some(name.clone()),
        _ => None,
    }
}
