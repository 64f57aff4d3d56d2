//! Real sockets on loopback: five nodes find each other, tell each other about themselves, and notice who goes.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fleet_core::NodeId;
use fleet_membership::{
    Forgetful, GossipKey, Keyring, MemberState, Membership, MembershipConfig, Metadata, Persistence, PersistenceError,
    Profile, Remembered, View,
};

/// Generous: a bound for a loaded machine, not a measurement.
const PATIENCE: Duration = Duration::from_secs(30);

fn keyring() -> Keyring {
    Keyring::single(GossipKey::new([42; 32]))
}

fn config(number: u8, seeds: &[SocketAddr]) -> MembershipConfig {
    MembershipConfig {
        node: NodeId::from_bytes([number; 16]),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        advertise: None,
        seeds: seeds.to_vec(),
        keyring: keyring(),
        wan_keyring: None,
        profile: Profile::Lan,
        metadata: Metadata { name: format!("node-{number}"), slots: u32::from(number), ..Metadata::default() },
    }
}

fn start(number: u8, seeds: &[SocketAddr]) -> Membership {
    Membership::start(config(number, seeds), Arc::new(Forgetful)).unwrap()
}

/// Starts `count` nodes, numbered from 1, all seeded with the first.
fn fleet(count: u8) -> Vec<Membership> {
    let first = start(1, &[]);
    let seed = first.address();
    let mut nodes = vec![first];
    nodes.extend((2..=count).map(|number| start(number, &[seed])));
    nodes
}

/// Waits until the view of `membership` satisfies `is_reached`; the time it took.
async fn until(membership: &Membership, what: &str, is_reached: impl Fn(&View) -> bool) -> Duration {
    let began = Instant::now();
    let mut view = membership.view();
    let reached = tokio::time::timeout(PATIENCE, view.wait_for(|view| is_reached(view))).await;
    assert!(
        reached.is_ok(),
        "{what}: never seen by {:?}; last: {:#?}",
        membership.address(),
        membership.current_view()
    );
    began.elapsed()
}

fn knows_all(view: &View, count: usize) -> bool {
    view.active().count() == count && view.active().all(|member| member.metadata.is_some())
}

async fn until_all_know_all(nodes: &[Membership]) {
    for node in nodes {
        until(node, "everybody with metadata", |view| knows_all(view, nodes.len())).await;
    }
}

#[tokio::test]
async fn five_nodes_meet_publish_and_part() {
    let mut nodes = fleet(5);
    until_all_know_all(&nodes).await;

    let draining = Metadata { name: "node-2".into(), slots: 99, is_draining: true, ..Metadata::default() };
    nodes[1].publish(draining).unwrap();
    let second = NodeId::from_bytes([2; 16]);
    for node in &nodes {
        until(node, "the new metadata", |view| {
            let member = view.get(second).unwrap();
            member.state == MemberState::Draining && member.metadata.as_ref().unwrap().slots == 99
        })
        .await;
    }

    let leaver = nodes.pop().unwrap();
    leaver.leave().await;
    leaver.leave().await;
    assert!(leaver.announce(nodes[0].address()).is_err(), "it has stopped");
    for node in &nodes {
        until(node, "a goodbye", |view| view.get(NodeId::from_bytes([5; 16])).unwrap().state == MemberState::Left)
            .await;
    }

    drop(nodes.pop());
    for node in &nodes {
        until(node, "a death", |view| view.get(NodeId::from_bytes([4; 16])).unwrap().state == MemberState::Down).await;
    }
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Remembered>>);

impl Persistence for Memory {
    fn load(&self) -> Result<Remembered, PersistenceError> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn save(&self, remembered: &Remembered) -> Result<(), PersistenceError> {
        *self.0.lock().unwrap() = remembered.clone();
        Ok(())
    }
}

