//! A site that was removed: its jobs come back or say what is the matter, those that came from it are forgotten like any
//! other, and nothing new begins with it.

use fleet_core::Timestamp;
use fleet_replication::command::{Action, Moving, Outcome, Refusal};
use fleet_store::record::{JobState, Reason, Sweep};
use fleet_store::state::tables::{ARRIVALS, CANCELS, ORIGINS, OUTBOX, REPORTS};
use fleet_store::state::{moves, sites};
use fleet_store::{StateRead, Store};

use crate::moves_world::World;
use crate::test_site::check_consistency;

fn world() -> World {
    World::new(Store::in_memory().unwrap(), 1)
}

/// Tells `site` that `removed` was removed, until nothing of it is left; how many commands that took.
fn expel(world: &mut World, site: usize, removed: usize) -> usize {
    let removed = world.sites[removed].clone();
    for round in 1..1_000 {
        match world.must(site, Action::ExpelSite(removed.clone())) {
            Outcome::Forgotten { more: true, .. } => {}
            Outcome::Forgotten { .. } | Outcome::Unchanged => return round,
            other => panic!("{other:?}"),
        }
    }
    panic!("it does not end")
}

#[test]
fn jobs_that_a_removed_site_had_not_accepted_come_back_and_the_others_say_what_is_the_matter() {
    let mut world = world();
    let (waits, runs, ended) = (world.submit_to(0, 1, 1), world.submit_to(0, 2, 1), world.submit_to(0, 3, 1));
    let (to_end, elsewhere) = (world.submit_to(0, 4, 1), world.submit_to(0, 5, 2));
    let moves = world.outgoing(0, 1);
    moves[1..].iter().for_each(|message| world.deliver(1, message.clone()));
    world.assign(1, runs);
    world.assign(1, ended);
    world.finish(1, ended);
    let answers = std::mem::take(&mut world.in_flight)
        .into_iter()
        .chain(world.outgoing(1, 0).into_iter().map(|message| (0, message)));
    answers.for_each(|(to, message)| world.deliver(to, message));
    world.cancel(0, to_end);
    assert_eq!(world.seen(0, waits), Some(JobState::Transferring));
    assert!(world.moved(0, runs).unwrap().mirror.is_some(), "its acceptance is known");

    expel(&mut world, 0, 1);
    let back = world.job(0, waits).unwrap();
    let site = world.sites[1].site.clone();
    assert_eq!((back.state, back.reason), (JobState::Queued, Some(Reason::Abandoned { site })));
    assert_eq!(back.generation, 2, "what the removed site may still say of it counts no more");
    let mirror = world.moved(0, runs).unwrap().mirror.unwrap();
    assert!(mirror.standing.reason.contains("was removed from the fleet"), "{mirror:?}");
    assert_eq!(world.seen(0, ended), Some(JobState::Completed), "what has ended stays as it is");
    assert_eq!(world.seen(0, to_end), Some(JobState::Cancelled), "nobody is left to be asked");
    assert_eq!(world.seen(0, elsewhere), Some(JobState::Transferring), "of another site");
    world.must(0, Moving::Abandon { job: runs, generation: 1 });
    assert_eq!(world.seen(0, runs), Some(JobState::Queued), "an operator may have it run here");
    let group = world.sites[1].group;
    assert!(world.reader(0).scan(&OUTBOX, &group, None, 9).unwrap().is_empty());
    assert!(world.reader(0).scan(&CANCELS, &group, None, 9).unwrap().is_empty());
    check_consistency(&world.reader(0));
}

#[test]
fn what_came_from_a_removed_site_is_forgotten_like_any_other_once_it_has_ended() {
    let mut world = world();
    let jobs: Vec<_> = (1..=3).map(|number| world.submit_to(1, number, 0)).collect();
    world.outgoing(1, 0).into_iter().for_each(|message| world.deliver(0, message));
    for job in &jobs[..2] {
        world.assign(0, *job);
        world.finish(0, *job);
    }
    let group = world.sites[1].group;
    assert_eq!(moves::reports(&world.reader(0), group, None, 9).unwrap().len(), 2, "nobody acknowledges them");
    let long_after = || Action::Forget { before: Timestamp(u64::MAX) };
    assert_eq!(world.must(0, long_after()), Outcome::Forgotten { jobs: 0, more: false }, "its source is to be told");

    expel(&mut world, 0, 1);
    let reader = world.reader(0);
    assert!(reader.scan(&ORIGINS, &(), None, 9).unwrap().is_empty());
    assert!(reader.scan(&REPORTS, &(), None, 9).unwrap().is_empty());
    assert!(reader.scan(&ARRIVALS, &group, None, 9).unwrap().is_empty());
    assert_eq!(world.must(0, long_after()), Outcome::Forgotten { jobs: 2, more: false });
    world.assign(0, jobs[2]);
    world.finish(0, jobs[2]);
    assert_eq!(world.seen(0, jobs[2]), Some(JobState::Completed), "what runs is run to its end");
    check_consistency(&world.reader(0));
}

#[test]
fn nothing_new_begins_with_a_site_that_was_removed() {
    let mut world = world();
    let (job, _) = (world.submit(0, 1), world.submit_to(1, 2, 0));
    let late = world.outgoing(1, 0);
    expel(&mut world, 0, 1);
    let (removed, site) = (world.sites[1].clone(), world.sites[1].site.clone());
    let refusal = world.begin(0, job, 1).accepted().unwrap_err();
    assert_eq!(refusal, Refusal::SiteRemoved(site.clone()));
    late.into_iter().for_each(|message| world.deliver(0, message));
    assert!(world.reader(0).scan(&ARRIVALS, &removed.group, None, 9).unwrap().is_empty());
    assert_eq!(world.must(0, Action::ExpelSite(removed.clone())), Outcome::Unchanged, "it is over");
    let own = world.sites[0].clone();
    assert_eq!(world.refused(0, Action::ExpelSite(own.clone())), Refusal::SiteOwn(own.site));
    let known = sites::removed(&world.reader(0), removed.group).unwrap().unwrap();
    assert_eq!((known.site, known.sweep), (site, Sweep::Over));
}

#[test]
fn a_site_with_many_jobs_is_forgotten_piece_by_piece() {
    let mut world = world();
    let mut jobs = Vec::new();
    for number in 0..=255 {
        jobs.push(world.submit_to(0, number, 1));
    }
    let removed = world.sites[1].clone();
    let first = world.must(0, Action::ExpelSite(removed));
    assert!(matches!(first, Outcome::Forgotten { more: true, jobs } if jobs < 257), "{first:?}");
    let rounds = expel(&mut world, 0, 1);
    assert!(rounds > 1, "{rounds}");
    assert!(jobs.iter().all(|job| world.seen(0, *job) == Some(JobState::Queued)));
    check_consistency(&world.reader(0));
}
