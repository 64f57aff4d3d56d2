//! Sites that were removed from the fleet, on the leader of every other: what the catalog says is void by the root's word
//! is taken out of the group's state, piece by piece, and the name is free for another.
//!
//! Level-triggered: whoever leads next goes on where the state says that it ended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fleet_api::SiteFacts;
use fleet_core::{Error, SiteName};
use fleet_replication::command::{Action, LINKS_VERSION, Outcome};
use fleet_store::StateReader;
use fleet_store::record::{CatalogKey, Payload, PeerSite, Sweep};
use fleet_store::state::{jobs, sites};
use rustls_pki_types::CertificateDer;

use super::parts::Parts;
use crate::site::{Roster, Site, read_failed};
use crate::trust::keeper::site_certificate;

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long it waits after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// What was looked at: the applied state, and what was void.
type Looked = (Arc<Roster>, BTreeSet<String>);

/// Looks for as long as the node runs.
pub(super) async fn run(parts: Parts) {
    let mut looked = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if parts.site.group().serving_term().is_none() {
            looked = None;
            continue;
        }
        let void = void_authorities(&parts.catalog.revoked(), parts.identity.first_site());
        match look_again(&parts.site, void, &looked).await {
            Ok(found) => looked = Some(found),
            Err(error) => {
                tracing::warn!(error = fleet_core::error::chain(&error), "a removed site is not forgotten yet");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
}

/// Looks unless nothing was applied and nothing made void since the look that is told of; what it looked at.
async fn look_again(site: &Site, void: BTreeSet<String>, looked: &Option<Looked>) -> Result<Looked, Error> {
    let roster = site.roster()?;
    let is_old = |(last, last_void): &Looked| Arc::ptr_eq(last, &roster) && *last_void == void;
    if !looked.as_ref().is_some_and(is_old) {
        look(site, &void).await?;
    }
    Ok((roster, void))
}

/// Whether the site of this node was itself removed from the fleet, as far as that has come here.
pub(super) fn is_own_removed(parts: &Parts) -> Result<bool, Error> {
    let void = void_authorities(&parts.catalog.revoked(), parts.identity.first_site());
    Ok(!void.is_empty() && is_void(&site_certificate(&parts.site.reader()?)?, &void))
}

/// The serial numbers that are void of what the root signed, by what is `revoked`.
fn void_authorities(revoked: &[CatalogKey], first_site: &SiteName) -> BTreeSet<String> {
    let serial = |key: &CatalogKey| match key {
        CatalogKey::RevokedSerial(site, serial) if site == first_site => Some(serial.clone()),
        _ => None,
    };
    revoked.iter().filter_map(serial).collect()
}

fn is_void(authority: &Payload, void: &BTreeSet<String>) -> bool {
    let facts = SiteFacts::read(&CertificateDer::from(authority.as_slice()));
    facts.is_ok_and(|facts| void.contains(&facts.serial))
}

/// Takes out every site that is `void` or not wholly forgotten.
pub(super) async fn look(site: &Site, void: &BTreeSet<String>) -> Result<(), Error> {
    for removed in to_expel(&site.reader()?, void)? {
        while let Outcome::Forgotten { jobs, more } = site.propose(Action::ExpelSite(removed.clone())).await? {
            tracing::info!(site = %removed.site, jobs, more, "a site was removed from the fleet, and is let go of here");
            if !more {
                break;
            }
        }
    }
    Ok(())
}

fn to_expel(state: &StateReader, void: &BTreeSet<String>) -> Result<Vec<PeerSite>, Error> {
    if jobs::site(state).map_err(read_failed)?.gate < LINKS_VERSION {
        return Ok(Vec::new());
    }
    let unfinished = sites::all_removed(state).map_err(read_failed)?.into_iter();
    let unfinished = unfinished.filter(|(_, removed)| removed.sweep != Sweep::Over);
    let unfinished = unfinished.map(|(group, removed)| PeerSite { group, site: removed.site });
    if void.is_empty() {
        return Ok(unfinished.collect());
    }
    let known = sites::sites(state).map_err(read_failed)?.into_iter();
    let known = known.filter(|(_, record)| is_void(&record.authority, void));
    Ok(unfinished.chain(known.map(|(site, record)| PeerSite { group: record.group, site })).collect())
}
