//! Whom to call without being asked: seeds, members remembered or down while nobody answers, and members whose metadata
//! never came; and what is remembered of all of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use fleet_core::NodeId;
use rand::RngExt;

use super::{Effect, Swim};
use crate::identity::{Identity, boot_number};
use crate::memory::{MEMBERS_MAX, Remembered, RememberedMember};
use crate::payload::Payload;
use crate::view::MemberState;

/// How many members are called in one go.
const CALLS_AT_ONCE: usize = 8;
/// How many members that seem down are called when a link is back.
const DOWN_CALLED_AT_ONCE: usize = 16;
/// How often a node that knows nobody active calls.
const CONTACT_LONELY: Duration = Duration::from_secs(1);
/// How often a node with company calls seeds that are not part of it: heals a split that gossip cannot see.
const CONTACT_EVERY: Duration = Duration::from_secs(30);
/// How often missing metadata is asked for.
const WANT_EVERY: Duration = Duration::from_secs(1);
/// How long metadata may take to come by itself.
const WANT_AFTER: Duration = Duration::from_millis(400);
/// Most members asked for metadata in one go.
const WANTS_AT_ONCE: usize = 32;
/// Most seed addresses kept.
const SEEDS_MAX: usize = 64;

/// The identity under which a member was remembered.
fn identity(member: &RememberedMember) -> Identity {
    Identity { node: member.node, address: member.address, incarnation: member.incarnation }
}

/// Whom to call and when.
#[derive(Debug)]
pub(super) struct Contacts {
    seeds: Vec<SocketAddr>,
    remembered: Vec<RememberedMember>,
    next_call: usize,
    contact_at: Duration,
    contact_if_lonely_at: Duration,
    want_at: Duration,
    call_down_at: Duration,
}

impl Contacts {
    pub(super) fn new(seeds: Vec<SocketAddr>, remembered: &[RememberedMember]) -> Self {
        let mut contacts = Self {
            seeds: Vec::new(),
            remembered: remembered.to_vec(),
            next_call: 0,
            contact_at: Duration::ZERO,
            contact_if_lonely_at: Duration::ZERO,
            want_at: Duration::MAX,
            call_down_at: Duration::MAX,
        };
        seeds.into_iter().for_each(|seed| contacts.add_seed(seed));
        contacts
    }

    pub(super) fn add_seed(&mut self, seed: SocketAddr) {
        if !self.seeds.contains(&seed) && self.seeds.len() < SEEDS_MAX {
            self.seeds.push(seed);
        }
    }

    /// The members remembered from before the start, none of them active any more.
    pub(super) fn remembered(&self) -> BTreeMap<NodeId, RememberedMember> {
        self.remembered.iter().map(|member| (member.node, RememberedMember { was_active: false, ..*member })).collect()
    }

    pub(super) fn call_down_soon(&mut self, now: Duration) {
        self.call_down_at = self.call_down_at.min(now);
    }

    pub(super) fn want_soon(&mut self, now: Duration) {
        self.want_at = self.want_at.min(now + WANT_AFTER);
    }
}

impl Swim {
    /// What is worth keeping over a restart: everybody who did not leave. A cut-off node must find the others again
    /// however long they were down in its eyes.
    pub fn remembered(&self) -> Remembered {
        let mut members = self.contacts.remembered();
        for member in self.view.members().filter(|member| member.node != self.view.own_node()) {
            if member.state == MemberState::Left {
                members.remove(&member.node);
            } else {
                let remembered = RememberedMember {
                    node: member.node,
                    address: member.address,
                    incarnation: member.incarnation,
                    was_active: member.state.is_active(),
                };
                members.insert(member.node, remembered);
            }
        }
        let mut members: Vec<_> = members.into_values().collect();
        members.retain(|member| !self.banned.contains(&member.node));
        members.sort_by_key(|member| (!member.was_active, member.node));
        members.truncate(MEMBERS_MAX);
        members.sort_by_key(|member| member.node);
        Remembered { incarnation: self.identity().incarnation, members }
    }

