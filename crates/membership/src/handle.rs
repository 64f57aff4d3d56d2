//! The handle by which the rest of the node uses membership: a cheap clone that hides thread, channels and socket.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::NodeId;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::driver::{Command, Driver, Ends, RingEnd, WanSelf, resting};
use crate::error::Error;
use crate::identity::{Identity, boot_number, next_boot};
use crate::keyring::Keyring;
use crate::memory::{Persistence, Remembered};
use crate::metadata::{Metadata, MetadataItem, MetadataVersion};
use crate::outlet::{Arrived, Outlet, Passing};
use crate::profile::Profile;
use crate::recorder::Recorder;
use crate::ring::Ring;
use crate::seal::{Opener, Sealer};
use crate::swim::{Swim, SwimConfig};
use crate::view::View;

/// Commands that may wait for the gossip thread.
const COMMANDS_MAX: usize = 64;
/// Packets from links that may wait for the gossip thread.
const ARRIVED_MAX: usize = 256;
/// How long a goodbye may take: many times what its packets need.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// Packets of one probe: UDP may lose one on any link.
const PROBE_TRIES: u32 = 3;

/// How this node takes part in gossip.
#[derive(Clone, Debug)]
pub struct MembershipConfig {
    /// This node.
    pub node: NodeId,
    /// Where the gossip socket listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where others reach it; `None` means where it listens. Its port 0 means the port listened on.
    pub advertise: Option<SocketAddr>,
    /// Addresses to call when no member is known, and now and then to heal a split.
    pub seeds: Vec<SocketAddr>,
    /// Keys of the packets within the site: its own, which no other site has.
    pub keyring: Keyring,
    /// Keys of the packets between sites, the same in the whole fleet; without them there is no gossip between sites.
    pub wan_keyring: Option<Keyring>,
    /// Timing and packet size.
    pub profile: Profile,
    /// What this node says about itself at first.
    pub metadata: Metadata,
}

/// A running member. Clones share it; the gossip thread ends after [`Membership::leave`] or, silently, when the last
/// clone is dropped.
#[derive(Clone)]
pub struct Membership {
    address: SocketAddr,
    incarnation: u64,
    node: NodeId,
    view: watch::Receiver<Arc<View>>,
    wan_view: watch::Receiver<Arc<View>>,
    outlet: Arc<watch::Sender<Option<Arc<dyn Outlet>>>>,
    arrived: mpsc::Sender<Arrived>,
    is_deaf: watch::Receiver<bool>,
    published: Arc<watch::Sender<Metadata>>,
    keyring: Arc<watch::Sender<Keyring>>,
    banned: Arc<watch::Sender<BTreeSet<NodeId>>>,
    commands: mpsc::Sender<Command>,
}

impl Membership {
    /// Loads what is remembered, makes a new incarnation durable, binds the socket and starts the gossip thread.
    ///
    /// Blocks for two calls of `persistence`: call it before the node serves, or from a thread that may wait.
    pub fn start(config: MembershipConfig, persistence: Arc<dyn Persistence>) -> Result<Self, Error> {
        let socket = bind(config.listen)?;
        let bound = socket.local_addr().map_err(|source| Error::Bind { address: config.listen, source })?;
        let address = advertised(config.advertise, bound)?;
        check_metadata(config.node, &config.metadata)?;
        let remembered = persistence.load().map_err(|source| Error::Load { source })?;
        let incarnation = next_boot(remembered.incarnation);
        let renewed = Remembered { incarnation, members: remembered.members };
        persistence.save(&renewed).map_err(|source| Error::Save { source })?;

        crate::metrics::describe();
        let rings = rings(&config, boot_number(incarnation))?;
        let recorder = Recorder::start(persistence, renewed.clone())?;
        let identity = Identity { node: config.node, address, incarnation };
        let (command_sender, commands) = mpsc::channel(COMMANDS_MAX);
        let (arrived_sender, arrived) = mpsc::channel(ARRIVED_MAX);
        let (published, published_receiver) = watch::channel(config.metadata.clone());
        let (keyring, keyring_receiver) = watch::channel(config.keyring);
        let (banned, banned_receiver) = watch::channel(BTreeSet::new());
        let (outlet, outlet_receiver) = watch::channel(None);
        let (view_sender, view) = watch::channel(Arc::new(View::default()));
        let (wan_view_sender, wan_view) = watch::channel(Arc::new(View::default()));
        let (deaf_sender, is_deaf) = watch::channel(false);
        let ends = Ends {
            commands,
            published: published_receiver,
            keyring: keyring_receiver,
            banned: banned_receiver,
            view: view_sender,
            wan_view: wan_view_sender,
            outlet: outlet_receiver,
            arrived,
            is_deaf: deaf_sender,
        };
        let swim_config = SwimConfig {
            identity,
            profile: config.profile,
            seeds: config.seeds,
            remembered: renewed.members,
            metadata: config.metadata,
            random_seed: rand::random(),
        };
        spawn(socket, swim_config, rings, ends, recorder)?;
        tracing::info!(node = %config.node, %address, boot = boot_number(incarnation), "gossip started");
        Ok(Self {
            address,
            incarnation,
            node: config.node,
            view,
            wan_view,
            outlet: Arc::new(outlet),
            arrived: arrived_sender,
            is_deaf,
            published: Arc::new(published),
            keyring: Arc::new(keyring),
            banned: Arc::new(banned),
            commands: command_sender,
        })
    }

