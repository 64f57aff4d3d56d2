//! The ring between sites, three nodes of each: what it costs, and how soon a healed cut is forgotten.

use std::time::Duration;

use fleet_membership::swim::Input;
use fleet_membership::{MemberState, Metadata};

use crate::world::{World, id};

/// What gossip between sites may cost one node, bytes a second on the wire, in sending; what it receives is as much.
const BYTES_PER_SECOND_MAX: f64 = 2_000.0;

/// What it may cost the one node that sends most, in the minute in which a whole site is lost.
const BYTES_PER_SECOND_CUT_MAX: f64 = 2_500.0;

const fn seconds(value: u64) -> Duration {
    Duration::from_secs(value)
}

/// Bytes a second that each node sends while `time` passes; the mean and the most.
fn rates(world: &mut World, time: Duration) -> (f64, f64) {
    let before = world.bytes_sent.clone();
    world.run(time);
    let sent = world.bytes_sent.iter().zip(before).map(|(after, before)| (after - before) as f64 / time.as_secs_f64());
    let sent: Vec<_> = sent.collect();
    (sent.iter().sum::<f64>() / sent.len() as f64, sent.iter().copied().fold(0.0, f64::max))
}

#[test]
fn ten_sites_of_five_cost_each_node_less_than_two_kilobytes_a_second() {
    // Of five nodes of a site three gossip with others.
    for seed in 0..if crate::large() == 300 { 5 } else { 1 } {
        let mut world = World::met_between_sites(30, seed);
        world.run(seconds(30));
        let (mean, most) = rates(&mut world, seconds(120));
        println!("ten sites at rest, seed {seed}: {mean:.0} B/s a node, at most {most:.0}");
        assert!(most <= BYTES_PER_SECOND_MAX, "{most}");
        // A site is cut off: the others suspect it, and it them, and then both call each other.
        world.partition(|number| u8::from(number < 3));
        let (mean, most) = rates(&mut world, seconds(60));
        println!("one of ten sites cut off, seed {seed}: {mean:.0} B/s a node, at most {most:.0}");
        assert!(mean <= BYTES_PER_SECOND_MAX && most <= BYTES_PER_SECOND_CUT_MAX, "{mean}, at most {most}");
    }
}

#[test]
fn two_sites_know_each_other_again_within_five_seconds_of_a_cut() {
    let mut worst = Duration::ZERO;
    for seed in 0..40 {
        let mut world = World::met_between_sites(6, seed);
        world.run(seconds(5) + Duration::from_millis(seed * 53));
        world.partition(|number| u8::from(number < 3));
        world.run(seconds(15));
        let gave_up = (0..6).all(|number| world.view(number).active().count() == 3);
        assert!(gave_up, "seed {seed}: the sides give each other up");
        world.partition(|_| 0);
        worst = worst.max(world.until("all know all", seconds(5), World::all_know_all));
    }
    println!("heal of two sites after 15 s: at worst {worst:?}");
}

#[test]
fn sites_of_one_node_know_each_other_again_too() {
    for seed in 0..20 {
        let mut world = World::met_between_sites(2, seed);
        world.partition(|number| u8::try_from(number).unwrap());
        world.run(seconds(15));
        assert!((0..2).all(|number| world.view(number).active().count() == 1), "seed {seed}");
        world.partition(|_| 0);
        world.until("they know each other", seconds(5), World::all_know_all);
    }
}

#[test]
fn a_link_that_is_back_is_used_at_once() {
    let mut times = Vec::new();
    for seed in 0..20 {
        let mut world = World::met_between_sites(6, seed);
        world.partition(|number| u8::from(number < 3));
        world.run(seconds(30));
        world.partition(|_| 0);
        for number in 0..6 {
            world.input(number, Input::CallDown);
        }
        times.push(world.until("all know all", Duration::from_secs(2), World::all_know_all));
    }
    times.sort();
    println!("heal with a call: median {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1]);
}

#[test]
fn nobody_is_falsely_down_between_sites_and_a_death_is_known() {
    let mut world = World::met_between_sites(12, 4);
    world.loss = 0.02;
    world.run(seconds(600));
    assert_eq!(world.false_downs(), [""; 0]);
    world.kill(5);
    world.until("the death is known", seconds(20), |world| world.all_see(5, MemberState::Down));
}

#[test]
fn what_a_node_says_anew_reaches_the_other_sites() {
    let mut world = World::met_between_sites(12, 9);
    world.run(seconds(30));
    let moved = Metadata { name: "node-0".into(), grpc_address: "10.9.9.9:7000".into(), ..Metadata::default() };
    world.input(0, Input::Publish(Box::new(moved)));
    world.until("the new address is known", seconds(5), |world| {
        let address =
            |observer| world.view(observer).get(id(0)).unwrap().metadata.as_ref().unwrap().grpc_address.clone();
        world.running().all(|observer| address(observer) == "10.9.9.9:7000")
    });
}
