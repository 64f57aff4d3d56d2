//! A simulated fleet: virtual time, a network with delay, loss and partitions, nodes that start, die and freeze. All from
//! one seed, printed with every failure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use fleet_core::NodeId;
use fleet_membership::identity::{Identity, next_boot};
use fleet_membership::seal::OVERHEAD_BYTES;
use fleet_membership::swim::{Effect, Input, Swim, SwimConfig};
use fleet_membership::{GroupStatus, MemberState, Metadata, Profile, Remembered, View};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// How often a condition that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Bytes of the headers of IPv4 and UDP.
const UDP_BYTES: usize = 28;

/// What is on its way.
enum Event {
    Deliver { from: usize, to: usize, payload: Vec<u8> },
    Tick { node: usize },
}

/// One node of the fleet, running or not.
struct Node {
    address: SocketAddr,
    swim: Option<Swim>,
    remembered: Remembered,
    tick_at: Option<Duration>,
    frozen_until: Duration,
    sluggishness: Duration,
}

/// The fleet and its network.
pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) loss: f64,
    seed: u64,
    random: StdRng,
    nodes: Vec<Node>,
    by_address: BTreeMap<SocketAddr, usize>,
    events: BTreeMap<(Duration, u64), Event>,
    sequence: u64,
    side: Vec<u8>,
    false_downs: Vec<String>,
    pub(crate) packets: u64,
    pub(crate) bytes_max: usize,
    /// Bytes that each node sent, as they are on the wire.
    pub(crate) bytes_sent: Vec<u64>,
    profile: Profile,
}

pub(crate) fn id(number: usize) -> NodeId {
    NodeId::from_bytes(u128::try_from(number + 1).unwrap().to_be_bytes())
}

/// What a node says about itself: between sites as much as a real one.
fn metadata(profile: Profile, number: usize) -> Metadata {
    let name = format!("node-{number}");
    match profile {
        Profile::Lan => Metadata { name, ..Metadata::default() },
        Profile::Wan => Metadata {
            name: format!("press-hall-{name}"),
            site: format!("plant-{}", number / 3).parse().unwrap(),
            tags: vec!["gpu".to_owned(); 10],
            slots_busy: 3,
            grpc_address: format!("{name}.plant.example.org:7000"),
            http_address: format!("{name}.plant.example.org:8000"),
            software_version: "0.1.0".to_owned(),
            group: Some(GroupStatus { leader: Some(id(number)), term: 70, is_voter: true, ..GroupStatus::default() }),
            ..Metadata::default()
        }
        .for_other_sites(),
    }
}

impl World {
    /// `count` nodes, none running.
    pub(crate) fn new(count: usize, seed: u64) -> Self {
        let address = |number: usize| SocketAddr::from(([10, 0, 0, 1], 7_000 + u16::try_from(number).unwrap()));
        let node = |number| Node {
            address: address(number),
            swim: None,
            remembered: Remembered::default(),
            tick_at: None,
            frozen_until: Duration::ZERO,
            sluggishness: Duration::ZERO,
        };
        Self {
            now: Duration::ZERO,
            loss: 0.0,
            seed,
            random: StdRng::seed_from_u64(seed),
            nodes: (0..count).map(node).collect(),
            by_address: (0..count).map(|number| (address(number), number)).collect(),
            events: BTreeMap::new(),
            sequence: 0,
            side: vec![0; count],
            false_downs: Vec::new(),
            packets: 0,
            bytes_max: 0,
            bytes_sent: vec![0; count],
            profile: Profile::Lan,
        }
    }

    /// `count` nodes that gossip between sites and know each other: the first knows nobody, all others it.
    pub(crate) fn met_between_sites(count: usize, seed: u64) -> Self {
        let mut world = Self { profile: Profile::Wan, ..Self::new(count, seed) };
        for number in 0..count {
            world.start(number, if number == 0 { &[] } else { &[0] });
        }
        world.until("all know all", Duration::from_secs(120), |world| world.all_know_all());
        world
    }

