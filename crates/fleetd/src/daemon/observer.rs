//! Carries what gossip sees to those who need it, and what this node is to gossip: addresses to the peers, the living to
//! the group, this node's own state to everyone. Hints all of them; nothing here decides.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fleet_api::Revocations;
use fleet_core::{BootInstant, Clock, NodeId, SystemClock};
use fleet_membership::{GroupStatus, Member, MemberState, Membership, Metadata, NodeState, Protocols, View, site_mark};
use fleet_node::placement::{INTERPRETER_WORD, RobotView};
use fleet_node::{Node, NodeObservation, RobotObservation};
use fleet_replication::command::{Action, COMMAND_VERSION, NodeAdmission};
use fleet_replication::{Role, SiteNode, SiteView};
use fleet_store::record::{NodeProfile, NodeRecord, NodeStanding};
use tokio::sync::watch;

use crate::grpc::current_profile;
use crate::identity::Identity;
use crate::site::{Roster, Site};
use crate::sites::SiteLinks;

/// How often everything is looked at anew, whether or not something was announced.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Version of the gRPC protocol between nodes.
const PEER_PROTOCOL: u16 = 1;

/// What this node's robot has to do, as last observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Slots at work.
    pub(super) slots_busy: u32,
    /// Whether the robot takes no new work.
    pub(super) is_draining: bool,
    /// Journals written while cut off that are still to be delivered.
    pub(super) kept_journals: usize,
    /// Records written while cut off that the group refused.
    pub(super) refused_records: usize,
    /// Refused journals that gave way to later ones.
    pub(super) dropped_journals: usize,
}

/// The observer's parts.
pub(super) struct Observer {
    pub(super) site: Site,
    pub(super) node: Node,
    pub(super) membership: Membership,
    pub(super) identity: Identity,
    pub(super) profile: NodeProfile,
    pub(super) revocations: Revocations,
    pub(super) sites: SiteLinks,
    pub(super) state: watch::Receiver<NodeState>,
    pub(super) load: watch::Sender<Load>,
}

