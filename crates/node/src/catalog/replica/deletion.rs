//! The life of a deletion: it is acknowledged by each node that has it, and forgotten where every member acknowledged it.
//!
//! A node's acknowledgement says what it had seen. Once all members acknowledged a deletion, nobody has an older write of
//! its key any more, and each such write was made before its node's acknowledgement. So it is forgotten here only when this
//! copy has seen all that each member had written by then: whatever still travels of it is known here as seen and gone.

use std::collections::BTreeSet;

use fleet_core::{NodeId, Timestamp};
use fleet_store::CatalogChange;
use fleet_store::record::{CatalogContent, CatalogFacts, CatalogKey, CatalogVector, SignedBy};

use super::{Kind, Replica};

/// Most deletions that are forgotten in one step.
const FORGOTTEN_MAX: usize = 1_000;

impl Replica {
    /// The change by which this node acknowledges deletions that it has not yet, says for the first time that it is here, or
    /// takes back what is said in its name and is more than it has seen (by an earlier state of its disk, or by a liar).
    ///
    /// Of its own writes it says how many there were, seen or not: where its disk was put back, some travel that it does not
    /// know, and a deletion of one of them is kept until all of them are known as seen.
    pub(in super::super) fn plan_acknowledge(&self, now: Timestamp) -> CatalogChange {
        let key = CatalogKey::Acknowledgement(self.node);
        let written = self.reached_by(self.node);
        let may_say = |node: NodeId| if node == self.node { written } else { reach(self.seen(), node) };
        if let Some(said) = self.acknowledged_by(self.node)
            && !self.deletions().any(|(node, number)| self.has_seen(node, number) && reach(said, node) < number)
            && said.iter().all(|(node, number)| may_say(*node) >= *number)
            && (reach(self.seen(), self.node) >= written || reach(said, self.node) >= written)
        {
            return CatalogChange::default();
        }
        let mut seen = self.facts.seen.clone();
        if written > 0 {
            seen.insert(self.node, written);
        }
        let content = CatalogContent::Acknowledgement(seen);
        let row = self.row(key, content, SignedBy::Nobody, now);
        CatalogChange { put: vec![row], ..CatalogChange::default() }
    }

    /// The change by which this node deletes anew what a removed node deleted and is not known here to have been seen whole:
    /// nobody will ever see it so, and could acknowledge that. One node does it, the first of those that acknowledge here;
    /// without its acknowledgement nothing is forgotten anyway.
    pub(in super::super) fn plan_inherit(&self, now: Timestamp) -> CatalogChange {
        let mut change = CatalogChange::default();
        if self.deleted.is_empty() {
            return change;
        }
        let removed: BTreeSet<NodeId> = self.revoked().filter_map(removed_node).collect();
        if self.acknowledging().find(|node| !removed.contains(node)) != Some(self.node) {
            return change;
        }
        let mut written = self.facts.written;
        for key in &self.deleted {
            let Some(head) = self.head(key) else { continue };
            let Kind::Deleted { digest } = head.kind else { continue };
            if !removed.contains(&head.stamp.node) || self.has_seen(head.stamp.node, head.number) {
                continue;
            }
            let mut row = self.row(key.clone(), CatalogContent::Deleted { digest }, SignedBy::Nobody, now);
            written = written.saturating_add(1);
            row.1.number = written;
            change.put.push(row);
            if change.put.len() >= FORGOTTEN_MAX {
                break;
            }
        }
        change.facts = (!change.put.is_empty()).then(|| self.facts_after(written));
        change
    }

    /// The change that forgets deletions which all of `members` acknowledged, those who acknowledge here and are not
    /// revoked included.
    pub(in super::super) fn plan_forget(&self, members: &BTreeSet<NodeId>) -> CatalogChange {
        if self.deleted.is_empty() {
            return CatalogChange::default();
        }
        let removed: BTreeSet<NodeId> = self.revoked().filter_map(removed_node).collect();
        let here = self.acknowledging().filter(|node| !removed.contains(node));
        let members: BTreeSet<NodeId> = members.iter().copied().chain(here).collect();
        let Some(acknowledged) = members.iter().map(|node| self.acknowledged_by(*node)).collect::<Option<Vec<_>>>()
        else {
            return CatalogChange::default();
        };
        let is_caught_up =
            members.iter().zip(&acknowledged).all(|(node, said)| reach(self.seen(), *node) >= reach(said, *node));
        if !is_caught_up {
            return CatalogChange::default();
        }
        let (mut remove, mut outlived) = (Vec::new(), self.facts.outlived);
        for key in &self.deleted {
            let Some(head) = self.head(key) else { continue };
            let is_known = |said: &&CatalogVector| reach(said, head.stamp.node) >= head.number;
            if acknowledged.iter().all(is_known) && self.has_seen(head.stamp.node, head.number) {
                remove.push(key.clone());
                outlived = outlived.max(head.stamp.version);
            }
            if remove.len() >= FORGOTTEN_MAX {
                break;
            }
        }
        let facts = (!remove.is_empty()).then(|| CatalogFacts { outlived, ..self.facts.clone() });
        CatalogChange { put: Vec::new(), remove, facts }
    }

    /// How many deletions wait to be known everywhere.
    pub(in super::super) fn deletions_waiting(&self) -> usize {
        self.deleted.len()
    }

    /// The writes that are deletions: node and number.
    fn deletions(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.deleted.iter().filter_map(|key| self.head(key)).map(|head| (head.stamp.node, head.number))
    }

    /// The nodes that acknowledge here.
    fn acknowledging(&self) -> impl Iterator<Item = NodeId> {
        let from = CatalogKey::Acknowledgement(NodeId::from_bytes([0; 16]));
        self.heads.range(from..).filter_map(|(key, _)| match key {
            CatalogKey::Acknowledgement(node) => Some(*node),
            _ => None,
        })
    }

    fn acknowledged_by(&self, node: NodeId) -> Option<&CatalogVector> {
        match &self.head(&CatalogKey::Acknowledgement(node))?.kind {
            Kind::Acknowledgement(seen) => Some(seen),
            _ => None,
        }
    }
}

/// The node that `key` says was removed.
fn removed_node(key: &CatalogKey) -> Option<NodeId> {
    match key {
        CatalogKey::RevokedNode(_, node) => Some(*node),
        _ => None,
    }
}

/// How many writes of `node` are seen by who saw `seen`.
fn reach(seen: &CatalogVector, node: NodeId) -> u64 {
    seen.get(&node).copied().unwrap_or_default()
}
