//! The certificates that are void, by holder or by serial number. A handle shared by everything that shakes hands; it is fed by the
//! group's log (later by the catalog) and is not itself durable.
//!
//! Invariant: the set only grows. Granting again makes a new id.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use crate::identity::{CertificateFacts, Subject};

/// What is void.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revocation {
    /// Every certificate of this holder.
    Subject(Subject),
    /// The certificate with this serial number, lower-case hexadecimal.
    Serial(String),
}

/// A cheap handle to what is void.
#[derive(Clone, Debug)]
pub struct Revocations(Arc<watch::Sender<BTreeSet<Revocation>>>);

impl Revocations {
    /// An empty set.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeSet::new())))
    }

    /// Whether `certificate` is void.
    pub fn cover(&self, certificate: &CertificateFacts) -> bool {
        covers(&self.0.borrow(), certificate)
    }

    /// Adds `revocations`. Open connections of theirs are cut.
    pub fn extend(&self, revocations: impl IntoIterator<Item = Revocation>) {
        self.0.send_if_modified(|set| {
            let before = set.len();
            set.extend(revocations);
            set.len() != before
        });
    }

    /// Resolves once `certificate` is void; never, if it never is.
    pub async fn revoked(self, certificate: CertificateFacts) {
        let mut changes = self.0.subscribe();
        if changes.wait_for(|set| covers(set, &certificate)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn covers(set: &BTreeSet<Revocation>, certificate: &CertificateFacts) -> bool {
    !set.is_empty()
        && (set.contains(&Revocation::Subject(certificate.name.subject))
            || set.contains(&Revocation::Serial(certificate.serial.clone())))
}

impl Default for Revocations {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::{FleetId, NodeId, Timestamp};

    use super::*;
    use crate::identity::CertificateName;

    fn certificate(serial: &str) -> CertificateFacts {
        CertificateFacts {
            name: CertificateName { fleet: FleetId::default(), subject: Subject::Node(NodeId::generate()) },
            serial: serial.to_owned(),
            not_before: Timestamp(0),
            not_after: Timestamp(1),
        }
    }

    #[tokio::test]
    async fn a_wait_ends_when_its_certificate_is_void() {
        let set = Revocations::new();
        let (mine, other) = (certificate("01"), certificate("02"));
        let waiting = tokio::spawn(set.clone().revoked(mine.clone()));
        set.extend([Revocation::Subject(other.name.subject)]);
        assert!(set.cover(&other) && !set.cover(&mine) && !waiting.is_finished());
        set.extend([Revocation::Serial("01".to_owned())]);
        waiting.await.unwrap();
        assert!(set.cover(&mine) && set.cover(&other));
    }
}
