//! The traces that shaped the rules, played step by step: without the rule two robots act for the job, with it never.

use crate::rule::Rule;
use crate::world::{Message, Step, World};

/// Plays `trace` with and without `rule`.
fn shows_need_of(rule: Rule, has_drift: bool, trace: fn(&mut Play)) {
    shows_need_in(World::new, rule, has_drift, trace);
}

/// The same in the world that `world` makes.
fn shows_need_in(world: fn(Option<Rule>, bool) -> World, rule: Rule, has_drift: bool, trace: fn(&mut Play)) {
    for (without, expected) in [(None, 1), (Some(rule), 2)] {
        let mut play = Play { world: world(without, has_drift), actors_max: 0 };
        trace(&mut play);
        assert_eq!(play.actors_max, expected, "most robots that acted at once without {without:?}");
    }
}

/// A world being played.
struct Play {
    world: World,
    actors_max: usize,
}

impl Play {
    fn step(&mut self, step: Step) {
        self.world.step(step);
        self.actors_max = self.actors_max.max(self.world.actors().len());
    }

    fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(*step);
        }
    }

    /// Takes the first message that `wanted` wants off the network.
    fn take(&mut self, wanted: impl Fn(&Message) -> bool) -> Message {
        let index = self.world.network.iter().position(wanted).expect("such a message is under way");
        self.world.network.remove(index)
    }

    /// Delivers every message except those that `lost` names.
    fn deliver_all(&mut self, lost: impl Fn(&Message) -> bool) {
        while !self.world.network.is_empty() {
            let is_lost = lost(&self.world.network[0]);
            self.step(if is_lost { Step::Lose(0) } else { Step::Deliver(0) });
        }
    }

    /// `ms` pass in steps of 100, every message arriving except those that `lost` names; robots turn to `hints`.
    fn pass(&mut self, ms: u64, hints: [usize; 2], lost: impl Fn(&Message) -> bool) {
        for _ in 0..ms / 100 {
            self.world.hints = hints;
            self.step(Step::Wait(100));
            self.exchange(&lost);
        }
    }

    /// Heartbeats, confirmations and answers, all at once.
    fn exchange(&mut self, lost: impl Fn(&Message) -> bool) {
        for _ in 0..3 {
            self.deliver_all(&lost);
            for voter in 0..3 {
                self.step(Step::Confirm(voter));
            }
        }
        self.deliver_all(&lost);
    }

    /// Both robots have sessions with leader 0, whose wait is over, and robot 0 acts for the job.
    fn robot_0_acts(&mut self) {
        self.pass(2_600, [0, 0], |_| false);
        self.steps(&[Step::Dispatch(0, 0), Step::Commit(0)]);
        self.exchange(|_| false);
        assert_eq!(self.world.actors(), [0]);
    }

    /// `leader` assigns the job to robot 1 if it believes that it may, and the assignment arrives.
    fn assign_to_robot_1(&mut self, leader: usize) {
        self.steps(&[Step::Commit(leader), Step::Dispatch(leader, 1), Step::Commit(leader)]);
        self.deliver_all(|_| false);
    }
}

fn is_of_robot_0(message: &Message) -> bool {
    match message {
        Message::Beat { beat, .. } => beat.session.node.as_bytes()[0] == 1,
        Message::Stopped { session, .. }
        | Message::Gone { session, .. }
        | Message::Returned { session, .. }
        | Message::Finished { session, .. } => session.node.as_bytes()[0] == 1,
        Message::Answer { to, .. }
        | Message::Assign { to, .. }
        | Message::Stop { to, .. }
        | Message::Ask { to, .. }
        | Message::Refused { to, .. }
        | Message::Over { to, .. } => *to == 0,
    }
}

/// Assigns the job to robot 0, and stops it before the assignment arrives. Returns the assignment.
fn stop_overtakes(play: &mut Play) -> Message {
    play.pass(2_600, [0, 0], |_| false);
    play.steps(&[Step::Dispatch(0, 0), Step::Commit(0)]);
    let assign = play.take(|message| matches!(message, Message::Assign { .. }));
    play.steps(&[Step::Drain(0), Step::Commit(0)]);
    play.deliver_all(|_| false);
    play.assign_to_robot_1(0);
    assert_eq!(play.world.actors(), [1]);
    assign
}

#[test]
fn a_stop_overtakes_its_assignment() {
    shows_need_of(Rule::RobotRemembers, false, |play| {
        let assign = stop_overtakes(play);
        play.world.network.push(assign);
        play.step(Step::Deliver(0));
    });
}

/// Leader 0 is cut off from the voters with robot 0; leader 1 is elected and robot 1 turns to it.
fn leader_0_is_cut_off(play: &mut Play) {
    play.robot_0_acts();
    play.steps(&[Step::CutVoter(0), Step::Elect(1), Step::Commit(1), Step::AskTakeover(1)]);
    for _ in 0..30 {
        play.pass(100, [0, 1], |_| false);
        play.assign_to_robot_1(1);
    }
}

#[test]
fn a_deposed_leader_goes_on_renewing() {
    shows_need_of(Rule::QuorumConfirms, false, leader_0_is_cut_off);
}

