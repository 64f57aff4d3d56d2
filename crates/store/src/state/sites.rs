//! The other sites of the fleet that the group has noted.

use fleet_core::{GroupId, SiteName};

use super::members;
use super::tables::{REMOVED_SITES, SITES};
use crate::record::{RemovedSite, SiteRecord, TrustKind};
use crate::{Error, StateRead};

/// Most other sites of a fleet.
pub const SITES_MAX: usize = 1_000;

/// Most sites that are ever removed from a fleet.
pub const REMOVED_SITES_MAX: usize = 10_000;

/// Name of a site's own authority among the rows of trust.
pub const SITE_AUTHORITY: &str = "site";

/// Another site.
pub fn site(state: &impl StateRead, name: &SiteName) -> Result<Option<SiteRecord>, Error> {
    state.get(&SITES, &name.to_string())
}

/// Every other site, by name.
pub fn sites(state: &impl StateRead) -> Result<Vec<(SiteName, SiteRecord)>, Error> {
    let rows = state.scan(&SITES, &(), None, SITES_MAX)?.into_iter();
    rows.map(|(name, record)| match name.parse() {
        Ok(name) => Ok((name, record)),
        Err(_) => Err(Error::corrupt("site", "its name is no site's")),
    })
    .collect()
}

/// The removed site whose log `group` agreed on.
pub fn removed(state: &impl StateRead, group: GroupId) -> Result<Option<RemovedSite>, Error> {
    state.get(&REMOVED_SITES, &group)
}

/// Every site that was removed, by its group.
pub fn all_removed(state: &impl StateRead) -> Result<Vec<(GroupId, RemovedSite)>, Error> {
    state.scan(&REMOVED_SITES, &(), None, REMOVED_SITES_MAX)
}

/// Whether the group is that of the fleet's first site, which keeps the registry: it has the root for its authority, where
/// every other site has one of its own from its founding on.
pub fn is_registry(state: &impl StateRead) -> Result<bool, Error> {
    Ok(members::trust(state, TrustKind::Authority, SITE_AUTHORITY)?.is_none())
}
