//! The catalog of a fleet under one seed: the production catalog of every node on a disk, a clock and a network that fail, in a
//! world of its own beside the groups, whose time is minutes instead of seconds. Its events go into the seed's log.
//!
//! The simulator's own: who calls whom when, which node leads a site, what each node knows of its site's members.

mod calls;
mod copy;
mod faults;
mod judge;
mod work;

use std::collections::BTreeSet;

use fleet_core::{Error, NodeId, SiteName};
use fleet_sim::{Agenda, Clocks, Dice, Disk, EventLog, Network, Weather};
use fleet_store::CatalogChange;
use fleet_store::record::{CatalogContent, CatalogKey, Payload};
use tokio::runtime::{Builder, Runtime};

use self::copy::{Copy, Drive, Flaw, Kept, signature};
use self::faults::Fault;
use self::judge::Judge;
use crate::bugs::PlantedBug;
use crate::judge::{Law, Violation, broken};

/// How often a node compares, microseconds; and how often once the faults are long over.
const TICK_US: u64 = 4_000_000;
const LATE_TICK_US: u64 = 30_000_000;
/// After what time without faults nodes compare less often, microseconds.
const LATE_AFTER_US: u64 = 120_000_000;
/// Within what time all copies must agree once the faults are over, microseconds: an entry may have to wait until no clock
/// shows less than its time any more.
const HEAL_BOUND_US: u64 = 2_400_000_000;
/// How many events pass between two looks at whether all is well again.
const STEPS_PER_LOOK: u64 = 20;
/// Mixed into the seed, so that this world's choices are others than those of the groups.
const SALT: u64 = 0x6361_7461_6c6f_6721;

/// What happens.
#[derive(Clone, Debug)]
enum Event {
    Start { machine: usize },
    Tick { machine: usize, run: u64 },
    Ask { to: NodeId, from: NodeId, call: u64, question: Payload },
    Answer { to: NodeId, from: NodeId, call: u64, answer: Payload },
    Patience { machine: usize, call: u64 },
    Wish,
    Fault,
    Flap,
}

struct Site {
    name: SiteName,
    members: BTreeSet<NodeId>,
    removed: Vec<NodeId>,
}

struct Machine {
    site: usize,
    node: NodeId,
    clocks: Clocks,
    drive: Drive,
    copy: Option<Copy>,
    run: u64,
    leads: bool,
    /// The members of its site, as far as it knows.
    members: BTreeSet<NodeId>,
    is_removed: bool,
    /// Whether what it wrote last, when its power went, was a write of its own.
    wrote_own: bool,
    /// Its disk at an earlier time.
    earlier: Option<(Disk<CatalogChange>, Kept)>,
}

/// The world of the catalogs.
pub(crate) struct CatalogWorld {
    dice: Dice,
    agenda: Agenda<Event>,
    network: Network,
    sites: Vec<Site>,
    machines: Vec<Machine>,
    kinds: Vec<Fault>,
    until_us: u64,
    judge: Judge,
    log: EventLog,
    is_healed: bool,
    losses: usize,
    nodes: u64,
    calls: u64,
    flaw: Flaw,
    runtime: Runtime,
}

fn fair_weather() -> Weather {
    Weather { fast_us: 5_000, slow_us: 100_000, slow_percent: 5, ..Weather::default() }
}

fn node_id(number: u64) -> NodeId {
    let mut bytes = [0xca; 16];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    NodeId::from_bytes(bytes)
}

impl CatalogWorld {
    /// The world of `seed` before anything happens, whose events go on in `log`.
    pub(crate) fn new(seed: u64, bug: Option<PlantedBug>, log: EventLog) -> Self {
        let mut dice = Dice::new(seed ^ SALT);
        let kinds = Fault::ALL.into_iter().filter(|_| dice.chance(50)).collect();
        let mut world = Self {
            until_us: 60_000_000 + dice.below(180_000_000) as u64,
            dice,
            agenda: Agenda::default(),
            network: Network::in_weather(fair_weather()),
            sites: Vec::new(),
            machines: Vec::new(),
            kinds,
            judge: Judge::default(),
            log,
            is_healed: false,
            losses: 0,
            nodes: 0,
            calls: 0,
            flaw: match bug {
                Some(PlantedBug::CatalogAckBeforeSync) => Flaw::AcksBeforeSync,
                Some(PlantedBug::CatalogLosesFacts) => Flaw::LosesFacts,
                _ => Flaw::None,
            },
            runtime: Builder::new_current_thread().build().expect("a runtime is built"),
        };
        let sites = 1 + world.dice.below(4);
        for site in 0..sites {
            let count = 1 + world.dice.below(4);
            world.found(site, count);
        }
        world.agenda.book(3_000_000, Event::Wish);
        world.agenda.book(10_000_000, Event::Fault);
        world
    }

