//! Holds the copies of the catalog against what is promised of them, at every write of every node and at the end.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::invariant::Invariant;
use fleet_core::{Digest, NodeId};
use fleet_store::CatalogChange;
use fleet_store::record::{CatalogContent, CatalogEntry, CatalogFacts, CatalogKey, CatalogStamp};

use super::copy::Kept;
use crate::judge::{Law, Violation, broken};
use crate::message::Situation;

/// A deletion that a node forgot.
#[derive(Debug)]
struct Forgotten {
    stamp: CatalogStamp,
    /// How many writes there were by then.
    at: u64,
    /// Who acknowledged there, and so was waited for.
    waited_for: BTreeSet<NodeId>,
}

/// What the judge knows.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// How many writes each node made.
    numbers: BTreeMap<NodeId, u64>,
    /// How many writes there were, acknowledgements of deletions included.
    writes: u64,
    /// The files that were deployed under each name.
    files: BTreeMap<CatalogKey, BTreeSet<Digest>>,
    deletions: BTreeMap<CatalogKey, Vec<CatalogStamp>>,
    /// What somebody was told is in the catalog.
    told: Vec<(NodeId, CatalogKey, CatalogEntry)>,
    /// When each write was made, as a count of writes.
    made: BTreeMap<(CatalogKey, CatalogStamp), u64>,
    /// Deletions that a node held and forgot.
    forgotten: BTreeMap<(NodeId, CatalogKey), Vec<Forgotten>>,
    /// Nodes whose disks were put back to an earlier state: their numbers may mean two writes.
    put_back: BTreeSet<NodeId>,
    pub(super) seen: BTreeMap<Situation, u64>,
}

fn digest_of(entry: &CatalogEntry) -> Option<Digest> {
    match &entry.content {
        CatalogContent::Workflow { digest, .. } | CatalogContent::Deleted { digest } => Some(*digest),
        CatalogContent::Revocation | CatalogContent::Acknowledgement(_) => None,
    }
}

fn is_live(entry: &CatalogEntry) -> bool {
    matches!(entry.content, CatalogContent::Workflow { .. })
}

fn is_deletion(entry: &CatalogEntry) -> bool {
    matches!(entry.content, CatalogContent::Deleted { .. })
}

fn wrong(detail: String) -> Result<(), Violation> {
    broken(Law::CatalogKeepsItsWord, detail)
}

impl Judge {
    pub(super) fn count(&mut self, situation: Situation) {
        *self.seen.entry(situation).or_default() += 1;
    }

    /// `node`, whose copy was `before`, made `change` true of it; `is_own` if that is a write of its own.
    pub(super) fn changed(
        &mut self,
        node: NodeId,
        before: &Kept,
        change: &CatalogChange,
        is_own: bool,
    ) -> Result<(), Violation> {
        for (key, entry) in &change.put {
            let old = before.entries.get(key);
            if is_own {
                self.wrote(node, key, entry, old)?;
            }
            self.check_put(node, key, entry, old)?;
        }
        for key in &change.remove {
            if let Some(old) = before.entries.get(key) {
                self.removed(node, before, key, old)?;
            }
        }
        change.facts.as_ref().map_or(Ok(()), |facts| self.check_facts(node, facts))
    }

    fn wrote(
        &mut self,
        node: NodeId,
        key: &CatalogKey,
        entry: &CatalogEntry,
        old: Option<&CatalogEntry>,
    ) -> Result<(), Violation> {
        self.writes += 1;
        self.made.insert((key.clone(), entry.stamp), self.writes);
        let highest = self.numbers.entry(node).or_default();
        if entry.number > 0 && entry.number <= *highest && !self.put_back.contains(&node) {
            return wrong(format!("{node} writes {key:?} as number {} after {highest}", entry.number));
        }
        *highest = (*highest).max(entry.number);
        if let (Some(new), Some(known)) = (digest_of(entry), old.and_then(digest_of))
            && new != known
        {
            return wrong(format!("{node} changes {key:?} itself"));
        }
        if is_deletion(entry) {
            self.deletions.entry(key.clone()).or_default().push(entry.stamp);
        }
        if let Some(digest) = digest_of(entry) {
            self.files.entry(key.clone()).or_default().insert(digest);
        }
        Ok(())
    }

    fn check_put(
        &mut self,
        node: NodeId,
        key: &CatalogKey,
        entry: &CatalogEntry,
        old: Option<&CatalogEntry>,
    ) -> Result<(), Violation> {
        let stamp = entry.stamp;
        if stamp.version > self.writes || entry.number > self.numbers.get(&stamp.node).copied().unwrap_or_default() {
            return wrong(format!("{node} has {key:?} with counters of nobody: {stamp:?} {}", entry.number));
        }
        if old.is_some_and(|old| old.stamp > stamp) {
            return wrong(format!("{node} goes back with {key:?} from {:?} to {stamp:?}", old.map(|old| old.stamp)));
        }
        if digest_of(entry).is_some_and(|digest| !self.files.get(key).is_some_and(|files| files.contains(&digest))) {
            return wrong(format!("{node} has a file of {key:?} that nobody deployed"));
        }
        let forgotten = self.forgotten.get(&(node, key.clone())).into_iter().flatten();
        if is_live(entry) && forgotten.into_iter().any(|forgotten| self.is_back(forgotten, key, entry)) {
            return wrong(format!("at {node} {key:?} of {stamp:?} came back, which was deleted"));
        }
        if is_live(entry) && old.is_some_and(|old| is_live(old) && digest_of(old) != digest_of(entry)) {
            self.count(Situation::CatalogConflict);
        }
        Ok(())
    }