#[test]
fn a_deposed_leader_counts_a_confirmation_older_than_the_heartbeat() {
    shows_need_of(Rule::FreshConfirmation, false, leader_0_is_cut_off);
}

#[test]
fn a_robots_clock_is_slow() {
    shows_need_of(Rule::ClockMargin, true, |play| {
        play.steps(&[Step::Elect(1), Step::Commit(1), Step::AskTakeover(1)]);
        play.pass(2_600, [1, 1], |_| false);
        play.steps(&[Step::Dispatch(1, 0), Step::Commit(1)]);
        play.pass(400, [1, 1], |_| false);
        // Robot 0 is heard no more; leader 1 releases the job as soon as its own, fast clock allows.
        for _ in 0..1_000 {
            play.step(Step::Wait(2));
            play.exchange(is_of_robot_0);
            play.assign_to_robot_1(1);
        }
    });
}

#[test]
fn a_deposed_leaders_release_commits_after_another_leader_served() {
    shows_need_of(Rule::OwnFirstEntry, false, |play| {
        play.robot_0_acts();
        play.steps(&[Step::CutVoter(0), Step::Elect(1)]);
        play.pass(2_500, [1, 1], |_| false);
        play.steps(&[Step::JoinVoter(0), Step::Elect(0), Step::Commit(0)]);
        play.pass(500, [0, 0], is_of_robot_0);
        play.assign_to_robot_1(0);
    });
}

#[test]
fn a_leader_resumes_in_its_old_term_and_forgets_what_it_renewed() {
    shows_need_of(Rule::ResumedLeaderCounts, false, |play| {
        play.world.step(Step::CutVoter(2));
        play.robot_0_acts();
        play.steps(&[Step::JoinVoter(2), Step::CutVoter(1), Step::RestartVoter(0)]);
        play.steps(&[Step::Commit(0), Step::AskTakeover(0)]);
        play.pass(500, [0, 0], is_of_robot_0);
        play.assign_to_robot_1(0);
    });
}

#[test]
fn a_voter_forgets_by_a_restart_what_it_heard() {
    shows_need_of(Rule::RestartedVoterCounts, false, |play| {
        play.world.step(Step::CutVoter(2));
        play.robot_0_acts();
        play.steps(&[Step::JoinVoter(2), Step::CutVoter(0), Step::RestartVoter(1)]);
        play.world.voters[2].known = play.world.committed.len();
        play.steps(&[Step::Elect(2), Step::Commit(2), Step::AskTakeover(2)]);
        play.pass(500, [2, 2], is_of_robot_0);
        play.assign_to_robot_1(2);
    });
}

/// `seconds` pass in steps of five, nothing of robot 0 arriving, and `leader` commits what it has to say.
fn robot_0_is_away(play: &mut Play, leader: usize, seconds: u64) {
    for _ in 0..seconds / 5 {
        play.step(Step::Wait(5_000));
        play.exchange(is_of_robot_0);
        play.step(Step::Commit(leader));
    }
}

#[test]
fn a_robots_clock_is_slow_while_it_finishes_cut_off() {
    shows_need_in(World::finishing, Rule::AbsenceMargin, true, |play| {
        play.steps(&[Step::Elect(1), Step::Commit(1), Step::AskTakeover(1)]);
        play.pass(2_600, [1, 1], |_| false);
        play.steps(&[Step::Dispatch(1, 0), Step::Commit(1)]);
        play.pass(400, [1, 1], |_| false);
        // The leader begins to count as soon as it can.
        play.pass(2_600, [1, 1], is_of_robot_0);
        robot_0_is_away(play, 1, 590);
        for _ in 0..300 {
            play.step(Step::Wait(100));
            play.exchange(is_of_robot_0);
            play.assign_to_robot_1(1);
        }
        assert_eq!(play.world.actors(), [1], "it goes on in the end");
    });
}

#[test]
fn a_robot_that_was_back_is_cut_off_again() {
    shows_need_in(World::finishing, Rule::ReturnBeginsAnew, false, |play| {
        play.robot_0_acts();
        robot_0_is_away(play, 0, 400);
        for _ in 0..10 {
            play.step(Step::Wait(400));
            play.exchange(|_| false);
            play.step(Step::Commit(0));
        }
        assert_eq!(play.world.actors(), [0]);
        robot_0_is_away(play, 0, 300);
        play.assign_to_robot_1(0);
    });
}

/// Whether the job is with robot 1 after robot 0 was away for twenty minutes under a leader that changes every five.
fn goes_on_under_changing_leaders(without: Option<Rule>) -> bool {
    let mut play = Play { world: World::finishing(without, false), actors_max: 0 };
    play.robot_0_acts();
    for leader in [1, 0, 1, 0] {
        play.steps(&[Step::Elect(leader), Step::Commit(leader), Step::AskTakeover(leader)]);
        robot_0_is_away(&mut play, leader, 300);
        play.assign_to_robot_1(leader);
    }
    play.actors_max == 1 && play.world.actors() == [1]
}

#[test]
fn a_job_cut_off_is_not_waited_on_for_ever_because_leaders_change() {
    assert!(goes_on_under_changing_leaders(None));
    assert!(!goes_on_under_changing_leaders(Some(Rule::CountsOn)));
}
