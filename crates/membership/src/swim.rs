//! The failure detector and the spreading of metadata as a pure machine: `handle(now, input) -> effects`.
//!
//! It has no socket, no clock and no randomness but its seed, so a simulated fleet of hundreds runs in one thread.
//! Invariants: timers fire in the order they are due; `now` never goes back; every view has a greater revision than the
//! one before; the versions of this node's own metadata only grow.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fleet_core::NodeId;
use foca::{AccumulatingRuntime, Foca, OwnedNotification, PostcardCodec};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::health::LocalHealth;
use crate::identity::Identity;
use crate::memory::RememberedMember;
use crate::metadata::{Metadata, MetadataVersion, NodeState};
use crate::payload::Payload;
use crate::profile::{Circumstances, Profile};
use crate::table::{BroadcastHandler, MetadataTable};
use crate::timers::{TimerKey, TimerQueue};
use crate::view::View;

mod contact;
mod own;
mod project;
mod suspicion;

/// How often the machine looks after what no timer of foca covers.
const HOUSEKEEPING: Duration = Duration::from_millis(100);
/// Timers of the detector, and housekeeping, come due at multiples of this: together, so that a node at rest wakes less.
const BEAT: Duration = Duration::from_millis(50);
/// How much earlier than asked a timer may come due for that. What is asked for lies a little past a multiple because the
/// timer before it came a little late.
const EARLY_MAX: Duration = Duration::from_millis(5);
/// How long after the last join the membership counts as in motion.
const SETTLING: Duration = Duration::from_secs(3);
/// When a member reported down is called again: a false report ends as soon as one call gets through.
const RECALLS: [Duration; 3] = [Duration::from_millis(300), Duration::from_millis(1_000), Duration::from_millis(3_000)];
/// How many times this node says goodbye, and how long it waits in between.
const GOODBYES: u32 = 4;
/// Pause between two goodbyes.
const GOODBYE_EVERY: Duration = Duration::from_millis(30);

/// How the machine starts.
#[derive(Clone, Debug)]
pub struct SwimConfig {
    /// This node, at the address others reach it, in its new incarnation.
    pub identity: Identity,
    /// Timing and packet size.
    pub profile: Profile,
    /// Addresses to call when no member is known.
    pub seeds: Vec<SocketAddr>,
    /// Members known before the restart.
    pub remembered: Vec<RememberedMember>,
    /// What this node says about itself at first.
    pub metadata: Metadata,
    /// Where randomness comes from.
    pub random_seed: u64,
}

/// What the machine is told.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// An opened packet came.
    Packet {
        /// Where from.
        from: SocketAddr,
        /// Its content.
        payload: &'a [u8],
    },
    /// Time passed.
    Tick,
    /// Call this address, now and whenever nobody active is there.
    Announce(SocketAddr),
    /// Call members that seem down: a link to them is back.
    CallDown,
    /// These nodes are no members any more, whatever is said of them.
    Ban(BTreeSet<NodeId>),
    /// This node has something new to say about itself.
    Publish(Metadata),
    /// Say goodbye.
    Leave,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Seal and send a packet.
    Send {
        /// Where to.
        to: SocketAddr,
        /// Its content.
        payload: Vec<u8>,
    },
    /// The view changed.
    View(Arc<View>),
    /// Something that came was dropped, for this reason: to be counted.
    Dropped(&'static str),
    /// Goodbye is said; nothing more will come.
    Gone,
}

/// What waits in the timer queue.
#[derive(Debug)]
enum Waiting {
    /// A timer of foca.
    Detector(foca::Timer<Identity>),
    /// A suspect's time ends, unless this node did not listen well since `started`.
    Suspicion { timer: foca::Timer<Identity>, started: Duration, blind_before: Duration },
    /// Housekeeping is due.
    Housekeeping,
    /// A member reported down is called again.
    Recall { member: Identity, attempt: usize },
    /// Another goodbye.
    Goodbye { left: u32 },
}

