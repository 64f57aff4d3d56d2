//! Membership in simulated fleets of up to 300 nodes: what every member must learn, and how soon.

#![expect(clippy::unwrap_used, reason = "a test may")]

use std::time::Duration;

use fleet_membership::swim::Input;
use fleet_membership::{MemberState, Metadata};

use crate::world::{World, id};

mod between_sites;
mod world;

const fn seconds(value: u64) -> Duration {
    Duration::from_secs(value)
}

fn joins(count: usize, bound: Duration, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let mut world = World::new(count, seed);
        for number in 0..count {
            world.start(number, if number == 0 { &[] } else { &[0] });
        }
        let took = world.until("all know all", bound, World::all_know_all);
        println!("join {count} seed {seed}: {took:?}, {} packets", world.packets);
        assert_eq!(world.false_downs(), [""; 0]);
    }
}

#[test]
fn a_fleet_that_starts_at_once_meets() {
    joins(3, seconds(3), 0..10);
    joins(10, seconds(3), 0..10);
    joins(50, seconds(5), 0..4);
}

/// Nodes of the largest fleet: what a debug build simulates in seconds, or what is promised.
fn large() -> usize {
    if std::env::var("FLEET_TEST_SIZE").is_ok_and(|size| size == "ci" || size == "long") { 300 } else { 100 }
}

#[test]
fn a_large_fleet_meets_and_notices_a_death() {
    let mut world = World::met(large(), 1);
    println!("{} nodes met after {:?}, {} packets", large(), world.now, world.packets);
    assert!(world.now < seconds(10), "{:?}", world.now);
    assert_eq!(world.false_downs(), [""; 0]);
    world.loss = 0.01;
    world.kill(77);
    let took = world.until("the death is known", seconds(4), |world| world.all_see(77, MemberState::Down));
    println!("death known after {took:?}");
    assert_eq!(world.false_downs(), [""; 0]);
}