    /// A fleet of `count` that met by the first node and knows each other.
    pub(crate) fn met(count: usize, seed: u64) -> Self {
        let mut world = Self::new(count, seed);
        for number in 0..count {
            world.start(number, if number == 0 { &[] } else { &[0] });
        }
        world.until("all know all", Duration::from_secs(60), |world| world.all_know_all());
        world
    }

    /// Starts a node in its next boot, remembering what it knew when it was killed.
    pub(crate) fn start(&mut self, number: usize, seeds: &[usize]) {
        let node = &self.nodes[number];
        let config = SwimConfig {
            identity: Identity {
                node: id(number),
                address: node.address,
                incarnation: next_boot(node.remembered.incarnation),
            },
            profile: self.profile,
            seeds: seeds.iter().map(|seed| self.nodes[*seed].address).collect(),
            remembered: node.remembered.members.clone(),
            metadata: metadata(self.profile, number),
            random_seed: self.random.random(),
        };
        let (swim, effects) = Swim::new(config, self.now);
        self.nodes[number].swim = Some(swim);
        self.carry_out(number, effects);
    }

    /// The node dies without a word.
    pub(crate) fn kill(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if let Some(swim) = node.swim.take() {
            node.remembered = swim.remembered();
        }
    }

    /// The node neither reads nor acts for `pause`; packets wait in its socket.
    pub(crate) fn freeze(&mut self, number: usize, pause: Duration) {
        self.nodes[number].frozen_until = self.now + pause;
    }

    /// From now on everything the node does comes up to `sluggishness` late.
    pub(crate) fn slow_down(&mut self, number: usize, sluggishness: Duration) {
        self.nodes[number].sluggishness = sluggishness;
    }

    /// Cuts the network between nodes of different sides.
    pub(crate) fn partition(&mut self, side_of: impl Fn(usize) -> u8) {
        self.side = (0..self.nodes.len()).map(side_of).collect();
    }

    pub(crate) fn input(&mut self, number: usize, input: Input<'_>) {
        let now = self.now;
        let effects = self.nodes[number].swim.as_mut().map(|swim| swim.handle(now, input)).unwrap_or_default();
        self.carry_out(number, effects);
    }

    pub(crate) fn swim(&self, number: usize) -> &Swim {
        self.nodes[number].swim.as_ref().unwrap()
    }

