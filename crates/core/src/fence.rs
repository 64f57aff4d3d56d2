//! The fence: the right to act for a job, minted by the commit of its assignment.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names one committed assignment. Totally ordered: an assignment committed later has a greater fence.
///
/// Why that holds: within an epoch the log has one entry per index and `position` counts the commands of an entry;
/// a new epoch starts only by `site recover`, whose log begins anew under a greater epoch. So whoever holds the
/// greatest fence of a job is its latest assignee, and the state machine refuses everyone else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// Epoch of the group, raised only by `site recover`.
    pub epoch: u64,
    /// Index of the log entry that carried the assignment.
    pub index: u64,
    /// Position of the assignment among the commands of that entry, from 0.
    pub position: u32,
}

impl Fence {
    /// The fence minted by the command at `position` of entry `index`.
    pub const fn mint(epoch: u64, index: u64, position: u32) -> Self {
        Self { epoch, index, position }
    }

    /// Whether someone who carries `presented` may act where this fence is the current one.
    pub fn accepts(&self, presented: &Self) -> bool {
        self == presented
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.index, self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_commits_have_greater_fences() {
        assert!(Fence::mint(1, 5, 0) < Fence::mint(1, 5, 1));
        assert!(Fence::mint(1, 5, 9) < Fence::mint(1, 6, 0));
        assert!(Fence::mint(1, 900, 0) < Fence::mint(2, 1, 0));
    }

    #[test]
    fn only_the_current_fence_is_accepted() {
        let current = Fence::mint(1, 6, 0);
        assert!(current.accepts(&current));
        assert!(!current.accepts(&Fence::mint(1, 5, 9)));
        assert!(!current.accepts(&Fence::mint(1, 7, 0)));
    }
}