/// Kills one node of `count`, for each seed; the worst time until all survivors know.
fn worst_kill(count: usize, seeds: std::ops::Range<u64>, loss: f64, bound: Duration) -> Duration {
    let mut times = Vec::new();
    for seed in seeds {
        let mut world = World::met(count, seed);
        world.loss = loss;
        world.run(seconds(2) + Duration::from_millis(seed * 37));
        world.forget_false_downs();
        let victim = usize::try_from(seed).unwrap() % count;
        world.kill(victim);
        times.push(world.until("the death is known", bound, |world| world.all_see(victim, MemberState::Down)));
        assert_eq!(world.false_downs(), [""; 0]);
    }
    times.sort();
    println!("kill of {count}: median {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1]);
    times[times.len() - 1]
}

#[test]
fn a_killed_node_is_known_to_all_within_two_seconds() {
    worst_kill(3, 0..60, 0.0, seconds(2));
    worst_kill(10, 0..40, 0.0, seconds(2));
    worst_kill(50, 0..10, 0.0, seconds(2));
}

#[test]
fn a_killed_node_is_known_soon_on_a_lossy_network() {
    worst_kill(10, 0..20, 0.05, seconds(4));
}

#[test]
fn packets_fit_their_datagram() {
    let mut world = World::met(50, 7);
    world.run(seconds(12));
    assert!(world.bytes_max + fleet_membership::seal::OVERHEAD_BYTES <= 1_400, "{}", world.bytes_max);
}

#[test]
fn nobody_is_falsely_down_on_a_lossy_network() {
    for (count, loss, minutes) in [(5, 0.05, 10), (10, 0.05, 4), (30, 0.03, 1)] {
        let mut world = World::met(count, 11);
        world.loss = loss;
        world.run(seconds(60 * minutes));
        assert_eq!(world.false_downs(), [""; 0], "{count} nodes, loss {loss}");
    }
}

#[test]
fn a_partition_heals_by_itself() {
    for (seed, cut) in [(1, seconds(20)), (2, seconds(20)), (3, seconds(300))] {
        let mut world = World::met(10, seed);
        world.partition(|number| u8::from(number < 4));
        world.until("the sides give each other up", seconds(10), |world| {
            world.running().all(|number| world.view(number).active().count() == if number < 4 { 4 } else { 6 })
        });
        world.run(cut);
        world.forget_false_downs();
        world.partition(|_| 0);
        let took = world.until("all know all", seconds(15), World::all_know_all);
        println!("heal seed {seed}: {took:?}, {} false reports", world.false_downs().len());
        world.run(seconds(10));
        assert!(world.all_know_all(), "it stays healed");
    }
}

#[test]
fn a_node_cut_off_alone_comes_back() {
    let mut world = World::met(5, 5);
    world.partition(|number| u8::from(number == 3));
    world.until("all give it up", seconds(5), |world| world.all_see(3, MemberState::Down));
    world.until("it is alone", seconds(10), |world| world.view(3).active().count() == 1);
    world.run(seconds(120));
    world.partition(|_| 0);
    let took = world.until("all know all", seconds(8), World::all_know_all);
    println!("a lonely node is back after {took:?}");
}

#[test]
fn two_nodes_that_lost_each_other_meet_again() {
    let mut world = World::met(2, 5);
    // From here on neither has a seed: they must call whom they knew.
    world.kill(1);
    world.start(1, &[]);
    world.until("all know all", seconds(3), World::all_know_all);
    world.partition(|number| u8::try_from(number).unwrap());
    world.until("both are alone", seconds(5), |world| (0..2).all(|number| world.view(number).active().count() == 1));
    world.run(seconds(60));
    world.partition(|_| 0);
    world.until("they meet", seconds(3), World::all_know_all);
}

#[test]
fn a_newcomer_hears_from_everybody_soon() {
    let mut world = World::new(51, 3);
    for number in 0..50 {
        world.start(number, if number == 0 { &[] } else { &[0] });
    }
    world.until("fifty meet", seconds(10), World::all_know_all);
    world.run(seconds(15));
    world.start(50, &[0]);
    let took = world.until("all know all", seconds(3), World::all_know_all);
    println!("the newcomer knows fifty members and their metadata after {took:?}");
}

#[test]
fn a_restarted_node_is_known_in_its_new_life() {
    for (seed, pause) in [(1, Duration::from_millis(50)), (2, seconds(1)), (3, seconds(30))] {
        let mut world = World::met(10, seed);
        let before = world.swim(4).identity().incarnation;
        world.kill(4);
        world.run(pause);
        world.start(4, &[]);
        assert!(world.swim(4).identity().incarnation > before);
        let took = world.until("all know the new life", seconds(3), |world| {
            world.all_know_all()
                && world.running().all(|observer| {
                    let member = world.view(observer).get(id(4)).unwrap();
                    member.incarnation > before && member.metadata_version.incarnation > before
                })
        });
        println!("restart after {pause:?}: known after {took:?}");
    }
}

#[test]
fn all_nodes_restarted_at_once_meet_without_seeds() {
    let mut world = World::met(10, 9);
    for number in 0..10 {
        world.kill(number);
    }
    world.run(seconds(600));
    for number in 0..10 {
        world.start(number, &[]);
    }
    world.until("all know all", seconds(10), World::all_know_all);
}

#[test]
fn a_seed_that_comes_late_is_found() {
    let mut world = World::new(3, 4);
    world.start(1, &[0]);
    world.start(2, &[0]);
    world.run(seconds(20));
    assert_eq!(world.view(1).active().count(), 1);
    world.start(0, &[]);
    world.until("all know all", seconds(3), World::all_know_all);
}

#[test]
fn two_fleets_split_from_the_start_meet_by_their_seeds() {
    let mut world = World::new(6, 8);
    world.partition(|number| u8::from(number < 3));
    for number in 0..6 {
        world.start(number, &[0, 5]);
    }
    world.run(seconds(10));
    world.partition(|_| 0);
    world.until("all know all", seconds(60), World::all_know_all);
}

#[test]
fn metadata_published_again_and_again_reaches_all() {
    let mut world = World::met(20, 6);
    world.loss = 0.02;
    for round in 1..=5 {
        for number in 0..20 {
            let metadata = Metadata { name: format!("node-{number}"), slots: round, ..Metadata::default() };
            world.input(number, Input::Publish(metadata));
            world.run(Duration::from_millis(50));
        }
    }
    let took = world.until("the last round is known", seconds(15), |world| {
        world.running().all(|observer| world.view(observer).members().all(|m| m.metadata.as_ref().unwrap().slots == 5))
    });
    println!("rolling update known after {took:?}");
}

#[test]
fn a_version_that_missed_a_node_is_repeated() {
    let mut world = World::met(5, 6);
    world.run(seconds(1));
    world.partition(|number| u8::from(number == 3));
    world.input(0, Input::Publish(Metadata { name: "node-0".into(), slots: 7, ..Metadata::default() }));
    world.run(Duration::from_millis(700));
    world.partition(|_| 0);
    let has_heard = |world: &World| world.view(3).get(id(0)).unwrap().metadata.as_ref().unwrap().slots == 7;
    assert!(!has_heard(&world));
    world.until("it is heard", seconds(13), has_heard);
    assert_eq!(world.false_downs(), [""; 0], "nobody went down meanwhile, which would repeat it too");
}

#[test]
fn a_cut_shorter_than_suspicion_kills_nobody() {
    for seed in 0..20 {
        let mut world = World::met(5, seed);
        world.run(seconds(1));
        world.partition(|number| u8::from(number == 3));
        world.run(Duration::from_millis(700));
        world.partition(|_| 0);
        world.run(seconds(5));
        assert_eq!(world.false_downs(), [""; 0]);
    }
}

#[test]
fn a_large_partition_heals_soon() {
    for seed in 0..3 {
        let mut world = World::met(40, seed);
        world.partition(|number| u8::from(number % 2 == 0));
        world.run(seconds(20));
        world.forget_false_downs();
        world.partition(|_| 0);
        let took = world.until("all know all", seconds(10), World::all_know_all);
        println!("heal of 40, seed {seed}: {took:?}, {} false reports", world.false_downs().len());
    }
}

#[test]
fn a_burst_of_changes_becomes_few_versions() {
    let mut world = World::met(3, 6);
    let before = world.view(0).get(id(0)).unwrap().metadata_version.counter;
    for slots_busy in 1..=1_000 {
        let metadata = Metadata { name: "node-0".into(), slots_busy, ..Metadata::default() };
        world.input(0, Input::Publish(metadata));
        world.run(Duration::from_millis(1));
    }
    world.until("the last is known", seconds(2), |world| {
        world.running().all(|n| world.view(n).get(id(0)).unwrap().metadata.as_ref().unwrap().slots_busy == 1_000)
    });
    assert!(world.view(0).get(id(0)).unwrap().metadata_version.counter <= before + 7);
}

#[test]
fn a_goodbye_is_not_a_death() {
    let mut world = World::met(10, 3);
    world.input(2, Input::Leave);
    world.until("all know it left", seconds(1), |world| world.all_see(2, MemberState::Left));
    world.run(seconds(20));
    assert!(world.all_see(2, MemberState::Left));
    world.start(2, &[]);
    world.until("it is back", seconds(3), World::all_know_all);
}

#[test]
fn a_node_that_froze_blames_nobody_when_it_wakes() {
    for seed in 0..10 {
        let mut world = World::met(5, seed);
        world.freeze(1, seconds(5));
        world.until("the others give it up", seconds(3), |world| {
            [0, 2, 3, 4].iter().all(|observer| world.view(*observer).get(id(1)).unwrap().state == MemberState::Down)
        });
        world.run(seconds(5));
        world.until("all know all", seconds(5), World::all_know_all);
        let blamed_by_it = world.false_downs().iter().filter(|report| report.contains(": 1 sees")).count();
        assert_eq!(blamed_by_it, 0, "{:#?}", world.false_downs());
    }
}

#[test]
fn a_slow_observer_takes_its_time_and_declares_nobody_dead() {
    let mut world = World::met(5, 2);
    world.slow_down(3, Duration::from_millis(300));
    world.run(seconds(20));
    assert!(world.swim(3).suspicion_percent() >= 200, "{}", world.swim(3).suspicion_percent());
    world.run(seconds(100));
    assert_eq!(world.false_downs(), [""; 0]);
    world.slow_down(3, Duration::ZERO);
    world.run(seconds(20));
    assert_eq!(world.swim(3).suspicion_percent(), 100);
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = |seed| {
        let mut world = World::met(10, seed);
        world.loss = 0.1;
        world.kill(3);
        world.run(seconds(10));
        (world.packets, world.view(0).clone())
    };
    assert_eq!(history(5), history(5));
    assert_ne!(history(5).0, history(6).0);
}
