use openraft::CommittedLeaderId;
use proptest::prelude::{any, prop_assert, proptest};

use super::*;
use crate::consensus::VoterId;

fn node(byte: u8) -> NodeId {
    NodeId::from_bytes([byte; 16])
}

fn at(millis: u64) -> BootInstant {
    BootInstant(Duration::from_millis(millis))
}

fn set(bytes: &[u8]) -> BTreeSet<NodeId> {
    bytes.iter().copied().map(node).collect()
}

fn log(term: u64, index: u64) -> Option<LogId> {
    Some(LogId::new(CommittedLeaderId::new(term, VoterId(node(1))), index))
}

/// Node 2 of three; node 1 led and fell silent at 0.
fn outlook(now_ms: u64) -> Outlook {
    Outlook {
        group: GroupId::from_bytes([9; 16]),
        node: node(2),
        term: 1,
        leads: false,
        voters: vec![set(&[1, 2, 3])],
        alive: None,
        heard: Some((node(1), at(0))),
        started_at: at(0),
        tried_at: None,
        term_since: at(0),
        term_of_leader: 1,
        now: at(now_ms),
    }
}

fn silent(last_log: Option<LogId>) -> PollAnswer {
    PollAnswer { silence_ms: 700, last_log, leads: false }
}

#[test]
fn nobody_stirs_within_the_lease() {
    assert!(!should_poll(&outlook(600), &Timing::LAN));
    assert!(should_poll(&outlook(601), &Timing::LAN), "with gossip blind, the first in voter order goes first");
    let third = Outlook { node: node(3), ..outlook(601) };
    assert!(!should_poll(&third, &Timing::LAN));
    assert!(should_poll(&Outlook { now: at(751), ..third }, &Timing::LAN), "the next one waits a step longer");
}

#[test]
fn an_election_under_way_gets_its_time() {
    assert!(!should_poll(&Outlook { tried_at: Some(at(900)), ..outlook(1_199) }, &Timing::LAN));
    assert!(should_poll(&Outlook { tried_at: Some(at(900)), ..outlook(1_200) }, &Timing::LAN));
}

#[test]
fn an_election_of_somebody_else_gets_its_time_and_each_in_vain_makes_the_next_longer() {
    let first = |in_vain: u64| {
        let asks = |now_ms: &u64| {
            let looks = |id| Outlook { node: node(id), term: 1 + in_vain, term_since: at(9_000), ..outlook(*now_ms) };
            should_poll(&looks(2), &Timing::LAN)
        };
        (9_000..20_000).find(asks)
    };
    assert_eq!(first(0), Some(9_000), "a term that a leader was heard in is no election");
    assert_eq!([first(1), first(2), first(3)], [Some(9_300), Some(9_600), Some(10_200)]);
    assert_eq!([first(4), first(400)], [Some(11_400); 2]);
}

/// Five voters whose leader is gone, on machines on which a vote takes `vote_ms`: it arrives after half of that, unless
/// its term is old by then. Gives how many terms it takes until one of them leads, at most 200.
fn terms_until_one_leads(vote_ms: u64) -> u64 {
    struct Voter {
        term: u64,
        term_since: u64,
        tried_at: Option<u64>,
    }
    let mut voters: BTreeMap<u8, Voter> =
        (2..=5).map(|id| (id, Voter { term: 1, term_since: 0, tried_at: None })).collect();
    // Votes under way: when they are at the others, whose they are, their term, and how many follow.
    let mut votes: Vec<(u64, u8, u64, usize)> = Vec::new();
    for now in (600..).step_by(5) {
        for vote in &mut votes {
            let (arrives, candidate, term, followers) = *vote;
            if arrives == now {
                for (_, voter) in voters.iter_mut().filter(|(id, voter)| **id != candidate && voter.term < term) {
                    (voter.term, voter.term_since, vote.3) = (term, now, vote.3 + 1);
                }
            } else if arrives + vote_ms / 2 == now && followers >= 3 && voters[&candidate].term == term {
                return term;
            }
        }
        for id in 2..=5 {
            // Ticks of 100 ms, each voter at a moment of its own.
            if (now + u64::from(id) * 25) % 100 != 0 {
                continue;
            }
            let voter = &voters[&id];
            let outlook = Outlook {
                node: node(id),
                term: voter.term,
                voters: vec![set(&[1, 2, 3, 4, 5])],
                alive: Some(set(&[2, 3, 4, 5])),
                tried_at: voter.tried_at.map(at),
                term_since: at(voter.term_since),
                ..outlook(now)
            };
            if should_poll(&outlook, &Timing::LAN) {
                let term = voter.term + 1;
                voters.insert(id, Voter { term, term_since: now, tried_at: Some(now) });
                votes.push((now + vote_ms / 2, id, term, 1));
                if term > 200 {
                    return term;
                }
            }
        }
    }
    unreachable!("time does not end")
}

#[test]
fn voters_that_are_slow_to_vote_agree_on_a_leader_all_the_same() {
    assert_eq!(terms_until_one_leads(50), 2, "the first that asks leads");
    for vote_ms in [200, 400, 600, 800, 1_000] {
        let terms = terms_until_one_leads(vote_ms);
        assert!(terms <= 9, "a vote takes {vote_ms} ms, and nobody led before term {terms}");
    }
}