    fn found(&mut self, site: usize, count: usize) {
        let name = if site == 0 { SiteName::default() } else { format!("site-{site}").parse().expect("a name") };
        let nodes: Vec<NodeId> = (0..count).map(|_| self.next_node()).collect();
        self.sites.push(Site { name, members: nodes.iter().copied().collect(), removed: Vec::new() });
        for (number, node) in nodes.into_iter().enumerate() {
            let machine = self.machines.len();
            let wall_ahead_ms = self.dice.below(200) as i64 - 100;
            self.machines.push(Machine {
                site,
                node,
                clocks: Clocks { drift_ppm: 0, wall_ahead_ms, running_since_us: 0 },
                drive: Drive::new(node, self.flaw),
                copy: None,
                run: 0,
                leads: number == 0,
                members: self.sites[site].members.clone(),
                is_removed: false,
                wrote_own: false,
                earlier: None,
            });
            self.agenda.book(self.dice.below(2_000_000) as u64, Event::Start { machine });
        }
    }

    fn next_node(&mut self) -> NodeId {
        self.nodes += 1;
        node_id(self.nodes)
    }

    /// A new node on the machine whose node was lost, admitted to its site.
    fn replace(&mut self, machine: usize) {
        let node = self.next_node();
        let site = self.machines[machine].site;
        self.sites[site].members.insert(node);
        let there = &mut self.machines[machine];
        (there.node, there.drive, there.earlier) = (node, Drive::new(node, self.flaw), None);
        there.members = self.sites[site].members.clone();
    }

    fn of_site(&self, site: usize) -> impl Iterator<Item = usize> + use<> {
        let of_site: Vec<usize> =
            (0..self.machines.len()).filter(|machine| self.machines[*machine].site == site).collect();
        of_site.into_iter()
    }

    /// Lets everything happen until all copies agree after the faults.
    pub(crate) fn run(&mut self) -> Result<(), Violation> {
        let (mut healed_at_us, mut steps) = (None, 0_u64);
        while let Some(event) = self.agenda.next_event() {
            let now_us = self.agenda.now_us();
            if healed_at_us.is_none() && now_us >= self.until_us {
                healed_at_us = Some(now_us);
                self.heal();
            }
            self.happen(event)?;
            let Some(at_us) = healed_at_us else { continue };
            steps += 1;
            if steps.is_multiple_of(STEPS_PER_LOOK)
                && let Some(kept) = self.agreed()
            {
                self.say("all copies agree");
                return self.judge.check_end(&kept);
            }
            if now_us > at_us + HEAL_BOUND_US {
                return self.not_well();
            }
        }
        broken(Law::NothingBreaks, "nothing happens any more to the catalog".to_owned())
    }

    /// What is left once the world has ended: its log, and what came up in it.
    pub(crate) fn into_log(self) -> (EventLog, std::collections::BTreeMap<crate::message::Situation, u64>) {
        (self.log, self.judge.seen)
    }