impl Observer {
    /// Observes until it is dropped.
    pub(super) async fn run(mut self) {
        let mut view = self.membership.view();
        let mut down_since = BTreeMap::new();
        let (mut learned, mut seen) = (None, self.membership.current_view());
        loop {
            let current = self.membership.current_view();
            let NodeObservation { scheduler, robot } = self.node.observe().await;
            let robots = scheduler.map(|scheduler| scheduler.robots).unwrap_or_default();
            self.site.peers().learn(addresses(&current));
            only_in(&seen, &current).for_each(|node| self.site.peers().lost(node));
            only_in(&current, &seen).for_each(|node| self.site.peers().heard(node));
            seen = current.clone();
            match self.site.roster() {
                Ok(roster) => {
                    let nodes = &roster.nodes;
                    self.learn_revoked(&roster, &mut learned);
                    self.ban_removed(nodes);
                    self.learn_admitted(nodes);
                    self.note_changed(nodes, &current, &robots).await;
                    let observed = site_view(nodes, &current, &mut down_since, SystemClock.boot_now());
                    self.site.group().observe(observed);
                }
                Err(error) => tracing::warn!(%error, "the site's nodes cannot be read"),
            }
            let load = load_of(robot);
            self.load.send_replace(load);
            if let Err(error) = self.membership.publish(self.metadata(load)) {
                tracing::warn!(%error, "metadata not published");
            }
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                changed = self.state.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Learns what was revoked since the roster that was `learned` last; that stays revoked.
    fn learn_revoked(&self, roster: &Arc<Roster>, learned: &mut Option<Arc<Roster>>) {
        if learned.as_ref().is_none_or(|last| !Arc::ptr_eq(last, roster)) {
            self.revocations.extend(roster.revoked.iter().cloned());
            *learned = Some(Arc::clone(roster));
        }
    }

    /// A removed node is nobody to gossip any more, whichever keys it has.
    fn ban_removed(&self, nodes: &[NodeRecord]) {
        let removed = nodes.iter().filter(|node| node.standing == NodeStanding::Removed);
        self.membership.ban(removed.map(|node| node.id));
    }

    /// Addresses that the group admitted serve where gossip has none yet.
    fn learn_admitted(&self, nodes: &[NodeRecord]) {
        let unknown = nodes.iter().filter(|node| self.site.peers().address(node.id).is_none());
        self.site.peers().learn(unknown.map(|node| (node.id, node.profile.address.clone())).collect::<Vec<_>>());
    }

    /// As leader, has the group note what nodes say of themselves since they came back with other flags: one a look, so
    /// that a group that does not answer holds up nothing here.
    async fn note_changed(&self, nodes: &[NodeRecord], view: &View, robots: &[RobotView]) {
        if self.site.group().serving_term().is_none() {
            return;
        }
        let Some(admission) = nodes.iter().find_map(|node| self.changed(node, view, robots)) else { return };
        let node = admission.node;
        let noting = self.site.propose(Action::PutNode(Box::new(admission)));
        match tokio::time::timeout(LOOK_EVERY, noting).await {
            Ok(Ok(_)) => tracing::info!(%node, "noted what the node says of itself now"),
            Ok(Err(error)) => tracing::debug!(%node, %error, "not noted what the node says of itself now"),
            Err(_) => {}
        }
    }

    fn changed(&self, node: &NodeRecord, view: &View, robots: &[RobotView]) -> Option<NodeAdmission> {
        if node.standing == NodeStanding::Removed || !view.is_active(node.id) {
            return None;
        }
        let now = if node.id == self.identity.node_id {
            self.profile.clone()
        } else {
            let metadata = view.get(node.id)?.metadata.as_deref();
            let robot = robots.iter().find(|robot| robot.session.node == node.id);
            with_capabilities(current_profile(&node.profile, metadata), robot)
        };
        let admission = NodeAdmission { node: node.id, profile: now, certificate: None, replaces: None };
        (admission.profile != node.profile).then_some(admission)
    }

    fn metadata(&self, load: Load) -> Metadata {
        let group = self.site.group();
        let status = group.status().borrow().clone();
        Metadata {
            name: self.profile.name.clone(),
            site: self.profile.site.clone(),
            tags: self.profile.tags.clone(),
            tags_omitted: 0,
            slots: self.profile.slots,
            slots_busy: load.slots_busy,
            grpc_address: self.identity.advertise.clone(),
            http_address: self.profile.http_address.clone(),
            software_version: self.profile.version.clone(),
            protocols: Protocols {
                peer: PEER_PROTOCOL,
                actors: PEER_PROTOCOL,
                commands: u16::try_from(COMMAND_VERSION).unwrap_or(u16::MAX),
            },
            group: Some(GroupStatus {
                group: group.id(),
                epoch: status.epoch,
                term: status.term,
                leader: status.leader,
                last_log_index: status.last_applied.unwrap_or(0),
                is_voter: matches!(status.role, Role::Follower | Role::Candidate | Role::Leader),
            }),
            is_draining: load.is_draining,
            state: *self.state.borrow(),
            site_links: self.sites.linked().iter().map(site_mark).collect(),
        }
    }
}

fn load_of(robot: Option<RobotObservation>) -> Load {
    robot.map_or_else(Load::default, |robot| Load {
        slots_busy: u32::try_from(robot.jobs).unwrap_or(u32::MAX),
        is_draining: robot.is_draining,
        kept_journals: robot.kept_journals,
        refused_records: robot.refused_records,
        dropped_journals: robot.dropped_journals,
    })
}

/// `profile` with what the robot of its node allows now, where it is linked: gossip has no room for that. Other sites route
/// by it, and what this one takes from them follows it.
fn with_capabilities(mut profile: NodeProfile, robot: Option<&RobotView>) -> NodeProfile {
    if let Some(robot) = robot {
        // The interpreter is not among what a site offers: that is found out where a job comes.
        let words = robot.capabilities.iter().filter(|word| !word.starts_with(INTERPRETER_WORD));
        profile.capabilities = words.cloned().collect();
    }
    profile
}

fn addresses(view: &View) -> Vec<(NodeId, String)> {
    view.active_peers()
        .filter_map(|member| member.metadata.as_ref().map(|metadata| (member.node, metadata.grpc_address.clone())))
        .filter(|(_, address)| !address.is_empty())
        .collect()
}

/// The other members that answer in `view` and do not in `other`.
fn only_in<'a>(view: &'a View, other: &'a View) -> impl Iterator<Item = NodeId> + 'a {
    let is_new = move |member: &&Member| answers(member) && !other.get(member.node).is_some_and(answers);
    view.members().filter(is_new).map(|member| member.node).filter(|node| *node != view.own_node())
}

/// Whether gossip has nothing against `member`.
fn answers(member: &Member) -> bool {
    matches!(member.state, MemberState::Alive | MemberState::Draining)
}

/// The newest version of commands that a living node says it can apply.
fn commands_of(view: &View, node: NodeId) -> Option<u32> {
    let metadata = view.get(node).filter(|member| view.is_active(member.node))?.metadata.as_ref()?;
    Some(u32::from(metadata.protocols.commands))
}

/// The admitted nodes as gossip holds them at `now`. `down_since` remembers since when each has been down.
fn site_view(
    nodes: &[NodeRecord],
    view: &View,
    down_since: &mut BTreeMap<NodeId, BootInstant>,
    now: BootInstant,
) -> SiteView {
    let nodes = nodes
        .iter()
        .map(|node| {
            if view.is_active(node.id) {
                down_since.remove(&node.id);
            } else {
                down_since.entry(node.id).or_insert(now);
            }
            SiteNode {
                node: node.id,
                down_since: down_since.get(&node.id).copied(),
                is_removed: node.standing == NodeStanding::Removed,
                commands: commands_of(view, node.id),
            }
        })
        .collect();
    SiteView { nodes }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use fleet_core::SessionId;
    use fleet_membership::MetadataVersion;

    use super::super::trust_tests::profile;
    use super::*;

    #[test]
    fn who_answers_in_one_view_only_was_lost_or_has_come_back() {
        let node = |number: u8| NodeId::from_bytes([number; 16]);
        let view = |states: &[(u8, MemberState)]| {
            let member = |(number, state): &(u8, MemberState)| Member {
                node: node(*number),
                address: SocketAddr::from(([127, 0, 0, 1], u16::from(*number))),
                incarnation: 1,
                state: *state,
                metadata_version: MetadataVersion::default(),
                metadata: None,
            };
            View::new(node(1), 1, states.iter().map(|state| (node(state.0), member(state))).collect())
        };
        use MemberState::{Alive, Down, Draining, Suspect};
        let before = view(&[(1, Suspect), (2, Alive), (3, Down), (4, Suspect), (5, Down)]);
        let after = view(&[(1, Alive), (2, Alive), (3, Draining), (4, Alive), (5, Suspect), (6, Alive)]);
        assert_eq!(only_in(&after, &before).collect::<Vec<_>>(), [node(3), node(4), node(6)]);
        assert_eq!(only_in(&before, &after).count(), 0);
        let lost = view(&[(1, Alive), (2, Suspect), (3, Draining), (4, Alive)]);
        assert_eq!(only_in(&after, &lost).collect::<Vec<_>>(), [node(2), node(6)]);
    }

    #[test]
    fn what_a_robot_allows_now_is_noted_and_stays_noted_while_it_is_away() {
        let noted = NodeProfile { capabilities: vec!["shell".to_owned()], ..profile("node-1") };
        assert_eq!(with_capabilities(noted.clone(), None), noted);
        let capabilities = ["http", "http:*.example", "interpreter:1"].map(str::to_owned);
        let robot = RobotView {
            session: SessionId { node: NodeId::default(), boot: 1, number: 1 },
            tags: Arc::from([]),
            capabilities: Arc::from(capabilities),
            slots_free: 1,
            is_draining: false,
        };
        assert_eq!(with_capabilities(noted, Some(&robot)).capabilities, ["http", "http:*.example"]);
    }
}
