//! From the crates' own values to the protocol's messages.

use fleet_api::pb::{peer, v1};
use fleet_core::{Error, NodeId, SiteName, limits};
use fleet_membership::{Member, MemberState, Metadata, View};
use fleet_node::ports::KnownSite;
use fleet_replication::Status;
use fleet_store::StateReader;
use fleet_store::record::{Keyring, NodeProfile, NodeRecord, NodeStanding, SiteRecord};
use fleet_store::state::members;

use crate::http::{HealthCheck, HealthDocument};
use crate::identity::Identity;
use crate::site::read_failed;

/// The gossip keys in force, as the site's state has them.
pub(super) fn keyring(state: &StateReader, identity: &Identity) -> Result<Keyring, Error> {
    let keyring = members::keyring(state).map_err(read_failed)?;
    if !keyring.keys.is_empty() {
        return Ok(keyring);
    }
    // A node that has applied nothing yet still knows what it was given.
    Ok(identity.keyring())
}

/// The gossip keys as a joiner gets them.
pub(super) fn gossip_keys(keyring: &Keyring) -> Vec<v1::GossipKey> {
    let keys = keyring.keys.iter();
    keys.map(|key| v1::GossipKey { key_id: u32::from(key.key_id), key: key.key.as_slice().to_vec() }).collect()
}

/// The gossip keys as another node gets them.
pub(super) fn peer_gossip_keys(keyring: &Keyring) -> Vec<peer::PeerGossipKey> {
    gossip_keys(keyring).into_iter().map(|key| peer::PeerGossipKey { key_id: key.key_id, key: key.key }).collect()
}

/// A node as this node sees it: what the group admitted, and what gossip says of it now.
pub(super) fn node(record: &NodeRecord, view: &View, status: &Status) -> v1::Node {
    let member = view.get(record.id);
    let metadata = member.and_then(|member| member.metadata.as_deref());
    let profile = current_profile(&record.profile, metadata);
    v1::Node {
        node_id: record.id.as_bytes().to_vec(),
        name: profile.name,
        site: profile.site.to_string(),
        state: node_state(record, member).to_owned(),
        leader: status.leader == Some(record.id),
        voter: status.voters().contains(&record.id),
        tags: profile.tags,
        slots: profile.slots,
        slots_busy: metadata.map_or(0, |metadata| metadata.slots_busy),
        version: profile.version,
        address: profile.address,
        http_address: profile.http_address,
    }
}

/// What a node says of itself now: by gossip where it says it there, else as the group noted it when it was admitted,
/// which may be of before a restart with other flags.
pub(crate) fn current_profile(noted: &NodeProfile, metadata: Option<&Metadata>) -> NodeProfile {
    let mut profile = noted.clone();
    // The first thing that a node gossips has only its name and its address.
    if let Some(metadata) = metadata.filter(|metadata| !metadata.software_version.is_empty()) {
        if metadata.tags_omitted == 0 {
            profile.tags.clone_from(&metadata.tags);
        }
        profile.slots = metadata.slots;
        profile.version.clone_from(&metadata.software_version);
        profile.http_address.clone_from(&metadata.http_address);
    }
    if let Some(address) = metadata.map(|metadata| &metadata.grpc_address).filter(|address| !address.is_empty()) {
        profile.address.clone_from(address);
    }
    profile
}

/// The word for a node's state: draining by the group's word counts while it is there at all.
fn node_state(record: &NodeRecord, member: Option<&Member>) -> &'static str {
    let state = member.map_or(MemberState::Down, |member| member.state);
    let is_drained = matches!(record.standing, NodeStanding::Draining { .. });
    if is_drained && state == MemberState::Alive { MemberState::Draining.as_str() } else { state.as_str() }
}

