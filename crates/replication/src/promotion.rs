//! What must be so before nodes get a vote: they hold every blob that an acknowledged command may name. Pure.
//!
//! While a promotion is prepared, puts reach a majority of the voters to be as well. What was put before is either named by
//! the state soon, or never; once that is settled, a newcomer whose blobs are complete at the state of that moment lacks
//! nothing.

use std::collections::BTreeSet;

use fleet_core::{BootInstant, Digest, NodeId};

use crate::autopilot::Change;
use crate::blobs::NAMED_WITHIN;

/// A change of voters that is being prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Promotion {
    /// The voters to be.
    pub(crate) target: BTreeSet<NodeId>,
    /// Blobs put before the preparation began that the state does not name yet.
    unnamed: Vec<(Digest, BootInstant)>,
    /// The newcomers' blobs must be complete at this index of the log.
    index: Option<u64>,
}

impl Promotion {
    /// Begins to prepare `target`; `put_before` are the blobs that were put lately.
    pub(crate) fn begin(target: BTreeSet<NodeId>, put_before: Vec<(Digest, BootInstant)>) -> Self {
        Self { target, unnamed: put_before, index: None }
    }

    /// The index at which the newcomers' blobs must be complete, once that is settled. `applied` is the index of a state
    /// at `now`, and `is_named` says of a blob whether that state names it.
    pub(crate) fn settle(&mut self, now: BootInstant, applied: u64, is_named: impl Fn(Digest) -> bool) -> Option<u64> {
        self.unnamed.retain(|(digest, at)| now.saturating_since(*at) < NAMED_WITHIN && !is_named(*digest));
        if self.unnamed.is_empty() {
            self.index.get_or_insert(applied);
        }
        self.index
    }
}

/// The voters that `change` makes, if some of them do not vote yet.
pub(crate) fn promoted<'a>(change: Option<&'a Change>, voters: &BTreeSet<NodeId>) -> Option<&'a BTreeSet<NodeId>> {
    match change {
        Some(Change::SetVoters(target)) if !target.is_subset(voters) => Some(target),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn set(numbers: &[u8]) -> BTreeSet<NodeId> {
        numbers.iter().map(|number| NodeId::from_bytes([*number; 16])).collect()
    }

    fn at(seconds: u64) -> BootInstant {
        BootInstant(Duration::from_secs(seconds))
    }

    #[test]
    fn what_was_put_before_is_named_first_or_never() {
        let (named, forgotten) = (Digest::of(b"named"), Digest::of(b"forgotten"));
        let mut promotion = Promotion::begin(set(&[1, 2, 3]), vec![(forgotten, at(0)), (named, at(1))]);
        assert_eq!(promotion.settle(at(2), 7, |_| false), None);
        assert_eq!(promotion.settle(at(3), 8, |digest| digest == named), None, "one may still be named");
        let later = BootInstant(at(0).0 + NAMED_WITHIN);
        assert_eq!(promotion.settle(later, 9, |digest| digest == named), Some(9));
        assert_eq!(promotion.settle(later, 12, |_| false), Some(9), "what comes later reaches the newcomers by itself");
    }

    #[test]
    fn only_a_change_that_adds_voters_is_a_promotion() {
        let grown = Change::SetVoters(set(&[1, 2, 3]));
        assert_eq!(promoted(Some(&grown), &set(&[1])), Some(&set(&[1, 2, 3])));
        assert_eq!(promoted(Some(&grown), &set(&[1, 2, 3, 4])), None);
        assert_eq!(promoted(Some(&Change::AddLearner(NodeId::from_bytes([2; 16]))), &set(&[1])), None);
        assert_eq!(promoted(None, &set(&[1])), None);
    }
}
