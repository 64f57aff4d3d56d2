//! This node's site as its links to others need it, and gossip between sites: whether this node takes part, which way its
//! packets go, and whom it calls when a link is back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleet_api::Issuer;
use fleet_core::{BootInstant, Clock, GroupId, NodeId, SiteName, SystemClock};
use fleet_membership::{Member, Membership, Outlet, Passing, View, WAN_NODES_MAX, Way, site_mark, wan_nodes};
use fleet_node::ports::{KnownSites, RobotOffer, Sites};
use fleet_node::site_link::{GossipPacket, Hello, LINK_VERSION, SiteReport, WanNode};
use fleet_store::record::{NodeRecord, NodeStanding, Payload, SiteRecord};
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio_stream::wrappers::WatchStream;

use crate::identity::Identity;
use crate::ports::Peers;
use crate::site::{Roster, Site};
use crate::sites::{Home, SiteContact, SiteLinks};
use crate::trust::verification::FleetTrust;

/// How soon gossip is told again that this node takes part, or does not, after it had no room for that.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The least rest before a call that is due, so that a clock that stands still costs nothing.
const REST_MIN: Duration = Duration::from_millis(10);
/// How often nodes of a site are called of which gossip shows none.
const CALL_EVERY: Duration = Duration::from_secs(10);
/// How long the links may take to end.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// This node's own site, read from its group, gossip and store.
pub(super) struct OwnSite {
    site: Site,
    membership: Membership,
    identity: Identity,
    trust: FleetTrust,
}

/// The links of this node, which are not made before [`crate::sites::run`] runs.
pub(super) fn links(
    site: &Site,
    membership: &Membership,
    identity: &Identity,
    trust: &FleetTrust,
) -> (SiteLinks, Arc<dyn Home>) {
    let own = OwnSite {
        site: site.clone(),
        membership: membership.clone(),
        identity: identity.clone(),
        trust: trust.clone(),
    };
    let home: Arc<dyn Home> = Arc::new(own);
    let within: Arc<Peers> = Arc::new(site.peers().clone());
    let links = SiteLinks::new(Arc::clone(&home), within, site.store().clone());
    let inlet = membership.clone();
    links.set_inlet(move |packet: GossipPacket| {
        inlet.arrived(Passing { from: packet.from, to: packet.to, sealed: packet.sealed.as_slice() });
    });
    membership.set_outlet(Arc::new(ByLinks { links: links.clone(), membership: membership.clone() }));
    (links, home)
}

/// Ends the links.
pub(super) async fn stop(links: &SiteLinks) {
    if tokio::time::timeout(STOP_GRACE, links.stop()).await.is_err() {
        tracing::warn!("the links to other sites do not end in time");
    }
}

impl OwnSite {
    /// What the group knows of nodes and sites, as far as it can be read.
    fn roster(&self) -> Option<Arc<Roster>> {
        let roster = self.site.roster();
        roster.inspect_err(|error| tracing::warn!(%error, "the site's nodes and the other sites cannot be read")).ok()
    }
}

impl Home for OwnSite {
    fn hello(&self) -> Hello {
        let group = self.site.group();
        let status = group.status().borrow().clone();
        Hello {
            version: LINK_VERSION,
            site: self.identity.site.clone(),
            node: self.identity.node_id,
            group: group.id(),
            epoch: status.epoch,
            term: status.term,
            at: SystemClock.now(),
        }
    }

    fn is_leading(&self) -> bool {
        self.site.group().serving_term().is_some()
    }

    fn other_leader(&self) -> Option<NodeId> {
        self.site.other_leader()
    }

    fn is_member(&self, node: NodeId) -> bool {
        let Some(roster) = self.roster() else { return false };
        roster.nodes.iter().any(|record| record.id == node && record.standing != NodeStanding::Removed)
    }

    fn holders(&self, site: &SiteName) -> Vec<NodeId> {
        holders(&self.membership.current_view(), site).map(|(node, _)| node).collect()
    }

    fn all_holders(&self) -> BTreeSet<NodeId> {
        let view = self.membership.current_view();
        let has_links = |links: &Vec<u32>| !links.is_empty();
        let holders = view
            .active_peers()
            .filter(|peer| peer.metadata.as_ref().is_some_and(|metadata| has_links(&metadata.site_links)));
        holders.map(|peer| peer.node).collect()
    }

