//! The leader's rules, one by one.

use super::*;

const NODE: NodeId = NodeId::from_bytes([1; 16]);
const JOB: JobId = JobId::from_bytes([7; 16]);
const TERM: LeaderTerm = LeaderTerm { epoch: 1, term: 3 };

fn at(ms: u64) -> BootInstant {
    BootInstant(Duration::from_millis(ms))
}

fn session(number: u64) -> SessionId {
    SessionId { node: NODE, boot: 1, number }
}

fn pair(index: u64) -> Pair {
    Pair { job: JOB, fence: Fence::mint(1, index, 0) }
}

fn claim(index: u64, number: u64) -> Claim {
    Claim { fence: Fence::mint(1, index, 0), session: session(number), is_stopping: false, finishing: None }
}

fn beat(number: u64, sequence: u64, pairs: &[Pair]) -> Beat {
    Beat { session: session(number), sequence, term_seen: LeaderTerm::default(), pairs: pairs.to_vec() }
}

fn leader(claims: &[Claim]) -> LeaderSessions {
    LeaderSessions::new(TERM, &Timing::LAN, claims.iter().map(|claim| (JOB, *claim)))
}

/// Hears `beat` at `ms` and confirms it at once.
fn renew(leader: &mut LeaderSessions, ms: u64, beat: Beat) -> Vec<LeaderCommand> {
    let commands = leader.heard(at(ms), beat);
    let [LeaderCommand::ConfirmLeadership { round }] = commands[..] else { panic!("no round: {commands:?}") };
    leader.confirmed(at(ms), round)
}

fn is_dead(commands: &[LeaderCommand]) -> bool {
    commands.iter().any(|command| matches!(command, LeaderCommand::Answer(BeatAnswer { verdict: Verdict::Dead, .. })))
}

fn releases(commands: &[LeaderCommand]) -> Vec<ReleaseCause> {
    let causes = commands.iter().filter_map(|command| match command {
        LeaderCommand::Release { cause, .. } => Some(*cause),
        _ => None,
    });
    causes.collect()
}

#[test]
fn a_confirmation_older_than_the_heartbeat_does_not_answer_it() {
    let mut leader = leader(&[]);
    leader.takeover_known(at(0));
    let first = leader.heard(at(0), beat(1, 1, &[]));
    assert_eq!(first, vec![LeaderCommand::ConfirmLeadership { round: 1 }]);
    assert_eq!(leader.heard(at(5), beat(1, 2, &[])), vec![], "a round is under way");
    let answers = leader.confirmed(at(6), 1);
    let sequences: Vec<u64> = answers
        .iter()
        .filter_map(|command| match command {
            LeaderCommand::Answer(answer) => Some(answer.sequence),
            _ => None,
        })
        .collect();
    assert_eq!(sequences, [1]);
    assert_eq!(answers.last(), Some(&LeaderCommand::ConfirmLeadership { round: 2 }));
    assert_eq!(leader.confirmed(at(7), 1), vec![], "an old round says nothing");
}

#[test]
fn a_session_that_ran_out_is_closed_before_its_jobs_are_released_and_stays_dead() {
    let mut leader = leader(&[]);
    leader.takeover_known(at(0));
    renew(&mut leader, 3_000, beat(1, 1, &[]));
    leader.assigned(at(3_010), JOB, claim(5, 1));
    assert_eq!(leader.tick(at(4_999)), vec![]);
    let commands = leader.tick(at(5_000));
    assert_eq!(commands[0], LeaderCommand::Closed { session: session(1) });
    assert_eq!(releases(&commands), [ReleaseCause::Lost]);
    assert!(is_dead(&renew(&mut leader, 5_001, beat(1, 2, &[pair(5)]))));
    assert_eq!(releases(&leader.tick(at(5_100))), [], "proposed already");
    assert_eq!(releases(&leader.tick(at(5_400))), [ReleaseCause::Lost], "but again if it did not happen");
}

#[test]
fn nothing_is_released_for_a_lost_lease_before_the_wait_is_over() {
    let mut leader = leader(&[claim(5, 1)]);
    assert_eq!(leader.tick(at(60_000)), vec![], "nobody knows yet when the last leader renewed");
    leader.takeover_known(at(60_000));
    assert_eq!(leader.tick(at(61_999)), vec![]);
    assert_eq!(releases(&leader.tick(at(62_000))), [ReleaseCause::Lost]);
    assert!(is_dead(&renew(&mut leader, 62_001, beat(1, 9, &[]))), "its session is closed");
}

