//! A node's actors on paused time with ports made of queues: what happens when robots die, leaders change, and operators
//! interfere.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cut_off;
mod holds;
mod journal;
mod links;
mod moves;
mod poison;
mod spans;
mod support;
mod throughput;

use std::time::Duration;

use fleet_node::{JobAction, JobRequest};
use fleet_store::record::{CommandId, JobState};
use fleet_workflow::machine::event::Event;

use support::{ENDED_JOBS_KEPT, Fleet, done, id};

#[tokio::test(start_paused = true)]
async fn every_result_is_journaled_before_the_next_effect_starts() {
    let fleet = Fleet::start(1, &[1]).await;
    let job = fleet.submit(1, "call call call").await;
    for results in 0..3 {
        let run = fleet.effects.next().await;
        assert_eq!(run.path, format!("/do/{results}"));
        // The record of the beginning needs no commit of its own before the first effect.
        let needed = if results == 0 { 0 } else { results + 1 };
        assert!(run.journaled >= needed, "{} records before effect {results}", run.journaled);
        run.end.send(done()).unwrap();
    }
    fleet.log.reaches(job, JobState::Completed).await;
    assert_eq!(fleet.log.journal(job).len(), 4);
    assert_eq!(fleet.effects.begun.lock().unwrap().len(), 3);
    assert!(fleet.effects.given_up.lock().unwrap().is_empty(), "what runs on after its task may do so");
}

#[tokio::test(start_paused = true)]
async fn a_dead_robots_job_goes_on_elsewhere_after_its_lease_and_no_finished_effect_runs_again() {
    let mut fleet = Fleet::start(3, &[2, 3]).await;
    let job = fleet.submit(1, "call call").await;
    let first = fleet.effects.next().await;
    first.end.send(done()).unwrap();
    let second = fleet.effects.next().await;
    let holder = second.node;
    let killed_at = tokio::time::Instant::now();
    fleet.kill(holder.as_bytes()[0]).await;
    let again = fleet.effects.next().await;
    assert_ne!(again.node, holder);
    assert_eq!(again.path, "/do/1", "the finished effect does not run again");
    let elapsed = killed_at.elapsed();
    assert!(elapsed > Duration::from_millis(1_500) && elapsed < Duration::from_millis(2_600), "{elapsed:?}");
    // While the effect runs, and before it has anything to journal.
    fleet.log.reaches(job, JobState::Running).await;
    again.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Completed).await;
    assert_eq!(fleet.log.job(job).lost, 1);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_leader_disturbs_no_work() {
    let fleet = Fleet::start(3, &[3]).await;
    let job = fleet.submit(1, "call call").await;
    let run = fleet.effects.next().await;
    for leader in [2, 1, 2] {
        fleet.log.elect(id(leader));
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    assert!(fleet.effects.is_quiet(), "nothing was started again");
    run.end.send(done()).unwrap();
    fleet.effects.next().await.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Completed).await;
    assert_eq!(fleet.log.job(job).attempt, 1);
}

#[tokio::test(start_paused = true)]
async fn records_sent_while_the_leader_changes_are_sent_again() {
    let fleet = Fleet::start(3, &[3]).await;
    let job = fleet.submit(1, "call call").await;
    let run = fleet.effects.next().await;
    run.end.send(done()).unwrap();
    fleet.log.elect(id(2));
    fleet.effects.next().await.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Completed).await;
    assert_eq!(fleet.log.journal(job).len(), 3, "nothing is journaled twice");
}

#[tokio::test(start_paused = true)]
async fn messages_that_come_twice_change_nothing() {
    let mut fleet = Fleet::start(1, &[]).await;
    fleet.repeat_messages();
    fleet.log.found(&[id(1), id(2)]).await;
    fleet.start_node(2, 1, 2).await;
    fleet.log.elect(id(1));
    let job = fleet.submit(1, "call once call").await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        fleet.effects.next().await.end.send(done()).unwrap();
    }
    fleet.log.reaches(job, JobState::Completed).await;
    assert_eq!(fleet.effects.begun.lock().unwrap().len(), 3);
    assert_eq!(fleet.log.journal(job).len(), 5);
    assert_eq!(fleet.log.job(job).attempt, 1);
}

