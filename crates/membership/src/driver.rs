//! The gossip loop: one thread, one socket, one timer queue. It seals, sends, opens and tells the time; every decision is
//! in [`Swim`].
//!
//! Packets that wait are read before timers fire: a node that was held up hears the answers before it suspects anybody.

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
use crate::payload::Payload;
use crate::recorder::Recorder;
use crate::seal::{Opener, Refusal, Sealer};
use crate::swim::{Effect, Input, Swim};
use crate::view::{MemberState, View};

/// Packets read in one turn before timers get theirs.
const PACKETS_PER_TURN: usize = 256;
/// Larger than any datagram of any profile, so that a longer one shows by its length.
const RECEIVE_BYTES: usize = 2_048;
/// How long nothing must have been opened before missing keys are the likely cause.
const DEAF_AFTER: Duration = Duration::from_secs(5);
/// Packets that must have failed meanwhile.
const DEAF_PACKETS: u64 = 5;
/// Most questions of operators that wait for an answer at once.
const PROBES_MAX: usize = 1_024;

/// What the handle asks of the loop.
#[derive(Debug)]
pub(crate) enum Command {
    /// Call an address.
    Announce(SocketAddr),
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

/// A question that waits for its answer.
struct Probe {
    node: NodeId,
    asked: Instant,
    answered: oneshot::Sender<Duration>,
}

/// The loop's ends of the handle's channels.
pub(crate) struct Ends {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) published: watch::Receiver<Metadata>,
    pub(crate) keyring: watch::Receiver<Keyring>,
    pub(crate) view: watch::Sender<Arc<View>>,
    pub(crate) is_deaf: watch::Sender<bool>,
}

