//! The robot's rules, one by one.

use super::*;

const NODE: NodeId = NodeId::from_bytes([1; 16]);
const JOB: JobId = JobId::from_bytes([7; 16]);
const TERM: LeaderTerm = LeaderTerm { epoch: 1, term: 1 };

fn at(ms: u64) -> BootInstant {
    BootInstant(Duration::from_millis(ms))
}

fn pair(index: u64) -> Pair {
    Pair { job: JOB, fence: Fence::mint(1, index, 0) }
}

fn robot() -> RobotSession {
    RobotSession::new(NODE, 1, &Timing::LAN, at(0))
}

fn beat_of(commands: &[RobotCommand]) -> Beat {
    let mut beats = commands.iter().filter_map(|command| match command {
        RobotCommand::SendBeat(beat) => Some(beat.clone()),
        _ => None,
    });
    beats.next_back().expect("a heartbeat was commanded")
}

fn renewed(beat: &Beat, pairs: &[Pair]) -> BeatAnswer {
    let verdict = Verdict::Renewed { pairs: pairs.to_vec(), settled_before: Fence::default() };
    BeatAnswer { term: TERM, session: beat.session, sequence: beat.sequence, verdict }
}

/// A robot whose session was opened at 0 and answered at 10.
fn opened() -> (RobotSession, SessionId) {
    let mut robot = robot();
    let beat = beat_of(&robot.tick(at(0)));
    robot.answered(at(10), renewed(&beat, &[]));
    (robot, beat.session)
}

#[test]
fn an_opening_counts_from_its_first_sending_and_never_lives_again() {
    let mut robot = robot();
    robot.tick(at(0));
    let second = beat_of(&robot.tick(at(400)));
    robot.answered(at(500), renewed(&second, &[]));
    assert_eq!(robot.lease_until(), Some(at(1_980)), "from the first sending, not from the one answered");

    let mut silent = self::robot();
    let first = beat_of(&silent.tick(at(0)));
    let next = beat_of(&silent.tick(at(1_980)));
    assert!(next.session.is_newer_than(&first.session));
    silent.answered(at(1_990), renewed(&first, &[]));
    assert_eq!(silent.lease_until(), None);
}

#[test]
fn the_lease_counts_from_the_sending_of_the_answered_heartbeat() {
    let (mut robot, _) = opened();
    let beat = beat_of(&robot.tick(at(400)));
    robot.answered(at(900), renewed(&beat, &[]));
    assert_eq!(robot.lease_until(), Some(at(2_380)));
}

#[test]
fn work_is_started_once_and_what_was_ended_is_answered_gone() {
    let (mut robot, session) = opened();
    assert_eq!(robot.assigned(at(20), TERM, session, pair(5), None), vec![RobotCommand::Start(pair(5))]);
    assert!(robot.may_act(at(30), pair(5)));
    assert_eq!(robot.assigned(at(30), TERM, session, pair(5), None), vec![]);
    robot.ended(at(40), pair(5), EndKind::Finished);
    let gone = RobotCommand::SendGone { session, pair: pair(5) };
    assert_eq!(robot.assigned(at(50), TERM, session, pair(5), None), vec![gone]);
    assert_eq!(robot.assigned(at(60), TERM, session, pair(6), None), vec![RobotCommand::Start(pair(6))]);
}

#[test]
fn a_stop_that_overtakes_its_assignment_is_remembered() {
    let (mut robot, session) = opened();
    let stopped = RobotCommand::SendStopped { session, pair: pair(5) };
    assert_eq!(robot.stop(at(20), TERM, session, pair(5)), vec![stopped]);
    let gone = RobotCommand::SendGone { session, pair: pair(5) };
    assert_eq!(robot.assigned(at(30), TERM, session, pair(5), None), vec![gone]);
}

