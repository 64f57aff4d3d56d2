//! The name of a robot session.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::NodeId;

/// One uninterrupted lease of a robot. Totally ordered within a node; once run out it is dead for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId {
    /// The node whose robot it is.
    pub node: NodeId,
    /// Boot number of that node: stored and raised before anything is sent.
    pub boot: u64,
    /// Number of the session within the boot, from 1.
    pub number: u64,
}

impl SessionId {
    /// Whether this session of the same node came after `other`. Sessions of different nodes are never newer.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        self.node == other.node && (self.boot, self.number) > (other.boot, other.number)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.node, self.boot, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_newer_only_within_its_node() {
        let (a, b) = (NodeId::from_bytes([1; 16]), NodeId::from_bytes([2; 16]));
        let first = SessionId { node: a, boot: 1, number: 9 };
        assert!(SessionId { node: a, boot: 2, number: 1 }.is_newer_than(&first));
        assert!(!first.is_newer_than(&first));
        assert!(!SessionId { node: b, boot: 9, number: 9 }.is_newer_than(&first));
    }
}
