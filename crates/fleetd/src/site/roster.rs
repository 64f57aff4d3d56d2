//! Who belongs to the site and which other sites there are, as one reading of the applied state.

use std::collections::BTreeSet;

use fleet_api::revocation::Revocation;
use fleet_core::{Error, GroupId, SiteName};
use fleet_store::StateReader;
use fleet_store::record::{Keyring, NodeRecord, SiteRecord};
use fleet_store::state::{members, sites};

use super::read_failed;
use crate::trust::revoked;

/// What the daemon's tasks look at again and again. Of one state.
#[derive(Debug)]
pub struct Roster {
    /// Every node, those that were removed included.
    pub nodes: Vec<NodeRecord>,
    /// The other sites that the group has noted, by name.
    pub other_sites: Vec<(SiteName, SiteRecord)>,
    /// The groups of sites that were removed from the fleet.
    pub removed_sites: BTreeSet<GroupId>,
    /// What is void.
    pub revoked: Vec<Revocation>,
    /// The gossip keys.
    pub keyring: Keyring,
}

impl Roster {
    pub(super) fn read(state: &StateReader) -> Result<Self, Error> {
        let nodes = members::nodes(state).map_err(read_failed)?;
        let revoked = revoked::read(state, &nodes)?;
        let other_sites = sites::sites(state).map_err(read_failed)?;
        let removed_sites =
            sites::all_removed(state).map_err(read_failed)?.into_iter().map(|(group, _)| group).collect();
        let keyring = members::keyring(state).map_err(read_failed)?;
        Ok(Self { nodes, other_sites, removed_sites, revoked, keyring })
    }
}
