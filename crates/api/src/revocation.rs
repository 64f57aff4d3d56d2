//! The set of subjects whose certificates are void. A handle shared by everything that shakes hands; it is fed by the
//! group's log (later by the catalog) and is not itself durable.
//!
//! Invariant: the set only grows. Granting again makes a new id.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use crate::identity::Subject;

/// A cheap handle to the revoked subjects.
#[derive(Clone, Debug)]
pub struct Revocations(Arc<watch::Sender<BTreeSet<Subject>>>);

impl Revocations {
    /// An empty set.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeSet::new())))
    }

    /// Whether `subject` is revoked.
    pub fn contains(&self, subject: Subject) -> bool {
        self.0.borrow().contains(&subject)
    }

    /// Adds `subjects`. Open connections of theirs are cut.
    pub fn extend(&self, subjects: impl IntoIterator<Item = Subject>) {
        self.0.send_if_modified(|set| {
            let before = set.len();
            set.extend(subjects);
            set.len() != before
        });
    }

    /// Resolves once `subject` is revoked; never, if it never is.
    pub async fn revoked(self, subject: Subject) {
        let mut changes = self.0.subscribe();
        if changes.wait_for(|set| set.contains(&subject)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Default for Revocations {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_core::NodeId;

    #[tokio::test]
    async fn a_wait_ends_when_its_subject_is_revoked() {
        let set = Revocations::new();
        let (mine, other) = (Subject::Node(NodeId::generate()), Subject::Node(NodeId::generate()));
        let waiting = tokio::spawn(set.clone().revoked(mine));
        set.extend([other]);
        assert!(!set.contains(mine) && !waiting.is_finished());
        set.extend([mine]);
        waiting.await.unwrap();
        assert!(set.contains(mine) && set.contains(other));
    }
}
