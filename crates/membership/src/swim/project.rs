//! From what foca and the metadata table hold to the view others read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Effect, Swim};
use crate::identity::Identity;
use crate::metadata::{Metadata, NodeState};
use crate::view::{Member, MemberState, View};

/// Metadata entries of nodes that are no members, beyond which they are forgotten.
const STRANGERS_MAX: usize = 64;

/// How a member in `state` that last said `metadata` about itself appears.
fn appearance(state: foca::State, metadata: Option<&Metadata>) -> MemberState {
    let said = metadata.map(|metadata| (metadata.state, metadata.is_draining));
    match (state, said) {
        (foca::State::Down, Some((NodeState::Left, _))) => MemberState::Left,
        (foca::State::Down, _) => MemberState::Down,
        (foca::State::Suspect, _) => MemberState::Suspect,
        (foca::State::Alive, Some((NodeState::Left, _))) => MemberState::Left,
        (foca::State::Alive, Some((_, true))) => MemberState::Draining,
        (foca::State::Alive, _) => MemberState::Alive,
    }
}

impl Swim {
    fn member(&self, id: &Identity, state: foca::State) -> Member {
        let table = self.table.borrow();
        let known = table.get(id.node);
        // What an earlier life said of its end does not hold for this one.
        let said = known.filter(|(version, _)| {
            version.incarnation >= id.incarnation
                || crate::identity::boot_number(version.incarnation) == crate::identity::boot_number(id.incarnation)
        });
        Member {
            node: id.node,
            address: id.address,
            incarnation: id.incarnation,
            state: appearance(state, said.map(|(_, metadata)| metadata.as_ref())),
            metadata_version: known.map(|(version, _)| *version).unwrap_or_default(),
            metadata: known.map(|(_, metadata)| Arc::clone(metadata)),
        }
    }

    /// Whether foca sees any member otherwise than the view shows.
    pub(super) fn appearances_differ(&self) -> bool {
        let mut members = self.foca.iter_membership_state().filter(|member| !self.banned.contains(&member.id().node));
        members.any(|member| {
            let shown = self.view.get(member.id().node).map(|shown| (shown.state, shown.incarnation));
            let now = self.member(member.id(), member.state());
            shown != Some((now.state, now.incarnation))
        })
    }

    /// Builds the view anew and gives it out if it differs.
    pub(super) fn project(&mut self, effects: &mut Vec<Effect>) {
        self.view_is_stale = false;
        let known = self.foca.iter_membership_state().map(|member| self.member(member.id(), member.state()));
        let mut members: BTreeMap<_, _> = known.map(|member| (member.node, member)).collect();
        let own = *self.identity();
        members.retain(|node, _| !self.banned.contains(node));
        members.insert(own.node, self.member(&own, foca::State::Alive));
        let strangers = self.table.borrow().len().saturating_sub(members.len());
        if strangers > STRANGERS_MAX {
            self.table.borrow_mut().retain(|node| members.contains_key(&node));
        }
        let view = View::new(own.node, self.view.revision(), members);
        if view != *self.view {
            self.view = Arc::new(view.with_next_revision());
            effects.push(Effect::View(Arc::clone(&self.view)));
        }
    }
}