    fn report(&self) -> SiteReport {
        let status = self.site.group().status().borrow().clone();
        let view = self.membership.current_view();
        let voters = status.voters();
        let speakers = wan_nodes(status.leader, &voters, |node| view.is_active(node));
        SiteReport {
            leader: status.leader,
            at: SystemClock.now(),
            nodes: speakers.into_iter().filter_map(|node| wan_node(&view, node)).collect(),
            robots: self
                .roster()
                .iter()
                .flat_map(|roster| &roster.nodes)
                .filter_map(|node| offer(&view, node))
                .collect(),
        }
    }

    fn issuer(&self, site: &SiteName) -> Issuer {
        self.trust.issuer_of(site)
    }

    fn removed(&self) -> BTreeSet<GroupId> {
        self.roster().map_or_else(BTreeSet::new, |roster| roster.removed_sites.clone())
    }

    fn contacts(&self) -> BTreeMap<SiteName, SiteContact> {
        let wan = self.membership.wan_view().borrow().clone();
        let roster = self.roster();
        let noted = roster.as_ref().map_or(&[][..], |roster| &roster.other_sites);
        contacts(&self.identity.site, noted, &wan, &self.removed())
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        // A new entry is applied here a moment before the status says so.
        let status = WatchStream::from_changes(self.site.group().status()).map(drop);
        let view = WatchStream::from_changes(self.membership.view()).map(drop);
        let wan = WatchStream::from_changes(self.membership.wan_view()).map(drop);
        stream::select_all([status.boxed(), view.boxed(), wan.boxed()]).boxed()
    }
}

/// The other living nodes that hold a link to `site`, with where their gossip goes.
fn holders<'a>(view: &'a View, site: &SiteName) -> impl Iterator<Item = (NodeId, SocketAddr)> + use<'a> {
    let mark = site_mark(site);
    let holders = view
        .active_peers()
        .filter(move |peer| peer.metadata.as_ref().is_some_and(|metadata| metadata.site_links.contains(&mark)));
    holders.map(|peer| (peer.node, peer.address))
}

fn wan_node(view: &View, node: NodeId) -> Option<WanNode> {
    let member = view.get(node)?;
    let address = member.metadata.as_ref()?.grpc_address.clone();
    Some(WanNode { node, gossip: member.address, address })
}

/// What the robot of `record` offers, if it takes work.
fn offer(view: &View, record: &NodeRecord) -> Option<RobotOffer> {
    let takes_work = record.standing == NodeStanding::Active && view.is_active(record.id);
    takes_work.then(|| RobotOffer {
        node: record.profile.name.clone(),
        tags: record.profile.tags.clone(),
        capabilities: record.profile.capabilities.clone(),
        slots: record.profile.slots,
    })
}

/// The other sites with where they may answer: the leader and its fellows as gossip has them, then what was recorded.
fn contacts(
    own: &SiteName,
    noted: &[(SiteName, SiteRecord)],
    wan: &View,
    removed: &BTreeSet<GroupId>,
) -> BTreeMap<SiteName, SiteContact> {
    let contact = |(site, record): &(SiteName, SiteRecord)| {
        (site.clone(), SiteContact { group: record.group, addresses: record.contacts.clone() })
    };
    let mut contacts: BTreeMap<SiteName, SiteContact> =
        noted.iter().filter(|(site, _)| site != own).map(contact).collect();
    let mut told: BTreeMap<&SiteName, Vec<(bool, &str, GroupId)>> = BTreeMap::new();
    for member in wan.active() {
        let Some(metadata) = member.metadata.as_ref().filter(|metadata| metadata.site != *own) else { continue };
        let Some(group) = metadata.group.filter(|group| !removed.contains(&group.group)) else { continue };
        let is_other = group.leader != Some(member.node);
        told.entry(&metadata.site).or_default().push((is_other, &metadata.grpc_address, group.group));
    }
    for (site, mut members) in told {
        members.sort_unstable();
        // What was recorded must stay within reach, whatever gossip says.
        members.truncate(WAN_NODES_MAX);
        let Some((_, _, group)) = members.first().copied() else { continue };
        let contact = contacts.entry(site.clone()).or_insert_with(|| SiteContact { group, addresses: Vec::new() });
        let recorded = std::mem::take(&mut contact.addresses);
        for address in members.into_iter().map(|(_, address, _)| address.to_owned()).chain(recorded) {
            if !address.is_empty() && !contact.addresses.contains(&address) {
                contact.addresses.push(address);
            }
        }
    }
    contacts
}

/// Sends packets between sites over the links.
struct ByLinks {
    links: SiteLinks,
    membership: Membership,
}