/// The machine.
pub struct Swim {
    foca: Foca<Identity, PostcardCodec, StdRng, BroadcastHandler>,
    runtime: AccumulatingRuntime<Identity>,
    timers: TimerQueue<Waiting>,
    removals: BTreeMap<NodeId, TimerKey>,
    accused: BTreeSet<NodeId>,
    accuse_at: Duration,
    banned: BTreeSet<NodeId>,
    table: Rc<RefCell<MetadataTable>>,
    health: LocalHealth,
    profile: Profile,
    configured_for: Circumstances,
    settled_at: Duration,
    own: own::OwnMetadata,
    contacts: contact::Contacts,
    random: StdRng,
    /// A node has its own beat, so that not all act at once.
    first_beat: Duration,
    view: Arc<View>,
    view_is_stale: bool,
    is_leaving: bool,
}

impl Swim {
    /// A machine that starts at `now`, and what it wants done first.
    pub fn new(config: SwimConfig, now: Duration) -> (Self, Vec<Effect>) {
        let table = Rc::new(RefCell::new(MetadataTable::new(config.identity.node)));
        let mut random = StdRng::seed_from_u64(config.random_seed);
        let detector_random = StdRng::seed_from_u64(random.random());
        let configured_for = Circumstances { members: 1, suspicion_percent: 100, is_settling: true };
        let foca = Foca::with_custom_broadcast(
            config.identity,
            config.profile.detector(configured_for),
            detector_random,
            PostcardCodec,
            BroadcastHandler(Rc::clone(&table)),
        );
        let mut swim = Self {
            foca,
            runtime: AccumulatingRuntime::new(),
            timers: TimerQueue::new(),
            removals: BTreeMap::new(),
            accused: BTreeSet::new(),
            accuse_at: Duration::ZERO,
            banned: BTreeSet::new(),
            table,
            health: LocalHealth::default(),
            profile: config.profile,
            configured_for,
            settled_at: now + SETTLING,
            own: own::OwnMetadata::new(config.metadata),
            contacts: contact::Contacts::new(config.seeds, &config.remembered),
            first_beat: now + BEAT.mul_f64(random.random_range(0.0..1.0)),
            random,
            view: Arc::new(View::new(config.identity.node, 0, BTreeMap::new())),
            view_is_stale: true,
            is_leaving: false,
        };
        let mut effects = Vec::new();
        swim.publish_own(now);
        swim.resume(&config.remembered, &mut effects);
        let first = HOUSEKEEPING.mul_f64(swim.random.random_range(0.5..1.5));
        swim.timers.push(now + first, Waiting::Housekeeping);
        swim.contact(now, &mut effects);
        swim.settle(now, &mut effects);
        (swim, effects)
    }