#[test]
fn a_live_session_is_taken_over_with_the_pairs_the_state_agrees_with() {
    let mut leader = leader(&[claim(5, 1)]);
    leader.takeover_known(at(0));
    let stale = Pair { job: JobId::from_bytes([8; 16]), fence: Fence::mint(1, 4, 0) };
    let commands = renew(&mut leader, 100, beat(1, 9, &[pair(5), stale]));
    let verdict = Verdict::Renewed { pairs: vec![pair(5)], settled_before: pair(5).fence };
    let answer = BeatAnswer { term: TERM, session: session(1), sequence: 9, verdict };
    assert_eq!(commands, vec![LeaderCommand::Opened { session: session(1) }, LeaderCommand::Answer(answer)]);
    assert_eq!(leader.tick(at(2_050)), vec![], "the wait is over, the session lives");
}

#[test]
fn a_session_first_heard_of_with_pairs_after_the_wait_is_refused() {
    let mut leader = leader(&[]);
    leader.takeover_known(at(0));
    assert!(is_dead(&renew(&mut leader, 2_000, beat(1, 9, &[pair(5)]))));
    assert!(!is_dead(&renew(&mut leader, 2_001, beat(2, 10, &[]))));
}

#[test]
fn a_newer_session_of_the_node_releases_at_once_an_unlisted_job_does_not() {
    let mut leader = leader(&[claim(5, 1)]);
    let commands = renew(&mut leader, 10, beat(1, 1, &[]));
    assert_eq!(releases(&commands), []);
    assert!(commands.contains(&LeaderCommand::SendAssign { session: session(1), pair: pair(5) }));
    let commands = renew(&mut leader, 20, beat(2, 2, &[]));
    assert_eq!(releases(&commands), [ReleaseCause::Superseded]);
    assert!(is_dead(&renew(&mut leader, 30, beat(1, 3, &[]))), "the older one is dead");
}

#[test]
fn a_session_older_than_the_newest_assignment_of_its_node_is_dead() {
    let mut leader = leader(&[claim(5, 4)]);
    assert!(is_dead(&renew(&mut leader, 10, beat(3, 1, &[]))));
}

#[test]
fn assignments_and_stops_are_sent_again_until_shown() {
    let mut leader = leader(&[]);
    leader.takeover_known(at(0));
    renew(&mut leader, 0, beat(1, 1, &[]));
    let assign = LeaderCommand::SendAssign { session: session(1), pair: pair(5) };
    assert_eq!(leader.assigned(at(10), JOB, claim(5, 1)), vec![assign.clone()]);
    assert!(!renew(&mut leader, 100, beat(1, 2, &[])).contains(&assign), "sent within the last interval");
    assert!(renew(&mut leader, 500, beat(1, 3, &[])).contains(&assign));
    assert!(!renew(&mut leader, 1_000, beat(1, 4, &[pair(5)])).contains(&assign), "shown as held");
    let stop = LeaderCommand::SendStop { session: session(1), pair: pair(5) };
    assert_eq!(leader.stopping(at(1_100), JOB), vec![stop.clone()]);
    assert!(renew(&mut leader, 1_600, beat(1, 5, &[pair(5)])).contains(&stop));
    assert!(renew(&mut leader, 2_100, beat(1, 6, &[])).contains(&stop), "until it is released");
    let confirmed = leader.stopped(at(2_110), session(1), pair(5));
    assert_eq!(releases(&confirmed), [ReleaseCause::Stopped]);
    leader.released(JOB);
    assert_eq!(renew(&mut leader, 2_600, beat(1, 7, &[])).len(), 1);
}

#[test]
fn reports_of_another_session_or_fence_are_void() {
    let mut leader = leader(&[]);
    leader.takeover_known(at(0));
    renew(&mut leader, 0, beat(2, 1, &[]));
    leader.assigned(at(10), JOB, claim(5, 2));
    assert_eq!(leader.gone(at(20), session(1), pair(5)), vec![]);
    assert_eq!(leader.gone(at(20), session(2), pair(4)), vec![]);
    assert_eq!(leader.stopped(at(20), session(2), pair(5)), vec![], "nobody told it to stop");
    assert_eq!(releases(&leader.gone(at(20), session(2), pair(5))), [ReleaseCause::Gone]);
}

#[test]
fn a_heartbeat_that_has_seen_a_later_leader_is_not_answered() {
    let mut leader = leader(&[]);
    let seen = Beat { term_seen: LeaderTerm { epoch: 1, term: 4 }, ..beat(1, 1, &[]) };
    assert_eq!(leader.heard(at(0), seen), vec![]);
}

const WITHIN: Duration = Duration::from_secs(60);

/// A claim on a job that may be finished cut off, its holder known to have been away for `elapsed_ms`.
fn finishing(number: u64, elapsed_ms: u64) -> Claim {
    let absence = Absence { number: 2, elapsed_ms };
    Claim { finishing: Some(Finishing { within: WITHIN, absence }), ..claim(5, number) }
}

/// A leader whose wait is over at 2,000, with that claim.
fn waiting(elapsed_ms: u64) -> LeaderSessions {
    let mut leader = leader(&[finishing(1, elapsed_ms)]);
    leader.takeover_known(at(0));
    leader
}

