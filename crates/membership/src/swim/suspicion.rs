//! Telling suspects to their face, and contradicting.
//!
//! foca spreads a suspicion a few times and then falls silent, and an answered probe does not clear a suspect. Where those
//! few packets were lost (a short cut, a full buffer), a living node would be declared down for never having heard of it.
//! So whoever will declare a member down tells it so until it contradicts or the time is up.

use std::time::Duration;

use super::{Effect, HOUSEKEEPING, Swim};
use crate::payload::{Accusation, Payload};

impl Swim {
    /// Tells every member whose time is running out by this node's timer.
    pub(super) fn accuse_if_due(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if self.accused.is_empty() || now < self.accuse_at {
            return;
        }
        // What is due with the next look after the members comes with it.
        self.accuse_at = now + self.profile.accuse_every() - HOUSEKEEPING / 2;
        let accuser = *self.identity();
        let suspects: Vec<_> = self
            .foca
            .iter_members()
            .filter(|member| member.state() == foca::State::Suspect && self.accused.contains(&member.id().node))
            .map(|member| Accusation { accuser, suspect: *member.id(), refutation: member.incarnation() })
            .collect();
        self.accused = suspects.iter().map(|accusation| accusation.suspect.node).collect();
        for accusation in suspects {
            self.send(accusation.suspect.address, Payload::Suspect(accusation), effects);
        }
    }

    /// Raises this node's incarnation past the suspicion and shows it to whoever holds the suspicion.
    pub(super) fn contradict(&mut self, accusation: Accusation, effects: &mut Vec<Effect>) {
        if accusation.suspect != *self.identity() || accusation.accuser.node == self.identity().node {
            return;
        }
        let suspected = foca::Member::new(accusation.suspect, accusation.refutation, foca::State::Suspect);
        if self.foca.apply_many(std::iter::once(suspected), true, &mut self.runtime).is_err() {
            effects.push(Effect::Dropped("suspect"));
        }
        self.announce(accusation.accuser, effects);
    }
}
