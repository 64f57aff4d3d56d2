//! Measured on real sockets: how soon a killed node is known to all, and that a busy machine kills nobody by rumour.
//!
//! `FLEET_TEST_SIZE=ci` adds fifty nodes, `long` the ten minutes beside spinning processes.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fleet_core::NodeId;
use fleet_membership::{
    Forgetful, GossipKey, Keyring, MemberState, Membership, MembershipConfig, Metadata, Profile, View,
};

/// What is promised.
const KNOWN_WITHIN: Duration = Duration::from_secs(2);
/// Lateness from which gossip threads, too, are held up.
const LATE_FROM: Duration = Duration::from_millis(30);
/// Measurements do not disturb each other.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn size_is_at_least(wanted: &str) -> bool {
    let size = std::env::var("FLEET_TEST_SIZE").unwrap_or_default();
    size == "long" || size == wanted
}

fn id(number: usize) -> NodeId {
    NodeId::from_bytes(u128::try_from(number + 1).unwrap().to_be_bytes())
}

fn start(number: usize, seeds: &[SocketAddr]) -> Membership {
    let config = MembershipConfig {
        node: id(number),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        advertise: None,
        seeds: seeds.to_vec(),
        keyring: Keyring::single(GossipKey::new([42; 32])),
        wan_keyring: None,
        profile: Profile::Lan,
        metadata: Metadata { name: format!("node-{number}"), ..Metadata::default() },
    };
    Membership::start(config, Arc::new(Forgetful)).unwrap()
}

async fn wait_for(node: &Membership, what: &str, is_reached: impl Fn(&View) -> bool) {
    let mut view = node.view();
    let reached = tokio::time::timeout(Duration::from_secs(60), view.wait_for(|view| is_reached(view))).await;
    assert!(reached.is_ok(), "{what}: {:#?}", node.current_view());
}

async fn met(count: usize) -> Vec<Membership> {
    let first = start(0, &[]);
    let seed = first.address();
    let mut nodes = vec![first];
    nodes.extend((1..count).map(|number| start(number, &[seed])));
    let began = Instant::now();
    for node in &nodes {
        wait_for(node, "all members", |view| {
            view.active().count() == count && view.active().all(|member| member.metadata.is_some())
        })
        .await;
    }
    println!("{count} nodes met within {:?} of the last start", began.elapsed());
    nodes
}

/// Kills nodes one after the other; for each, the time until the last survivor knows.
async fn kill_times(count: usize, kills: usize) -> Vec<Duration> {
    let mut nodes = met(count).await;
    let mut times = Vec::new();
    for kill in 0..kills {
        let victim = nodes.pop().map(|node| node.current_view().own_node()).unwrap();
        let killed = Instant::now();
        for node in &nodes {
            wait_for(node, "the death", |view| view.get(victim).unwrap().state == MemberState::Down).await;
        }
        times.push(killed.elapsed());
        // A new node takes its place, so that every kill is one in a fleet of `count`.
        if kill + 1 < kills {
            let newcomer = start(count + kill, &[nodes[0].address()]);
            nodes.push(newcomer);
            for node in &nodes {
                wait_for(node, "the newcomer", |view| view.active().count() == count).await;
            }
        }
    }
    times.sort();
    println!("{count} nodes, {kills} kills: {times:?}");
    times
}

/// Watches how late this machine wakes its threads.
struct Lateness {
    worst_micros: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Lateness {
    fn watch() -> Self {
        let watch = Self { worst_micros: Arc::default(), is_over: Arc::default() };
        let (worst_micros, is_over) = (Arc::clone(&watch.worst_micros), Arc::clone(&watch.is_over));
        std::thread::spawn(move || {
            let pause = Duration::from_millis(5);
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                std::thread::sleep(pause);
                let late = began.elapsed().saturating_sub(pause).as_micros();
                worst_micros.fetch_max(u64::try_from(late).unwrap(), Ordering::Relaxed);
            }
        });
        watch
    }

    fn worst(&self) -> Duration {
        Duration::from_micros(self.worst_micros.load(Ordering::Relaxed))
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// The promise holds where threads get to run; elsewhere local health grants suspects more time, up to eight times.
async fn check_kills(count: usize, kills: usize) {
    let lateness = Lateness::watch();
    let times = kill_times(count, kills).await;
    let bound = if lateness.worst() < LATE_FROM { KNOWN_WITHIN } else { KNOWN_WITHIN + 7 * Profile::Lan.suspicion() };
    println!("threads woke up to {:?} late, so the bound is {bound:?}", lateness.worst());
    assert!(times.iter().all(|time| *time <= bound), "{count} nodes, bound {bound:?}: {times:?}");
}

#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "tests of this file run one at a time")]
async fn a_killed_node_is_known_to_all_within_two_seconds() {
    let _alone = alone();
    check_kills(3, 4).await;
    check_kills(10, 3).await;
    if size_is_at_least("ci") {
        check_kills(50, 3).await;
    }
}

/// Processes that do nothing but use their core; ended when dropped, or by themselves when this process is gone.
struct Spinners(Vec<Child>);

impl Spinners {
    fn start(count: usize) -> Self {
        let spin = || {
            let mut shell = Command::new("/bin/sh");
            shell.args(["-c", "while kill -0 $PPID 2>/dev/null; do :; done"]).stdin(Stdio::null()).spawn().unwrap()
        };
        Self((0..count).map(|_| spin()).collect())
    }
}

impl Drop for Spinners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ended = child.kill().and_then(|()| child.wait());
        }
    }
}

#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "tests of this file run one at a time")]
async fn nobody_is_falsely_dead_beside_spinning_processes() {
    let _alone = alone();
    let time = Duration::from_secs(if size_is_at_least("long") { 600 } else { 10 });
    let nodes = met(5).await;
    let cores = std::thread::available_parallelism().unwrap().get();
    let _spinners = Spinners::start(2 * cores);
    let mut watchers = Vec::new();
    for node in &nodes {
        let mut view = node.view();
        watchers.push(tokio::spawn(async move {
            let is_wrong = |view: &Arc<View>| view.members().any(|member| !member.state.is_active());
            let seen = tokio::time::timeout(time, view.wait_for(is_wrong)).await;
            seen.map(|view| format!("{:#?}", view.unwrap()))
        }));
    }
    for watcher in watchers {
        let wrong = watcher.await.unwrap();
        assert!(wrong.is_err(), "a false death: {}", wrong.unwrap_or_default());
    }
    println!("no false death in {time:?} beside {} spinning processes", 2 * cores);
}
