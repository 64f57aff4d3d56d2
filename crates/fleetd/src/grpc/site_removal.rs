//! `site remove`: a whole site is taken out of the fleet for good, by the registry.

use fleet_api::SiteFacts;
use fleet_api::pb::v1;
use fleet_core::{Digest, Error, ErrorKind, SiteName};
use fleet_replication::command::{Action, LINKS_VERSION, SiteRemoval};
use fleet_store::record::PeerSite;
use fleet_store::state::{jobs, sites};
use rustls_pki_types::CertificateDer;

use crate::identity::Identity;
use crate::site::{Site, not_found, read_failed};

/// Removes the site called `name`. One that was removed already is as it should be.
///
/// # Errors
/// `NotFound` for a site that there never was, `FailedPrecondition` for the first one and away from the registry,
/// `Unavailable` while some node of this site does not know of removals.
pub(super) async fn remove(site: &Site, identity: &Identity, name: &str) -> Result<v1::RemoveSiteResponse, Error> {
    let refused = |kind, problem: &str| Error::new(kind, format!("remove site `{name}`: {problem}"));
    let named: SiteName = name.parse().map_err(|problem: String| refused(ErrorKind::InvalidInput, &problem))?;
    if named == *identity.first_site() {
        let problem = "it is the fleet's first site, whose root vouches for all others";
        return Err(refused(ErrorKind::FailedPrecondition, problem));
    }
    if !identity.keeps_registry() {
        let next_step = format!("Ask a node of site `{}`, with --endpoint.", identity.first_site());
        let problem = "that is done where the fleet's registry is kept";
        return Err(refused(ErrorKind::FailedPrecondition, problem).with_next_step(next_step));
    }
    let state = site.current_reader().await?;
    if jobs::site(&state).map_err(read_failed)?.gate < LINKS_VERSION {
        let problem = "not every node of this site is known to have a program that can";
        return Err(refused(ErrorKind::Unavailable, problem)
            .with_next_step("Upgrade fleetd on all of them, and start or remove those that are down."));
    }
    let Some(record) = sites::site(&state, &named).map_err(read_failed)? else {
        let removed = sites::all_removed(&state).map_err(read_failed)?;
        return match removed.iter().any(|(_, removed)| removed.site == named) {
            true => Ok(v1::RemoveSiteResponse {}),
            false => Err(not_found("site", name)),
        };
    };
    let serial = SiteFacts::read(&CertificateDer::from(record.authority.as_slice()))?.serial;
    let authority = Digest::of(record.authority.as_slice());
    let site_to_go = PeerSite { group: record.group, site: named };
    site.propose(Action::RemoveSite(Box::new(SiteRemoval { site: site_to_go, authority, serial }))).await?;
    tracing::info!(site = name, "site removed from the fleet");
    Ok(v1::RemoveSiteResponse {})
}
