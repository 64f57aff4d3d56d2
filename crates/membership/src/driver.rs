//! The gossip loop: one thread, one socket, two rings. It seals, sends, opens and tells the time; every decision is in
//! [`Swim`].
//!
//! Packets that wait are read before timers fire: a node that was held up hears the answers before it suspects anybody.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::NodeId;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::keyring::Keyring;
use crate::metadata::Metadata;
use crate::metrics as names;
use crate::outlet::{Arrived, Outlet};
use crate::payload::Payload;
use crate::recorder::Recorder;
use crate::ring::Ring;
use crate::seal::{Opener, Refusal, Sealer, ring_of};
use crate::swim::{Effect, Input, Swim};
use crate::view::{MemberState, View};

mod probe;
mod wan;

use probe::Probes;
pub(crate) use wan::{WanSelf, resting};

/// Packets read in one turn before timers get theirs.
const PACKETS_PER_TURN: usize = 256;
/// Larger than any datagram of any profile, so that a longer one shows by its length.
const RECEIVE_BYTES: usize = 2_048;
/// How long nothing must have been opened before missing keys are the likely cause.
const DEAF_AFTER: Duration = Duration::from_secs(5);
/// Packets that must have failed meanwhile.
const DEAF_PACKETS: u64 = 5;
/// Most addresses in other sites that are kept to be called.
const WAN_SEEDS_MAX: usize = 64;
/// Packets from links that are taken in one turn.
const ARRIVED_PER_TURN: usize = 64;

/// What the handle asks of the loop.
#[derive(Debug)]
pub(crate) enum Command {
    /// Call an address.
    Announce(SocketAddr),
    /// Gossip with other sites, or stop it.
    TakePart(bool),
    /// Call nodes of other sites: those that seem down, and whoever is at these addresses.
    Heal(Vec<SocketAddr>),
    /// Say goodbye, then answer.
    Leave(oneshot::Sender<()>),
    /// Ask who is at an address, and tell when this node answers.
    Probe {
        /// Who is expected there.
        node: NodeId,
        /// Where.
        address: SocketAddr,
        /// Told how long the answer took.
        answered: oneshot::Sender<Duration>,
    },
}

/// The loop's ends of the handle's channels.
pub(crate) struct Ends {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) published: watch::Receiver<Metadata>,
    pub(crate) keyring: watch::Receiver<Keyring>,
    pub(crate) banned: watch::Receiver<BTreeSet<NodeId>>,
    pub(crate) view: watch::Sender<Arc<View>>,
    pub(crate) wan_view: watch::Sender<Arc<View>>,
    pub(crate) outlet: watch::Receiver<Option<Arc<dyn Outlet>>>,
    pub(crate) arrived: mpsc::Receiver<Arrived>,
    pub(crate) is_deaf: watch::Sender<bool>,
}

/// This node's end of one ring.
pub(crate) struct RingEnd {
    /// `None` where this node takes no part.
    pub(crate) swim: Option<Swim>,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    pub(crate) datagram_bytes_max: usize,
}

/// The loop.
pub(crate) struct Driver {
    socket: UdpSocket,
    lan: RingEnd,
    wan: Option<RingEnd>,
    wan_self: WanSelf,
    wan_seeds: Vec<SocketAddr>,
    ends: Ends,
    recorder: Recorder,
    meters: Meters,
    started: Instant,
    opened_at: Duration,
    failed_since: u64,
    waiting_for_goodbye: Vec<oneshot::Sender<()>>,
    probes: Probes,
    is_over: bool,
}

struct Meters {
    sent: Counter,
    received: Counter,
    turn_seconds: Histogram,
    late_seconds: Histogram,
    suspicion_percent: Gauge,
}

impl Driver {
    /// A loop over `socket`. The time of both rings starts at `started`.
    pub(crate) fn new(
        socket: UdpSocket,
        rings: (RingEnd, Option<RingEnd>),
        wan_self: WanSelf,
        ends: Ends,
        recorder: Recorder,
        started: Instant,
    ) -> Self {
        let meters = Meters {
            sent: counter!(names::PACKETS_SENT),
            received: counter!(names::PACKETS_RECEIVED),
            turn_seconds: histogram!(names::TURN_SECONDS),
            late_seconds: histogram!(names::LATE_SECONDS),
            suspicion_percent: gauge!(names::SUSPICION_PERCENT),
        };
        Self {
            socket,
            lan: rings.0,
            wan: rings.1,
            wan_self,
            wan_seeds: Vec::new(),
            ends,
            recorder,
            meters,
            started,
            opened_at: Duration::ZERO,
            failed_since: 0,
            waiting_for_goodbye: Vec::new(),
            probes: Probes::default(),
            is_over: false,
        }
    }