/// The loop.
pub(crate) struct Driver {
    socket: UdpSocket,
    datagram_bytes_max: usize,
    swim: Swim,
    sealer: Sealer,
    opener: Opener,
    ends: Ends,
    recorder: Recorder,
    meters: Meters,
    started: Instant,
    opened_at: Duration,
    failed_since: u64,
    waiting_for_goodbye: Vec<oneshot::Sender<()>>,
    probes: Vec<Probe>,
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
    /// A loop over `socket`. The time of `swim` starts at `started`.
    pub(crate) fn new(
        socket: UdpSocket,
        datagram_bytes_max: usize,
        swim: Swim,
        seals: (Sealer, Opener),
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
            datagram_bytes_max,
            swim,
            sealer: seals.0,
            opener: seals.1,
            ends,
            recorder,
            meters,
            started,
            opened_at: Duration::ZERO,
            failed_since: 0,
            waiting_for_goodbye: Vec::new(),
            probes: Vec::new(),
            is_over: false,
        }
    }

    /// Runs until goodbye is said or nobody holds the handle any more.
    pub(crate) async fn run(mut self, first: Vec<Effect>) {
        // Until the socket was once seen writable, tokio lets nothing be sent.
        if let Err(error) = self.socket.writable().await {
            tracing::warn!(%error, "gossip socket is not writable yet");
        }
        self.carry_out(first);
        while !self.is_over {
            let input = self.wait().await;
            let turn = Instant::now();
            self.read_packets();
            let now = self.now();
            if let Some(due) = self.swim.next_due().filter(|due| *due <= now) {
                self.meters.late_seconds.record((now - due).as_secs_f64());
                self.step(Input::Tick);
            }
            match input {
                Woken::Readiness | Woken::Timer => {}
                Woken::Command(command) => self.command(command),
                Woken::Published => {
                    let metadata = self.ends.published.borrow_and_update().clone();
                    self.step(Input::Publish(metadata));
                }
                Woken::Keyring => self.take_keyring(),
                Woken::Abandoned => self.is_over = true,
            }
            self.recorder.offer(self.now(), || self.swim.remembered());
            self.meters.suspicion_percent.set(f64::from(self.swim.suspicion_percent()));
            self.meters.turn_seconds.record(turn.elapsed().as_secs_f64());
        }
        for waiting in self.waiting_for_goodbye {
            // Whoever waited may have gone away meanwhile.
            let _told = waiting.send(());
        }
    }

    async fn wait(&mut self) -> Woken {
        let due = self.started + self.swim.next_due().unwrap_or(Duration::from_secs(1));
        let ends = &mut self.ends;
        tokio::select! {
            // An error of readiness shows again, and with its reason, when the socket is read.
            _readiness = self.socket.readable() => Woken::Readiness,
            () = tokio::time::sleep_until(due) => Woken::Timer,
            command = ends.commands.recv() => command.map_or(Woken::Abandoned, Woken::Command),
            Ok(()) = ends.published.changed() => Woken::Published,
            Ok(()) = ends.keyring.changed() => Woken::Keyring,
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn step(&mut self, input: Input<'_>) {
        let effects = self.swim.handle(self.now(), input);
        self.carry_out(effects);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Announce(address) => self.step(Input::Announce(address)),
            Command::Leave(done) => {
                self.waiting_for_goodbye.push(done);
                self.step(Input::Leave);
            }
            Command::Probe { node, address, answered } => self.probe(node, address, answered),
        }
    }

    /// Asks beside the failure detector: what it knows of the other end must not hide that packets do not get through.
    fn probe(&mut self, node: NodeId, address: SocketAddr, answered: oneshot::Sender<Duration>) {
        self.probes.retain(|probe| !probe.answered.is_closed());
        // The last place is never taken: whoever asks gives up by itself.
        if self.probes.len() < PROBES_MAX
            && let Some(question) = Payload::Who.encode()
        {
            self.probes.push(Probe { node, asked: Instant::now(), answered });
            self.send(address, &question);
        }
    }

    fn answer_probes(&mut self, payload: &[u8]) {
        if self.probes.is_empty() {
            return;
        }
        let Ok(Payload::Iam(identity)) = Payload::decode(payload) else { return };
        let (answered, waiting) =
            std::mem::take(&mut self.probes).into_iter().partition(|probe| probe.node == identity.node);
        self.probes = waiting;
        for probe in answered {
            // Whoever asked may have given up meanwhile.
            let _told = probe.answered.send(probe.asked.elapsed());
        }
    }

    fn take_keyring(&mut self) {
        let keyring = self.ends.keyring.borrow_and_update().clone();
        if let Err(error) = self.sealer.set_keyring(&keyring) {
            tracing::error!(%error, "gossip goes on with the old keyring");
            return;
        }
        tracing::info!(ring = keyring.ring(), primary = keyring.primary(), "gossip keyring replaced");
        self.opener.set_keyring(keyring);
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
        if packet.len() > self.datagram_bytes_max {
            counter!(names::DROPPED, names::REASON => "oversize").increment(1);
            return;
        }
        let now = self.now();
        match self.opener.open(now, from.ip(), packet) {
            Ok(payload) => {
                self.meters.received.increment(1);
                self.opened_at = now;
                self.failed_since = 0;
                self.ends.is_deaf.send_if_modified(|is_deaf| std::mem::replace(is_deaf, false));
                self.answer_probes(&payload);
                self.step(Input::Packet { from, payload: &payload });
            }
            Err(refusal) => self.refused(now, refusal),
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

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, payload } => self.send(to, &payload),
                Effect::View(view) => self.publish(view),
                Effect::Dropped(reason) => counter!(names::DROPPED, names::REASON => reason).increment(1),
                Effect::Gone => self.is_over = true,
            }
        }
    }

    fn send(&mut self, to: SocketAddr, payload: &[u8]) {
        let packet = match self.sealer.seal(payload) {
            Ok(packet) => packet,
            Err(error) => {
                tracing::error!(%error, "gossip packet not sent");
                return;
            }
        };
        match self.socket.try_send_to(&packet, to) {
            Ok(_) => self.meters.sent.increment(1),
            Err(error) => {
                // A full buffer or an unreachable address: gossip repeats what matters.
                tracing::trace!(%error, %to, "gossip packet not sent");
                counter!(names::DROPPED, names::REASON => "send").increment(1);
            }
        }
    }

    fn publish(&mut self, view: Arc<View>) {
        use MemberState::{Alive, Down, Draining, Left, Suspect};
        for change in view.changes_since(&self.ends.view.borrow()) {
            crate::view::log(&change);
        }
        for state in [Alive, Draining, Suspect, Down, Left] {
            let count = view.members().filter(|member| member.state == state).count();
            gauge!(names::MEMBERS, names::STATE => state.as_str()).set(count as f64);
        }
        self.recorder.changed();
        self.ends.view.send_replace(view);
    }
}

/// Why the loop woke.
enum Woken {
    Readiness,
    Timer,
    Command(Command),
    Published,
    Keyring,
    Abandoned,
}
