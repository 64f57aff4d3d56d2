//! What this node heard of leaders and what its voters acknowledged: instants only, no decisions about elections.
//!
//! A leader is known by (term, node, run of its process), because a leader that restarts resumes its old term. Once this
//! node has told a leader when it last heard an earlier one, it confirms no earlier one again. That is remembered here only
//! while the process runs; the server answers no leader before the stored vote says the same of earlier terms.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::{BootInstant, NodeId};

/// One leadership. A term has one leader, whose runs are numbered: a restart in the same term is a later reign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reign {
    /// Its term.
    pub term: u64,
    /// Which run of the leader's process it is.
    pub run: u64,
    /// The leader.
    pub node: NodeId,
}

/// What was heard of leaders.
#[derive(Debug)]
pub struct Contact {
    started_at: BootInstant,
    /// The leader heard last, and when.
    current: Option<(Reign, BootInstant)>,
    /// When a leader before that was last heard.
    earlier_at: Option<BootInstant>,
    /// Only this leader, or one of a later term, is confirmed.
    pledged: Option<Reign>,
    /// When this node stopped leading.
    stopped_leading_at: Option<BootInstant>,
}

impl Contact {
    /// Nothing heard yet, by a process that began at `started_at`.
    pub fn new(started_at: BootInstant) -> Self {
        Self { started_at, current: None, earlier_at: None, pledged: None, stopped_leading_at: None }
    }

    /// The term this node is pledged to, if that forbids confirming `reign`.
    pub fn forbids(&self, reign: Reign) -> Option<u64> {
        let pledged = self.pledged?;
        (reign < pledged).then_some(pledged.term)
    }

    /// A leader was heard and accepted.
    pub fn heard(&mut self, reign: Reign, now: BootInstant) {
        if let Some((current, at)) = self.current
            && current != reign
        {
            if reign < current {
                return;
            }
            self.earlier_at = Some(at);
        }
        self.current = Some((reign, now));
    }

    /// This node stopped leading.
    pub fn stopped_leading(&mut self, now: BootInstant) {
        self.stopped_leading_at = Some(now);
    }

    /// The leader heard last, and when.
    pub fn last_heard(&self) -> Option<(NodeId, BootInstant)> {
        self.current.map(|(reign, at)| (reign.node, at))
    }

    /// The term of the leader heard last.
    pub fn last_term(&self) -> Option<u64> {
        self.current.map(|(reign, _)| reign.term)
    }

    /// When this node's process began.
    pub fn started_at(&self) -> BootInstant {
        self.started_at
    }

    /// The last moment at which this node may have confirmed a leader before `reign`. Pledges it to `reign`; `None` if
    /// it is pledged to a later one.
    pub fn take_over(&mut self, reign: Reign) -> Option<BootInstant> {
        if self.forbids(reign).is_some() {
            return None;
        }
        self.pledged = Some(reign);
        let heard = match self.current {
            Some((current, _)) if current == reign => self.earlier_at,
            Some((_, at)) => Some(at),
            None => None,
        };
        let last = [heard, self.stopped_leading_at].into_iter().flatten().max();
        Some(last.map_or(self.started_at, |at| at.max(self.started_at)))
    }
}

/// When each voter's last acknowledged message was *sent*, within a term that this node leads.
#[derive(Debug, Default)]
pub struct Acknowledgements {
    term: u64,
    sent_at: BTreeMap<NodeId, BootInstant>,
}

impl Acknowledgements {
    /// `voter` acknowledged what was sent at `sent_at` in `term`.
    pub fn note(&mut self, voter: NodeId, term: u64, sent_at: BootInstant) {
        if term > self.term {
            self.term = term;
            self.sent_at.clear();
        }
        if term == self.term {
            let latest = self.sent_at.entry(voter).or_insert(sent_at);
            *latest = sent_at.max(*latest);
        }
    }

