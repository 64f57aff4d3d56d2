//! Robots that are cut off with a job that they may finish (`onDisconnect: finish`).

use std::time::Duration;

use fleet_core::JobId;
use fleet_core::timing::Timing;
use fleet_node::{JobAction, JobRequest};
use fleet_store::record::JobState;
use fleet_workflow::machine::event::Event;

use crate::support::{Fleet, done, id};

const WITHIN: Duration = Duration::from_secs(60);

/// Submits `words` as a job that may be finished cut off.
async fn submit(fleet: &Fleet, words: &str) -> JobId {
    let mut request: JobRequest = Fleet::request(words);
    request.spec.finish_within_ms = Some(u64::try_from(WITHIN.as_millis()).unwrap());
    fleet.node(1).submit(request).await.unwrap()
}

/// The next effect is the one at `path`, on node `node`; it ends at once.
async fn ends(fleet: &Fleet, node: u8, path: &str) {
    let run = fleet.effects.next().await;
    assert_eq!((run.node, run.path.as_str()), (id(node), path));
    run.end.send(done()).unwrap();
}

fn results(fleet: &Fleet, job: JobId) -> usize {
    fleet.log.journal(job).iter().filter(|event| matches!(event, Event::EffectEnded { .. })).count()
}

#[tokio::test(start_paused = true)]
async fn a_robot_cut_off_runs_on_and_delivers_what_it_did_when_the_link_is_back() {
    let fleet = Fleet::start_severable(3, &[2, 3]).await;
    let job = submit(&fleet, "call call wait:900 once call").await;
    let run = fleet.effects.next().await;
    let holder = run.node.as_bytes()[0];
    fleet.sever(holder);
    tokio::time::sleep(Timing::LAN.robot_lease * 2).await;
    run.end.send(done()).unwrap();
    for path in ["/do/1", "/do/3"] {
        ends(&fleet, holder, path).await;
    }
    let last = fleet.effects.next().await;
    assert_eq!((results(&fleet, job), fleet.log.job(job).attempt), (0, 1), "the group hears of nothing");
    assert!(!fleet.journals[&id(holder)].own_journals().unwrap().is_empty());
    fleet.restore(holder);
    while results(&fleet, job) < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(fleet.log.job(job).absence.elapsed_ms, 0, "it is back, bound to its session");
    last.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Completed).await;
    assert_eq!(fleet.log.job(job).attempt, 1);
    assert_eq!(fleet.effects.begun.lock().unwrap().len(), 4, "nothing twice");
    fleet.is_free(holder).await;
    assert!(fleet.journals[&id(holder)].own_journals().unwrap().is_empty(), "what is delivered is forgotten");
}

