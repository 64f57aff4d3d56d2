//! Who should vote: a pure, level-triggered decision of the leader. Each call looks at everything anew and asks for at
//! most one change; the driver carries it out, and the next call sees the result.
//!
//! Rules (design §5): a joint configuration is finished first; one change at a time; a site grows from one voter to
//! three and from three to five by two caught-up live learners in one change; a voter that was down for long is replaced
//! one for one; a voter that nobody can replace keeps its seat. Voters are always odd in number.
//!
//! Invariant: no change takes a live voter's vote away except that of a removed node, and of the one more that keeps the
//! number odd where nobody is there to take the seat.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_core::NodeId;

/// How long a voter must be down before its seat goes to another.
pub const DEAD_VOTER_AFTER: Duration = Duration::from_secs(600);
/// How long gossip may lack a node that could take a seat before nobody counts on it: one that was just admitted is not
/// heard at once.
pub(crate) const PROSPECT_SILENT_MAX: Duration = Duration::from_secs(30);
/// Most voters of a group.
pub(crate) const VOTERS_MAX: usize = 5;

/// What the leader knows of one node of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Whether gossip holds it alive.
    pub is_alive: bool,
    /// How long gossip has held it down; zero while alive or unknown.
    pub down_for: Duration,
    /// Whether its log is close enough to the leader's to vote at once.
    pub is_caught_up: bool,
    /// Whether the operator took it out of the fleet.
    pub is_removed: bool,
}

/// The group's membership as committed, and the site's nodes.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// The voters; two sets while a joint configuration is under way, the newer last.
    pub voters: Vec<BTreeSet<NodeId>>,
    /// Members without a vote.
    pub learners: BTreeSet<NodeId>,
    /// The site's nodes that the group has admitted, the leader among them.
    pub candidates: Vec<Candidate>,
    /// The node that decides.
    pub leader: NodeId,
}

/// The one change to make now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Let a node follow the log.
    AddLearner(NodeId),
    /// Stop sending the log to a node that was removed.
    RemoveLearner(NodeId),
    /// Make exactly these the voters; those who lose their vote stay learners.
    SetVoters(BTreeSet<NodeId>),
}

/// The change that `picture` asks for, if any.
pub fn decide(picture: &Picture) -> Option<Change> {
    let current = picture.voters.last()?;
    if picture.voters.len() > 1 {
        return Some(Change::SetVoters(current.clone()));
    }
    // A removed leader cannot take itself out while it leads; another leader will.
    retire(picture, current)
        .or_else(|| replace(picture, current))
        .or_else(|| grow(picture, current))
        .or_else(|| admit(picture, current))
        .or_else(|| forget(picture, current))
}

/// Whether a quorum of `voters`, one set or two, is left of those in `live` once `node` is removed: only then can the group
/// still give its seat away. Several that are removed at once could take more votes than there are to spare.
pub fn has_quorum_without(voters: &[BTreeSet<NodeId>], live: &BTreeSet<NodeId>, node: NodeId) -> bool {
    voters.iter().all(|set| {
        let left = set.iter().filter(|voter| **voter != node && live.contains(voter)).count();
        !set.contains(&node) || left > set.len() / 2
    })
}

impl Picture {
    fn candidate(&self, node: &NodeId) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.node == *node)
    }

    /// Whether a node without a vote that lives, or may just be starting, could take a seat once it has caught up.
    fn has_prospect(&self, current: &BTreeSet<NodeId>) -> bool {
        let is_prospect = |candidate: &Candidate| {
            !candidate.is_removed && (candidate.is_alive || candidate.down_for < PROSPECT_SILENT_MAX)
        };
        self.candidates.iter().any(|candidate| is_prospect(candidate) && !current.contains(&candidate.node))
    }

    /// Learners that may vote at once, in the order of the candidates.
    fn ready_learners(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.candidates
            .iter()
            .filter(|candidate| candidate.is_alive && candidate.is_caught_up && !candidate.is_removed)
            .map(|candidate| candidate.node)
            .filter(|node| self.learners.contains(node))
    }
}

/// Takes the vote from a removed node: a ready learner gets it, or the group shrinks to an odd number. While somebody is
/// on the way to take the seat, it is kept: a node whose disk was lost and that comes back must not cost two copies.
fn retire(picture: &Picture, current: &BTreeSet<NodeId>) -> Option<Change> {
    let removed = current.iter().find(|node| {
        **node != picture.leader && picture.candidate(node).is_some_and(|candidate| candidate.is_removed)
    })?;
    let mut voters = current.clone();
    voters.remove(removed);
    if let Some(successor) = picture.ready_learners().next() {
        voters.insert(successor);
    } else if picture.has_prospect(current) {
        return None;
    } else if voters.len().is_multiple_of(2) {
        let expendable = voters
            .iter()
            .filter(|node| **node != picture.leader)
            .min_by_key(|node| {
                picture.candidate(node).is_some_and(|candidate| candidate.is_alive && candidate.is_caught_up)
            })
            .copied()?;
        voters.remove(&expendable);
    }
    Some(Change::SetVoters(voters))
}

