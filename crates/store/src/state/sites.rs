//! The other sites of the fleet that the group has noted.

use fleet_core::SiteName;

use super::members;
use super::tables::SITES;
use crate::record::{SiteRecord, TrustKind};
use crate::{Error, StateRead};

/// Most other sites of a fleet.
pub const SITES_MAX: usize = 1_000;

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

/// Whether the group is that of the fleet's first site, which keeps the registry: it has the root for its authority, where
/// every other site has one of its own from its founding on.
pub fn is_registry(state: &impl StateRead) -> Result<bool, Error> {
    Ok(members::trust(state, TrustKind::Authority, SITE_AUTHORITY)?.is_none())
}