#[test]
fn leaders_and_learners_do_not_ask() {
    assert!(!should_poll(&Outlook { leads: true, ..outlook(10_000) }, &Timing::LAN));
    assert!(!should_poll(&Outlook { node: node(4), ..outlook(10_000) }, &Timing::LAN));
}

#[test]
fn a_lone_voter_waits_for_nobody() {
    let lone = Outlook { voters: vec![set(&[2])], heard: None, ..outlook(0) };
    assert!(should_poll(&lone, &Timing::LAN));
    assert!(should_elect(&lone, None, &BTreeMap::new(), Timing::LAN.group_lease));
}

#[test]
fn a_restarted_voter_waits_a_lease_from_its_start() {
    let restarted = Outlook { heard: None, started_at: at(1_000), ..outlook(1_550) };
    assert!(!should_poll(&restarted, &Timing::LAN));
}

#[test]
fn a_voter_that_gossip_holds_down_costs_no_step() {
    let first = |alive: &[u8]| {
        let asks = |id: &u8| {
            let voters = vec![set(&[1, 2, 3, 4, 5])];
            let view = Outlook { node: node(*id), voters, alive: Some(set(alive)), ..outlook(601) };
            should_poll(&view, &Timing::LAN)
        };
        alive.iter().filter(|id| asks(id)).count()
    };
    assert!([&[2, 3, 4], &[2, 3, 5], &[2, 4, 5], &[3, 4, 5]].into_iter().all(|alive| first(alive) == 1));
}

#[test]
fn where_gossip_sees_no_majority_voter_order_serves() {
    let alone = |id| Outlook { node: node(id), alive: Some(set(&[id])), ..outlook(601) };
    assert!(should_poll(&alone(2), &Timing::LAN));
    assert!(!should_poll(&alone(3), &Timing::LAN), "with blind gossip all would ask at once");
    assert!(should_poll(&Outlook { now: at(751), ..alone(3) }, &Timing::LAN));
    let with_silent_leader = Outlook { alive: Some(set(&[1, 3])), ..alone(3) };
    assert!(!should_poll(&with_silent_leader, &Timing::LAN), "the silent leader does not vote for another one");
}

#[test]
fn with_five_voters_the_steps_are_shorter() {
    let last = |now| Outlook { node: node(5), voters: vec![set(&[1, 2, 3, 4, 5])], ..outlook(now) };
    assert!(!should_poll(&last(900), &Timing::LAN));
    assert!(should_poll(&last(901), &Timing::LAN));
}

#[test]
fn a_quorum_must_be_ready_to_follow() {
    let lease = Timing::LAN.group_lease;
    let elect = |answers: &[(u8, PollAnswer)], own| {
        should_elect(
            &outlook(700),
            own,
            &answers.iter().map(|(id, answer)| (node(*id), answer.clone())).collect(),
            lease,
        )
    };
    assert!(!elect(&[], log(1, 5)), "its own voice is no quorum");
    assert!(elect(&[(3, silent(log(1, 5)))], log(1, 5)));
    assert!(!elect(&[(3, silent(log(1, 6)))], log(1, 5)), "the other one's log is newer");
    let loyal = PollAnswer { silence_ms: 599, ..silent(None) };
    assert!(!elect(&[(3, loyal)], log(1, 5)));
    let leader = PollAnswer { leads: true, silence_ms: 700, last_log: None };
    assert!(!elect(&[(1, leader), (3, silent(None))], log(1, 5)), "somebody leads");
}

#[test]
fn a_joint_configuration_needs_a_quorum_of_both_sets() {
    let joint = Outlook { voters: vec![set(&[1, 2, 3]), set(&[2, 4, 5])], ..outlook(700) };
    let answers = BTreeMap::from([(node(3), silent(None))]);
    assert!(!should_elect(&joint, log(1, 1), &answers, Timing::LAN.group_lease));
    let answers = BTreeMap::from([(node(3), silent(None)), (node(4), silent(None))]);
    assert!(should_elect(&joint, log(1, 1), &answers, Timing::LAN.group_lease));
}

proptest! {
    /// Whatever gossip says, within the lease and all ranks' steps every live voter has asked: gossip delays, it does not block.
    #[test]
    fn every_voter_asks_in_the_end(voters in 2_u8..6, me in 1_u8..6, alive_bits in any::<Option<u8>>(), term in any::<u64>()) {
        let ids: Vec<u8> = (1..=voters).collect();
        let me = me.min(voters);
        let alive = alive_bits.map(|bits| ids.iter().filter(|id| bits & (1 << **id) != 0).copied().map(node).collect());
        let outlook = Outlook { node: node(me), term, alive, voters: vec![set(&ids)], heard: Some((node(voters), at(0))), term_of_leader: term, ..outlook(600 + 150 * 5 + 1) };
        prop_assert!(should_poll(&outlook, &Timing::LAN));
        let within_lease = Outlook { now: at(600), ..outlook };
        prop_assert!(!should_poll(&within_lease, &Timing::LAN));
    }

    /// With one picture of who lives, exactly one voter goes first.
    #[test]
    fn one_voter_goes_first(term in any::<u64>(), voters in 3_u8..6) {
        let ids: Vec<u8> = (1..=voters).collect();
        let first = ids.iter().filter(|id| **id != 1).filter(|id| {
            let view = Outlook { node: node(**id), term, term_of_leader: term, alive: Some(set(&ids)), voters: vec![set(&ids)], ..outlook(601) };
            should_poll(&view, &Timing::LAN)
        });
        prop_assert!(first.count() == 1);
    }
}