/// What `/health` of the node called `node` says, check by check.
pub(super) fn health_checks(node: &str, document: HealthDocument) -> Vec<v1::Check> {
    let check = |(name, check): (&'static str, HealthCheck)| v1::Check {
        name: name.to_owned(),
        node: node.to_owned(),
        result: check.status.to_owned(),
        detail: check.detail,
        next_step: if check.status == "ok" { String::new() } else { "`fleetctl doctor` says what to do.".to_owned() },
    };
    document.checks.into_iter().map(check).collect()
}

/// A site as this node sees it.
pub(super) fn site(name: &str, group: &fleet_replication::Group, nodes: &[NodeRecord], held: bool) -> v1::Site {
    let status = group.status().borrow().clone();
    let name_of = |id: &NodeId| {
        nodes.iter().find(|node| node.id == *id).map_or_else(|| id.to_string(), |node| node.profile.name.clone())
    };
    let voters = status.voter_sets.last().cloned().unwrap_or_default();
    let mut voter_names: Vec<String> = voters.iter().map(name_of).collect();
    voter_names.sort();
    let mut learners: Vec<String> = status.learners.iter().map(name_of).collect();
    learners.sort();
    v1::Site {
        name: name.to_owned(),
        group_id: group.id().as_bytes().to_vec(),
        epoch: status.epoch,
        leader: status.leader.as_ref().map(name_of).unwrap_or_default(),
        voters: voter_names,
        learners,
        held,
        state: if status.leader.is_some() { "alive" } else { "leaderless" }.to_owned(),
        nodes: u32::try_from(nodes.len()).ok(),
        heard_ms: 0,
        own: true,
        contacts: nodes.iter().map(|node| node.profile.address.clone()).take(limits::SITE_CONTACTS_MAX).collect(),
    }
}

/// Another site as this node knows it: what its group has noted of it, and what a link to it last told, if there was one.
pub(super) fn other_site(name: &SiteName, record: &SiteRecord, heard: Option<&KnownSite>) -> v1::Site {
    let heard_at = heard.and_then(|heard| heard.heard_at);
    let state = match heard {
        Some(heard) if heard.is_linked => "alive",
        _ if heard_at.is_some() => "silent",
        _ => "unheard",
    };
    v1::Site {
        name: name.to_string(),
        group_id: record.group.as_bytes().to_vec(),
        state: state.to_owned(),
        heard_ms: heard_at.map_or(0, |at| at.0),
        contacts: record.contacts.clone(),
        ..v1::Site::default()
    }
}

/// A site that was removed from the fleet, and that nobody has founded anew under its name.
pub(super) fn removed_site(name: &SiteName, group: fleet_core::GroupId) -> v1::Site {
    let (name, group_id) = (name.to_string(), group.as_bytes().to_vec());
    v1::Site { name, group_id, state: "removed".to_owned(), ..v1::Site::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_came_back_with_other_flags_is_shown_as_it_is_now() {
        let noted = NodeProfile {
            name: "a".to_owned(),
            site: fleet_core::SiteName::default(),
            address: "old:1".to_owned(),
            http_address: "old:2".to_owned(),
            tags: vec!["old".to_owned()],
            slots: 1,
            capabilities: vec!["http".to_owned()],
            version: "0.1.0".to_owned(),
        };
        assert_eq!(current_profile(&noted, None), noted);
        let first = Metadata { grpc_address: "new:1".to_owned(), ..Metadata::default() };
        let expected = NodeProfile { address: "new:1".to_owned(), ..noted.clone() };
        assert_eq!(current_profile(&noted, Some(&first)), expected, "what was not said yet is as noted");
        let whole = Metadata {
            tags: vec!["new".to_owned()],
            slots: 8,
            software_version: "0.2.0".to_owned(),
            http_address: "new:2".to_owned(),
            ..first
        };
        let now = current_profile(&noted, Some(&whole));
        assert_eq!((now.tags, now.slots, now.version.as_str()), (vec!["new".to_owned()], 8, "0.2.0"));
        let cut = Metadata { tags: Vec::new(), tags_omitted: 3, ..whole };
        assert_eq!(current_profile(&noted, Some(&cut)).tags, noted.tags, "tags that did not fit are not gone");
    }
}
