//! A model check of robot sessions, reassignment, leader change and leader restart, with the real machines in a small
//! world: random walks by seed, a bounded breadth-first search, the traces that shaped the rules, and each rule taken out.
//!
//! Checked: never two robots that may act for the same job; after healing the job is held and worked on.

mod rule;
mod traces;
mod world;

use std::collections::HashSet;

use fleet_sim::{Dice, TestSize, for_each_seed};

use rule::Rule;
use world::{Step, World};

const STEPS: usize = 250;

/// A step that may come next, chosen so that interesting things are common.
fn choose(world: &World, dice: &mut Dice) -> Step {
    let (voter, robot) = (dice.below(3), dice.below(2));
    let leads = world.voters[voter].leader.is_some();
    let lead = if leads { voter } else { world.hints[0] };
    match dice.below(100) {
        0..=29 if !world.network.is_empty() => Step::Deliver(dice.below(world.network.len())),
        30..=31 if !world.network.is_empty() => Step::Repeat(dice.below(world.network.len())),
        32..=34 if !world.network.is_empty() => Step::Lose(dice.below(world.network.len())),
        35..=49 => Step::Commit(lead),
        50..=63 => Step::Confirm(lead),
        64..=67 => Step::AskTakeover(lead),
        68..=72 => Step::Dispatch(lead, robot),
        73 => Step::Drain(lead),
        74..=75 => Step::Elect(voter),
        76 => Step::RestartVoter(voter),
        77 => Step::CutVoter(voter),
        78..=79 => Step::JoinVoter(voter),
        80 if dice.chance(50) => Step::KillRobot(robot),
        81 if !world.robots[robot].is_up => Step::StartRobot(robot),
        82 if dice.chance(50) => Step::StopRobot(robot),
        83..=84 => Step::ContinueRobot(robot),
        85 => Step::Finish(robot),
        86 if dice.chance(30) => Step::Depose(voter),
        // Minutes pass where only minutes make a difference.
        _ if world.job.may_finish && dice.chance(30) => Step::Wait([20_000, 150_000, 290_000][dice.below(3)]),
        _ => Step::Wait([5, 40, 150, 400, 900][dice.below(5)]),
    }
}

/// What a walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    Nothing,
    TwoActors,
    Stuck,
}

fn walk(seed: u64, without: Option<Rule>) -> Finding {
    let mut dice = Dice::new(seed);
    let world = World::new(without, dice.chance(50) || without == Some(Rule::ClockMargin));
    walk_in(world, dice)
}

/// The same, where the job may be finished cut off.
fn walk_finishing(seed: u64, without: Option<Rule>) -> Finding {
    let mut dice = Dice::new(seed);
    walk_in(World::finishing(without, dice.chance(50)), dice)
}

fn walk_in(mut world: World, mut dice: Dice) -> Finding {
    for _ in 0..STEPS {
        let step = choose(&world, &mut dice);
        world.step(step);
        if world.actors().len() > 1 {
            return Finding::TwoActors;
        }
    }
    heal(world)
}

/// Everything works again: within 15 seconds the job must be with one robot that may act, in the claim's own session.
fn heal(mut world: World) -> Finding {
    for index in 0..3 {
        world.voters[index].is_cut = false;
    }
    for index in 0..2 {
        world.step(Step::ContinueRobot(index));
        if !world.robots[index].is_up {
            world.step(Step::StartRobot(index));
        }
    }
    for _ in 0..300 {
        while !world.network.is_empty() {
            world.step(Step::Deliver(0));
            if world.actors().len() > 1 {
                return Finding::TwoActors;
            }
        }
        for robot in 0..2 {
            let session = &world.robots[robot].session;
            if session.held().any(|pair| world.robots[robot].finished == Some(pair.fence)) {
                world.step(Step::Finish(robot));
            }
        }
        work_of_leaders(&mut world);
        world.step(Step::Wait(50));
        if world.actors().len() > 1 {
            return Finding::TwoActors;
        }
        if is_worked_on(&world) {
            return Finding::Nothing;
        }
    }
    Finding::Stuck
}

/// Whether the job is held by a robot that acts for it, under the claim of the committed state.
fn is_worked_on(world: &World) -> bool {
    world.job.claim.filter(|claim| !claim.is_stopping).is_some_and(|claim| {
        world.actors().iter().any(|robot| {
            let session = &world.robots[*robot].session;
            session.session() == Some(claim.session) && session.held().any(|pair| pair.fence == claim.fence)
        })
    })
}

