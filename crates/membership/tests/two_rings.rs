//! Two sites on loopback: each gossips for itself, and a few nodes of both with each other, over a link that one node of
//! each holds, where nothing else gets through.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use fleet_core::NodeId;
use fleet_membership::{
    Forgetful, GossipKey, Keyring, Membership, MembershipConfig, Metadata, Outlet, Passing, Profile, View, Way,
};
use tokio::sync::watch;

/// Generous: a bound for a loaded machine, not a measurement.
const PATIENCE: Duration = Duration::from_secs(30);

fn start(number: u8, site: &str, seeds: &[SocketAddr]) -> Membership {
    let config = MembershipConfig {
        node: NodeId::from_bytes([number; 16]),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        advertise: None,
        seeds: seeds.to_vec(),
        keyring: Keyring::single(GossipKey::new([u8::from(site == "north"); 32])),
        wan_keyring: Some(Keyring::single(GossipKey::new([43; 32]))),
        profile: Profile::Lan,
        metadata: Metadata { name: format!("node-{number}"), site: site.parse().unwrap(), ..Metadata::default() },
    };
    Membership::start(config, Arc::new(Forgetful)).unwrap()
}

async fn until(mut view: watch::Receiver<Arc<View>>, what: &str, is_reached: impl Fn(&View) -> bool) {
    let reached = tokio::time::timeout(PATIENCE, view.wait_for(|view| is_reached(view))).await.is_ok();
    assert!(reached, "{what}: {:#?}", view.borrow());
}

fn knows(view: &View, count: usize) -> bool {
    view.active().count() == count && view.active().all(|member| member.metadata.is_some())
}

/// One end of a link that carries packets to the other site as long as it is whole.
struct Holder {
    own_site: Vec<SocketAddr>,
    other: Arc<OnceLock<Membership>>,
    is_whole: Arc<Mutex<bool>>,
    carried: Arc<AtomicU64>,
}

impl Outlet for Holder {
    fn take(&self, packet: Passing<'_>) -> Way {
        if self.own_site.contains(&packet.to) {
            return Way::Direct;
        }
        if *self.is_whole.lock().unwrap() {
            self.carried.fetch_add(1, Ordering::Relaxed);
            self.other.get().unwrap().arrived(packet);
        }
        // Where it is not whole the packet is lost: there is no UDP between the sites.
        Way::Taken
    }
}

/// A node that holds no link, and has its packets passed on.
struct Without {
    own_site: Vec<SocketAddr>,
    holder: SocketAddr,
}

impl Outlet for Without {
    fn take(&self, packet: Passing<'_>) -> Way {
        if self.own_site.contains(&packet.to) { Way::Direct } else { Way::By(self.holder) }
    }
}

/// Two nodes each of two sites; the first of each holds the link.
struct TwoSites {
    nodes: Vec<Membership>,
    is_whole: Arc<Mutex<bool>>,
    carried: Arc<AtomicU64>,
}

async fn two_sites() -> TwoSites {
    let first = start(1, "north", &[]);
    let all_know_the_first = [first.address()];
    let third = start(3, "south", &all_know_the_first);
    let second = start(2, "north", &[first.address(), third.address()]);
    let fourth = start(4, "south", &[first.address(), third.address()]);
    let nodes = vec![first, second, third, fourth];
    let (is_whole, carried) = (Arc::new(Mutex::new(true)), Arc::new(AtomicU64::new(0)));
    for (holder, without, other) in [(0, 1, 2), (2, 3, 0)] {
        let own_site = vec![nodes[holder].address(), nodes[without].address()];
        let far = OnceLock::new();
        assert!(far.set(nodes[other].clone()).is_ok());
        let (is_whole, carried) = (Arc::clone(&is_whole), Arc::clone(&carried));
        let outlet = Holder { own_site: own_site.clone(), other: Arc::new(far), is_whole, carried };
        nodes[holder].set_outlet(Arc::new(outlet));
        nodes[without].set_outlet(Arc::new(Without { own_site, holder: nodes[holder].address() }));
    }
    for node in &nodes {
        until(node.view(), "the site", |view| knows(view, 2)).await;
    }
    TwoSites { nodes, is_whole, carried }
}

#[tokio::test]
async fn sites_gossip_apart_and_together_over_the_link_of_one_node() {
    let TwoSites { nodes, is_whole, carried } = two_sites().await;
    for node in &nodes {
        node.take_part_between_sites(true).unwrap();
        // Who does not take part yet hears no call, and is called again much later.
        until(node.wan_view(), "taking part", |view| knows(view, 1)).await;
    }
    let third = nodes[2].address();
    nodes[0].heal(vec![nodes[1].address(), third]).unwrap();
    nodes[3].heal(vec![third]).unwrap();
    for node in &nodes {
        until(node.wan_view(), "all four between sites", |view| knows(view, 4)).await;
    }
    assert!(carried.load(Ordering::Relaxed) > 0);
    for (node, site) in nodes.iter().zip(["north", "north", "south", "south"]) {
        let view = node.current_view();
        assert_eq!(view.members().len(), 2, "no site hears another's own gossip, whoever was its seed");
        assert!(view.members().all(|member| member.metadata.as_ref().unwrap().site.as_str() == site));
    }

    *is_whole.lock().unwrap() = false;
    for node in &nodes {
        until(node.wan_view(), "the cut", |view| view.active().count() == 2).await;
        assert_eq!(node.current_view().active().count(), 2, "a cut between sites is nothing within them");
    }
    *is_whole.lock().unwrap() = true;
    nodes[0].heal(Vec::new()).unwrap();
    for node in &nodes {
        until(node.wan_view(), "all four again", |view| knows(view, 4)).await;
    }
}

#[tokio::test]
async fn who_stops_taking_part_is_gone_between_sites_and_may_come_back() {
    let nodes = [start(1, "north", &[]), start(2, "south", &[])];
    for node in &nodes {
        node.take_part_between_sites(true).unwrap();
        node.take_part_between_sites(true).unwrap();
    }
    for round in 0..2 {
        nodes[0].heal(vec![nodes[1].address()]).unwrap();
        for node in &nodes {
            until(node.wan_view(), "each other", |view| knows(view, 2)).await;
        }
        nodes[1].take_part_between_sites(false).unwrap();
        until(nodes[1].wan_view(), "nobody", |view| view.members().len() == 0).await;
        until(nodes[0].wan_view(), "one alone", |view| view.active().count() == 1).await;
        assert_eq!(nodes[1].current_view().active().count(), 1, "round {round}: its own site is another matter");
        nodes[1].take_part_between_sites(true).unwrap();
    }
}
