//! From the crates' own values to the protocol's messages.

use fleet_api::pb::{peer, v1};
use fleet_core::NodeId;
use fleet_membership::{Member, MemberState, View};
use fleet_replication::Status;
use fleet_store::record::{NodeRecord, NodeStanding};

use crate::identity::Identity;

/// The gossip keys as a joiner gets them.
pub(super) fn gossip_keys(identity: &Identity) -> Vec<v1::GossipKey> {
    identity
        .gossip_keys
        .iter()
        .map(|stored| v1::GossipKey { key_id: u32::from(stored.key_id), key: stored.key.to_vec() })
        .collect()
}

/// The gossip keys as another node gets them.
pub(super) fn peer_gossip_keys(identity: &Identity) -> Vec<peer::PeerGossipKey> {
    gossip_keys(identity).into_iter().map(|key| peer::PeerGossipKey { key_id: key.key_id, key: key.key }).collect()
}

/// A node as this node sees it: what the group admitted, and what gossip says of it now.
pub(super) fn node(record: &NodeRecord, view: &View, status: &Status) -> v1::Node {
    let member = view.get(record.id);
    let metadata = member.and_then(|member| member.metadata.as_deref());
    v1::Node {
        node_id: record.id.as_bytes().to_vec(),
        name: record.profile.name.clone(),
        site: record.profile.site.to_string(),
        state: node_state(record, member).to_owned(),
        leader: status.leader == Some(record.id),
        voter: status.voters().contains(&record.id),
        tags: record.profile.tags.clone(),
        slots: record.profile.slots,
        slots_busy: metadata.map_or(0, |metadata| metadata.slots_busy),
        version: metadata
            .map(|metadata| metadata.software_version.clone())
            .filter(|version| !version.is_empty())
            .unwrap_or_else(|| record.profile.version.clone()),
        address: metadata
            .map(|metadata| metadata.grpc_address.clone())
            .filter(|address| !address.is_empty())
            .unwrap_or_else(|| record.profile.address.clone()),
        http_address: record.profile.http_address.clone(),
    }
}

/// The word for a node's state: draining by the group's word counts while it is there at all.
fn node_state(record: &NodeRecord, member: Option<&Member>) -> &'static str {
    let state = member.map_or(MemberState::Down, |member| member.state);
    let is_drained = matches!(record.standing, NodeStanding::Draining { .. });
    if is_drained && state == MemberState::Alive { MemberState::Draining.as_str() } else { state.as_str() }
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
    }
}