    /// Runs until goodbye is said or nobody holds the handle any more.
    pub(crate) async fn run(mut self, first: Vec<Effect>) {
        // Until the socket was once seen writable, tokio lets nothing be sent.
        if let Err(error) = self.socket.writable().await {
            tracing::warn!(%error, "gossip socket is not writable yet");
        }
        self.carry_out(Ring::Lan, first);
        while !self.is_over {
            let input = self.wait().await;
            let turn = Instant::now();
            self.read_packets();
            self.tick(Ring::Lan);
            self.tick(Ring::Wan);
            self.woken(input);
            self.offer_to_remember();
            self.meters.turn_seconds.record(turn.elapsed().as_secs_f64());
        }
        for waiting in self.waiting_for_goodbye {
            // Whoever waited may have gone away meanwhile.
            let _told = waiting.send(());
        }
    }

    fn woken(&mut self, input: Woken) {
        match input {
            Woken::Readiness | Woken::Timer => {}
            Woken::Command(command) => self.command(command),
            Woken::Published => {
                let metadata = self.ends.published.borrow_and_update().clone();
                self.publish_to_other_sites(&metadata);
                self.step(Ring::Lan, Input::Publish(metadata));
            }
            Woken::Keyring => self.take_keyring(),
            Woken::Banned => {
                let banned = self.ends.banned.borrow_and_update().clone();
                for end in std::iter::once(&mut self.lan).chain(&mut self.wan) {
                    end.opener.ban(&banned);
                }
                self.step(Ring::Wan, Input::Ban(banned.clone()));
                self.step(Ring::Lan, Input::Ban(banned));
            }
            Woken::Arrived(first) => {
                self.arrived(&first);
                for _ in 1..ARRIVED_PER_TURN {
                    let Ok(next) = self.ends.arrived.try_recv() else { break };
                    self.arrived(&next);
                }
            }
            Woken::Abandoned => self.is_over = true,
        }
    }

    /// Lets the timers of `ring` fire that are due.
    fn tick(&mut self, ring: Ring) {
        let now = self.now();
        let due = self.end(ring).and_then(|end| end.swim.as_ref()?.next_due());
        if let Some(due) = due.filter(|due| *due <= now) {
            self.meters.late_seconds.record((now - due).as_secs_f64());
            self.step(ring, Input::Tick);
        }
    }

    fn offer_to_remember(&mut self) {
        let now = self.now();
        if let Some(swim) = &self.lan.swim {
            self.recorder.offer(now, || swim.remembered());
            self.meters.suspicion_percent.set(f64::from(swim.suspicion_percent()));
        }
    }