/// Gives the seat of a voter that was down for long to a ready learner.
fn replace(picture: &Picture, current: &BTreeSet<NodeId>) -> Option<Change> {
    let dead = current.iter().find(|node| {
        picture.candidate(node).is_some_and(|candidate| !candidate.is_alive && candidate.down_for >= DEAD_VOTER_AFTER)
    })?;
    let successor = picture.ready_learners().next()?;
    let mut voters = current.clone();
    voters.remove(dead);
    voters.insert(successor);
    Some(Change::SetVoters(voters))
}

/// Adds two ready learners at once where there is room.
fn grow(picture: &Picture, current: &BTreeSet<NodeId>) -> Option<Change> {
    if current.len() + 2 > VOTERS_MAX {
        return None;
    }
    let ready: Vec<NodeId> = picture.ready_learners().take(2).collect();
    let [first, second] = ready.as_slice() else { return None };
    let mut voters = current.clone();
    voters.extend([*first, *second]);
    Some(Change::SetVoters(voters))
}

/// Lets a live node of the site that is not a member follow the log.
fn admit(picture: &Picture, current: &BTreeSet<NodeId>) -> Option<Change> {
    picture
        .candidates
        .iter()
        .filter(|candidate| candidate.is_alive && !candidate.is_removed)
        .map(|candidate| candidate.node)
        .find(|node| !current.contains(node) && !picture.learners.contains(node))
        .map(Change::AddLearner)
}

