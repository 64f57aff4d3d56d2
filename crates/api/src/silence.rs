//! Which connections to a node are given up, and when: a pure decision, on what was heard and when.
//!
//! After a cut, TCP repeats what was lost ever more seldom: a connection may sleep for seconds more, though the way is free
//! again. So whoever gets no answers on a connection dials another one beside it, which takes its place if it is made
//! first; and whoever lost a node and hears it again breaks those connections to it that are still silent. What is only
//! idle is never broken.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_core::NodeId;
use tokio::time::Instant;

/// How long nothing may be heard on a connection before it counts as silent: longer than TCP needs to repeat a lost packet
/// twice.
pub const QUIET_MAX: Duration = Duration::from_secs(1);
/// Most nodes that are lost at the same time, of those that are remembered.
const LOST_MAX: usize = 1_024;

/// Whether a connection on which something was heard last at `heard_at` is silent at `now`; where there is none, nothing is.
pub fn is_silent(heard_at: Option<Instant>, now: Instant) -> bool {
    heard_at.is_some_and(|at| now.saturating_duration_since(at) >= QUIET_MAX)
}

/// The nodes that did not answer when they should have, and were not heard since.
#[derive(Debug, Default)]
pub struct Lost {
    nodes: BTreeSet<NodeId>,
}

impl Lost {
    /// `node` does not answer.
    pub fn lose(&mut self, node: NodeId) {
        if self.nodes.len() < LOST_MAX {
            self.nodes.insert(node);
        }
    }

    /// `node` was heard; whether it had been lost.
    pub fn hear(&mut self, node: NodeId) -> bool {
        self.nodes.remove(&node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_after_a_loss_ends_it() {
        let [node, other] = [1, 2].map(|byte| NodeId::from_bytes([byte; 16]));
        let mut lost = Lost::default();
        assert!(!lost.hear(node), "a node that only had nothing to say was not lost");
        lost.lose(node);
        assert!(!lost.hear(other));
        assert!(lost.hear(node));
        assert!(!lost.hear(node));
    }

    #[test]
    fn where_nothing_is_connected_nothing_is_silent() {
        let now = Instant::now();
        assert!(!is_silent(None, now));
        assert!(!is_silent(Some(now), now + Duration::from_millis(999)));
        assert!(is_silent(Some(now), now + QUIET_MAX));
    }
}