    /// Takes one input at `now`.
    pub fn handle(&mut self, now: Duration, input: Input<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Packet { from, payload } if !self.is_leaving => self.packet(from, payload, &mut effects),
            Input::Packet { .. } => {}
            Input::Tick => self.tick(now, &mut effects),
            Input::Announce(address) => {
                self.contacts.add_seed(address);
                self.send(address, Payload::Who, &mut effects);
            }
            Input::CallDown => self.call_down(&mut effects),
            Input::Ban(nodes) => {
                self.banned = nodes;
                self.view_is_stale = true;
            }
            Input::Publish(metadata) => {
                self.own.set(metadata);
                self.publish_own_if_due(now);
            }
            Input::Leave if !self.is_leaving => {
                self.is_leaving = true;
                self.own.set_state(NodeState::Left);
                self.publish_own(now);
                self.goodbye(now, GOODBYES, &mut effects);
            }
            Input::Leave => {}
        }
        self.settle(now, &mut effects);
        effects
    }

    /// When the machine next wants [`Input::Tick`].
    pub fn next_due(&self) -> Option<Duration> {
        self.timers.next_due()
    }

    /// The view as it is.
    pub fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Who this node is at present; the incarnation grows when the others had given it up.
    pub fn identity(&self) -> &Identity {
        self.foca.identity()
    }

    /// The time this node gives suspects at present, in percent of what a healthy node gives.
    pub fn suspicion_percent(&self) -> u32 {
        self.health.suspicion_percent()
    }

    fn packet(&mut self, from: SocketAddr, payload: &[u8], effects: &mut Vec<Effect>) {
        match Payload::decode(payload) {
            Ok(Payload::Swim(data)) => {
                if self.foca.handle_data(data, &mut self.runtime).is_err() {
                    effects.push(Effect::Dropped("swim"));
                }
            }
            Ok(Payload::Who) => self.send(from, Payload::Iam(*self.foca.identity()), effects),
            Ok(Payload::Iam(identity)) if identity.node != self.identity().node => self.announce(identity, effects),
            Ok(Payload::Iam(_)) => {}
            Ok(Payload::Want) => {
                if let Some(item) = self.own.item() {
                    let item = item.to_vec();
                    self.send(from, Payload::Metadata(&item), effects);
                }
            }
            Ok(Payload::Metadata(item)) => {
                self.table.borrow_mut().offer(item);
            }
            Ok(Payload::Suspect(accusation)) => self.contradict(accusation, effects),
            // The driver's own, and nobody sends it between sites.
            Ok(Payload::Pass(_)) => effects.push(Effect::Dropped("pass")),
            Err(reason) => effects.push(Effect::Dropped(reason)),
        }
    }

    fn tick(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if let Some(due) = self.timers.next_due().filter(|due| *due <= now) {
            self.health.observe(now, now - due);
        }
        while let Some(waiting) = self.timers.pop_due(now) {
            match waiting {
                Waiting::Detector(timer) => self.detector_timer(timer, effects),
                Waiting::Suspicion { timer, started, blind_before } => {
                    let ends = self.health.suspicion_end(started, blind_before, self.profile.suspicion());
                    if ends > now {
                        self.timers.push(ends, Waiting::Suspicion { timer, started, blind_before });
                    } else {
                        self.detector_timer(timer, effects);
                    }
                }
                Waiting::Housekeeping => {
                    self.timers.push(on_beat(now + HOUSEKEEPING, self.first_beat), Waiting::Housekeeping);
                    self.housekeeping(now, effects);
                }
                Waiting::Recall { member, attempt } => self.recall(now, member, attempt, effects),
                Waiting::Goodbye { left } => self.goodbye(now, left, effects),
            }
            self.drain(now, effects);
        }
    }

    fn detector_timer(&mut self, timer: foca::Timer<Identity>, effects: &mut Vec<Effect>) {
        if self.foca.handle_timer(timer, &mut self.runtime).is_err() {
            effects.push(Effect::Dropped("timer"));
        }
    }

    fn housekeeping(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if self.is_leaving {
            return;
        }
        self.publish_own_if_due(now);
        self.repeat_own_if_due(now);
        self.contact_if_due(now, effects);
        self.want_if_due(now, effects);
        self.call_down_if_due(now, effects);
        self.accuse_if_due(now, effects);
        // Who comes and goes shows at once; what they say, and suspicion, which has no notification, shows here.
        let has_metadata_news = self.table.borrow_mut().take_changed();
        self.view_is_stale |= has_metadata_news || self.appearances_differ();
    }

    /// Carries out what foca asked for, until it asks for nothing more, and brings the view up to date.
    fn settle(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        self.drain(now, effects);
        let refused = self.table.borrow_mut().take_refused();
        effects.extend(refused.into_iter().map(Effect::Dropped));
        if self.view_is_stale {
            self.project(effects);
        }
    }

    fn drain(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        while let Some(notification) = self.runtime.to_notify() {
            self.notified(now, notification);
        }
        while let Some((to, data)) = self.runtime.to_send() {
            self.send(to.address, Payload::Swim(&data), effects);
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.schedule(now, after, timer);
        }
        self.reconfigure(now);
    }

    fn notified(&mut self, now: Duration, notification: OwnedNotification<Identity>) {
        self.view_is_stale = true;
        match notification {
            OwnedNotification::MemberUp(_) => {
                self.own.repeat_soon(now);
                self.contacts.want_soon(now);
                self.settled_at = now + SETTLING;
            }
            OwnedNotification::MemberDown(member) if !self.is_leaving => {
                self.timers.push(now + RECALLS[0], Waiting::Recall { member, attempt: 0 });
            }
            OwnedNotification::Rejoin(_) => {
                self.publish_own(now);
                self.contacts.call_down_soon(now);
            }
            _ => {}
        }
    }

    fn schedule(&mut self, now: Duration, after: Duration, timer: foca::Timer<Identity>) {
        let at = now + after;
        match timer {
            foca::Timer::RemoveDown(member) => {
                let key = self.timers.push(at, Waiting::Detector(foca::Timer::RemoveDown(member)));
                if let Some(earlier) = self.removals.insert(member.node, key) {
                    self.timers.cancel(earlier);
                }
            }
            timer @ foca::Timer::ChangeSuspectToDown { member_id: suspect, .. } => {
                self.accused.insert(suspect.node);
                let blind_before = self.health.blind();
                self.timers.push(at, Waiting::Suspicion { timer, started: now, blind_before });
            }
            timer => {
                self.timers.push(on_beat(at, self.first_beat), Waiting::Detector(timer));
            }
        }
    }

    /// Adapts foca to the number of members and to this node's health.
    fn reconfigure(&mut self, now: Duration) {
        let circumstances = Circumstances {
            members: self.foca.num_members() + 1,
            suspicion_percent: self.health.suspicion_percent(),
            is_settling: now < self.settled_at,
        };
        let is_news = circumstances != self.configured_for;
        if is_news && self.foca.set_config(self.profile.detector(circumstances)).is_ok() {
            self.configured_for = circumstances;
        }
    }

    fn recall(&mut self, now: Duration, member: Identity, attempt: usize, effects: &mut Vec<Effect>) {
        let is_still_down = self.foca.iter_membership_state().any(|known| {
            known.id().node == member.node
                && known.id().incarnation == member.incarnation
                && known.state() == foca::State::Down
        });
        if !is_still_down || self.is_leaving {
            return;
        }
        self.announce(member, effects);
        if let Some(pause) = RECALLS.get(attempt + 1) {
            self.timers.push(now + *pause, Waiting::Recall { member, attempt: attempt + 1 });
        }
    }

    fn goodbye(&mut self, now: Duration, left: u32, effects: &mut Vec<Effect>) {
        self.add_own_broadcast();
        if left == 0 || self.foca.leave_cluster(&mut self.runtime).is_err() {
            effects.push(Effect::Gone);
        } else {
            self.timers.push(now + GOODBYE_EVERY, Waiting::Goodbye { left: left - 1 });
        }
    }

    fn send(&self, to: SocketAddr, payload: Payload<'_>, effects: &mut Vec<Effect>) {
        effects.extend(payload.encode().map(|payload| Effect::Send { to, payload }));
    }

    fn announce(&mut self, member: Identity, effects: &mut Vec<Effect>) {
        if self.banned.contains(&member.node) {
            return;
        }
        if self.foca.announce(member, &mut self.runtime).is_err() {
            effects.push(Effect::Dropped("announce"));
        }
    }

    fn own_version(&self, counter: u64) -> MetadataVersion {
        MetadataVersion { incarnation: self.identity().incarnation, counter }
    }

    /// A time near `pause`, so that nodes started together do not act together.
    fn jittered(&mut self, pause: Duration) -> Duration {
        pause.mul_f64(self.random.random_range(0.8..1.2))
    }
}

/// When a timer comes due that is asked for `at`, if beats begin at `first`.
fn on_beat(at: Duration, first: Duration) -> Duration {
    let beats = at.saturating_sub(first + EARLY_MAX).as_micros().div_ceil(BEAT.as_micros());
    first + BEAT * u32::try_from(beats).unwrap_or(u32::MAX)
}

impl std::fmt::Debug for Swim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Swim").field("identity", self.identity()).field("members", &self.foca.num_members()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_come_due_together_and_hardly_early() {
        let micros = Duration::from_micros;
        for (at, due) in
            [(0, 0), (50_000, 50_000), (50_300, 50_000), (55_000, 50_000), (55_001, 100_000), (80_000, 100_000)]
        {
            assert_eq!(on_beat(micros(at), Duration::ZERO), micros(due), "{at}");
            assert_eq!(on_beat(micros(at + 7), micros(7)), micros(due + 7), "{at}");
        }
        let month = Duration::from_secs(30 * 24 * 3_600);
        assert_eq!(on_beat(month, Duration::ZERO), month);
    }
}