    /// The latest moment at which a quorum of every set of `voters` followed `leader` in `term`; `now` if it needs none
    /// but itself, `None` if there is none.
    pub fn quorum_at(
        &self,
        voters: &[BTreeSet<NodeId>],
        leader: NodeId,
        term: u64,
        now: BootInstant,
    ) -> Option<BootInstant> {
        voters
            .iter()
            .map(|set| {
                let mut instants: Vec<BootInstant> = set
                    .iter()
                    .filter_map(|voter| match *voter == leader {
                        true => Some(now),
                        false => self.sent_at.get(voter).copied().filter(|_| term == self.term),
                    })
                    .collect();
                instants.sort_unstable_by(|a, b| b.cmp(a));
                instants.get(set.len() / 2).copied()
            })
            .min()
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn node(byte: u8) -> NodeId {
        NodeId::from_bytes([byte; 16])
    }

    fn at(millis: u64) -> BootInstant {
        BootInstant(Duration::from_millis(millis))
    }

    fn reign(term: u64, leader: u8, run: u64) -> Reign {
        Reign { term, node: node(leader), run }
    }

    #[test]
    fn a_restarted_voter_counts_from_its_boot() {
        let mut contact = Contact::new(at(500));
        assert_eq!(contact.take_over(reign(2, 1, 1)), Some(at(500)));
    }

    #[test]
    fn the_new_leaders_own_messages_are_not_an_earlier_leaders() {
        let mut contact = Contact::new(at(0));
        contact.heard(reign(1, 1, 1), at(100));
        contact.heard(reign(2, 2, 1), at(900));
        assert_eq!(contact.take_over(reign(2, 2, 1)), Some(at(100)));
    }

    #[test]
    fn a_leader_that_resumes_its_term_follows_its_own_earlier_reign() {
        let mut contact = Contact::new(at(0));
        contact.heard(reign(1, 1, 1), at(100));
        assert_eq!(contact.take_over(reign(1, 1, 2)), Some(at(100)));
        assert_eq!(contact.forbids(reign(1, 1, 1)), Some(1), "a late message of the earlier run is not confirmed");
        assert_eq!(contact.forbids(reign(1, 1, 3)), None, "it may restart once more");
        assert_eq!(contact.forbids(reign(2, 2, 1)), None);
    }

    #[test]
    fn who_answered_a_takeover_confirms_no_earlier_leader() {
        let mut contact = Contact::new(at(0));
        contact.heard(reign(1, 1, 1), at(100));
        contact.take_over(reign(3, 2, 1));
        assert_eq!(contact.forbids(reign(1, 1, 1)), Some(3));
        assert_eq!(contact.take_over(reign(2, 3, 1)), None);
    }

    #[test]
    fn a_deposed_leader_reports_when_it_stopped() {
        let mut contact = Contact::new(at(0));
        contact.stopped_leading(at(700));
        assert_eq!(contact.take_over(reign(2, 2, 1)), Some(at(700)));
    }

    #[test]
    fn a_quorum_is_needed_in_every_set() {
        let mut acknowledgements = Acknowledgements::default();
        let old: BTreeSet<NodeId> = [1, 2, 3].map(node).into();
        let new: BTreeSet<NodeId> = [1, 4, 5].map(node).into();
        acknowledgements.note(node(2), 7, at(10));
        let one = [old.clone()];
        assert_eq!(acknowledgements.quorum_at(&one, node(1), 7, at(50)), Some(at(10)));
        assert_eq!(acknowledgements.quorum_at(&one, node(1), 8, at(50)), None, "another term's count for nothing");
        let joint = [old, new];
        assert_eq!(acknowledgements.quorum_at(&joint, node(1), 7, at(50)), None);
        acknowledgements.note(node(4), 7, at(5));
        assert_eq!(acknowledgements.quorum_at(&joint, node(1), 7, at(50)), Some(at(5)));
        assert_eq!(acknowledgements.quorum_at(&[[node(1)].into()], node(1), 7, at(50)), Some(at(50)));
    }
}
