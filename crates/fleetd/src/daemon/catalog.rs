//! The catalog in the daemon: opened with the store, kept the same as other copies, and fed with what the site's group
//! revoked; what anyone revoked is void here as soon as it is known.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::{Error, ErrorKind};
use fleet_node::catalog::{self, Catalog, Pace};
use fleet_store::Store;
use fleet_store::record::CatalogKey;

use super::clock;
use super::parts::{Parts, Tls};
use crate::ports::CatalogPort;
use crate::site::Roster;
use crate::trust::vouching::{AuthoritySignatures, key_of, revocation_of, vouch};

/// How often the leader looks whether something was revoked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long it waits after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Opens the catalog in `store` on a thread that may wait. What it says is void, is from here on.
pub(super) async fn open(store: &Store, tls: &Tls) -> Result<Catalog, Error> {
    let signatures = Arc::new(AuthoritySignatures::of(&tls.trust.root)?);
    let store = store.clone();
    let opened = tokio::task::spawn_blocking(move || Catalog::open(store, clock(), signatures)).await;
    let catalog =
        opened.map_err(|source| Error::new(ErrorKind::Internal, "open the catalog").with_source(source))??;
    tls.revocations.extend(catalog.revoked().into_iter().filter_map(|key| revocation_of(key, &tls.trust)));
    Ok(catalog)
}

/// Keeps the copy together with those of the site's other nodes.
pub(super) async fn keep(parts: Parts) {
    let port = CatalogPort::new(parts.site.clone(), parts.identity.site.clone(), parts.membership.clone());
    catalog::run(parts.catalog, Arc::new(port), Pace::SITE).await;
}

/// Makes void what the catalog says is, as that grows; what this node's own site removed, is kept out of its gossip too.
pub(super) async fn obey(parts: Parts) {
    let mut changes = parts.catalog.changes();
    let mut known = BTreeSet::new();
    loop {
        let revoked = parts.catalog.revoked();
        if revoked.len() > known.len() {
            let void = revoked.iter().cloned().filter_map(|key| revocation_of(key, &parts.tls.trust));
            parts.tls.revocations.extend(void);
            parts.membership.ban(revoked.iter().filter_map(|key| match key {
                CatalogKey::RevokedNode(site, node) if *site == parts.identity.site => Some(*node),
                _ => None,
            }));
            known.extend(revoked);
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// As leader, puts into the catalog what the group revoked.
pub(super) async fn revoke(parts: Parts) {
    let mut looked = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if parts.site.group().serving_term().is_none() {
            continue;
        }
        let outcome = async {
            let roster = parts.site.roster()?;
            if looked.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &roster)) {
                look(&parts, &roster).await?;
                looked = Some(roster);
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = outcome.await {
            tracing::warn!(error = fleet_core::error::chain(&error), "what was revoked is not in the catalog");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

async fn look(parts: &Parts, roster: &Roster) -> Result<(), Error> {
    let known: BTreeSet<CatalogKey> = parts.catalog.revoked().into_iter().collect();
    let keys = roster.revoked.iter().filter_map(|revocation| key_of(revocation, &parts.identity.site));
    let news: Vec<CatalogKey> = keys.filter(|key| !known.contains(key)).collect();
    if news.is_empty() {
        return Ok(());
    }
    let authority = parts.trust.authority(&parts.site.reader()?)?;
    let signed =
        news.into_iter().map(|key| Ok((key.clone(), vouch(&authority, &key)?))).collect::<Result<_, Error>>()?;
    parts.catalog.revoke(signed).await
}