    /// The members as this node sees them, now and as they change. At first only this node.
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// The members as this node sees them now.
    pub fn current_view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// The nodes of all sites that gossip between sites, as this node sees them, now and as they change. Nobody, while
    /// this node takes no part.
    pub fn wan_view(&self) -> watch::Receiver<Arc<View>> {
        self.wan_view.clone()
    }

    /// Begins to gossip with other sites, or says goodbye to them. Again, it does nothing.
    pub fn take_part_between_sites(&self, takes_part: bool) -> Result<(), Error> {
        self.command(Command::TakePart(takes_part))
    }

    /// Calls the nodes of other sites that seem down, and whoever is at `addresses`: a link to them is back.
    pub fn heal(&self, addresses: Vec<SocketAddr>) -> Result<(), Error> {
        self.command(Command::Heal(addresses))
    }

    /// Asks `outlet` from now on which way each packet between sites goes.
    pub fn set_outlet(&self, outlet: Arc<dyn Outlet>) {
        self.outlet.send_replace(Some(outlet));
    }

    /// Takes a packet between sites that came over a link, for this node or another of its site. One that finds no room is
    /// lost, as by UDP.
    pub fn arrived(&self, packet: Passing<'_>) {
        let arrived = Arrived { from: packet.from, to: packet.to, sealed: packet.sealed.to_vec() };
        // Gossip repeats what matters.
        let _taken = self.arrived.try_send(arrived);
    }

    /// Where others reach this node's gossip.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The incarnation this boot started with.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Calls `seed` now, and again whenever nobody active answers there.
    pub fn announce(&self, seed: SocketAddr) -> Result<(), Error> {
        self.command(Command::Announce(seed))
    }

    fn command(&self, command: Command) -> Result<(), Error> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::QueueFull,
            mpsc::error::TrySendError::Closed(_) => Error::Stopped,
        })
    }

    /// Asks over UDP who is at `address`, and gives how long the answer of `node` took: packets get through both ways and
    /// open there and here. `None` if it did not answer within `patience`.
    pub async fn probe(&self, node: NodeId, address: SocketAddr, patience: Duration) -> Option<Duration> {
        for _ in 0..PROBE_TRIES {
            let (answered, answer) = oneshot::channel();
            self.commands.send(Command::Probe { node, address, answered }).await.ok()?;
            if let Ok(Ok(took)) = tokio::time::timeout(patience / PROBE_TRIES, answer).await {
                return Some(took);
            }
        }
        None
    }

    /// Tells all others this about the node. Only the latest counts; it may be called as often as something changes.
    pub fn publish(&self, metadata: Metadata) -> Result<(), Error> {
        check_metadata(self.node, &metadata)?;
        self.published.send_if_modified(|current| {
            let is_news = *current != metadata;
            *current = metadata;
            is_news
        });
        Ok(())
    }

    /// Seals and opens packets within the site with these keys from now on.
    pub fn set_keyring(&self, keyring: Keyring) {
        self.keyring.send_replace(keyring);
    }

    /// Hears nothing of these nodes any more, and shows them no more: they were removed from the fleet. Only adds.
    pub fn ban(&self, nodes: impl IntoIterator<Item = NodeId>) {
        self.banned.send_if_modified(|banned| {
            let before = banned.len();
            banned.extend(nodes.into_iter().filter(|node| *node != self.node));
            banned.len() != before
        });
    }

    /// Whether packets come and none can be opened: this node missed a rotation and should fetch the keyring.
    pub fn is_deaf(&self) -> watch::Receiver<bool> {
        self.is_deaf.clone()
    }

    /// Says goodbye to the others and ends the gossip thread. Returns when it is said, or after two seconds of a thread
    /// that is held up: who stops must not wait for it. Again, it does nothing.
    pub async fn leave(&self) {
        let goodbye = async {
            let (done, said) = oneshot::channel();
            if self.commands.send(Command::Leave(done)).await.is_ok() {
                // Answered or dropped unanswered: either way the thread's loop has ended.
                let _over = said.await;
            }
        };
        if tokio::time::timeout(LEAVE_MAX, goodbye).await.is_err() {
            tracing::warn!("gossip does not say goodbye in time: the others will find this node silent");
        }
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership").field("node", &self.node).field("address", &self.address).finish_non_exhaustive()
    }
}

