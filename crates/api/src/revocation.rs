//! The certificates that are void, by holder or by serial number. A handle shared by everything that shakes hands; it is fed by the
//! group's log (later by the catalog) and is not itself durable.
//!
//! Invariant: the set only grows. Granting again makes a new id.

use std::collections::BTreeSet;
use std::sync::Arc;

use fleet_core::NodeId;
use tokio::sync::watch;

use crate::chain::{Issuer, Voucher};
use crate::identity::{CertificateFacts, Subject};

/// What is void.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revocation {
    /// Every certificate of this holder.
    Subject(Subject),
    /// The certificate with this serial number, lower-case hexadecimal.
    Serial(String),
    /// Every certificate that this authority gave this node.
    NodeOf(Issuer, NodeId),
    /// The certificate of this authority with this serial number.
    SerialOf(Issuer, String),
}

/// A cheap handle to what is void.
#[derive(Clone, Debug)]
pub struct Revocations(Arc<watch::Sender<BTreeSet<Revocation>>>);

impl Revocations {
    /// An empty set.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeSet::new())))
    }

    /// Whether `certificate`, for which `voucher` vouches, is void.
    pub fn cover(&self, certificate: &CertificateFacts, voucher: &Voucher) -> bool {
        covers(&self.0.borrow(), certificate, voucher)
    }

    /// Adds `revocations`. Open connections of theirs are cut.
    pub fn extend(&self, revocations: impl IntoIterator<Item = Revocation>) {
        self.0.send_if_modified(|set| {
            let before = set.len();
            set.extend(revocations);
            set.len() != before
        });
    }

    /// Resolves once `certificate`, for which `voucher` vouches, is void; never, if it never is.
    pub async fn revoked(self, certificate: CertificateFacts, voucher: Voucher) {
        let mut changes = self.0.subscribe();
        if changes.wait_for(|set| covers(set, &certificate, &voucher)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn covers(set: &BTreeSet<Revocation>, certificate: &CertificateFacts, voucher: &Voucher) -> bool {
    if set.is_empty() {
        return false;
    }
    let issuer = &voucher.issuer;
    let is_serial_void = |issuer: &Issuer, serial: &String| {
        set.contains(&Revocation::Serial(serial.clone()))
            || set.contains(&Revocation::SerialOf(issuer.clone(), serial.clone()))
    };
    let subject = certificate.name.subject;
    let is_node_void = match subject {
        Subject::Node(node) => set.contains(&Revocation::NodeOf(issuer.clone(), node)),
        Subject::Admin(_) => false,
    };
    is_node_void
        || set.contains(&Revocation::Subject(subject))
        || is_serial_void(issuer, &certificate.serial)
        // With the certificate of an authority, which the root signed, all is void that the authority signed.
        || voucher.authority.as_ref().is_some_and(|serial| is_serial_void(&Issuer::Root, serial))
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

    fn voucher(issuer: &Issuer, authority: &str) -> Voucher {
        Voucher { issuer: issuer.clone(), authority: Some(authority.to_owned()) }
    }

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
        let waiting = tokio::spawn(set.clone().revoked(mine.clone(), Voucher::ROOT));
        set.extend([Revocation::Subject(other.name.subject)]);
        let covers = |facts| set.cover(facts, &Voucher::ROOT);
        assert!(covers(&other) && !covers(&mine) && !waiting.is_finished());
        set.extend([Revocation::Serial("01".to_owned())]);
        waiting.await.unwrap();
        assert!(covers(&mine) && covers(&other));
    }

    #[tokio::test]
    async fn an_authority_voids_only_what_it_issued() {
        let [plant, shop] = ["plant", "shop"].map(|site| Issuer::Site(site.parse().unwrap()));
        for by_serial in [true, false] {
            let set = Revocations::new();
            let facts = certificate("01");
            let Subject::Node(node) = facts.name.subject else { unreachable!() };
            let waits =
                [&plant, &shop].map(|issuer| tokio::spawn(set.clone().revoked(facts.clone(), voucher(issuer, "0a"))));
            set.extend([if by_serial {
                Revocation::SerialOf(plant.clone(), facts.serial.clone())
            } else {
                Revocation::NodeOf(plant.clone(), node)
            }]);
            let [of_plant, of_shop] = waits;
            of_plant.await.unwrap();
            assert!(set.cover(&facts, &voucher(&plant, "0a")) && !of_shop.is_finished());
            assert!(!set.cover(&facts, &voucher(&shop, "0a")) && !set.cover(&facts, &Voucher::ROOT));
            of_shop.abort();
        }
    }

    #[tokio::test]
    async fn with_an_authority_all_is_void_that_it_signed_and_nothing_of_another_of_its_name() {
        let plant = Issuer::Site("plant".parse().unwrap());
        let serial = || "0a".to_owned();
        for void in [Revocation::Serial(serial()), Revocation::SerialOf(Issuer::Root, serial())] {
            let set = Revocations::new();
            let facts = certificate("01");
            let waiting = tokio::spawn(set.clone().revoked(facts.clone(), voucher(&plant, "0a")));
            set.extend([Revocation::SerialOf(plant.clone(), serial())]);
            assert!(!set.cover(&facts, &voucher(&plant, "0a")), "no authority voids itself, nor another");
            set.extend([void]);
            waiting.await.unwrap();
            assert!(!set.cover(&facts, &voucher(&plant, "0b")), "the name was founded anew");
            assert!(!set.cover(&facts, &Voucher::ROOT));
        }
    }
}