#[tokio::test(start_paused = true)]
async fn every_result_of_a_job_cut_off_is_on_the_disk_before_the_next_effect_starts() {
    let fleet = Fleet::start_severable(2, &[2]).await;
    let job = submit(&fleet, "call call call call").await;
    let mut run = fleet.effects.next().await;
    fleet.sever(2);
    tokio::time::sleep(Timing::LAN.robot_lease * 2).await;
    for results in 1..4 {
        run.end.send(done()).unwrap();
        run = fleet.effects.next().await;
        let fence = fleet.log.job(job).assignment.unwrap().fence;
        let written = fleet.journals[&id(2)].own_records(job, fence, 0, 100).unwrap();
        let first = written.first().map_or(0, |(position, _)| *position as usize);
        assert_eq!(first + written.len(), results + 1, "the beginning and {results} results");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_cut_off_ends_there_and_completes_when_the_link_is_back() {
    let fleet = Fleet::start_severable(3, &[2, 3]).await;
    let job = submit(&fleet, "call call").await;
    let run = fleet.effects.next().await;
    let holder = run.node.as_bytes()[0];
    fleet.sever(holder);
    tokio::time::sleep(Timing::LAN.robot_lease * 2).await;
    run.end.send(done()).unwrap();
    ends(&fleet, holder, "/do/1").await;
    tokio::time::sleep(WITHIN / 2).await;
    fleet.restore(holder);
    fleet.log.reaches(job, JobState::Completed).await;
    assert_eq!((fleet.log.job(job).attempt, fleet.effects.begun.lock().unwrap().len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn past_the_bound_the_robot_has_stopped_the_job_goes_elsewhere_and_what_comes_late_is_evidence() {
    let fleet = Fleet::start_severable(3, &[2, 3]).await;
    let job = submit(&fleet, "call call call").await;
    let run = fleet.effects.next().await;
    let (holder, other) = if run.node == id(2) { (2, 3) } else { (3, 2) };
    fleet.sever(holder);
    let cut_at = tokio::time::Instant::now();
    tokio::time::sleep(Timing::LAN.robot_lease * 2).await;
    run.end.send(done()).unwrap();
    let second = fleet.effects.next().await;
    assert_eq!(second.node, id(holder));
    let reason = fleet.node(1).explain(job).await.unwrap();
    assert!(reason.starts_with(&format!("its robot node-{holder} was last heard ")), "{reason}");
    assert!(reason.contains("it may run on until 2023-"), "{reason}");
    // Nobody else begins before, by the leader's count, the bound and its margin are over.
    let again = fleet.effects.next().await;
    assert!(cut_at.elapsed() > WITHIN + WITHIN / 100, "{:?}", cut_at.elapsed());
    assert!(cut_at.elapsed() < WITHIN + WITHIN / 100 + 4 * Timing::LAN.robot_lease, "{:?}", cut_at.elapsed());
    assert_eq!((again.node, again.path.as_str()), (id(other), "/do/0"), "what it has not delivered runs again");
    assert!(second.end.is_closed(), "the robot broke off by itself");
    fleet.restore(holder);
    while fleet.node(holder).observe().await.robot.is_none_or(|robot| robot.refused_records == 0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    again.end.send(done()).unwrap();
    ends(&fleet, other, "/do/1").await;
    ends(&fleet, other, "/do/2").await;
    fleet.log.reaches(job, JobState::Completed).await;
    let kept = fleet.journals[&id(holder)].own_journals().unwrap();
    assert!(kept.len() == 1 && kept[0].refused_at.is_some(), "{kept:?}");
    assert_eq!(fleet.log.job(job).lost, 1);
}

#[tokio::test(start_paused = true)]
async fn after_its_own_restart_the_robot_only_delivers() {
    let mut fleet = Fleet::start_severable(2, &[2]).await;
    let job = submit(&fleet, "call call call").await;
    let run = fleet.effects.next().await;
    fleet.sever(2);
    tokio::time::sleep(Timing::LAN.robot_lease * 2).await;
    run.end.send(done()).unwrap();
    let second = fleet.effects.next().await;
    fleet.kill(2).await;
    drop(second);
    let begun = fleet.effects.begun.lock().unwrap().len();
    fleet.start_node(2, 2, 2).await;
    tokio::time::sleep(WITHIN / 2).await;
    assert_eq!(fleet.effects.begun.lock().unwrap().len(), begun, "it does not run on by itself");
    fleet.restore(2);
    ends(&fleet, 2, "/do/1").await;
    assert_eq!((results(&fleet, job), fleet.log.job(job).attempt), (1, 2), "the first result was delivered");
    ends(&fleet, 2, "/do/2").await;
    fleet.log.reaches(job, JobState::Completed).await;
    assert_eq!(fleet.log.job(job).lost, 1, "a restart counts as a loss");
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_left_nothing_to_deliver_does_not_hold_the_job_up() {
    let mut fleet = Fleet::start_severable(2, &[2]).await;
    let job = submit(&fleet, "call").await;
    drop(fleet.effects.next().await);
    fleet.kill(2).await;
    fleet.start_node(2, 2, 2).await;
    let killed_at = tokio::time::Instant::now();
    fleet.restore(2);
    ends(&fleet, 2, "/do/0").await;
    assert!(killed_at.elapsed() < Timing::LAN.robot_lease * 3, "{:?}", killed_at.elapsed());
    fleet.log.reaches(job, JobState::Completed).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_counts_on_from_what_is_committed() {
    let fleet = Fleet::start_severable(3, &[2, 3]).await;
    let job = submit(&fleet, "call").await;
    let run = fleet.effects.next().await;
    let (holder, other) = if run.node == id(2) { (2, 3) } else { (3, 2) };
    fleet.sever(holder);
    let cut_at = tokio::time::Instant::now();
    let mut leaders = [1, other].into_iter().cycle().skip(1);
    for _ in 0..4 {
        tokio::time::sleep(WITHIN / 5).await;
        fleet.log.elect(id(leaders.next().unwrap()));
    }
    let again = fleet.effects.next().await;
    assert_eq!(again.node, id(other));
    let took = cut_at.elapsed();
    assert!(took > WITHIN + WITHIN / 100, "{took:?}");
    // Each change costs at most a step of the count and the wait of a new leader.
    assert!(took < WITHIN * 13 / 10 + 6 * Timing::LAN.robot_lease, "{took:?}");
    again.end.send(done()).unwrap();
    fleet.log.reaches(job, JobState::Completed).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_reaches_a_job_cut_off_when_its_robot_is_back() {
    let fleet = Fleet::start_severable(2, &[2]).await;
    let job = submit(&fleet, "call call").await;
    let run = fleet.effects.next().await;
    fleet.sever(2);
    tokio::time::sleep(Timing::LAN.robot_lease * 2).await;
    assert_eq!(fleet.node(1).control(job, JobAction::Cancel).await.unwrap(), JobState::Stopping);
    let reason = fleet.node(1).explain(job).await.unwrap();
    assert!(reason.ends_with("; it is told to stop as soon as it is heard again"), "{reason}");
    assert!(!run.end.is_closed(), "nobody can tell it yet");
    fleet.restore(2);
    fleet.log.reaches(job, JobState::Cancelled).await;
    assert!(run.end.is_closed() && fleet.effects.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn other_jobs_of_a_robot_cut_off_stop_with_its_lease() {
    let fleet = Fleet::start_severable(3, &[2]).await;
    let finishing = submit(&fleet, "call call").await;
    let first = fleet.effects.next().await;
    let stopping = fleet.submit(1, "call").await;
    let second = fleet.effects.next().await;
    fleet.sever(2);
    fleet.log.reaches(stopping, JobState::Queued).await;
    assert!(second.end.is_closed() && !first.end.is_closed());
    fleet.restore(2);
    ends(&fleet, 2, "/do/0").await;
    fleet.log.reaches(stopping, JobState::Completed).await;
    first.end.send(done()).unwrap();
    ends(&fleet, 2, "/do/1").await;
    fleet.log.reaches(finishing, JobState::Completed).await;
    assert_eq!(fleet.log.job(finishing).attempt, 1);
}