fn notes(commands: &[LeaderCommand]) -> Vec<Absence> {
    let notes = commands.iter().filter_map(|command| match command {
        LeaderCommand::NoteAbsence { absence, .. } => Some(*absence),
        _ => None,
    });
    notes.collect()
}

#[test]
fn an_absence_is_noted_every_twentieth_of_the_bound_and_ends_past_it_and_the_margin() {
    let mut leader = waiting(0);
    assert_eq!(leader.tick(at(1_999)), vec![], "an earlier leader may have renewed it");
    assert_eq!(leader.tick(at(2_000)), vec![]);
    assert_eq!(leader.tick(at(4_999)), vec![]);
    assert_eq!(notes(&leader.tick(at(5_000))), [Absence { number: 2, elapsed_ms: 3_000 }]);
    assert_eq!(leader.tick(at(7_999)), vec![]);
    assert_eq!(notes(&leader.tick(at(8_000))), [Absence { number: 2, elapsed_ms: 6_000 }]);
    assert_eq!(leader.absence(at(8_000), JOB), Some((Duration::from_secs(6), Duration::from_millis(54_600))));
    assert_eq!(releases(&leader.tick(at(62_599))), []);
    assert_eq!(releases(&leader.tick(at(62_600))), [ReleaseCause::Absent { number: 2 }]);
}

#[test]
fn a_new_leader_counts_on_from_what_is_committed() {
    let mut leader = waiting(50_000);
    leader.tick(at(2_000));
    assert_eq!(releases(&leader.tick(at(12_599))), []);
    assert_eq!(releases(&leader.tick(at(12_600))), [ReleaseCause::Absent { number: 2 }]);
}

#[test]
fn a_holder_that_is_back_is_bound_to_its_session_before_it_is_renewed() {
    let mut leader = waiting(0);
    leader.tick(at(5_000));
    let commands = renew(&mut leader, 6_000, beat(3, 1, &[]));
    assert!(
        releases(&commands).is_empty()
            && commands.contains(&LeaderCommand::SendAsk { session: session(3), pair: pair(5) })
    );
    let rebind = LeaderCommand::Rebind { session: session(3), pair: pair(5) };
    assert_eq!(leader.returned(at(6_010), session(2), pair(5)), vec![], "of a session that is over");
    assert_eq!(leader.returned(at(6_020), session(3), pair(5)), vec![rebind.clone()]);
    assert_eq!(leader.returned(at(6_100), session(3), pair(5)), vec![], "proposed already");
    assert_eq!(leader.returned(at(6_420), session(3), pair(5)), vec![rebind], "but again if it did not happen");
    let listing = renew(&mut leader, 6_500, beat(3, 2, &[pair(5)]));
    let renews = |commands: &[LeaderCommand]| {
        commands.iter().any(|command| match command {
            LeaderCommand::Answer(BeatAnswer { verdict: Verdict::Renewed { pairs, .. }, .. }) => !pairs.is_empty(),
            _ => false,
        })
    };
    assert!(!renews(&listing), "not before the group has bound it");
    let assign = LeaderCommand::SendAssign { session: session(3), pair: pair(5) };
    assert_eq!(leader.assigned(at(6_600), JOB, finishing(3, 0)), vec![assign]);
    assert!(renews(&renew(&mut leader, 6_700, beat(3, 3, &[pair(5)]))));
    assert_eq!(leader.absence(at(6_700), JOB), None);
}

#[test]
fn a_robot_started_again_is_asked_and_its_word_that_nothing_is_left_counts_as_a_loss() {
    let mut leader = waiting(0);
    leader.tick(at(5_000));
    let restarted = SessionId { boot: 2, ..session(1) };
    let commands = renew(&mut leader, 6_000, Beat { session: restarted, ..beat(1, 1, &[]) });
    assert!(commands.contains(&LeaderCommand::SendAsk { session: restarted, pair: pair(5) }));
    assert_eq!(releases(&commands), [], "it may have something to deliver");
    let refused = LeaderCommand::SendRefused { session: restarted, pair: pair(5) };
    assert_eq!(leader.returned(at(6_010), restarted, pair(5)), vec![refused], "it never runs on");
    assert_eq!(releases(&leader.gone(at(6_020), restarted, pair(5))), [ReleaseCause::Superseded]);
}

#[test]
fn what_is_no_claim_any_more_is_refused() {
    let mut leader = waiting(0);
    renew(&mut leader, 6_000, beat(3, 1, &[]));
    let refused = |index| vec![LeaderCommand::SendRefused { session: session(3), pair: pair(index) }];
    assert_eq!(leader.returned(at(6_010), session(3), pair(4)), refused(4));
    leader.released(JOB);
    assert_eq!(leader.returned(at(6_020), session(3), pair(5)), refused(5));
}