#[test]
fn what_is_settled_is_refused_without_being_remembered() {
    let (mut robot, session) = opened();
    robot.assigned(at(20), TERM, session, pair(5), None);
    robot.ended(at(30), pair(5), EndKind::Finished);
    let beat = beat_of(&robot.tick(at(400)));
    let verdict = Verdict::Renewed { pairs: vec![], settled_before: pair(6).fence };
    robot.answered(at(410), BeatAnswer { term: TERM, session, sequence: beat.sequence, verdict });
    assert!(robot.done.is_empty(), "the memory is bounded by what is not settled");
    let gone = RobotCommand::SendGone { session, pair: pair(5) };
    assert_eq!(robot.assigned(at(420), TERM, session, pair(5), None), vec![gone]);
}

#[test]
fn a_pair_ends_for_not_being_named_only_if_that_heartbeat_listed_it() {
    let (mut robot, session) = opened();
    let empty = beat_of(&robot.tick(at(400)));
    robot.assigned(at(410), TERM, session, pair(5), None);
    assert_eq!(robot.answered(at(420), renewed(&empty, &[])), vec![]);
    let listing = beat_of(&robot.tick(at(800)));
    assert_eq!(robot.answered(at(810), renewed(&listing, &[])), vec![RobotCommand::Abort(pair(5))]);
    assert!(!robot.may_act(at(811), pair(5)));
}

#[test]
fn a_session_that_ran_out_ends_everything_and_the_next_waits_for_its_end() {
    let (mut robot, session) = opened();
    robot.assigned(at(20), TERM, session, pair(5), None);
    assert!(!robot.may_act(at(1_980), pair(5)));
    assert_eq!(robot.tick(at(1_980)), vec![RobotCommand::Abort(pair(5))]);
    assert_eq!(robot.tick(at(2_500)), vec![], "the next session waits until nothing runs");
    let commands = robot.ended(at(2_600), pair(5), EndKind::Stopped);
    let next = beat_of(&commands);
    assert!(next.session.is_newer_than(&session) && next.pairs.is_empty());
    assert_eq!(commands.len(), 1, "a dead session confirms nothing");
    assert_eq!(robot.assigned(at(2_610), TERM, session, pair(9), None), vec![], "its messages are void");
}

#[test]
fn an_earlier_leader_is_not_heard() {
    let (mut robot, session) = opened();
    let beat = beat_of(&robot.tick(at(400)));
    let later = LeaderTerm { epoch: 1, term: 4 };
    robot.answered(at(410), BeatAnswer { term: later, ..renewed(&beat, &[]) });
    assert_eq!(robot.assigned(at(420), TERM, session, pair(5), None), vec![]);
    assert_eq!(robot.assigned(at(430), later, session, pair(5), None), vec![RobotCommand::Start(pair(5))]);
}

#[test]
fn a_new_boot_waits_for_the_guards_of_the_last() {
    let mut robot = RobotSession::new(NODE, 2, &Timing::LAN, at(2_000));
    assert_eq!(robot.tick(at(0)), vec![]);
    robot.guards_gone(at(100));
    assert_eq!(beat_of(&robot.tick(at(100))).session.boot, 2);
}

#[test]
fn work_handed_back_is_answered_gone() {
    let (mut robot, session) = opened();
    robot.assigned(at(20), TERM, session, pair(5), None);
    let gone = RobotCommand::SendGone { session, pair: pair(5) };
    assert_eq!(robot.ended(at(30), pair(5), EndKind::HandedBack), vec![gone]);
}

#[test]
fn robots_send_when_all_do_unless_they_just_did() {
    let mut robot = robot();
    robot.tick(at(0));
    let has_beat = |commands: &[RobotCommand]| commands.iter().any(|c| matches!(c, RobotCommand::SendBeat(_)));
    assert!(!has_beat(&robot.meet(at(50))), "it just did");
    assert!(has_beat(&robot.meet(at(100))));
    assert!(!has_beat(&robot.tick(at(499))));
    assert!(has_beat(&robot.meet(at(500))));
    assert!(has_beat(&robot.tick(at(900))), "nobody else is needed for it");
}

const WITHIN: Duration = Duration::from_secs(60);