#[tokio::test]
async fn a_restarted_node_finds_the_others_without_a_seed() {
    let memory = Memory::default();
    let first = start(1, &[]);
    let start_second = |seeds: &[SocketAddr]| Membership::start(config(2, seeds), Arc::new(memory.clone())).unwrap();
    let second = start_second(&[first.address()]);
    until(&first, "the second", |view| knows_all(view, 2)).await;
    until(&second, "the first", |view| knows_all(view, 2)).await;
    let before = second.incarnation();
    assert_eq!(memory.load().unwrap().incarnation, before, "durable before it was used");
    drop(second);
    until(&first, "its death", |view| view.get(NodeId::from_bytes([2; 16])).unwrap().state == MemberState::Down).await;
    assert_eq!(memory.load().unwrap().members.len(), 1);
    let second = start_second(&[]);
    assert!(second.incarnation() > before);
    until(&second, "the first again", |view| knows_all(view, 2)).await;
    until(&first, "the second again", |view| knows_all(view, 2)).await;
}

#[tokio::test]
async fn a_probe_tells_whether_packets_get_through() {
    let nodes = fleet(2);
    let (asker, asked) = (&nodes[0], &nodes[1]);
    let node = NodeId::from_bytes([2; 16]);
    assert!(asker.probe(node, asked.address(), PATIENCE).await.is_some());
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let nobody = silent.local_addr().unwrap();
    assert_eq!(asker.probe(node, nobody, Duration::from_millis(300)).await, None, "the other node is not there");
}

#[tokio::test]
async fn a_node_that_missed_a_rotation_learns_that_it_is_deaf() {
    let nodes = fleet(2);
    until_all_know_all(&nodes).await;
    let rotated = Keyring::single(GossipKey::new([1; 32]));
    nodes[0].set_keyring(rotated.clone());
    let mut is_deaf = nodes[1].is_deaf();
    tokio::time::timeout(PATIENCE, is_deaf.wait_for(|is_deaf| *is_deaf)).await.unwrap().unwrap();
    assert!(!knows_all(&nodes[0].current_view(), 2), "nothing sealed with the old key is heard");
    nodes[1].set_keyring(rotated);
    for node in &nodes {
        until(node, "each other again", |view| knows_all(view, 2)).await;
    }
    assert!(!*nodes[1].is_deaf().borrow());
}

#[tokio::test]
async fn a_stranger_without_the_key_is_never_a_member() {
    let nodes = fleet(2);
    until_all_know_all(&nodes).await;
    let mut stranger = config(9, &[nodes[0].address()]);
    stranger.keyring = Keyring::single(GossipKey::new([1; 32]));
    let stranger = Membership::start(stranger, Arc::new(Forgetful)).unwrap();
    nodes[0].announce(stranger.address()).unwrap();
    // Once a real third node is known everywhere, the stranger's packets had their chance too.
    let _third = start(3, &[nodes[0].address()]);
    for node in &nodes {
        until(node, "the third", |view| knows_all(view, 3)).await;
        assert_eq!(node.current_view().members().len(), 3);
    }
    assert_eq!(stranger.current_view().members().len(), 1);
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let unspecified = MembershipConfig { listen: SocketAddr::from(([0, 0, 0, 0], 0)), ..config(1, &[]) };
    assert!(Membership::start(unspecified, Arc::new(Forgetful)).is_err());
    let mut large = config(1, &[]);
    large.metadata.name = "n".repeat(2_000);
    assert!(Membership::start(large, Arc::new(Forgetful)).is_err());
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let error = Membership::start(MembershipConfig { listen, ..config(1, &[]) }, Arc::new(Forgetful)).unwrap_err();
    assert_eq!(error.kind(), fleet_core::ErrorKind::FailedPrecondition);
}

#[tokio::test]
async fn a_removed_node_is_neither_heard_nor_shown_however_much_it_talks() {
    let nodes = fleet(3);
    for node in &nodes {
        until(node, "three members", |view| view.active().count() == 3).await;
    }
    let removed = NodeId::from_bytes([3; 16]);
    for node in &nodes[..2] {
        node.ban([removed]);
        node.ban([removed, removed]);
        until(node, "the removed one is gone", |view| view.get(removed).is_none()).await;
    }
    // It lives, has the keys, and goes on calling: nobody takes notice.
    nodes[2].publish(Metadata { name: "still here".to_owned(), ..Metadata::default() }).unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for node in &nodes[..2] {
        let view = node.current_view();
        assert!(view.get(removed).is_none() && view.active().count() == 2, "{view:#?}");
    }
    until(&nodes[2], "it sees nobody", |view| view.active_peers().count() == 0).await;
}
