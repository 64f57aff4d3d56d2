//! Journals that this robot wrote down while it was cut off, of jobs that do not run here any more: they are delivered to
//! the group, a bounded number of records at a time, and then forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_core::BootInstant;

use crate::session::Pair;

/// How far a journal is delivered.
#[derive(Clone, Copy, Debug, Default)]
struct Delivery {
    /// Position of the next record.
    from: u32,
    /// When the last batch went up, if its commit is not known.
    sent_at: Option<BootInstant>,
}

/// The journals to deliver.
#[derive(Debug, Default)]
pub(super) struct Kept {
    journals: BTreeMap<(fleet_core::JobId, fleet_core::Fence), Delivery>,
}

impl Kept {
    /// One more journal is to be delivered.
    pub(super) fn add(&mut self, pair: Pair) {
        self.journals.entry((pair.job, pair.fence)).or_default();
    }

    /// Whether the journal of `pair` is still to be delivered.
    pub(super) fn has(&self, pair: Pair) -> bool {
        self.journals.contains_key(&(pair.job, pair.fence))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.journals.len()
    }

    /// What is to be sent now: the journals of which nothing is under way, or for longer than `after`.
    pub(super) fn due(&mut self, now: BootInstant, after: Duration) -> Vec<(Pair, u32)> {
        let mut due = Vec::new();
        for ((job, fence), delivery) in &mut self.journals {
            if delivery.sent_at.is_none_or(|at| now.saturating_since(at) >= after) {
                delivery.sent_at = Some(now);
                due.push((Pair { job: *job, fence: *fence }, delivery.from));
            }
        }
        due
    }

    /// The group has the records of `pair` before position `from`.
    pub(super) fn committed(&mut self, pair: Pair, from: u32) {
        if let Some(delivery) = self.journals.get_mut(&(pair.job, pair.fence)) {
            delivery.from = delivery.from.max(from);
            delivery.sent_at = None;
        }
    }

    /// The journal of `pair` is delivered, or refused. Whether there was one.
    pub(super) fn remove(&mut self, pair: Pair) -> bool {
        self.journals.remove(&(pair.job, pair.fence)).is_some()
    }
}