    /// Whether `entry` is what `forgotten` had outlived. What was deployed after that is a deployment of its own, also where
    /// nothing is known of the deletion.
    fn is_back(&self, forgotten: &Forgotten, key: &CatalogKey, entry: &CatalogEntry) -> bool {
        let made = self.made.get(&(key.clone(), entry.stamp)).copied().unwrap_or_default();
        forgotten.stamp >= entry.stamp && made <= forgotten.at && forgotten.waited_for.contains(&entry.stamp.node)
    }

    fn removed(&mut self, node: NodeId, before: &Kept, key: &CatalogKey, old: &CatalogEntry) -> Result<(), Violation> {
        match &old.content {
            CatalogContent::Revocation => wrong(format!("{node} takes the revocation {key:?} back")),
            CatalogContent::Acknowledgement(_) => Ok(()),
            CatalogContent::Deleted { .. } => {
                if self.put_back.contains(&old.stamp.node) {
                    return Ok(());
                }
                self.count(Situation::CatalogDeletionForgotten);
                let waited_for = before.entries.keys().filter_map(|key| match key {
                    CatalogKey::Acknowledgement(node) => Some(*node),
                    _ => None,
                });
                let forgotten = Forgotten { stamp: old.stamp, at: self.writes, waited_for: waited_for.collect() };
                self.forgotten.entry((node, key.clone())).or_default().push(forgotten);
                Ok(())
            }
            CatalogContent::Workflow { .. } => {
                self.count(Situation::CatalogOutlivedDropped);
                if self.is_deleted_after(key, old.stamp) || self.put_back.contains(&old.stamp.node) {
                    return Ok(());
                }
                wrong(format!("{node} drops {key:?} of {:?}, which nobody deleted", old.stamp))
            }
        }
    }

    fn is_deleted_after(&self, key: &CatalogKey, stamp: CatalogStamp) -> bool {
        self.deletions.get(key).is_some_and(|deletions| deletions.iter().any(|deletion| *deletion > stamp))
    }

    fn check_facts(&self, node: NodeId, facts: &CatalogFacts) -> Result<(), Violation> {
        let highest = |node: &NodeId| self.numbers.get(node).copied().unwrap_or_default();
        let is_right = facts.written <= highest(&node)
            && facts.outlived <= self.writes
            && facts.seen.iter().all(|(node, number)| *number <= highest(node));
        if is_right { Ok(()) } else { wrong(format!("{node} knows of writes that nobody made: {facts:?}")) }
    }

    /// Somebody was told that `change` is in the catalog.
    pub(super) fn told(&mut self, node: NodeId, change: &CatalogChange) {
        if self.put_back.contains(&node) {
            return;
        }
        self.told.extend(change.put.iter().map(|(key, entry)| (node, key.clone(), entry.clone())));
    }

    /// The disk of `node` is lost, or what it had last (`is_put_back`); `others` are the copies that are left. What only it
    /// had is lost with it.
    pub(super) fn lost(&mut self, node: NodeId, others: &[Kept], is_put_back: bool) {
        let is_kept = |key: &CatalogKey, entry: &CatalogEntry| {
            others.iter().any(|kept| kept.entries.get(key).is_some_and(|other| other.stamp >= entry.stamp))
        };
        self.told.retain(|(author, key, entry)| is_kept(key, entry) && !(is_put_back && *author == node));
        self.forgotten.retain(|(who, _), _| *who != node);
        if is_put_back {
            self.put_back.insert(node);
        }
    }

    /// Once all copies agree on `kept`: everything that somebody was told is there, or something later is, or it was
    /// deleted; and nothing is there that was deleted.
    pub(super) fn check_end(&self, kept: &Kept) -> Result<(), Violation> {
        for (node, key, entry) in &self.told {
            let is_right = match kept.entries.get(key) {
                Some(last) => last.stamp >= entry.stamp,
                None => is_deletion(entry) || self.is_deleted_after(key, entry.stamp),
            };
            if !is_right {
                let detail = format!("{key:?} of {:?}, told by {node}, is gone everywhere", entry.stamp);
                return broken(Law::Promise(Invariant::DurableAccept), detail);
            }
        }
        for (key, entry) in kept.entries.iter().filter(|(_, entry)| is_live(entry)) {
            let mut forgotten = self.forgotten.iter().filter(|((_, of), _)| of == key).flat_map(|(_, all)| all);
            let was_forgotten = forgotten.any(|forgotten| self.is_back(forgotten, key, entry));
            if was_forgotten {
                return wrong(format!("{key:?} of {:?} came back, which was deleted", entry.stamp));
            }
        }
        Ok(())
    }
}