    pub(crate) fn view(&self, number: usize) -> &View {
        self.swim(number).view()
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|number| self.nodes[*number].swim.is_some())
    }

    /// Whether every running node sees exactly the running ones, each with metadata.
    pub(crate) fn all_know_all(&self) -> bool {
        let count = self.running().count();
        self.running().all(|number| {
            let view = self.view(number);
            view.active().count() == count
                && self.running().all(|other| view.get(id(other)).is_some_and(|member| member.metadata.is_some()))
        })
    }

    /// Whether every running node sees `number` in `state`.
    pub(crate) fn all_see(&self, number: usize, state: MemberState) -> bool {
        self.running()
            .filter(|observer| *observer != number)
            .all(|observer| self.view(observer).get(id(number)).is_some_and(|member| member.state == state))
    }

    /// Who saw a running, unfrozen node as down, and when.
    pub(crate) fn false_downs(&self) -> &[String] {
        &self.false_downs
    }

    pub(crate) fn forget_false_downs(&mut self) {
        self.false_downs.clear();
    }

    /// Lets `time` pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= end) {
            self.now = self.now.max(entry.key().0);
            let event = entry.remove();
            self.event(event);
        }
        self.now = end;
    }

    /// Lets time pass until `is_reached`; how long it took.
    pub(crate) fn until(&mut self, what: &str, bound: Duration, is_reached: impl Fn(&Self) -> bool) -> Duration {
        let began = self.now;
        while !is_reached(self) {
            assert!(self.now - began < bound, "seed {}: not within {bound:?}: {what}\n{}", self.seed, self.describe());
            self.run(LOOK_EVERY);
        }
        self.now - began
    }

    fn describe(&self) -> String {
        let mut text = String::new();
        for number in self.running() {
            let states = self.view(number).members().filter(|member| member.state != MemberState::Alive);
            let others: Vec<_> =
                states.map(|member| format!("{}:{}", member.address.port(), member.state.as_str())).collect();
            let active = self.view(number).active().count();
            let silent = self.view(number).active().filter(|member| member.metadata.is_none()).count();
            let _written = writeln!(text, "{number}: {active} active, {silent} silent; {}", others.join(" "));
        }
        text
    }

    fn event(&mut self, event: Event) {
        let number = match &event {
            Event::Deliver { to, .. } => *to,
            Event::Tick { node } => *node,
        };
        // What comes for a frozen node waits, packets before timers, as they would in a socket.
        let frozen_until = self.nodes[number].frozen_until;
        if frozen_until > self.now {
            match event {
                Event::Deliver { .. } => self.push(frozen_until, event),
                Event::Tick { .. } => self.tick_at(number, frozen_until + Duration::from_micros(1)),
            }
            return;
        }
        match event {
            Event::Deliver { from, to, payload } => {
                let from = self.nodes[from].address;
                self.input(to, Input::Packet { from, payload: &payload });
            }
            // Only the tick asked for last counts; earlier requests it replaced are void.
            Event::Tick { node } if self.nodes[node].tick_at == Some(self.now) => {
                self.nodes[node].tick_at = None;
                self.input(node, Input::Tick);
            }
            Event::Tick { .. } => {}
        }
    }

    fn carry_out(&mut self, number: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, payload } => self.send(number, to, payload),
                Effect::View(view) => self.note_false_downs(number, &view),
                Effect::Dropped(_) => {}
                Effect::Gone => self.kill(number),
            }
        }
        self.schedule_tick(number);
    }

    fn schedule_tick(&mut self, number: usize) {
        let Some(due) = self.nodes[number].swim.as_ref().and_then(Swim::next_due) else { return };
        let at = due.max(self.now) + self.lag(number);
        if self.nodes[number].tick_at.is_none_or(|tick_at| at < tick_at) {
            self.tick_at(number, at);
        }
    }

    fn tick_at(&mut self, number: usize, at: Duration) {
        self.nodes[number].tick_at = Some(at);
        self.push(at, Event::Tick { node: number });
    }

    fn lag(&mut self, number: usize) -> Duration {
        let sluggishness = self.nodes[number].sluggishness;
        if sluggishness.is_zero() { sluggishness } else { sluggishness.mul_f64(self.random.random()) }
    }

    fn send(&mut self, from: usize, to: SocketAddr, payload: Vec<u8>) {
        self.packets += 1;
        self.bytes_max = self.bytes_max.max(payload.len());
        self.bytes_sent[from] += (payload.len() + OVERHEAD_BYTES + UDP_BYTES) as u64;
        let Some(to) = self.by_address.get(&to).copied() else { return };
        if self.side[from] != self.side[to] || self.random.random_bool(self.loss) {
            return;
        }
        let delays_micros = if self.profile == Profile::Lan { 100..2_000 } else { 20_000..60_000 };
        let delay = Duration::from_micros(self.random.random_range(delays_micros)) + self.lag(to);
        self.push(self.now + delay, Event::Deliver { from, to, payload });
    }

    fn push(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    fn note_false_downs(&mut self, observer: usize, view: &View) {
        for number in 0..self.nodes.len() {
            let is_well = self.nodes[number].swim.is_some()
                && self.nodes[number].frozen_until <= self.now
                && self.side[number] == self.side[observer];
            let sees_down = view.get(id(number)).is_some_and(|member| member.state == MemberState::Down);
            if is_well && sees_down {
                self.false_downs.push(format!("seed {}, {:?}: {observer} sees {number} down", self.seed, self.now));
            }
        }
    }
}