    /// Notes what somebody does, for whoever reads the log.
    fn say(&mut self, text: &str) {
        self.log.note(format!("{:>9} catalog: {text}", self.agenda.now_us()));
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Start { machine } => self.start(machine),
            Event::Tick { machine, run } => self.tick(machine, run),
            Event::Ask { to, from, call, question } => self.asked(to, from, call, &question),
            Event::Answer { to, from, call, answer } => self.answered(to, from, call, &answer),
            Event::Patience { machine, call } => {
                if let Some(copy) = &mut self.machines[machine].copy {
                    copy.meetings.remove(&call);
                }
                Ok(())
            }
            Event::Wish => self.wish(),
            Event::Fault => self.fault(),
            Event::Flap => {
                self.flap();
                Ok(())
            }
        }
    }

    // ---- processes

    fn start(&mut self, machine: usize) -> Result<(), Violation> {
        let now_us = self.agenda.now_us();
        let there = &mut self.machines[machine];
        if there.copy.is_some() {
            return Ok(());
        }
        let before = there.drive.kept();
        match there.drive.open() {
            Ok(None) => {}
            Ok(Some(change)) => self.judge.changed(there.node, &before, &change, there.wrote_own)?,
            Err(difference) => {
                let detail = format!("the disk of {} does not have what it acknowledged: {difference}", there.node);
                return broken(Law::CatalogKeepsItsWord, detail);
            }
        }
        there.run += 1;
        let run = there.run;
        match Copy::open(&there.drive, there.clocks.wall_now(now_us)) {
            Ok(copy) => there.copy = Some(copy),
            Err(error) => return broken(Law::NothingBreaks, format!("a catalog does not open: {error}")),
        }
        self.say(&format!("machine {machine} starts"));
        self.agenda.book(self.dice.below(2_000_000) as u64, Event::Tick { machine, run });
        Ok(())
    }

    fn stop(&mut self, machine: usize, loses_power: bool) {
        self.machines[machine].copy = None;
        if loses_power {
            self.machines[machine].drive.lose_power(&mut self.dice);
        }
        self.agenda.book(500_000 + self.dice.below(30_000_000) as u64, Event::Start { machine });
    }

    /// Lets the copy of `machine` do `work`, by its clock; `is_own` if what it writes then are writes of its own. Nothing if it
    /// does not run.
    fn with<T>(
        &mut self,
        machine: usize,
        is_own: bool,
        work: impl AsyncFnOnce(&mut Copy) -> Result<T, Error>,
    ) -> Result<Option<Result<T, Error>>, Violation> {
        let now_us = self.agenda.now_us();
        let there = &mut self.machines[machine];
        let Some(copy) = &mut there.copy else { return Ok(None) };
        let mut before = there.drive.kept();
        copy.watch.set(there.clocks.wall_now(now_us));
        let result = self.runtime.block_on(work(copy));
        let (node, drive) = (there.node, there.drive.clone());
        // Nobody is told anything by a node that was removed: the others hear no more of it.
        let is_wish = is_own && result.is_ok() && !there.is_removed;
        for change in drive.take_fresh() {
            let put = change.put.iter().map(|(key, entry)| format!("{key:?} {:?} {}", entry.stamp, entry.number));
            let put: Vec<String> = put.collect();
            self.say(&format!("{node} writes {put:?}, removes {:?}, {:?}", change.remove, change.facts));
            self.judge.changed(node, &before, &change, is_own)?;
            before.apply(&change);
            if is_wish {
                self.judge.told(node, &change);
            }
        }
        if drive.is_off() {
            self.say(&format!("machine {machine} loses its power in a write"));
            self.judge.count(crate::message::Situation::CatalogPowerLostInWrite);
            self.machines[machine].wrote_own = is_own;
            self.stop(machine, true);
        }
        Ok(Some(result))
    }

    fn tick(&mut self, machine: usize, run: u64) -> Result<(), Violation> {
        if self.machines[machine].run != run || self.machines[machine].copy.is_none() {
            return Ok(());
        }
        let is_late = self.agenda.now_us() > self.until_us + LATE_AFTER_US;
        let every_us = if is_late { LATE_TICK_US } else { TICK_US };
        self.agenda.book(every_us + self.dice.below(100_000) as u64, Event::Tick { machine, run });
        self.machines[machine].drive.sync();
        let site = self.machines[machine].site;
        // Its log may lag; a removed node hears no more of it.
        if self.is_healed || self.dice.chance(60) {
            self.machines[machine].members = self.sites[site].members.clone();
        }
        let members = self.machines[machine].members.clone();
        if members.contains(&self.machines[machine].node) {
            self.with(machine, true, async move |copy| copy.catalog.look_after(members).await)?;
        }
        self.tell(machine)?;
        self.meet_within(machine, site)?;
        if self.machines[machine].leads && !self.machines[machine].is_removed {
            self.say_who_is_removed(machine, site)?;
            self.meet_between(machine, site)?;
        }
        Ok(())
    }

    /// The leader says in the catalog whom its site removed.
    fn say_who_is_removed(&mut self, machine: usize, site: usize) -> Result<(), Violation> {
        let keys = self.sites[site].removed.iter();
        let keys: Vec<_> = keys.map(|node| CatalogKey::RevokedNode(self.sites[site].name.clone(), *node)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let signed = keys.into_iter().map(|key| (key.clone(), signature(&key))).collect();
        self.with(machine, true, async move |copy| copy.catalog.revoke(signed).await)?;
        Ok(())
    }

    // ---- judging

    /// What all members have, if they have the same and no deletion waits any more.
    fn agreed(&self) -> Option<Kept> {
        let mut members = self.machines.iter().filter(|machine| !machine.is_removed);
        let first = members.next()?.drive.kept();
        let is_deletion = |content: &CatalogContent| matches!(content, CatalogContent::Deleted { .. });
        let is_clean = !first.entries.values().any(|entry| is_deletion(&entry.content));
        let all_told = self.sites.iter().all(|site| {
            let key = |node: &NodeId| CatalogKey::RevokedNode(site.name.clone(), *node);
            site.removed.iter().all(|node| first.entries.contains_key(&key(node)))
        });
        let is_same = |machine: &Machine| machine.copy.is_some() && machine.drive.kept().entries == first.entries;
        (is_clean && all_told && members.all(is_same)).then_some(first)
    }

    fn not_well(&self) -> Result<(), Violation> {
        let describe = |machine: &Machine| {
            let kept = machine.drive.kept();
            let deletions =
                kept.entries.iter().filter(|(_, entry)| matches!(entry.content, CatalogContent::Deleted { .. }));
            let deletions: Vec<_> = deletions.map(|(key, entry)| (key, entry.stamp)).collect();
            format!(
                "{} of site {} (removed {}): {} entries, deletions {deletions:?}, {:?}",
                machine.node,
                machine.site,
                machine.is_removed,
                kept.entries.len(),
                kept.facts
            )
        };
        let machines: Vec<String> = self.machines.iter().map(describe).collect();
        let detail = format!("copies of the catalog do not agree: {machines:#?}");
        broken(Law::Promise(fleet_core::invariant::Invariant::HealingIsAutomatic), detail)
    }
}