fn work_of_leaders(world: &mut World) {
    let highest = world.voters.iter().map(|voter| voter.promised).max().unwrap_or_default();
    let is_led = |world: &World| {
        world.voters.iter().any(|voter| voter.leader.as_ref().is_some_and(|leader| leader.term == highest))
    };
    for index in 0..3 {
        if world.voters[index].leader.as_ref().is_some_and(|leader| leader.term < highest) {
            world.step(Step::Depose(index));
        }
        if !is_led(world) {
            world.step(Step::Elect(index));
        }
    }
    for index in 0..3 {
        let Some(leader) = &world.voters[index].leader else { continue };
        let asks = !leader.is_takeover_known;
        world.hints = [index, index];
        world.step(Step::Commit(index));
        if asks {
            world.step(Step::AskTakeover(index));
        }
        world.step(Step::Confirm(index));
        world.step(Step::Dispatch(index, 0));
        world.step(Step::Dispatch(index, 1));
    }
}

#[test]
fn random_walks_find_no_two_actors_and_nothing_stuck() {
    for_each_seed(TestSize::from_env().choose(3_000, 40_000, 2_000_000), |seed| {
        assert_eq!(walk(seed, None), Finding::Nothing);
    });
}

#[test]
fn random_walks_with_a_job_that_may_be_finished_cut_off_find_no_two_actors_and_nothing_stuck() {
    for_each_seed(TestSize::from_env().choose(3_000, 40_000, 2_000_000), |seed| {
        assert_eq!(walk_finishing(seed, None), Finding::Nothing);
    });
}

/// The first finding without `rule` among `count` walks.
fn first_finding(walk: impl Fn(u64, Option<Rule>) -> Finding, rule: Rule, count: u64) -> Option<(u64, Finding)> {
    (0..count).map(|seed| (seed, walk(seed, Some(rule)))).find(|(_, finding)| *finding != Finding::Nothing)
}

#[test]
fn each_rule_taken_out_is_caught() {
    let budget = TestSize::from_env().choose(4_000, 60_000, 600_000);
    let mut missed = Vec::new();
    let base = Rule::CAUGHT.into_iter().map(|rule| (rule, first_finding(walk, rule, budget)));
    let finishing = Rule::FINISHING_CAUGHT.into_iter().map(|rule| (rule, first_finding(walk_finishing, rule, budget)));
    for (rule, found) in base.chain(finishing) {
        match found {
            Some((seed, finding)) => println!("without {rule:?}: {finding:?} with seed {seed}"),
            None => missed.push(rule),
        }
    }
    assert!(missed.is_empty(), "taken out and not caught: {missed:?}");
}

#[test]
fn rules_that_others_cover_harm_nothing_when_taken_out() {
    let count = TestSize::from_env().choose(150, 3_000, 100_000);
    for rule in Rule::REDUNDANT {
        assert_eq!(first_finding(walk, rule, count), None, "without {rule:?}");
    }
    for rule in Rule::FINISHING_REDUNDANT {
        assert_eq!(first_finding(walk_finishing, rule, count), None, "without {rule:?}");
    }
}

#[test]
fn a_bounded_breadth_first_search_finds_no_two_actors() {
    let depth = TestSize::from_env().choose(5, 5, 6);
    let mut start = World::new(None, false);
    for step in [Step::Wait(5), Step::Deliver(0), Step::Deliver(0), Step::Confirm(0), Step::Confirm(0)] {
        start.step(step);
    }
    start.step(Step::Dispatch(0, 0));
    let mut seen = HashSet::new();
    let mut frontier = vec![start];
    for _ in 0..depth {
        let mut next = Vec::new();
        for world in &frontier {
            for step in successors(world) {
                let mut world = world.clone();
                world.step(step);
                assert!(world.actors().len() < 2, "two actors after {step:?}: {world:#?}");
                if seen.insert(fingerprint(&world)) {
                    next.push(world);
                }
            }
        }
        frontier = next;
    }
    println!("{} states to depth {depth}", seen.len());
}

fn fingerprint(world: &World) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

fn successors(world: &World) -> Vec<Step> {
    let mut steps = vec![Step::Wait(700), Step::Wait(1_400)];
    for index in 0..world.network.len().min(4) {
        steps.extend([Step::Deliver(index), Step::Repeat(index)]);
    }
    for voter in 0..3 {
        steps.push(Step::Elect(voter));
        if world.voters[voter].leader.is_some() {
            steps.extend([Step::Commit(voter), Step::Confirm(voter), Step::AskTakeover(voter), Step::Drain(voter)]);
            steps.extend([Step::RestartVoter(voter), Step::Dispatch(voter, 0), Step::Dispatch(voter, 1)]);
        }
    }
    for robot in 0..2 {
        let is_up = world.robots[robot].is_up;
        steps.push(if is_up { Step::KillRobot(robot) } else { Step::StartRobot(robot) });
    }
    steps
}
