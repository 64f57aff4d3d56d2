//! Holders that may finish a job cut off: their absence, their return, and their loss.

use fleet_core::{Fence, JobId, SessionId};
use fleet_replication::command::{Action, Next, Outcome, Refusal};
use fleet_replication::fsm::Event;
use fleet_store::record::{Absence, JobState, Reason, StopCause};

use crate::test_site::{TestSite, check_consistency, job_id, node_id, record, session, submission};

/// A job that may be finished cut off, and that runs on node 1 in its session 1.
fn running(site: &mut TestSite) -> (JobId, Fence) {
    let mut finishing = submission(1);
    finishing.spec.finish_within_ms = Some(60_000);
    site.must(Action::Submit(Box::new(finishing)));
    let job = job_id(1);
    let fence = site.assign(job, 1, 1);
    site.must(record(job, fence, 0, &["a"], Next::Continue));
    (job, fence)
}

fn note(job: JobId, fence: Fence, number: u32, elapsed_ms: u64) -> Action {
    Action::NoteAbsence { job, fence, absence: Absence { number, elapsed_ms } }
}

#[test]
fn a_holder_that_is_back_keeps_its_fence_and_its_absence_begins_anew() {
    let mut site = TestSite::new();
    let (job, fence) = running(&mut site);
    site.must(note(job, fence, 0, 9_000));
    let back = Action::Rebind { job, fence, session: session(1, 4) };
    let applied = site.propose(back.clone());
    assert_eq!(applied.outcome, Outcome::Done);
    let [Event::JobChanged { assignment: Some(assignment), released: None, .. }] = applied.events[..] else {
        panic!("the scheduler must hear of the session, and nobody let go: {:?}", applied.events)
    };
    assert_eq!((assignment.fence, assignment.session), (fence, session(1, 4)));
    let row = site.job(job);
    assert_eq!((row.state, row.absence), (JobState::Running, Absence { number: 1, elapsed_ms: 0 }));
    assert_eq!(site.must(back), Outcome::Unchanged, "a repeat");
    assert_eq!(site.job(job).absence.number, 1, "a repeat begins no other absence");
    assert_eq!(site.must(note(job, fence, 0, 30_000)), Outcome::Unchanged, "said before the return");
    site.must(record(job, fence, 1, &["b"], Next::Continue));
    check_consistency(&site.reader());
}

#[test]
fn only_a_newer_session_of_the_same_boot_brings_a_holder_back() {
    let mut site = TestSite::new();
    let (job, fence) = running(&mut site);
    let restarted = SessionId { boot: 2, ..session(1, 9) };
    for session in [session(2, 9), restarted, session(1, 0)] {
        let refusal = site.refused(Action::Rebind { job, fence, session });
        assert_eq!(refusal, Refusal::HolderMoved(job), "{session}");
    }
    let other = Fence::mint(1, 900, 0);
    let refusal = site.refused(Action::Rebind { job, fence: other, session: session(1, 4) });
    assert_eq!(refusal, Refusal::StaleFence { job, presented: other });
}

#[test]
fn a_holder_that_must_stop_with_its_lease_never_comes_back() {
    let mut site = TestSite::new();
    let (job, fence) = site.job_in(2, JobState::Running);
    assert_eq!(site.refused(Action::Rebind { job, fence, session: session(1, 4) }), Refusal::HolderMoved(job));
}

#[test]
fn a_release_for_an_absence_that_is_over_takes_nothing() {
    let mut site = TestSite::new();
    let (job, fence) = running(&mut site);
    let release = |number| Action::ReleaseAbsent { job, fence, number };
    site.must(Action::Rebind { job, fence, session: session(1, 4) });
    assert_eq!(site.refused(release(0)), Refusal::HolderMoved(job), "it was back before that came");
    assert_eq!(site.must(release(1)), Outcome::Changed { state: JobState::Queued });
    let lost = Reason::RobotLost { node: node_id(1), lost: 1, lost_max: 5 };
    assert_eq!(site.job(job).reason, Some(lost), "it counts as a loss");
    assert_eq!(site.refused(release(1)), Refusal::StaleFence { job, presented: fence });
    let late = site.refused(record(job, fence, 1, &["late"], Next::Continue));
    assert_eq!(late, Refusal::StaleFence { job, presented: fence }, "what it did since is evidence, not history");
    let refusal = site.refused(Action::Rebind { job, fence, session: session(1, 5) });
    assert_eq!(refusal, Refusal::StaleFence { job, presented: fence });
    check_consistency(&site.reader());
}

#[test]
fn a_stop_of_an_absent_holder_waits_for_its_return_or_its_loss() {
    for is_back in [true, false] {
        let mut site = TestSite::new();
        let (job, fence) = running(&mut site);
        site.must(Action::Stop { job, cause: StopCause::Cancel });
        if is_back {
            site.must(Action::Rebind { job, fence, session: session(1, 4) });
            assert_eq!((site.state(job), site.job(job).stop), (JobState::Stopping, Some(StopCause::Cancel)));
            site.must(record(job, fence, 1, &[], Next::HandBack));
        } else {
            site.must(Action::ReleaseAbsent { job, fence, number: 0 });
        }
        assert_eq!(site.state(job), JobState::Cancelled);
    }
}