    async fn wait(&mut self) -> Woken {
        let rings = std::iter::once(&self.lan).chain(&self.wan);
        let due = rings.filter_map(|end| end.swim.as_ref()?.next_due()).min();
        let due = self.started + due.unwrap_or(Duration::from_secs(1));
        let ends = &mut self.ends;
        tokio::select! {
            // An error of readiness shows again, and with its reason, when the socket is read.
            _readiness = self.socket.readable() => Woken::Readiness,
            () = tokio::time::sleep_until(due) => Woken::Timer,
            command = ends.commands.recv() => command.map_or(Woken::Abandoned, Woken::Command),
            Some(arrived) = ends.arrived.recv() => Woken::Arrived(arrived),
            Ok(()) = ends.published.changed() => Woken::Published,
            Ok(()) = ends.keyring.changed() => Woken::Keyring,
            Ok(()) = ends.banned.changed() => Woken::Banned,
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn end(&mut self, ring: Ring) -> Option<&mut RingEnd> {
        match ring {
            Ring::Lan => Some(&mut self.lan),
            Ring::Wan => self.wan.as_mut(),
        }
    }

    /// Gives `input` to `ring`, if this node takes part in it.
    fn step(&mut self, ring: Ring, input: Input<'_>) {
        let now = self.now();
        if let Some(swim) = self.end(ring).and_then(|end| end.swim.as_mut()) {
            let effects = swim.handle(now, input);
            self.carry_out(ring, effects);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Announce(address) => self.step(Ring::Lan, Input::Announce(address)),
            Command::TakePart(takes_part) => self.take_part(takes_part),
            Command::Heal(addresses) => self.heal(addresses),
            Command::Leave(done) => {
                self.waiting_for_goodbye.push(done);
                self.step(Ring::Wan, Input::Leave);
                self.step(Ring::Lan, Input::Leave);
            }
            // Beside the failure detector: what it knows of the other end must not hide that packets do not get through.
            Command::Probe { node, address, answered } => {
                if let Some(question) = self.probes.ask(node, answered) {
                    self.send(Ring::Lan, address, &question);
                }
            }
        }
    }

    fn take_keyring(&mut self) {
        let keyring = self.ends.keyring.borrow_and_update().clone().for_ring(Ring::Lan.byte());
        if let Err(error) = self.lan.sealer.set_keyring(&keyring) {
            tracing::error!(%error, "gossip goes on with the old keyring");
            return;
        }
        tracing::info!(ring = keyring.ring(), primary = keyring.primary(), "gossip keyring replaced");
        self.lan.opener.set_keyring(keyring);
    }

    fn read_packets(&mut self) {
        let mut buffer = [0; RECEIVE_BYTES];
        for _ in 0..PACKETS_PER_TURN {
            match self.socket.try_recv_from(&mut buffer) {
                Ok((length, from)) => self.packet(from, buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Linux reports here that an earlier packet reached nobody; others are as harmless to the loop.
                    tracing::debug!(%error, "gossip socket reported an error");
                    counter!(names::DROPPED, names::REASON => "receive").increment(1);
                }
            }
        }
    }

    fn packet(&mut self, from: SocketAddr, packet: &[u8]) {
        // What names neither ring is refused, and counted, by the ring that every node has.
        let ring = ring_of(packet).and_then(Ring::of_byte).unwrap_or(Ring::Lan);
        self.packet_of(ring, from, packet);
    }

    fn packet_of(&mut self, ring: Ring, from: SocketAddr, packet: &[u8]) {
        let now = self.now();
        let Some(end) = self.end(ring).filter(|end| ring == Ring::Lan || end.swim.is_some()) else {
            return counter!(names::DROPPED, names::REASON => "no_part").increment(1);
        };
        if packet.len() > end.datagram_bytes_max {
            return counter!(names::DROPPED, names::REASON => "oversize").increment(1);
        }
        match (end.opener.open(now, from.ip(), packet), ring) {
            (Ok(payload), Ring::Wan) => {
                self.meters.received.increment(1);
                self.step(Ring::Wan, Input::Packet { from, payload: &payload });
            }
            (Ok(payload), Ring::Lan) => {
                self.meters.received.increment(1);
                self.opened_at = now;
                self.failed_since = 0;
                self.ends.is_deaf.send_if_modified(|is_deaf| std::mem::replace(is_deaf, false));
                if let Ok(Payload::Pass(packet)) = Payload::decode(&payload) {
                    return self.passed(packet);
                }
                self.probes.answer(&payload);
                self.step(Ring::Lan, Input::Packet { from, payload: &payload });
            }
            (Err(refusal), Ring::Wan) => {
                counter!(names::DECRYPT_FAILS, names::REASON => refusal.as_str()).increment(1);
            }
            (Err(refusal), Ring::Lan) => self.refused(now, refusal),
        }
    }

    fn refused(&mut self, now: Duration, refusal: Refusal) {
        counter!(names::DECRYPT_FAILS, names::REASON => refusal.as_str()).increment(1);
        if matches!(refusal, Refusal::UnknownKey | Refusal::Forged) {
            self.failed_since = self.failed_since.saturating_add(1);
        }
        if self.failed_since >= DEAF_PACKETS && now.saturating_sub(self.opened_at) >= DEAF_AFTER {
            self.ends.is_deaf.send_if_modified(|is_deaf| !std::mem::replace(is_deaf, true));
        }
    }

    fn carry_out(&mut self, ring: Ring, effects: Vec<Effect>) {
        for effect in effects {
            match (effect, ring) {
                (Effect::Send { to, payload }, _) => self.send(ring, to, &payload),
                (Effect::View(view), Ring::Lan) => self.publish(view),
                (Effect::View(view), Ring::Wan) => self.publish_wan(view),
                (Effect::Dropped(reason), _) => counter!(names::DROPPED, names::REASON => reason).increment(1),
                (Effect::Gone, Ring::Lan) => self.is_over = true,
                (Effect::Gone, Ring::Wan) => self.wan_is_left(),
            }
        }
    }

    fn send(&mut self, ring: Ring, to: SocketAddr, payload: &[u8]) {
        let Some(end) = self.end(ring) else { return };
        let packet = match end.sealer.seal(payload) {
            Ok(packet) => packet,
            Err(error) => {
                tracing::error!(%error, "gossip packet not sent");
                return;
            }
        };
        match ring {
            Ring::Lan => self.send_sealed(to, &packet),
            Ring::Wan => self.send_between_sites(to, &packet),
        }
    }

    fn send_sealed(&mut self, to: SocketAddr, packet: &[u8]) {
        match self.socket.try_send_to(packet, to) {
            Ok(_) => self.meters.sent.increment(1),
            Err(error) => {
                // A full buffer or an unreachable address: gossip repeats what matters.
                tracing::trace!(%error, %to, "gossip packet not sent");
                counter!(names::DROPPED, names::REASON => "send").increment(1);
            }
        }
    }

    fn publish(&mut self, view: Arc<View>) {
        for change in view.changes_since(&self.ends.view.borrow()) {
            crate::view::log(&change);
        }
        count(names::MEMBERS, &view);
        self.recorder.changed();
        self.ends.view.send_replace(view);
    }

    fn publish_wan(&mut self, view: Arc<View>) {
        count(names::WAN_MEMBERS, &view);
        self.ends.wan_view.send_replace(view);
    }
}

fn count(metric: &'static str, view: &View) {
    use MemberState::{Alive, Down, Draining, Left, Suspect};
    for state in [Alive, Draining, Suspect, Down, Left] {
        let count = view.members().filter(|member| member.state == state).count();
        gauge!(metric, names::STATE => state.as_str()).set(count as f64);
    }
}

/// Why the loop woke.
enum Woken {
    Readiness,
    Timer,
    Command(Command),
    Published,
    Keyring,
    Banned,
    Arrived(Arrived),
    Abandoned,
}