/// A robot that got a job which it may finish cut off, and whose session ran out at 1,980.
fn cut_off() -> (RobotSession, SessionId) {
    let (mut robot, session) = opened();
    assert_eq!(robot.assigned(at(20), TERM, session, pair(5), Some(WITHIN)), vec![RobotCommand::Start(pair(5))]);
    let commands = robot.tick(at(1_980));
    assert_eq!(commands[0], RobotCommand::RunOn(pair(5)));
    let next = beat_of(&commands);
    assert!(next.session.is_newer_than(&session) && next.pairs.is_empty(), "the next session opens, and is empty");
    (robot, next.session)
}

#[test]
fn a_job_cut_off_goes_on_for_its_bound_from_the_last_confirmed_heartbeat() {
    let (mut robot, _) = cut_off();
    assert!(robot.may_act(at(59_999), pair(5)));
    assert!(!robot.may_act(at(60_000), pair(5)), "from the sending at 0, not from the end of the lease");
    assert!(robot.tick(at(60_000)).contains(&RobotCommand::Abort(pair(5))));
    robot.ended(at(60_010), pair(5), EndKind::Stopped);
    assert_eq!(robot.held().count(), 0);
}

#[test]
fn what_is_back_is_told_until_it_is_bound_to_the_session_and_has_its_bound_anew() {
    let (mut robot, session) = cut_off();
    let beat = beat_of(&robot.tick(at(10_000)));
    let returned = |session| RobotCommand::SendReturned { session, pair: pair(5) };
    let told = robot.answered(at(10_010), renewed(&beat, &[]));
    assert_eq!((beat.session.is_newer_than(&session), told), (true, vec![returned(beat.session)]));
    assert!(robot.tick(at(10_420)).contains(&returned(beat.session)), "until somebody obeys");
    let bound = robot.assigned(at(10_500), TERM, beat.session, pair(5), Some(WITHIN));
    assert_eq!(bound, vec![RobotCommand::Rejoin(pair(5))], "it is not begun again");
    assert_eq!(beat_of(&robot.tick(at(10_900))).pairs, [pair(5)]);
    assert_eq!(robot.acts_until(pair(5)), at(70_000), "from the sending at 10,000");
}

#[test]
fn a_stop_reaches_what_is_back() {
    let (mut robot, _) = cut_off();
    let beat = beat_of(&robot.tick(at(10_000)));
    robot.answered(at(10_010), renewed(&beat, &[]));
    let commands = robot.stop(at(10_020), TERM, beat.session, pair(5));
    assert_eq!(commands, vec![RobotCommand::Rejoin(pair(5)), RobotCommand::Stop(pair(5))]);
    let stopped = RobotCommand::SendStopped { session: beat.session, pair: pair(5) };
    assert_eq!(robot.ended(at(10_030), pair(5), EndKind::Stopped), vec![stopped]);
}

#[test]
fn a_question_is_answered_gone_only_once_nothing_of_the_job_is_left() {
    let (mut robot, _) = cut_off();
    let beat = beat_of(&robot.tick(at(10_000)));
    robot.answered(at(10_010), renewed(&beat, &[]));
    assert_eq!(robot.asked(at(10_020), TERM, beat.session, pair(5), false), vec![], "it runs");
    robot.ended(at(10_030), pair(5), EndKind::HandedBack);
    assert_eq!(robot.asked(at(10_040), TERM, beat.session, pair(5), true), vec![], "it is still to be delivered");
    let gone = RobotCommand::SendGone { session: beat.session, pair: pair(5) };
    assert_eq!(robot.asked(at(10_050), TERM, beat.session, pair(5), false), vec![gone.clone()]);
    assert_eq!(robot.assigned(at(10_060), TERM, beat.session, pair(5), Some(WITHIN)), vec![gone], "and never again");
}

#[test]
fn a_bound_shorter_than_the_lease_takes_nothing_of_the_lease() {
    let (mut robot, session) = opened();
    robot.assigned(at(20), TERM, session, pair(5), Some(Duration::from_secs(1)));
    assert!(robot.may_act(at(1_979), pair(5)));
    let commands = robot.tick(at(1_980));
    assert!(commands.contains(&RobotCommand::RunOn(pair(5))) && !robot.may_act(at(1_980), pair(5)));
}