#[tokio::test(start_paused = true)]
async fn cancel_breaks_off_what_runs() {
    let fleet = Fleet::start(2, &[2]).await;
    let job = fleet.submit(1, "call call").await;
    let run = fleet.effects.next().await;
    let state = fleet.node(1).control(job, JobAction::Cancel).await.unwrap();
    assert_eq!(state, JobState::Stopping);
    fleet.log.reaches(job, JobState::Cancelled).await;
    assert!(run.end.is_closed(), "the effect is over before the job is");
    let given_up = fleet.effects.given_up.lock().unwrap().clone();
    assert_eq!(given_up, [(run.node, JobState::Stopping)], "and so is what ran on after its task");
    assert!(fleet.effects.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn pause_lets_the_effect_end_and_resume_goes_on_after_it() {
    let fleet = Fleet::start(2, &[2]).await;
    let job = fleet.submit(1, "call call").await;
    let run = fleet.effects.next().await;
    fleet.node(1).control(job, JobAction::Pause).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(fleet.log.job(job).state, JobState::Stopping, "the effect still runs");
    run.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Suspended).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(fleet.effects.is_quiet(), "a suspended job rests");
    let resume = CommandId(7);
    let state = fleet.node(1).control_as(resume, job, JobAction::Resume).await.unwrap();
    let second = fleet.effects.next().await;
    assert_eq!(second.path, "/do/1");
    let again = fleet.node(1).control_as(resume, job, JobAction::Resume).await;
    assert_eq!(state, JobState::Queued);
    assert!(
        again.is_ok_and(JobState::has_holder),
        "a sender that heard no answer asks again, and nothing more happens"
    );
    fleet.node(1).control(job, JobAction::Resume).await.expect_err("another resume has nothing to resume");
    second.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Completed).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_parks_and_wakes_a_short_one_keeps_the_slot() {
    let fleet = Fleet::start(1, &[1]).await;
    let job = fleet.submit(1, "wait:60000 call").await;
    fleet.log.reaches(job, JobState::Waiting).await;
    // A parked job has no slot.
    fleet.is_free(1).await;
    let run = fleet.effects.next().await;
    run.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Completed).await;
    let fired = fleet.log.journal(job).iter().filter(|event| matches!(event, Event::TimerFired { .. })).count();
    assert_eq!((fired, fleet.log.job(job).attempt), (1, 2));

    let short = fleet.submit(1, "wait:100 call").await;
    fleet.effects.next().await.end.send(done()).unwrap();
    fleet.log.reaches(short, JobState::Completed).await;
    assert_eq!(fleet.log.job(short).attempt, 1);
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_must_not_run_twice_fails_when_its_robot_dies() {
    let mut fleet = Fleet::start(3, &[2, 3]).await;
    let job = fleet.submit(1, "once").await;
    let run = fleet.effects.next().await;
    assert!(run.journaled >= 2, "its start is journaled first");
    fleet.kill(run.node.as_bytes()[0]).await;
    fleet.log.reaches(job, JobState::Failed).await;
    assert_eq!(fleet.effects.begun.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drained_node_gets_no_work_and_loses_what_it_has_at_the_deadline() {
    let fleet = Fleet::start(3, &[2, 3]).await;
    let job = fleet.submit(1, "call").await;
    let run = fleet.effects.next().await;
    let deadline = fleet_core::Clock::now(&*fleet.clock).saturating_add(Duration::from_secs(5));
    fleet.node(1).drain(run.node, Some(deadline)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!run.end.is_closed(), "until the deadline it may go on");
    let again = fleet.effects.next().await;
    assert_ne!(again.node, run.node);
    again.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Completed).await;
    assert_eq!(fleet.log.job(job).lost, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_node_hands_back_what_does_not_end_in_time() {
    let fleet = Fleet::start(3, &[2, 3]).await;
    let job = fleet.submit(1, "call").await;
    let run = fleet.effects.next().await;
    let number = run.node.as_bytes()[0];
    let left = fleet.node(number).stop(Duration::from_secs(4)).await;
    assert_eq!(left, 0);
    assert_eq!(*fleet.effects.given_up.lock().unwrap(), [(run.node, JobState::Running)], "nothing of it runs on here");
    let again = fleet.effects.next().await;
    assert_ne!(again.node, run.node);
    again.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Completed).await;
    assert_eq!(fleet.log.job(job).lost, 0, "handing back is no loss");
}

#[tokio::test(start_paused = true)]
async fn a_free_robot_gets_a_job_in_the_commit_that_accepts_it_and_an_offer_that_came_to_nothing_costs_no_slot() {
    let fleet = Fleet::start(1, &[1]).await;
    let request = Fleet::request("call");
    let first = fleet.node(1).submit(request.clone()).await.unwrap();
    fleet.effects.next().await.end.send(done()).unwrap();
    fleet.log.reaches(first, JobState::Completed).await;
    let second = fleet.submit(1, "call").await;
    assert_eq!(fleet.log.job(second).attempt, 1, "it is assigned by the time its submit is answered");
    fleet.effects.next().await.end.send(done()).unwrap();
    fleet.log.reaches(second, JobState::Completed).await;

    for _ in 0..4 {
        let same = fleet.node(1).submit(request.clone()).await.unwrap();
        assert_eq!(same, first, "a repeat is the same job");
        let other = JobRequest { priority: 20, ..request.clone() };
        let error = fleet.node(1).submit(other).await.unwrap_err();
        assert_eq!(error.kind(), fleet_core::ErrorKind::Conflict);
    }
    let jobs = [fleet.submit(1, "call").await, fleet.submit(1, "call").await, fleet.submit(1, "call").await];
    assert_eq!(jobs.map(|job| fleet.log.job(job).attempt), [1, 1, 0], "two slots are free, and the third job waits");
    for _ in jobs {
        fleet.effects.next().await.end.send(done()).unwrap();
    }
    for job in jobs {
        fleet.log.reaches(job, JobState::Completed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_ended_job_is_kept_for_as_long_as_promised_and_then_forgotten() {
    let fleet = Fleet::start(1, &[1]).await;
    let old = fleet.submit(1, "").await;
    fleet.log.reaches(old, JobState::Completed).await;
    let live = fleet.submit(1, "call").await;
    tokio::time::sleep(ENDED_JOBS_KEPT - Duration::from_secs(5)).await;
    assert_eq!(fleet.log.job(old).state, JobState::Completed);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(!fleet.log.has(old), "it is over for longer than promised");
    fleet.effects.next().await.end.send(done()).unwrap();
    fleet.log.reaches(live, JobState::Completed).await;
}

#[tokio::test(start_paused = true)]
async fn more_jobs_than_slots_all_complete_and_the_reason_says_why_one_waits() {
    let fleet = Fleet::start(1, &[1]).await;
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.push(fleet.submit(1, "call").await);
    }
    let runs = [fleet.effects.next().await, fleet.effects.next().await];
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fleet.effects.is_quiet(), "two slots, two effects");
    let reason = fleet.node(1).explain(jobs[4]).await;
    assert_eq!(reason.as_deref(), Some("every robot that fits is full"));
    for run in runs {
        run.end.send(done()).unwrap();
    }
    for _ in 0..3 {
        fleet.effects.next().await.end.send(done()).unwrap();
    }
    for job in jobs {
        fleet.log.reaches(job, JobState::Completed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_refuses_changes_and_names_the_leader() {
    let fleet = Fleet::start(2, &[1]).await;
    let job = fleet.submit(1, "call").await;
    let error = fleet.node(2).control(job, JobAction::Cancel).await.unwrap_err();
    assert_eq!(error.kind(), fleet_core::ErrorKind::NotLeader);
    assert!(matches!(error, fleet_node::Error::NotLeader { leader: Some(leader), .. } if leader == id(1)));
}

#[tokio::test(start_paused = true)]
async fn a_job_goes_only_to_a_robot_that_has_its_version_of_the_interpreter() {
    let mut fleet = Fleet::start(3, &[2]).await;
    let job = fleet.submit_for_interpreter(1, "call", 2).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(fleet.effects.is_quiet(), "a robot that names no version has the first");
    let reason = fleet.node(1).explain(job).await.unwrap();
    assert!(reason.starts_with("no robot has version 2 of the interpreter"), "{reason}");
    fleet.log.found(&[id(1), id(4)]).await;
    fleet.start_node_with(4, 1, 2, &["http", "interpreter:2"]).await;
    fleet.log.elect(id(1));
    let run = fleet.effects.next().await;
    assert_eq!(run.node, id(4));
    run.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Completed).await;
}

#[tokio::test(start_paused = true)]
async fn an_effect_that_must_not_run_twice_is_not_lost_by_a_pause_before_it_begins() {
    let fleet = Fleet::start(2, &[2]).await;
    *fleet.log.held_back.lock().unwrap() = Some("effectStarted".to_owned());
    let job = fleet.submit(1, "once call").await;
    let is_journaled = |event: &Event| matches!(event, Event::EffectStarted { .. });
    while !fleet.log.journal(job).iter().any(is_journaled) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    fleet.node(1).control(job, JobAction::Pause).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(fleet.effects.is_quiet(), "its start is not known to be committed");
    *fleet.log.held_back.lock().unwrap() = None;
    fleet.effects.next().await.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Suspended).await;
    fleet.node(1).control(job, JobAction::Resume).await.unwrap();
    fleet.effects.next().await.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Completed).await;
}

#[tokio::test(start_paused = true)]
async fn a_stalled_group_is_asked_once_to_stop_what_is_drained_late() {
    let fleet = Fleet::start(2, &[2]).await;
    let job = fleet.submit(1, "call").await;
    let run = fleet.effects.next().await;
    let deadline = fleet_core::Clock::now(&*fleet.clock).saturating_add(Duration::from_millis(200));
    fleet.node(1).drain(run.node, Some(deadline)).await.unwrap();
    fleet.log.stalls.store(true, std::sync::atomic::Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert_eq!(fleet.log.stops_proposed.load(std::sync::atomic::Ordering::Relaxed), 1);
    fleet.log.stalls.store(false, std::sync::atomic::Ordering::Relaxed);
    fleet.log.reaches(job, JobState::Queued).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopping_node_gives_back_what_it_waits_for() {
    let mut fleet = Fleet::start(1, &[]).await;
    fleet.lose_definitions();
    fleet.log.found(&[id(1), id(2), id(3)]).await;
    fleet.start_node(2, 1, 2).await;
    fleet.log.elect(id(1));
    let job = fleet.submit(1, "call").await;
    while fleet.node(2).observe().await.robot.is_none_or(|robot| robot.jobs == 0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(fleet.effects.is_quiet(), "its definition never comes");
    assert_eq!(fleet.node(2).stop(Duration::from_secs(2)).await, 0, "nothing is left");
    fleet.find_definitions();
    fleet.start_node(3, 1, 2).await;
    fleet.log.elect(id(1));
    fleet.effects.next().await.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Completed).await;
    assert_eq!(fleet.log.job(job).lost, 0, "giving back is no loss");
}