/// Forgets a learner that was removed from the fleet.
fn forget(picture: &Picture, current: &BTreeSet<NodeId>) -> Option<Change> {
    picture
        .learners
        .iter()
        .filter(|node| !current.contains(node))
        .find(|node| picture.candidate(node).is_some_and(|candidate| candidate.is_removed))
        .map(|node| Change::RemoveLearner(*node))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 16])
    }

    fn set(numbers: &[u8]) -> BTreeSet<NodeId> {
        numbers.iter().copied().map(node).collect()
    }

    fn alive(number: u8) -> Candidate {
        Candidate {
            node: node(number),
            is_alive: true,
            down_for: Duration::ZERO,
            is_caught_up: true,
            is_removed: false,
        }
    }

    fn picture(voters: &[u8], learners: &[u8], candidates: Vec<Candidate>) -> Picture {
        Picture { voters: vec![set(voters)], learners: set(learners), candidates, leader: node(1) }
    }

    #[test]
    fn a_site_grows_from_one_to_three_to_five_and_no_further() {
        let all: Vec<Candidate> = (1..=7).map(alive).collect();
        assert_eq!(decide(&picture(&[1], &[], all[..2].to_vec())), Some(Change::AddLearner(node(2))));
        assert_eq!(decide(&picture(&[1], &[2], all[..2].to_vec())), None, "two nodes have one voter");
        assert_eq!(decide(&picture(&[1], &[2, 3], all[..3].to_vec())), Some(Change::SetVoters(set(&[1, 2, 3]))));
        assert_eq!(decide(&picture(&[1, 2, 3], &[4], all[..4].to_vec())), None, "four nodes have three voters");
        let five = Some(Change::SetVoters(set(&[1, 2, 3, 4, 5])));
        assert_eq!(decide(&picture(&[1, 2, 3], &[4, 5], all[..5].to_vec())), five);
        assert_eq!(decide(&picture(&[1, 2, 3, 4, 5], &[6, 7], all)), None);
    }

    #[test]
    fn a_removal_leaves_a_quorum() {
        let leaves = |voters: &[&[u8]], live: &[u8], removed: u8| {
            let voters: Vec<_> = voters.iter().map(|numbers| set(numbers)).collect();
            has_quorum_without(&voters, &set(live), node(removed))
        };
        assert!(leaves(&[&[1, 2, 3]], &[1, 2, 3], 3));
        assert!(leaves(&[&[1, 2, 3]], &[1, 2], 3), "a dead one goes");
        assert!(!leaves(&[&[1, 2, 3]], &[1, 2], 2), "no live one beside a dead one");
        assert!(leaves(&[&[1, 2, 3, 4, 5]], &[1, 2, 3], 4));
        assert!(!leaves(&[&[1, 2, 3, 4, 5]], &[1, 2, 3], 3));
        assert!(leaves(&[&[1, 2, 3]], &[1], 4), "it has no vote");
        assert!(!leaves(&[&[1, 2, 3], &[1]], &[1, 2], 2), "not before a change under way is finished");
    }

    #[test]
    fn a_learner_that_lags_gets_no_vote() {
        let lagging = Candidate { is_caught_up: false, ..alive(3) };
        assert_eq!(decide(&picture(&[1], &[2, 3], vec![alive(1), alive(2), lagging])), None);
    }

    #[test]
    fn a_joint_configuration_is_finished_first() {
        let mut joint = picture(&[1], &[2, 3], vec![alive(1), alive(2), alive(3)]);
        joint.voters.push(set(&[1, 2, 3]));
        assert_eq!(decide(&joint), Some(Change::SetVoters(set(&[1, 2, 3]))));
    }

    #[test]
    fn a_dead_voter_is_replaced_one_for_one_but_only_after_long() {
        let dead = |down_for| Candidate { is_alive: false, down_for, is_caught_up: false, ..alive(3) };
        let nodes = |down_for| vec![alive(1), alive(2), dead(down_for), alive(4)];
        assert_eq!(decide(&picture(&[1, 2, 3], &[4], nodes(Duration::from_secs(599)))), None);
        let replaced = Some(Change::SetVoters(set(&[1, 2, 4])));
        assert_eq!(decide(&picture(&[1, 2, 3], &[4], nodes(DEAD_VOTER_AFTER))), replaced);
        let nobody = vec![alive(1), alive(2), dead(DEAD_VOTER_AFTER)];
        assert_eq!(decide(&picture(&[1, 2, 3], &[], nobody)), None, "a voter that nobody can replace keeps its seat");
    }

    #[test]
    fn a_removed_voter_loses_its_vote_and_the_number_stays_odd() {
        let removed = Candidate { is_removed: true, is_alive: false, ..alive(3) };
        let three = picture(&[1, 2, 3], &[], vec![alive(1), alive(2), removed]);
        assert_eq!(decide(&three), Some(Change::SetVoters(set(&[1]))));
        let four = picture(&[1, 2, 3], &[4], vec![alive(1), alive(2), removed, alive(4)]);
        assert_eq!(decide(&four), Some(Change::SetVoters(set(&[1, 2, 4]))));
        let replaced = vec![alive(1), alive(2), removed, Candidate { is_caught_up: false, ..alive(4) }];
        let admitted = Some(Change::AddLearner(node(4)));
        assert_eq!(decide(&picture(&[1, 2, 3], &[], replaced.clone())), admitted, "its successor is admitted first");
        assert_eq!(decide(&picture(&[1, 2, 3], &[4], replaced)), None, "and its seat waits until that has caught up");
        let silent = |down_for| {
            vec![alive(1), alive(2), removed, Candidate { is_alive: false, is_caught_up: false, down_for, ..alive(4) }]
        };
        assert_eq!(decide(&picture(&[1, 2, 3], &[], silent(Duration::ZERO))), None, "it was admitted a moment ago");
        let given_up = picture(&[1, 2, 3], &[], silent(PROSPECT_SILENT_MAX));
        assert_eq!(decide(&given_up), Some(Change::SetVoters(set(&[1]))), "it never came");
        let after = picture(&[1], &[2, 3], vec![alive(1), alive(2), removed]);
        assert_eq!(decide(&after), Some(Change::RemoveLearner(node(3))));
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 0_u64..1_200);
        prop::collection::vec(flags, 1..8).prop_map(|rows| {
            rows.into_iter()
                .enumerate()
                .map(|(number, (is_alive, is_caught_up, is_removed, down_s))| Candidate {
                    node: node(u8::try_from(number + 1).unwrap()),
                    is_alive: is_alive || number == 0,
                    down_for: if is_alive || number == 0 { Duration::ZERO } else { Duration::from_secs(down_s) },
                    is_caught_up: is_caught_up || number == 0,
                    is_removed: is_removed && number != 0,
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn changes_keep_the_rules_and_come_to_rest(candidates in candidates()) {
            let mut picture = picture(&[1], &[], candidates);
            for _ in 0..64 {
                let Some(change) = decide(&picture) else { return Ok(()) };
                let before = picture.voters[0].clone();
                match change {
                    Change::AddLearner(node) => prop_assert!(picture.learners.insert(node)),
                    Change::RemoveLearner(node) => prop_assert!(picture.learners.remove(&node)),
                    Change::SetVoters(voters) => {
                        prop_assert!(voters.contains(&picture.leader));
                        prop_assert_eq!(voters.len() % 2, 1);
                        prop_assert!(voters.len() <= VOTERS_MAX);
                        prop_assert!(voters.difference(&before).all(|node| picture.learners.contains(node)));
                        picture.learners.extend(before.difference(&voters).copied());
                        picture.learners.retain(|node| !voters.contains(node));
                        picture.voters = vec![voters];
                    }
                }
            }
            prop_assert!(false, "the decisions never come to rest");
        }
    }
}