    /// Puts back what was known before a restart and calls some of them: their identities may have changed since.
    pub(super) fn resume(&mut self, remembered: &[RememberedMember], effects: &mut Vec<Effect>) {
        let own_node = self.identity().node;
        let others = || remembered.iter().filter(|member| member.node != own_node);
        let active = others().filter(|member| member.was_active).map(|member| foca::Member::alive(identity(member)));
        if self.foca.apply_many(active, false, &mut self.runtime).is_err() {
            effects.push(Effect::Dropped("remembered"));
        }
        for member in others().filter(|member| member.was_active).take(CALLS_AT_ONCE) {
            self.announce(identity(member), effects);
        }
    }

    pub(super) fn contact_if_due(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let is_lonely = self.foca.num_members() == 0;
        if now >= self.contacts.contact_at || (is_lonely && now >= self.contacts.contact_if_lonely_at) {
            self.contact(now, effects);
        }
    }

    /// Calls the seeds nobody active answers for and, with no company at all, members known from before.
    pub(super) fn contact(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        self.contacts.contact_at = now + self.jittered(CONTACT_EVERY);
        self.contacts.contact_if_lonely_at = now + self.jittered(CONTACT_LONELY);
        let own_address = self.identity().address;
        let answered: Vec<_> = self.foca.iter_members().map(|member| member.id().address).collect();
        let seeds = self.contacts.seeds.iter().filter(|seed| **seed != own_address && !answered.contains(seed));
        for seed in seeds.copied().collect::<Vec<_>>() {
            self.send(seed, Payload::Who, effects);
        }
        if answered.is_empty() {
            self.call_known(effects);
        }
    }

    /// Calls members that seem down, any of them if they are many.
    pub(super) fn call_down(&mut self, effects: &mut Vec<Effect>) {
        let down = self.foca.iter_membership_state().filter(|member| member.state() == foca::State::Down);
        let mut down: Vec<_> = down.map(|member| *member.id()).collect();
        for _ in 0..down.len().min(DOWN_CALLED_AT_ONCE) {
            let member = down.swap_remove(self.random.random_range(0..down.len()));
            self.announce(member, effects);
        }
    }

    /// Calls members that seem down once this node was told that it had been given up itself: a cut has healed, and the
    /// others learn by this call that it lives, and from its answer that they were given up too. So a heal runs through
    /// all nodes at once instead of waiting for each one's next call.
    pub(super) fn call_down_if_due(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if now >= self.contacts.call_down_at {
            self.contacts.call_down_at = Duration::MAX;
            self.call_down(effects);
        }
    }

    fn call_known(&mut self, effects: &mut Vec<Effect>) {
        let own_node = self.identity().node;
        let down = self.foca.iter_membership_state().map(|member| *member.id());
        let mut known: Vec<_> = self.contacts.remembered.iter().map(identity).chain(down).collect();
        known.retain(|member| member.node != own_node && !self.banned.contains(&member.node));
        // Of one node the latest identity is enough.
        known.sort_by_key(|member| (member.node, std::cmp::Reverse(member.incarnation)));
        known.dedup_by_key(|member| member.node);
        let calls = known.len().min(CALLS_AT_ONCE);
        for call in 0..calls {
            let member = known[(self.contacts.next_call + call) % known.len()];
            self.announce(member, effects);
            // Its identity may be a newer one by now; whoever answers there tells.
            self.send(member.address, Payload::Who, effects);
        }
        self.contacts.next_call = self.contacts.next_call.wrapping_add(calls);
    }

    /// Asks active members directly for metadata that did not come with gossip.
    pub(super) fn want_if_due(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if now < self.contacts.want_at {
            return;
        }
        let missing: Vec<_> = {
            let table = self.table.borrow();
            let lacks = |member: &Identity| {
                table
                    .get(member.node)
                    .is_none_or(|(version, _)| boot_number(version.incarnation) < boot_number(member.incarnation))
            };
            let members = self.foca.iter_members().map(|member| *member.id());
            members.filter(lacks).take(WANTS_AT_ONCE).collect()
        };
        self.contacts.want_at = if missing.is_empty() { Duration::MAX } else { now + WANT_EVERY };
        for member in missing {
            self.send(member.address, Payload::Want, effects);
        }
    }
}