impl Outlet for ByLinks {
    fn take(&self, packet: Passing<'_>) -> Way {
        let Some(site) = self.links.site_at(packet.to) else { return Way::Direct };
        let over_link =
            GossipPacket { from: packet.from, to: packet.to, sealed: Payload::from(packet.sealed.to_vec()) };
        if self.links.send_packet(&site, over_link) {
            return Way::Taken;
        }
        match holders(&self.membership.current_view(), &site).next() {
            Some((_, address)) => Way::By(address),
            None => Way::Direct,
        }
    }
}

/// Takes part in gossip between sites while this node should, and calls sites that are new or back. It sleeps for as long
/// as nothing happens and no call is due.
pub(super) async fn gossip(site: Site, membership: Membership, links: SiteLinks, home: Arc<dyn Home>) {
    let (mut known, mut changes) = (links.known(), home.changes());
    let (mut takes_part, mut calls) = (false, Calls::default());
    let own = site.group().node();
    loop {
        membership.ban(nodes_of(&home.removed(), &membership));
        let others = known.borrow_and_update().clone();
        let (status, view) = (site.group().status().borrow().clone(), membership.current_view());
        let speakers = wan_nodes(status.leader, &status.voters(), |node| view.is_active(node));
        let should = !others.is_empty() && speakers.contains(&own);
        if should != takes_part && membership.take_part_between_sites(should).is_ok() {
            takes_part = should;
            calls = Calls::default();
        }
        let now = SystemClock.boot_now();
        let mut due = (should != takes_part).then(|| now.saturating_add(RETRY_AFTER));
        if takes_part {
            for name in calls.next(&others, &heard_sites(&membership), now) {
                // A full queue is as good as a lost packet: it is called again.
                let _called = membership.heal(addresses(&links, home.as_ref(), &name));
            }
            due = due.into_iter().chain(calls.due()).min();
        }
        let rest = due.map(|due| due.saturating_since(SystemClock.boot_now()).max(REST_MIN));
        tokio::select! {
            changed = known.changed() => if changed.is_err() { return },
            changed = changes.next() => if changed.is_none() { return },
            () = tokio::time::sleep(rest.unwrap_or_default()), if rest.is_some() => {}
        }
    }
}

/// Which sites to call over gossip, and when. Pure.
#[derive(Debug, Default)]
struct Calls {
    linked: BTreeSet<SiteName>,
    /// When each site was last called of which gossip shows nobody.
    called_at: BTreeMap<SiteName, BootInstant>,
}

impl Calls {
    /// Whom of `others` to call at `now`: each to which there is a link again, and again and again each of which gossip
    /// has not `heard`.
    fn next(&mut self, others: &KnownSites, heard: &BTreeSet<SiteName>, now: BootInstant) -> Vec<SiteName> {
        let mut called = Vec::new();
        self.called_at.retain(|name, _| others.contains_key(name) && !heard.contains(name));
        for (name, other) in others {
            let is_back = other.is_linked && !self.linked.contains(name);
            let is_silent = !heard.contains(name);
            let rested = self.called_at.get(name).is_none_or(|at| now.saturating_since(*at) >= CALL_EVERY);
            if is_back || (is_silent && rested) {
                called.push(name.clone());
                if is_silent {
                    self.called_at.insert(name.clone(), now);
                }
            }
        }
        self.linked = others.iter().filter(|(_, other)| other.is_linked).map(|(name, _)| name.clone()).collect();
        called
    }

    /// When somebody is to be called though nothing happens.
    fn due(&self) -> Option<BootInstant> {
        self.called_at.values().min().map(|at| at.saturating_add(CALL_EVERY))
    }
}

/// The nodes of these groups that gossip between sites shows.
fn nodes_of(groups: &BTreeSet<GroupId>, membership: &Membership) -> Vec<NodeId> {
    let wan = membership.wan_view().borrow().clone();
    let is_of = |member: &&Member| {
        member.metadata.as_ref().and_then(|metadata| metadata.group).is_some_and(|group| groups.contains(&group.group))
    };
    wan.active().filter(is_of).map(|member| member.node).collect()
}

/// The sites of which gossip shows a living node.
fn heard_sites(membership: &Membership) -> BTreeSet<SiteName> {
    let wan = membership.wan_view().borrow().clone();
    wan.active().filter_map(|member| Some(member.metadata.as_ref()?.site.clone())).collect()
}