/// The seals of one ring, before it runs.
type Seals = (Sealer, Opener);

/// The seals of both rings in this boot: that within the site, and that between sites if there is one.
fn rings(config: &MembershipConfig, boot: u32) -> Result<(Seals, Option<Seals>), Error> {
    let seals = |keyring: Keyring| Ok((Sealer::new(config.node, boot, &keyring)?, Opener::new(keyring)));
    let lan = seals(config.keyring.clone().for_ring(Ring::Lan.byte()))?;
    let wan = config.wan_keyring.clone().map(|keyring| seals(keyring.for_ring(Ring::Wan.byte()))).transpose()?;
    Ok((lan, wan))
}

fn bind(address: SocketAddr) -> Result<UdpSocket, Error> {
    let socket = UdpSocket::bind(address).map_err(|source| Error::Bind { address, source })?;
    socket.set_nonblocking(true).map_err(|source| Error::Bind { address, source })?;
    Ok(socket)
}

fn advertised(wanted: Option<SocketAddr>, bound: SocketAddr) -> Result<SocketAddr, Error> {
    let mut address = wanted.unwrap_or(bound);
    if address.port() == 0 {
        address.set_port(bound.port());
    }
    if address.ip().is_unspecified() {
        return Err(Error::Config { reason: "others cannot reach an unspecified address: set the advertised one" });
    }
    Ok(address)
}

/// Refuses metadata that cannot travel, before anything is changed.
fn check_metadata(node: NodeId, metadata: &Metadata) -> Result<(), Error> {
    let version = MetadataVersion { incarnation: u64::MAX, counter: u64::MAX };
    MetadataItem { node, version, metadata: metadata.clone() }.encode().map(drop)
}

/// Starts the gossip thread; returns when its loop is about to run.
fn spawn(
    socket: UdpSocket,
    swim: SwimConfig,
    seals: (Seals, Option<Seals>),
    ends: Ends,
    recorder: Recorder,
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|source| Error::Thread { source })?;
    let socket = {
        let _entered = runtime.enter();
        tokio::net::UdpSocket::from_std(socket).map_err(|source| Error::Thread { source })?
    };
    let datagram_bytes_max = swim.profile.datagram_bytes_max();
    let run = move || {
        let started = Instant::now();
        let identity = swim.identity;
        let wan_self = WanSelf { node: identity.node, address: identity.address, incarnation: identity.incarnation };
        let (swim, first) = Swim::new(swim, Duration::ZERO);
        let ((sealer, opener), wan) = seals;
        let lan = RingEnd { swim: Some(swim), sealer, opener, datagram_bytes_max };
        let driver = Driver::new(socket, (lan, wan.map(resting)), wan_self, ends, recorder, started);
        runtime.block_on(driver.run(first));
    };
    let thread = std::thread::Builder::new().name("fleet-gossip".into()).spawn(run);
    thread.map(drop).map_err(|source| Error::Thread { source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_goodbye_that_nobody_says_is_not_waited_for() {
        let (commands, held_up) = mpsc::channel(COMMANDS_MAX);
        let (published, _published) = watch::channel(Metadata::default());
        let (keyring, _keyring) = watch::channel(Keyring::single(crate::keyring::GossipKey::new([1; 32])));
        let membership = Membership {
            address: SocketAddr::from(([127, 0, 0, 1], 7000)),
            incarnation: 1 << 32,
            node: NodeId::from_bytes([1; 16]),
            view: watch::channel(Arc::new(View::default())).1,
            wan_view: watch::channel(Arc::new(View::default())).1,
            outlet: Arc::new(watch::channel(None).0),
            arrived: mpsc::channel(1).0,
            is_deaf: watch::channel(false).1,
            published: Arc::new(published),
            keyring: Arc::new(keyring),
            banned: Arc::new(watch::channel(BTreeSet::new()).0),
            commands,
        };
        tokio::time::timeout(LEAVE_MAX * 2, membership.leave()).await.expect("it returns");
        drop(held_up);
    }
}