/// Where gossip of `site` may be heard: as it reported, and where its nodes are known to answer.
fn addresses(links: &SiteLinks, home: &dyn Home, site: &SiteName) -> Vec<SocketAddr> {
    let mut addresses = links.gossip_addresses(site);
    let recorded = home.contacts().remove(site).map(|contact| contact.addresses).unwrap_or_default();
    addresses.extend(recorded.iter().filter_map(|address| address.parse::<SocketAddr>().ok()));
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fleet_core::{Digest, Timestamp};
    use fleet_membership::{GroupStatus, MemberState, Metadata, MetadataVersion};

    use fleet_node::ports::KnownSite;

    use super::*;

    fn site(name: &str) -> SiteName {
        name.parse().unwrap()
    }

    fn member(number: u8, name: &str, leader: u8, links: Vec<u32>) -> (NodeId, Member) {
        let node = NodeId::from_bytes([number; 16]);
        let group = GroupStatus {
            group: GroupId::from_bytes([9; 16]),
            leader: Some(NodeId::from_bytes([leader; 16])),
            ..GroupStatus::default()
        };
        let metadata = Metadata {
            site: site(name),
            grpc_address: format!("node-{number}:7000"),
            group: Some(group),
            site_links: links,
            ..Metadata::default()
        };
        let member = Member {
            node,
            address: SocketAddr::from(([10, 0, 0, number], 7000)),
            incarnation: 1,
            state: MemberState::Alive,
            metadata_version: MetadataVersion::default(),
            metadata: Some(Arc::new(metadata)),
        };
        (node, member)
    }

    fn view(members: impl IntoIterator<Item = (NodeId, Member)>) -> View {
        View::new(NodeId::from_bytes([1; 16]), 1, members.into_iter().collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn the_leader_of_a_site_is_dialled_first_and_what_was_recorded_last() {
        let wan = view([member(1, "north", 1, vec![]), member(3, "south", 4, vec![]), member(4, "south", 4, vec![])]);
        let group = GroupId::from_bytes([9; 16]);
        let recorded = |addresses: &[&str]| SiteRecord {
            group,
            founder: NodeId::from_bytes([9; 16]),
            public_key: Digest([9; 32]),
            authority: Payload::default(),
            contacts: addresses.iter().map(|address| (*address).to_owned()).collect(),
            contacts_at: Timestamp(1),
            founded_at: Timestamp(1),
            token: None,
        };
        let noted = [
            (site("north"), recorded(&["own:1"])),
            (site("south"), recorded(&["old:1", "node-3:7000"])),
            (site("west"), recorded(&["west:1"])),
        ];
        let none = BTreeSet::new();
        let with_removed = contacts(&site("north"), &[], &wan, &[group].into());
        assert!(with_removed.is_empty(), "whatever gossip still shows of a removed site");
        let contacts = contacts(&site("north"), &noted, &wan, &none);
        assert_eq!(contacts.len(), 2, "not this node's own");
        assert_eq!(contacts[&site("south")].addresses, ["node-4:7000", "node-3:7000", "old:1"]);
        assert_eq!(contacts[&site("west")].addresses, ["west:1"]);
    }

    #[test]
    fn a_site_is_called_when_its_link_is_back_and_again_while_gossip_shows_nobody() {
        let at = |seconds| BootInstant::default().saturating_add(Duration::from_secs(seconds));
        let others = |is_linked| {
            let group = GroupId::from_bytes([9; 16]);
            KnownSites::from([(site("south"), KnownSite { group, is_linked, heard_at: None, robots: Vec::new() })])
        };
        let (nobody, heard) = (BTreeSet::new(), BTreeSet::from([site("south")]));
        let mut calls = Calls::default();
        assert_eq!((calls.next(&KnownSites::new(), &nobody, at(0)).len(), calls.due()), (0, None), "the only site");
        assert_eq!(calls.next(&others(false), &nobody, at(1)), [site("south")]);
        assert_eq!(calls.due(), Some(at(11)));
        assert_eq!(calls.next(&others(false), &nobody, at(10)), []);
        assert_eq!(calls.next(&others(false), &nobody, at(11)), [site("south")], "still silent");
        assert_eq!(calls.next(&others(true), &nobody, at(12)), [site("south")], "the link is there");
        assert_eq!((calls.next(&others(true), &heard, at(13)).len(), calls.due()), (0, None), "all is well");
        assert_eq!((calls.next(&others(false), &heard, at(14)).len(), calls.due()), (0, None));
        assert_eq!(calls.next(&others(true), &heard, at(15)), [site("south")], "the link is back");
        assert_eq!(calls.due(), None);
    }

    #[test]
    fn who_holds_a_link_is_found_by_what_it_says_of_itself() {
        let south = site_mark(&site("south"));
        let view = view([
            member(1, "north", 1, vec![south]),
            member(2, "north", 1, vec![7, south]),
            member(3, "north", 1, vec![]),
        ]);
        let found: Vec<_> = holders(&view, &site("south")).map(|(node, _)| node).collect();
        assert_eq!(found, [NodeId::from_bytes([2; 16])], "this node itself is no other");
    }
}
